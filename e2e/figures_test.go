package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// Figures are ratios to concurrency.Mutex, measured in turns in one run on one machine, whose single
// etcd member writes to disk. The critical section is empty except where it says otherwise.

// goals makes the figures be judged by the goals that they are published with. A machine that
// does other things meanwhile may miss those, so without it a test fails only when a figure is
// worse than its goal by a factor that no noise explains.
var goals = flag.Bool("goals", false, "judge the figures by their goals, on a quiet machine")

func tolerance() float64 {
	if *goals {
		return 1
	}
	return 10
}

// lockFunc locks, and returns how to unlock.
type lockFunc func(ctx context.Context) (unlock func() error, err error)

// stock returns the stock mutex with a session of its own, as it must be used.
func stock(t testing.TB, client *clientv3.Client, name string) lockFunc {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close() })
	mutex := concurrency.NewMutex(session, name)
	return func(ctx context.Context) (func() error, error) {
		return func() error { return mutex.Unlock(context.WithoutCancel(ctx)) }, mutex.Lock(ctx)
	}
}

func ours(m *cohort.Manager, key string) lockFunc {
	return func(ctx context.Context) (func() error, error) {
		l, err := m.Acquire(ctx, key)
		return l.Release, err
	}
}

// perSecond lets every contender lock and unlock for d, and returns how many locks per second there were.
func perSecond(t testing.TB, d, work time.Duration, contenders []lockFunc) float64 {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var locks atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for _, lock := range contenders {
		all.Go(func() {
			for {
				unlock, err := lock(ctx)
				if err != nil {
					assert.True(t, over(ctx, err), "%v", err)
					return
				}
				locks.Add(1)
				if work > 0 {
					time.Sleep(work)
				}
				assert.NoError(t, unlock())
			}
		})
	}
	<-ctx.Done()
	rate := float64(locks.Load()) / time.Since(began).Seconds()
	all.Wait()
	return rate
}

// over reports whether the deadline of ctx has passed; the server, which is told it, may notice that first.
func over(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, rpctypes.ErrTimeout)
}

// compare measures both in turns, until ours is so many times faster.
func compare(t testing.TB, times float64, d, work time.Duration, stock, ours []lockFunc) {
	best, times := 0.0, times/tolerance()
	for range 5 {
		theirs := perSecond(t, d, work, stock)
		mine := perSecond(t, d, work, ours)
		t.Logf("stock %.0f/s, ours %.0f/s: %.1f times", theirs, mine, mine/theirs)
		if best = max(best, mine/theirs); best >= times {
			return
		}
	}
	assert.GreaterOrEqual(t, best, times)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func contenders(n int, next func() lockFunc) (all []lockFunc) {
	for range n {
		all = append(all, next())
	}
	return all
}

func TestFigureHotKey(t *testing.T) {
	node := startNode(t)
	client := dial(t, node)
	theirs := contenders(64, func() lockFunc { return stock(t, client, "/stock/hot") })
	m := newManager(t, dial(t, node), 10*time.Second)
	compare(t, 50, 2*time.Second, 0, theirs, contenders(64, func() lockFunc { return ours(m, "hot") }))
}

func TestFigureHotKeyWithWork(t *testing.T) {
	node := startNode(t)
	client := dial(t, node)
	theirs := contenders(64, func() lockFunc { return stock(t, client, "/stock/hot") })
	m := newManager(t, dial(t, node), 10*time.Second)
	// There can be no more than 1,000 locks per second, so little is left of the advantage.
	compare(t, 1, 2*time.Second, time.Millisecond, theirs, contenders(64, func() lockFunc { return ours(m, "hot") }))
}

func TestFigureTwoProcessesAlternate(t *testing.T) {
	node := startNode(t)
	theirs := contenders(2, func() lockFunc { return stock(t, dial(t, node), "/stock/alternating") })
	mine := contenders(2, func() lockFunc {
		return ours(newManager(t, dial(t, node), 10*time.Second, cohort.WithMaxHandoffs(0)), "alternating")
	})
	compare(t, 10, 1500*time.Millisecond, 0, theirs, mine)
}

// bare returns what the engine asks of etcd for a lock that is free, and nothing else.
func bare(t testing.TB, client *clientv3.Client, name string) lockFunc {
	lease, err := client.Grant(t.Context(), 600)
	require.NoError(t, err)
	key := fmt.Sprintf("%s/%x", name, lease.ID)
	return func(ctx context.Context) (func() error, error) {
		put, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpGet(name+"/", clientv3.WithLastCreate()...), clientv3.OpPut(key, "17 1764198713000 - web-3:4242 checkout", clientv3.WithLease(lease.ID))).Commit()
		if err != nil {
			return nil, err
		}
		return func() error {
			mine := clientv3.Compare(clientv3.CreateRevision(key), "=", put.Header.Revision)
			_, err := client.Txn(context.WithoutCancel(ctx)).If(mine).Then(clientv3.OpDelete(key)).Commit()
			return err
		}, nil
	}
}

