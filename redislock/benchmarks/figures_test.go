// Package benchmarks measures redislock beside other libraries for locks in Redis, in
// turns in one run. It is a module of its own, so that users of redislock do not download them.
package benchmarks

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bsm "github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	syncpool "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// goals makes the figures be judged by the goals that they are published with. A machine that
// does other things meanwhile may miss those, so without it a test fails only when a figure is
// worse than its goal by a factor that no noise explains.
var goals = flag.Bool("goals", false, "judge the figures by their goals, on a quiet machine")

// rounds is how often each contender is measured.
var rounds = flag.Int("rounds", 1, "how often each library is measured, in turns")

func tolerance() float64 {
	if *goals {
		return 1
	}
	return 10
}

// lockFunc locks, and returns how to unlock.
type lockFunc func(ctx context.Context) (unlock func() error, err error)

// library makes the lock of one process on a key: each call stands for a process of its own, with
// connections of its own, whose goroutines share what it returns.
type library struct {
	name    string
	process func(t testing.TB, s *redistest.Server, key string) lockFunc
}

const ttl = 10 * time.Second

var redsyncLib = library{"redsync", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 128})
	t.Cleanup(func() { _ = client.Close() })
	locks := redsync.New(syncpool.NewPool(client))
	return func(ctx context.Context) (func() error, error) {
		m := locks.NewMutex("redsync:"+key, redsync.WithExpiry(ttl), redsync.WithTries(math.MaxInt32)) // its default pause of 50 to 250 ms
		if err := m.LockContext(ctx); err != nil {
			return nil, err
		}
		return func() error { _, err := m.UnlockContext(context.WithoutCancel(ctx)); return err }, nil
	}
}}

var bsmLib = library{"bsm/redislock", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 128})
	t.Cleanup(func() { _ = client.Close() })
	locks := bsm.New(client)
	return func(ctx context.Context) (func() error, error) {
		l, err := locks.Obtain(ctx, "bsm:"+key, ttl, &bsm.Options{RetryStrategy: bsm.ExponentialBackoff(8*time.Millisecond, 64*time.Millisecond)})
		if err != nil {
			return nil, err
		}
		return func() error { return l.Release(context.WithoutCancel(ctx)) }, nil
	}
}}

var rueidisLib = library{"rueidislock", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	locker, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption:   rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true},
		KeyMajority:    1,
		NoLoopTracking: true,
		KeyValidity:    ttl,
	})
	require.NoError(t, err)
	t.Cleanup(locker.Close)
	return func(ctx context.Context) (func() error, error) {
		_, unlock, err := locker.WithContext(ctx, key)
		if err != nil {
			return nil, err
		}
		return func() error { unlock(); return nil }, nil
	}
}}

func engine(t testing.TB, s *redistest.Server) *redislock.Engine {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true,
		Dialer: net.Dialer{Timeout: time.Second},
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	e, err := redislock.New(rueidisadapter.New(client), redislock.WithTTL(ttl), redislock.WithQuarantine(time.Millisecond)) // checked, but over at once
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = e.Close(ctx)
	})
	return e
}

var engineLib = library{"this engine alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	return using(engine(t, s), key)
}}

func using(e *redislock.Engine, key string) lockFunc {
	return func(ctx context.Context) (func() error, error) {
		g, err := e.Acquire(ctx, key)
		if err != nil {
			return nil, err
		}
		return func() error { return g.Release(context.WithoutCancel(ctx)) }, nil
	}
}

func cohortLib(opts ...cohort.Option) library {
	return named("redislock", opts...)
}

// keptLib is cohortLib with a local manager that gives a free key again without its owner.
func keptLib(opts ...cohort.Option) library {
	return named("redislock, kept grants", append(opts, cohort.WithLocal(keylock.WithKeptGrants(64)))...)
}

func named(name string, opts ...cohort.Option) library {
	return library{name, func(t testing.TB, s *redistest.Server, key string) lockFunc {
		m := cohort.Start(context.Background(), engine(t, s), opts...)
		t.Cleanup(func() { _ = m.Close() })
		return func(ctx context.Context) (func() error, error) {
			l, err := m.Acquire(ctx, key)
			return l.Release, err
		}
	}}
}

func server(t testing.TB) *redistest.Server {
	return redistest.Start(t, "--appendonly", "yes", "--appendfsync", "everysec")
}

// figure is what one second of contention gave.
type figure struct {
	rate    float64 // locks per second
	longest float64 // wait, in ms
}

