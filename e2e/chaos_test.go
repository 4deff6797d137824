package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Processes increment a counter under a lock, while processes and members are
// killed, stopped, cut off and started again. No increment may be lost or doubled, tokens grow,
// all get on in the end, and nothing is left behind.

// Of four, two keep claims.

func TestChaosTwoProcesses(t *testing.T)  { chaos(t, 2, 0) }
func TestChaosFourProcesses(t *testing.T) { chaos(t, 4, 2) }

func chaos(t *testing.T, processes, keepers int) {
	t.Parallel() // other processes do the work
	c := startCluster(t)
	client := dial(t, c.endpoints()...)
	seed := rand.Uint64()
	t.Log("seed", seed)
	until := time.Now().Add(*chaosTime)

	start := func(i int) *process { return startWorker(t, "worker", i < keepers, c.endpoints()...) }
	workers := make([]*process, processes)
	var past []*process // killed
	for i := range workers {
		workers[i] = start(i)
	}
	var members sync.WaitGroup
	members.Go(func() { troubleMembers(t, c, rand.New(rand.NewPCG(seed, 1)), until) })
	random := rand.New(rand.NewPCG(seed, 2))
	for time.Now().Before(until) {
		time.Sleep(time.Duration(500+random.IntN(1500)) * time.Millisecond)
		i := random.IntN(processes)
		switch random.IntN(2) {
		case 0:
			workers[i].kill()
			past = append(past, workers[i])
			workers[i] = start(i)
		case 1:
			workers[i].signal(syscall.SIGSTOP)
			time.Sleep(workerTTL + time.Duration(1000+random.IntN(1000))*time.Millisecond) // others have its lock by then
			workers[i].signal(syscall.SIGCONT)
		}
	}
	members.Wait()

	for i, w := range workers { // all get on, now that the world is whole
		soFar := len(increments(w))
		require.Eventually(t, func() bool { return len(increments(w)) > soFar+20 }, patience, 20*time.Millisecond,
			"worker %d does not get on; it printed %q", i, w.output())
	}
	for _, w := range workers {
		w.terminate(t)
	}
	require.Eventually(t, func() bool {
		leases, err := client.Leases(t.Context())
		return err == nil && len(leases.Leases) == 0
	}, patience, 100*time.Millisecond, "a lease is left behind")
	assert.Empty(t, keysUnder(t, client, "/locks/"), "a key is left behind")

	verify(t, client.Ctx(), counter{client: client, name: "/counter"}, append(past, workers...))
}

// troubleMembers does something to one member of the cluster at a time.
func troubleMembers(t *testing.T, c *cluster, random *rand.Rand, until time.Time) {
	for time.Now().Before(until) {
		time.Sleep(time.Duration(1000+random.IntN(2000)) * time.Millisecond)
		i := random.IntN(len(c.nodes))
		if random.IntN(2) == 0 {
			i = c.leader(t)
		}
		pause := time.Duration(500+random.IntN(2000)) * time.Millisecond
		switch random.IntN(3) {
		case 0:
			c.nodes[i].kill()
			time.Sleep(pause)
			c.start(t, i)
			c.nodes[i].await(t, "ready")
		case 1:
			c.nodes[i].signal(syscall.SIGSTOP)
			time.Sleep(pause)
			c.nodes[i].signal(syscall.SIGCONT)
		case 2:
			c.peers.isolate(c.configs[i].Name)
			time.Sleep(pause)
			c.peers.heal()
		}
	}
}

// increments returns what the worker reported, the count by the token.
func increments(w *process) map[string]int {
	done := make(map[string]int)
	for _, line := range w.output() {
		var count int
		var token string
		if n, _ := fmt.Sscanf(line, "done %d %s", &count, &token); n == 2 {
			done[token] = count
		}
	}
	return done
}