// One goroutine alone: both need one request to lock and one to unlock. They are measured lock by
// lock in turns, so that the machine's moods befall both.
func TestFigureUncontended(t *testing.T) {
	node := startNode(t)
	theirs := stock(t, dial(t, node), "/stock/alone")
	mine := ours(newManager(t, dial(t, node), 10*time.Second), "alone")
	least := bare(t, dial(t, node), "/bare/alone")
	cost := func(lock lockFunc) float64 {
		began := time.Now()
		unlock, err := lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, unlock())
		return float64(time.Since(began))
	}
	best, times := math.Inf(1), 1.1*tolerance()
	for range 5 {
		var stock, ours, bare []float64
		for i := range 600 {
			if i%2 == 0 { // who is first may matter
				stock = append(stock, cost(theirs))
				ours = append(ours, cost(mine))
				bare = append(bare, cost(least))
			} else {
				bare = append(bare, cost(least))
				ours = append(ours, cost(mine))
				stock = append(stock, cost(theirs))
			}
		}
		a, b := median(stock), median(ours)
		t.Logf("stock %v, ours %v: %.3f times; the bare requests: %.3f times", time.Duration(a), time.Duration(b), b/a, median(bare)/a)
		if best = min(best, b/a); best <= times {
			return
		}
	}
	assert.LessOrEqual(t, best, times)
}

// Figures of claims that stay, between two processes. Each case is measured in turns with
// concurrency.Mutex ("stock"), with an engine that cannot tell whether another process wants a key ("off"), with
// the manager as it is by default ("default"), and WithKeep ("keep").

var variants = []string{"stock", "off", "default", "keep"}

// keepFor is long, so that what is measured is not how kept claims expire.
const keepFor, keepKeys = 10 * time.Second, 4096

// figure is what one process has measured.
type figure struct {
	Locks   int
	Seconds float64
	P50     float64 // in milliseconds, of a lock
	Worst   float64
}

// figureTask is what a process is to measure.
type figureTask struct {
	Case       string
	Key        string // or what the keys begin with
	Me         int    // which of the two processes this is
	Keys       int
	Goroutines int
	For        time.Duration
	Pause      time.Duration
	Own        int // per cent of the locks that are of own keys
}

// blindEngine hides that an engine can tell when a key is wanted.
type blindEngine struct{ cohort.Engine }

type blindGrant struct{ cohort.Grant }

func (e blindEngine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	g, err := e.Engine.Acquire(ctx, key)
	if err != nil {
		return nil, err
	}
	return blindGrant{g}, nil
}

// locker locks keys as one variant does.
type locker func(ctx context.Context, key string) (unlock func() error, err error)