// contend lets goroutines lock and unlock for d, the same number with each of the processes.
func contend(t testing.TB, d time.Duration, goroutines int, processes ...lockFunc) figure {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var locks, longest atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range goroutines {
		lock := processes[i%len(processes)]
		all.Go(func() {
			for {
				asked := time.Now()
				unlock, err := lock(ctx)
				waited := int64(time.Since(asked))
				for {
					old := longest.Load()
					if waited <= old || longest.CompareAndSwap(old, waited) {
						break
					}
				}
				if err != nil {
					assert.Error(t, ctx.Err(), "%v", err)
					return
				}
				locks.Add(1)
				assert.NoError(t, unlock())
			}
		})
	}
	<-ctx.Done()
	rate := float64(locks.Load()) / time.Since(began).Seconds()
	all.Wait()
	return figure{rate, float64(longest.Load()) / 1e6}
}

// compare measures the libraries in turns and prints the medians, each as a ratio to the first too.
func compare(t *testing.T, goroutines, processes int, libraries ...library) (medians []figure) {
	s := server(t)
	locks := make([][]lockFunc, len(libraries))
	for i, l := range libraries {
		for range processes {
			locks[i] = append(locks[i], l.process(t, s, "key"))
		}
		contend(t, 100*time.Millisecond, goroutines, locks[i]...) // connects
	}
	rates, longest := make([][]float64, len(libraries)), make([][]float64, len(libraries))
	for range *rounds {
		for i := range libraries {
			f := contend(t, time.Second, goroutines, locks[i]...)
			rates[i] = append(rates[i], f.rate)
			longest[i] = append(longest[i], f.longest)
		}
	}
	for i, l := range libraries {
		medians = append(medians, figure{median(rates[i]), median(longest[i])})
		t.Logf("%-29s %9.0f locks/s, %6.2f of %s; longest wait %5.0f ms", l.name, medians[i].rate, medians[i].rate/medians[0].rate, libraries[0].name, medians[i].longest)
	}
	return medians
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func TestFigureHotKey(t *testing.T) {
	got := compare(t, 64, 1, redsyncLib, bsmLib, rueidisLib, cohortLib())
	ours, theirs := got[len(got)-1], got[0]
	assert.GreaterOrEqual(t, ours.rate/theirs.rate, 20/tolerance())
	if *goals {
		assert.LessOrEqual(t, ours.longest/theirs.longest, 0.1)
	}
}

func TestFigureTwoProcessesAlternate(t *testing.T) {
	got := compare(t, 2, 2, redsyncLib, turns, bsmLib, rueidisLib, tokens, engineLib, keptLib(cohort.WithMaxHandoffs(0)), cohortLib(cohort.WithMaxHandoffs(0)))
	least, ours := got[0].rate, got[len(got)-1].rate
	if !*goals { // on a busy machine each that has to be woken falls behind one that asks again and again
		least = min(least, got[1].rate) / tolerance()
	}
	assert.GreaterOrEqual(t, ours, least)
}

func TestFigureTwoProcessesOfManyGoroutines(t *testing.T) {
	got := compare(t, 64, 2, redsyncLib, bsmLib, rueidisLib, cohortLib())
	assert.GreaterOrEqual(t, got[len(got)-1].rate/got[0].rate, 20/tolerance())
}

// alone returns how long one goroutine takes to lock and unlock with each of the locks, in every round but the
// first ones, which are to warm up. They are measured in turns, so that the machine's moods befall all. One that does
// not get its free lock within the TTL, as a peer once did not, takes part no longer, and is nil.
func alone(t *testing.T, locks []lockFunc, rounds, first int) [][]float64 {
	once := func(lock lockFunc) (took time.Duration, granted bool) {
		ctx, cancel := context.WithTimeout(t.Context(), ttl)
		defer cancel()
		began := time.Now()
		unlock, err := lock(ctx)
		if ctx.Err() != nil {
			return 0, false
		}
		require.NoError(t, err)
		require.NoError(t, unlock())
		return time.Since(began), true
	}
	costs := make([][]float64, len(locks))
	for n := range rounds {
		for i := range locks {
			i = (i + n) % len(locks) // who is first may matter
			if locks[i] == nil {
				continue
			}
			switch took, granted := once(locks[i]); {
			case !granted:
				t.Logf("the lock with index %d was not granted within %v", i, ttl)
				locks[i] = nil
			case n > first:
				costs[i] = append(costs[i], float64(took))
			}
		}
	}
	return costs
}

// One goroutine alone.
func TestFigureUncontended(t *testing.T) {
	s := server(t)
	libraries := []library{redsyncLib, bsmLib, rueidisLib, pings, replayed, engineLib, keptLib(), cohortLib()}
	var locks []lockFunc
	for i, l := range libraries {
		locks = append(locks, l.process(t, s, "alone"+strconv.Itoa(i)))
	}
	costs := alone(t, locks, 1000**rounds, 50)
	base := median(costs[0])
	for i, l := range libraries {
		if locks[i] == nil {
			require.Contains(t, []string{bsmLib.name, rueidisLib.name}, l.name)
			continue
		}
		t.Logf("%-29s %8v to lock and unlock, %.2f of redsync", l.name, time.Duration(median(costs[i])).Round(time.Microsecond), median(costs[i])/base)
	}
	assert.LessOrEqual(t, median(costs[len(costs)-1])/base, 1.1*tolerance())
}

// One process has 1,000 keys in use and 10,000 goroutines that wait for them.
func TestFigureManyKeysAndWaiters(t *testing.T) {
	const keys, waiters = 1000, 10_000
	s := server(t)
	m := cohort.Start(t.Context(), engine(t, s))
	other := cohort.Start(t.Context(), engine(t, s))
	t.Cleanup(func() { _ = m.Close(); _ = other.Close() })
	before := heap()
	var held []cohort.Lock
	for i := range keys {
		l, err := other.Acquire(t.Context(), strconv.Itoa(i))
		require.NoError(t, err)
		held = append(held, l)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range waiters {
		all.Go(func() {
			l, err := m.Acquire(ctx, strconv.Itoa(i%keys))
			if assert.NoError(t, err) {
				assert.NoError(t, l.Release())
			}
		})
	}
	require.Eventually(t, func() bool {
		stats, err := m.Stats(ctx)
		return err == nil && stats.Local.Held == keys && stats.Local.Waiting == waiters-keys
	}, redistest.Patience, 10*time.Millisecond)
	waiting := heap()
	commands, cpu, clients := load(t, s)
	time.Sleep(ttl / 2)
	commands2, cpu2, _ := load(t, s)
	perSecond := (commands2 - commands) / (ttl / 2).Seconds()
	t.Logf("%d keys, %d waiters: %.0f connections of two processes, %.1f MiB for both in this process, %.0f commands/s and %.1f%% of a core at the server while all wait",
		keys, waiters, clients, (waiting-before)/(1<<20), perSecond, 100*(cpu2-cpu)/(ttl/2).Seconds())
	assert.LessOrEqual(t, clients, 12.0) // with four of each process for renewals, at most
	began := time.Now()
	for _, l := range held {
		require.NoError(t, l.Release())
	}
	all.Wait()
	cancel()
	t.Logf("all %d waiters had their turn %v after the first release", waiters, time.Since(began).Round(time.Millisecond))
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// load returns how many commands the server has served, how many seconds of a core it has used, and how many clients it has.
func load(t testing.TB, s *redistest.Server) (commands, cpu, clients float64) {
	info := s.Must(t, "INFO", "all")
	field := func(name string) (v float64) {
		_, rest, found := strings.Cut(info, "\n"+name+":")
		require.True(t, found, name)
		_, err := fmt.Sscan(rest, &v)
		require.NoError(t, err)
		return v
	}
	return field("total_commands_processed"), field("used_cpu_user") + field("used_cpu_sys"), field("connected_clients") - 1
}

// What it costs one goroutine alone that the server writes to disk, or that a replica acknowledges.
func TestFigureDurability(t *testing.T) {
	settings := []struct {
		name     string
		server   []string
		replicas int
	}{
		{"no AOF", nil, 0},
		{"appendfsync everysec", []string{"--appendonly", "yes", "--appendfsync", "everysec"}, 0},
		{"appendfsync always", []string{"--appendonly", "yes", "--appendfsync", "always"}, 0},
		{"WithReplicas(1)", nil, 1},
	}
	var locks []lockFunc
	for i, c := range settings {
		s := redistest.Start(t, c.server...)
		if c.replicas > 0 {
			s.Replica(t)
		}
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
		require.NoError(t, err)
		t.Cleanup(client.Close)
		e, err := redislock.New(rueidisadapter.New(client), redislock.WithTTL(ttl), redislock.WithQuarantine(time.Millisecond), redislock.WithReplicas(c.replicas))
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Close(t.Context()) })
		locks = append(locks, using(e, strconv.Itoa(i)))
	}
	costs := alone(t, locks, 300**rounds, 20)
	base := median(costs[0])
	for i, c := range settings {
		require.NotNil(t, locks[i])
		t.Logf("%-22s %8v to lock and unlock, %.2f of no AOF", c.name, time.Duration(median(costs[i])).Round(time.Microsecond), median(costs[i])/base)
	}
}

// The least that the figures can be: the requests that an engine sends, and nothing of Go around them.

// recorder is a redislock.Client that keeps the last calls.
type recorder struct {
	redislock.Client
	mu   sync.Mutex
	last []redislock.Call
}

func (r *recorder) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	r.mu.Lock()
	r.last = append(r.last, call)
	r.mu.Unlock()
	return r.Client.Run(ctx, call)
}