// verify compares what the workers reported with what is in etcd.
func verify(t *testing.T, ctx context.Context, c counter, workers []*process) {
	counts, tokens, err := c.written(ctx)
	require.NoError(t, err)
	written := make(map[string]int)
	for i, n := range counts {
		if !assert.Equal(t, i+1, n, "the increment with the token %s: one was lost or doubled", tokens[i]) {
			break
		}
		written[tokens[i]] = n
	}
	reported, fenced, failed := 0, 0, 0
	for _, w := range workers {
		for token, n := range increments(w) {
			reported++
			assert.Equal(t, n, written[token], "reported by a worker with token %s", token)
		}
		for _, line := range w.output() {
			if strings.HasPrefix(line, "failed") {
				failed++
			}
			if strings.HasSuffix(line, errFenced.Error()) {
				fenced++
			}
		}
	}
	t.Logf("%d increments by %d processes, %d of them reported, %d attempts failed, %d of them fenced off",
		len(counts), len(workers), reported, failed, fenced)
	assert.Greater(t, len(counts), 20, "they hardly got on")
}

// Members are killed, stopped and cut off, leadership moves, history is forgotten, clients lose their
// connections or hear nothing, and callers abandon their calls at any moment. Each time that quiet returns, no
// key is left, although every engine and its lease live on. Half of the managers keep claims, until they are wanted or idle for
// a second. That no goroutine stays is seen when all tests have ended.

const quietTTL = 6 * time.Second

func TestChaosLeavesNoKeyAtQuietMoments(t *testing.T) {
	t.Parallel() // members are other processes
	c := startCluster(t)
	admin := dial(t, c.endpoints()...)
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	until := time.Now().Add(*chaosTime)

	beliefs := newBeliefs()
	var networks []*network
	var managers []*cohort.Manager
	for i := range 4 {
		n := newNetwork()
		var endpoints []string
		for _, config := range c.configs {
			endpoints = append(endpoints, n.to(t, config.Name, config.Client))
		}
		networks = append(networks, n)
		opts := []cohort.Option{cohort.WithMaxHandoffs(8), cohort.WithMaxHold(50 * time.Millisecond)}
		if i%2 == 0 {
			opts = append(opts, cohort.WithKeep(time.Second, 8)) // of 12 keys
		}
		managers = append(managers, newManager(t, dial(t, endpoints...), quietTTL, opts...))
	}
	for quiet := 0; time.Now().Before(until); quiet++ {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i, m := range managers {
			for k := range 6 {
				own := rand.New(rand.NewPCG(seed, uint64(quiet*100+i*10+k)))
				all.Go(func() { beliefs.work(ctx, own, m) })
			}
		}
		c.trouble(t, random, admin, networks, time.Now().Add(min(15*time.Second, time.Until(until))), time.Until(until) > time.Minute && quiet%3 == 1)
		cancel()
		all.Wait()
		awaitNoKeys(t, admin, patience)
		assert.Empty(t, beliefs.faults())
	}
	t.Log(beliefs)
	for _, m := range managers {
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		t.Logf("%d grants, %d handoffs, %d lost, %d sessions of which %d lost, %d retries, %d orphans", stats.Granted, stats.Handoffs, stats.Lost,
			stats.Engine.Sessions, stats.Engine.Lost, stats.Engine.Retries, stats.Engine.Orphans)
		require.NoError(t, m.Close())
	}
	require.Eventually(t, func() bool {
		leases, err := admin.Leases(t.Context())
		return err == nil && len(leases.Leases) == 0
	}, patience, 100*time.Millisecond, "a lease is left behind")
	assert.Greater(t, beliefs.locks.Load(), int64(100))
}