// figureMain measures, in a process of its own, what it reads on its standard input.
func figureMain() error {
	client, err := newClient(strings.Split(os.Getenv("KEYLOCK_E2E_ENDPOINTS"), ",")...)
	if err != nil {
		return err
	}
	defer client.Close()
	newLocker, closing, err := figureLocks(client, os.Getenv("KEYLOCK_E2E_VARIANT"))
	if err != nil {
		return err
	}
	var lockers []locker // a goroutine uses one
	lines := bufio.NewScanner(os.Stdin)
	for n := 0; lines.Scan(); n++ {
		var task figureTask
		if err := json.Unmarshal(lines.Bytes(), &task); err != nil {
			return err
		}
		for len(lockers) < max(task.Goroutines, 1) {
			lock, err := newLocker()
			if err != nil {
				return err
			}
			lockers = append(lockers, lock)
		}
		f, err := task.measure(lockers[:max(task.Goroutines, 1)])
		if err != nil {
			return err
		}
		reply, err := json.Marshal(f)
		if err != nil {
			return err
		}
		fmt.Println(n, string(reply))
	}
	return closing()
}

// figureLocks returns what makes lockers of the variant.
func figureLocks(client *clientv3.Client, variant string) (newLocker func() (locker, error), closing func() error, err error) {
	if variant == "stock" {
		var sessions []*concurrency.Session
		closing = func() (err error) {
			for _, s := range sessions {
				err = errors.Join(err, s.Close())
			}
			return err
		}
		return func() (locker, error) {
			s, err := concurrency.NewSession(client, concurrency.WithTTL(10))
			if err != nil {
				return nil, err
			}
			sessions = append(sessions, s)
			return func(ctx context.Context, key string) (func() error, error) {
				m := concurrency.NewMutex(s, "/stock/"+key)
				return func() error { return m.Unlock(context.WithoutCancel(ctx)) }, m.Lock(ctx)
			}, nil
		}, closing, nil
	}
	var engine cohort.Engine
	if engine, err = etcdlock.New(client, etcdlock.WithPrefix("/"+variant), etcdlock.WithTTL(10*time.Second)); err != nil {
		return nil, nil, err
	}
	var opts []cohort.Option
	switch variant {
	case "off":
		engine = blindEngine{engine}
	case "keep":
		opts = append(opts, cohort.WithKeep(keepFor, keepKeys))
	case "keep for long":
		opts = append(opts, cohort.WithKeep(keepForLong, keepKeys))
	}
	m := cohort.Start(context.Background(), engine, opts...)
	return func() (locker, error) {
		return func(ctx context.Context, key string) (func() error, error) {
			l, err := m.Acquire(ctx, key)
			return l.Release, err
		}, nil
	}, m.Close, nil
}

func (t figureTask) measure(lockers []locker) (f figure, err error) {
	var tooks []float64
	once := func(ctx context.Context, lock locker, key string) error {
		began := time.Now()
		unlock, err := lock(ctx, key)
		if err != nil {
			return err
		}
		if t.Pause > 0 || t.For == 0 {
			tooks = append(tooks, time.Since(began).Seconds()*1000)
		}
		return unlock()
	}
	began := time.Now()
	var locks atomic.Int64
	repeat := func(lock locker, next func(i int) string) error {
		ctx, cancel := context.WithTimeout(context.Background(), t.For)
		defer cancel()
		for i := 0; ; i++ {
			switch err := once(ctx, lock, next(i)); {
			case over(ctx, err):
				return nil
			case err != nil:
				return err
			}
			locks.Add(1)
			if t.Pause > 0 {
				time.Sleep(t.Pause)
			}
		}
	}
	inTurn := func(i int) string { return t.Key + strconv.Itoa(i%max(t.Keys, 1)) }
	switch t.Case {
	case "each once":
		for i := range t.Keys {
			if err := once(context.Background(), lockers[0], inTurn(i)); err != nil {
				return f, err
			}
			locks.Add(1)
		}
	case "in turn":
		err = repeat(lockers[0], inTurn)
	case "many":
		failed := make(chan error, len(lockers))
		for _, lock := range lockers {
			go func() { failed <- repeat(lock, inTurn) }()
		}
		for range lockers {
			err = errors.Join(err, <-failed)
		}
	case "affinity":
		err = repeat(lockers[0], func(int) string {
			whose := t.Me
			if rand.IntN(100) >= t.Own {
				whose = 1 - t.Me
			}
			return fmt.Sprint(t.Key, whose, "-", rand.IntN(t.Keys/2))
		})
	}
	f.Locks, f.Seconds = int(locks.Load()), time.Since(began).Seconds()
	if len(tooks) > 0 {
		f.P50, f.Worst = median(tooks), slices.Max(tooks)
	}
	return f, err
}