func newClient(t testing.TB, s *redistest.Server) rueidis.Client {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// script is what an engine has sent for its last lock of a key.
type script struct {
	client       redislock.Client
	session      string
	enter, leave redislock.Call
}

func record(t testing.TB, s *redistest.Server, key string) script {
	r := &recorder{Client: rueidisadapter.New(newClient(t, s))}
	e, err := redislock.New(r, redislock.WithTTL(time.Hour), redislock.WithQuarantine(time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	for range 2 { // the first begins the session
		g, err := e.Acquire(t.Context(), key)
		require.NoError(t, err)
		require.NoError(t, g.Release(t.Context()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return script{r.Client, e.Report().Session, r.last[len(r.last)-2], r.last[len(r.last)-1]}
}

func (c script) run(call redislock.Call) ([]string, error) {
	reply, _, err := c.client.Run(context.Background(), call)
	return reply, err
}

// replayed sends the two scripts of a lock again, on the goroutine that locks.
var replayed = library{"its two scripts alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	c := record(t, s, key)
	return func(context.Context) (func() error, error) {
		_, err := c.run(c.enter)
		return func() error { _, err := c.run(c.leave); return err }, err
	}
}}

// turns sends the scripts again, and waits for the notice of the grant where it has to. Nothing repairs a notice that is lost.
var turns = library{"its scripts and notices alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	c := record(t, s, key)
	granted := make(chan struct{}, 1)
	subscribed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		_ = c.client.Subscribe(ctx, "kl:"+c.session, func() { subscribed <- struct{}{} }, func(message string) {
			if strings.HasPrefix(message, "granted") {
				select {
				case granted <- struct{}{}:
				default: // the one before came too late
				}
			}
		})
	}()
	<-subscribed
	return func(ctx context.Context) (func() error, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reply, err := c.run(c.enter)
		if err != nil {
			return nil, err
		}
		if reply[0] == "waits" {
			select {
			case <-granted:
			case <-ctx.Done():
				_, err := c.run(c.leave)
				return nil, errors.Join(ctx.Err(), err)
			}
		}
		return func() error { _, err := c.run(c.leave); return err }, nil
	}
}}

// pings are two requests that do nothing.
var pings = library{"two PINGs", func(t testing.TB, s *redistest.Server, _ string) lockFunc {
	client := newClient(t, s)
	ping := func() error { return client.Do(context.Background(), client.B().Ping().Build()).Error() }
	return func(context.Context) (func() error, error) { return ping, ping() }
}}

// tokens pass a turn on by a PUBLISH to the other process, and nothing else.
var tokens = library{"a PUBLISH for each turn", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	client := newClient(t, s)
	mine, other := key+"/a", key+"/b"
	turn := make(chan struct{}, 1)
	subscribed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	if s.Must(t, "PUBLISH", mine, "") == "0" {
		turn <- struct{}{} // the first process begins
	} else {
		mine, other = other, mine
	}
	go func() {
		ctx := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { subscribed <- struct{}{} })
		_ = client.Dedicated(func(own rueidis.DedicatedClient) error {
			return own.Receive(ctx, own.B().Subscribe().Channel(mine).Build(), func(m rueidis.PubSubMessage) {
				if m.Message != "" {
					turn <- struct{}{}
				}
			})
		})
	}()
	<-subscribed
	return func(ctx context.Context) (func() error, error) {
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return func() error {
			return client.Do(context.Background(), client.B().Publish().Channel(other).Message("turn").Build()).Error()
		}, nil
	}
}}