// trouble makes trouble, and ends all of it.
func (c *cluster) trouble(t testing.TB, random *rand.Rand, admin *clientv3.Client, networks []*network, until time.Time, long bool) {
	stopFor := func(i int, d time.Duration) {
		c.nodes[i].signal(syscall.SIGSTOP)
		time.Sleep(d)
		c.nodes[i].signal(syscall.SIGCONT)
	}
	if long {
		stopFor((c.leader(t)+1)%3, 25*time.Second)
	}
	for time.Now().Before(until) {
		i, n := random.IntN(3), networks[random.IntN(len(networks))]
		pause := time.Duration(100+random.IntN(2000)) * time.Millisecond
		switch random.IntN(8) {
		case 0:
			c.nodes[i].kill()
			time.Sleep(pause)
			c.start(t, i)
			c.nodes[i].await(t, "ready")
		case 1:
			stopFor(i, pause)
		case 2, 3:
			_ = c.moveLeader(t, c.leader(t), i)
		case 4:
			if resp, err := admin.Get(t.Context(), "a key"); err == nil {
				_, _ = admin.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
			}
			fallthrough
		case 5:
			n.set(func(_, _ string) weather { return weather{Down: true} })
			time.Sleep(pause)
			n.heal()
		case 6:
			n.set(silence) // sometimes for longer than a lease
			time.Sleep(4 * pause)
			n.heal()
		case 7:
			n.set(func(_, _ string) weather { return weather{NoReplies: true} })
			time.Sleep(pause)
			n.heal()
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, n := range networks {
		n.heal()
	}
}

// beliefs are what the holders of each key believe. None of them is ever paused, so that no two may believe
// that they hold the same key.
type beliefs struct {
	keys []*belief

	locks, lost, failed atomic.Int64
	mu                  sync.Mutex
	wrong               []string
}

type belief struct {
	key    string
	mu     sync.Mutex
	holder cohort.Lock // who believes, the zero Lock for none
	last   cohort.Token
}

func newBeliefs() *beliefs {
	b := &beliefs{}
	for _, key := range []string{"", "/", "a", "a/", "a/b", ",", "a,", "%2C", "..", "ä \xff", "a\x00b", strings.Repeat("k", 4096)} {
		b.keys = append(b.keys, &belief{key: key})
	}
	return b
}

func (b *beliefs) faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrong
}

func (b *beliefs) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

func (b *beliefs) String() string {
	return fmt.Sprintf("%d locks, %d of them lost, %d calls failed", b.locks.Load(), b.lost.Load(), b.failed.Load())
}

// believes reports whether the holder believes in its lock.
func believes(l cohort.Lock) bool {
	if l.Grant() == nil {
		return false
	}
	select {
	case <-l.Grant().Lost():
		return false
	default:
		return true
	}
}

// work locks and unlocks keys at random until ctx ends.
func (b *beliefs) work(ctx context.Context, random *rand.Rand, m *cohort.Manager) {
	for ctx.Err() == nil {
		k := b.keys[random.IntN(len(b.keys))]
		short, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Millisecond/time.Duration(1+random.IntN(20)))
		acquire := m.Acquire
		if random.IntN(4) == 0 {
			acquire = m.TryAcquire
		}
		l, err := acquire(short, k.key)
		cancel()
		if err != nil {
			b.failed.Add(1)
			if !errors.Is(err, cohort.ErrHeld) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				b.fault("%q: %v", k.key, err)
			}
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			continue
		}
		b.locks.Add(1)
		k.mu.Lock()
		if believes(l) {
			if believes(k.holder) {
				b.fault("%q: %v and %v both hold it", k.key, k.holder.Token(), l.Token())
			}
			if l.Token().Compare(k.last) <= 0 {
				b.fault("%q: the token %v after %v", k.key, l.Token(), k.last)
			}
			k.holder, k.last = l, l.Token()
		}
		k.mu.Unlock()
		time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
		k.mu.Lock()
		if k.holder == l {
			k.holder = cohort.Lock{}
		}
		k.mu.Unlock()
		if errors.Is(l.Release(), cohort.ErrLost) {
			b.lost.Add(1)
		}
	}
}
