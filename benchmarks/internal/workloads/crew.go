package workloads

import (
	"context"
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// A Budget says how much of a workload is measured: at least for a time, and at least
// so many operations; and in which surroundings.
type Budget struct {
	Time time.Duration
	Ops  int64
	Busy bool // while one unrelated goroutine per core burns CPU
}

// warmUp is what is spent before anything is measured.
func (b Budget) warmUp(clients int) Budget {
	return Budget{Time: b.Time / 5, Ops: 5 * int64(clients), Busy: b.Busy}
}

// A client is one goroutine of a crew.
type client struct {
	peers.Client
	n    int             // its number, from 0
	ctx  context.Context // its own, and cancellable
	ops  int64           // so far
	crew *crew
	_    [64]byte // keeps the counters of two goroutines out of one cache line
}

// acquire locks or panics: a client's own context is not cancelled while it works.
func (c *client) acquire(key string) {
	if err := c.Lock(c.ctx, key); err != nil {
		panic(err)
	}
}

// A crew is the goroutines that a workload sets upon a peer.
type crew struct {
	clients []*client
	peer    peers.Peer
	locker  peers.Locker
	cancel  context.CancelFunc
	goHome  func() // what a goroutine does last
	hot     bool   // they begin in the queue of the hot key

	fewest int64 // operations
	done   atomic.Int64
	timeUp atomic.Bool
	over   atomic.Bool // enough of both
}

func newCrew(p peers.Peer, l peers.Locker, size int) *crew {
	w := &crew{peer: p, locker: l, goHome: func() {}}
	var cancels []context.CancelFunc
	for n := range size {
		ctx, cancel := context.WithCancel(context.Background())
		cancels = append(cancels, cancel)
		w.clients = append(w.clients, &client{Client: l.Client(), n: n, ctx: ctx, crew: w})
	}
	w.cancel = func() {
		for _, cancel := range cancels {
			cancel()
		}
	}
	return w
}

// A tally is what a crew has done.
type tally struct {
	elapsed time.Duration
	cpu     time.Duration // of the whole process, on all cores; 0 where others burn it
	mallocs uint64
	ops     []float64 // of each client
}

// run lets every client repeat op until the budget is spent, first to warm up and
// then to be measured.
func (w *crew) run(budget Budget, op func(*client)) tally {
	w.warmUp(budget, op)
	return w.spend(budget, op)
}

// warmUp fills pools, and lets maps grow. First all wait at once: what is kept for
// those who wait is as much then as it can get, while it may take a workload any time to
// have so many of them at once.
func (w *crew) warmUp(budget Budget, op func(*client)) {
	if !w.peer.Echo && !w.peer.Serial {
		free := hold(w.locker, warmKey)
		var waiting sync.WaitGroup
		for _, c := range w.clients {
			waiting.Go(func() {
				c.acquire(warmKey)
				c.Unlock()
			})
		}
		settle()
		free()
		waiting.Wait()
	}
	w.spend(budget.warmUp(len(w.clients)), op)
}

// spend lets every client repeat op until the budget is spent, and tells what they did.
func (w *crew) spend(budget Budget, op func(*client)) tally {
	w.fewest = budget.Ops
	w.done.Store(0)
	w.timeUp.Store(budget.Time == 0)
	w.over.Store(false)
	teams := w.teams()
	var working atomic.Int64
	working.Store(int64(len(teams)))
	var (
		begun    = make(chan struct{})
		finished = make(chan time.Time)
	)
	for _, team := range teams {
		go func() {
			<-begun
			w.work(team, op)
			w.goHome()
			if working.Add(-1) == 0 {
				finished <- time.Now()
			}
		}()
	}
	begin := func() { close(begun) }
	if w.hot {
		// Of those in the queue none can lock twice before the others have had
		// their turn, so a queue that has formed never dissolves. It is there from the
		// start, because by itself it forms only when two happen to collide.
		free := hold(w.locker, hotKey)
		begin()
		settle()
		begin = free
	}
	if budget.Busy {
		defer burn()()
	}
	defer time.AfterFunc(budget.Time, func() { w.timeUp.Store(true) }).Stop()
	mallocsBefore, cpuBefore := mallocs(), cpuTime()
	started := time.Now()
	begin()
	elapsed := (<-finished).Sub(started)
	t := tally{elapsed: elapsed, mallocs: mallocs() - mallocsBefore}
	if !budget.Busy {
		t.cpu = cpuTime() - cpuBefore
	}
	for _, c := range w.clients {
		t.ops = append(t.ops, float64(c.ops))
	}
	return t
}

// teams are the clients that share a goroutine.
func (w *crew) teams() [][]*client {
	if w.peer.Serial {
		return [][]*client{w.clients}
	}
	var teams [][]*client
	for i := range w.clients {
		teams = append(teams, w.clients[i:i+1])
	}
	return teams
}

// work repeats op, for each client at least once, until the budget is spent.
func (w *crew) work(team []*client, op func(*client)) {
	for _, c := range team {
		c.ops = 0
	}
	for {
		for _, c := range team {
			op(c)
			c.ops++
		}
		if !w.more(len(team)) {
			return
		}
	}
}

// more reports whether there is budget left, after so many operations.
func (w *crew) more(ops int) bool {
	if w.fewest > 0 && w.done.Add(int64(ops)) < w.fewest || !w.timeUp.Load() {
		return true
	}
	w.over.Store(true)
	return false
}

func mallocs() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // it fails only for arguments that do not exist
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (t tally) total() float64 {
	var sum float64
	for _, n := range t.ops {
		sum += n
	}
	return sum
}

// figures are the tally's cost per operation, in time and in allocations.
func (t tally) figures() results.Figures {
	total := t.total()
	f := results.Figures{
		results.PerOp:  float64(t.elapsed) / total,
		results.Allocs: float64(t.mallocs) / total,
	}
	if t.cpu > 0 {
		f[results.CPU] = float64(t.cpu) / total
	}
	return f
}

// fairFigures are figures with the fairness among the clients.
func (t tally) fairFigures() results.Figures {
	f := t.figures()
	f[results.Jain] = results.JainIndex(t.ops)
	return f
}

const (
	hotKey  = "order/hot"
	warmKey = "order/warm"
)

// keys returns n keys. They are made once, so no workload pays for them.
func keys(n int) []string {
	keysMade.Lock()
	defer keysMade.Unlock()
	for i := len(keysMade.keys); i < n; i++ {
		keysMade.keys = append(keysMade.keys, fmt.Sprintf("order/%d", i))
	}
	return keysMade.keys[:n]
}

var keysMade struct {
	sync.Mutex
	keys []string
}

// manyKeys is how many keys there are to draw from.
const manyKeys = 10_000

// zipfDraws are keys drawn with Zipf's exponent 1.1, the same in every run.
var zipfDraws = sync.OnceValue(func() []string {
	zipf := rand.NewZipf(rand.New(rand.NewSource(1)), 1.1, 1, manyKeys-1)
	keys := keys(manyKeys)
	draws := make([]string, 1<<16)
	for i := range draws {
		draws[i] = keys[zipf.Uint64()]
	}
	return draws
})

// batches are sets of 16 keys, each sorted and without duplicates.
var batches = sync.OnceValue(func() [][]string {
	const size = 16
	random := rand.New(rand.NewSource(1))
	keys := keys(manyKeys)
	batches := make([][]string, 1<<12)
	for i := range batches {
		drawn := make(map[string]bool, size)
		for len(drawn) < size {
			drawn[keys[random.Intn(len(keys))]] = true
		}
		for key := range drawn {
			batches[i] = append(batches[i], key)
		}
		slices.Sort(batches[i])
	}
	return batches
})

// spin is work without memory: the same turns are the same work for every peer.
//
//go:noinline
func spin(turns int) {
	x := uint64(turns) | 1
	for range turns {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	runtime.KeepAlive(x) // or the compiler would see that it is not needed
}

// turnsFor returns how many turns take d on this machine, when nothing disturbs it.
func turnsFor(d time.Duration) int {
	return int(d.Seconds() * turnsPerSecond())
}

var turnsPerSecond = sync.OnceValue(func() float64 {
	const turns = 200_000
	best := time.Duration(1<<63 - 1)
	for range 50 {
		started := time.Now()
		spin(turns)
		best = min(best, time.Since(started))
	}
	return turns / best.Seconds()
})

// burn keeps one goroutine per core busy until the function it returns is called.
func burn() (stop func()) {
	var over atomic.Bool
	var burners sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		burners.Go(func() {
			for !over.Load() {
				spin(1000)
			}
		})
	}
	return func() {
		over.Store(true)
		burners.Wait()
	}
}