// figurer is a process that measures.
type figurer struct {
	*process
	tasks int // it was given
}

func startFigurer(t *testing.T, addr, variant string) *figurer {
	f := &figurer{process: startProcess(t, "figures", "KEYLOCK_E2E_ENDPOINTS="+addr, "KEYLOCK_E2E_VARIANT="+variant)}
	f.measure(t, figureTask{Case: "each once", Key: "warm", Keys: 1})
	return f
}

// begin has the process measure, and returns how to wait for what it has.
func (f *figurer) begin(t *testing.T, task figureTask) (await func() figure) {
	line, err := json.Marshal(task)
	require.NoError(t, err)
	f.say(t, string(line))
	number := f.tasks
	f.tasks++
	return func() (measured figure) {
		require.NoError(t, json.Unmarshal([]byte(f.await(t, fmt.Sprint(number, " "))), &measured))
		return measured
	}
}

func (f *figurer) measure(t *testing.T, task figureTask) figure { return f.begin(t, task)() }

// pair is two processes of one variant.
type pair [2]*figurer

// both has the first n processes of the pair measure at once.
func (p pair) both(t *testing.T, task figureTask, n int) (figures []figure) {
	var awaits []func() figure
	for i, f := range p[:n] {
		task.Me = i
		awaits = append(awaits, f.begin(t, task))
	}
	for _, await := range awaits {
		figures = append(figures, await())
	}
	return figures
}

// bench is an etcd member and the processes of all variants.
type bench struct {
	addr  string
	pairs map[string]pair
	keys  int
}

func startBench(t *testing.T) *bench {
	b := &bench{addr: startNode(t), pairs: make(map[string]pair)}
	for _, v := range variants {
		b.pairs[v] = pair{startFigurer(t, b.addr, v), startFigurer(t, b.addr, v)}
	}
	return b
}

// fresh returns what no key has begun with so far.
func (b *bench) fresh() string {
	b.keys++
	return fmt.Sprintf("%d/", b.keys)
}

// messages returns how many messages etcd has received from clients.
func (b *bench) messages(t *testing.T) float64 { return messages(t, b.addr) }

func messages(t *testing.T, addr string) float64 {
	return metric(t, addr, "grpc_server_msg_received_total")
}

// metric returns the sum of a metric of the member.
func metric(t *testing.T, addr, name string) (sum float64) {
	resp, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name) {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			require.NoError(t, err)
			sum += n
		}
	}
	return sum
}

// rate sums up what processes have measured at the same time.
func rate(figures []figure) (sum float64) {
	for _, f := range figures {
		sum += float64(f.Locks) / f.Seconds
	}
	return sum
}

func locksOf(figures []figure) (sum int) {
	for _, f := range figures {
		sum += f.Locks
	}
	return sum
}

// TestFigureKeep measures all cases in turns until each has reached its goals.
func TestFigureKeep(t *testing.T) {
	b := startBench(t)
	d, many, measured := 300*time.Millisecond, 200, variants[1:] // without goals it is a check that all of this works
	if *goals {
		d, many, measured = 1500*time.Millisecond, 1000, variants
	}
	for _, c := range []struct {
		name    string
		task    figureTask
		of      int     // the two processes
		times   float64 // faster than off
		variant string  // that reaches the goal
	}{
		{"one key alone", figureTask{Case: "in turn", Keys: 1, For: d}, 1, 300, "keep"},
		{"many keys in turn, warm", figureTask{Case: "in turn", Keys: many, For: d}, 1, 200, "keep"},
		{"hot key, 64 goroutines", figureTask{Case: "many", Goroutines: 64, For: d}, 1, 5, "default"},
		{"two times 32 on one key", figureTask{Case: "many", Goroutines: 32, For: 4 * d}, 2, 5, "default"},
		{"99 % affinity, 200 keys", figureTask{Case: "affinity", Keys: 200, Own: 99, For: 2 * d}, 2, 15, "keep"},
		{"90 % affinity, 200 keys", figureTask{Case: "affinity", Keys: 200, Own: 90, For: 2 * d}, 2, 1.3, "keep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			best := 0.0
			for range 5 {
				rates, shares := make(map[string]float64), make(map[string]float64)
				var text []string
				for _, v := range measured {
					p := b.pairs[v]
					c.task.Key = b.fresh()
					if strings.HasSuffix(c.name, "warm") {
						p[0].measure(t, figureTask{Case: "each once", Key: c.task.Key, Keys: c.task.Keys})
					}
					before := b.messages(t)
					figures := p.both(t, c.task, c.of)
					rates[v] = rate(figures)
					text = append(text, fmt.Sprintf("%s %.0f/s (%.3g messages/lock)", v, rates[v], (b.messages(t)-before)/float64(max(locksOf(figures), 1))))
					shares[v] = float64(figures[0].Locks) / float64(max(locksOf(figures), 1))
				}
				t.Logf("%s; keep %.1f, default %.1f times off", strings.Join(text, ", "), rates["keep"]/rates["off"], rates["default"]/rates["off"])
				if c.task.Case == "many" && c.of == 2 {
					t.Logf("share of one process: off %.1f %%, default %.1f %%, keep %.1f %%", 100*shares["off"], 100*shares["default"], 100*shares["keep"])
					if *goals {
						assert.InDelta(t, 0.5, shares["default"], 0.05)
						assert.InDelta(t, 0.5, shares["keep"], 0.05)
					}
				}
				if best = max(best, rates[c.variant]/rates["off"]); best >= c.times/tolerance() {
					break
				}
			}
			assert.GreaterOrEqual(t, best, c.times/tolerance())
		})
	}

	t.Run("latencies", func(t *testing.T) {
		for _, c := range []struct {
			name    string
			measure func(p pair) (p50, worst float64, locks int)
			times   float64 // not slower than off by more than this
			worst   float64 // in milliseconds
		}{
			{"ping-pong with a pause of 3 ms", func(p pair) (float64, float64, int) {
				figures := p.both(t, figureTask{Case: "in turn", Key: b.fresh(), Keys: 1, Pause: 3 * time.Millisecond, For: 2 * d}, 2)
				return (figures[0].P50 + figures[1].P50) / 2, max(figures[0].Worst, figures[1].Worst), locksOf(figures)
			}, 1.3, 0},
			{"newcomer on a key just used elsewhere", func(p pair) (float64, float64, int) {
				var tooks []float64
				for range 50 {
					task := figureTask{Case: "each once", Key: b.fresh(), Keys: 1}
					p[0].measure(t, task)
					tooks = append(tooks, p[1].measure(t, task).P50)
				}
				return median(tooks), slices.Max(tooks), 2 * len(tooks)
			}, 4, 50},
			{"taking over many keys", func(p pair) (float64, float64, int) {
				task := figureTask{Case: "each once", Key: b.fresh(), Keys: many}
				p[0].measure(t, task)
				f := p[1].measure(t, task)
				return 1000 * f.Seconds, f.Worst, 2 * many
			}, 3, 0},
		} {
			t.Run(c.name, func(t *testing.T) {
				best, worst := 1e9, 1e9
				for range 5 {
					took := make(map[string]float64)
					var text []string
					for _, v := range measured {
						before := b.messages(t)
						p50, high, locks := c.measure(b.pairs[v])
						took[v] = p50
						text = append(text, fmt.Sprintf("%s %.3g ms (worst %.3g, %.3g messages/lock)", v, p50, high, (b.messages(t)-before)/float64(max(locks, 1))))
						if v == "keep" {
							worst = min(worst, high)
						}
					}
					t.Logf("%s; keep %.2f, default %.2f times off", strings.Join(text, ", "), took["keep"]/took["off"], took["default"]/took["off"])
					if best = min(best, took["keep"]/took["off"]); best <= c.times*tolerance() {
						break
					}
				}
				assert.LessOrEqual(t, best, c.times*tolerance())
				if c.worst > 0 && *goals {
					assert.LessOrEqual(t, worst, c.worst)
				}
			})
		}
	})
}
