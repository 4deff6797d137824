// Command soak keeps managers under load for as long as one likes: tens of thousands of
// goroutines make all the calls, alone and in sessions, on a few hot keys and many cold
// ones, contexts end at random, and managers with every choice of options start, shut down
// and close all the while. What a lock guards are plain counters, so one broken exclusion shows. In the end everything must be as it was
// in the beginning.
//
//	go run -C verify ./soak -for=10m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
	"github.com/seed-46f81e6d/keylock/verify/verbs"
)

func main() {
	var c config
	flag.DurationVar(&c.length, "for", time.Minute, "how long")
	flag.IntVar(&c.goroutines, "goroutines", 20_000, "how many make calls")
	flag.IntVar(&c.keys, "keys", 10_000, "how many keys there are")
	flag.DurationVar(&c.every, "every", 10*time.Second, "how often to print a line")
	flag.Parse()
	if err := soak(os.Stdout, c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type config struct {
	length     time.Duration
	goroutines int
	keys       int
	every      time.Duration
}

const (
	lifetime  = 3 * time.Second // of a manager, at most
	patience  = time.Minute     // without a single call that returns
	heapSlack = 4 << 20         // bytes that the heap may have grown by
)

// A soaking is what all its callers share.
type soaking struct {
	config
	mu      sync.RWMutex
	current *life // guarded by mu, so that no goroutine enters one that is being taken down

	calls, grants, lives          atomic.Int64
	sessions, deadlocks, handoffs atomic.Int64
	sets, downgrades, wanted      atomic.Int64
	failure                       atomic.Pointer[error]
}

// soak soaks, prints how it goes, and returns what went wrong.
func soak(out io.Writer, c config) error {
	if c.length <= 0 || c.goroutines < 1 || c.keys < 1 || c.every <= 0 {
		return fmt.Errorf("-for=%v -goroutines=%d -keys=%d -every=%v: want more than 0", c.length, c.goroutines, c.keys, c.every)
	}
	warmUp(c.goroutines)
	goroutines, heap := runtime.NumGoroutine(), heapAfterGC()
	s := &soaking{config: c}
	s.current = newLife(c.keys)
	ctx, cancel := context.WithTimeout(context.Background(), c.length)
	defer cancel()

	var callers, rest sync.WaitGroup
	for range c.goroutines {
		callers.Go(func() {
			caller := newCaller(s)
			for ctx.Err() == nil && s.failure.Load() == nil {
				caller.call()
			}
		})
	}
	rest.Go(func() { s.changeLives(ctx) })
	rest.Go(func() { s.report(ctx, out) })
	if err := s.await(&callers); err != nil {
		return err
	}
	cancel()
	rest.Wait()
	s.end(s.current)
	if err := s.failure.Load(); err != nil {
		return *err
	}
	fmt.Fprintf(out, "%d calls, %d grants, %d of them of several keys, %d handoffs, %d downgrades, %d wanted back, %d sessions, %d deadlocks refused, %d managers\n",
		s.calls.Load(), s.grants.Load(), s.sets.Load(), s.handoffs.Load(), s.downgrades.Load(), s.wanted.Load(),
		s.sessions.Load(), s.deadlocks.Load(), s.lives.Load())
	s.current = nil
	return asBefore(out, goroutines, heap)
}

// warmUp has as many goroutines once: the runtime keeps what they consist of forever, and
// that is not what is looked for.
func warmUp(goroutines int) {
	var all sync.WaitGroup
	over := make(chan struct{})
	for range goroutines {
		all.Go(func() { <-over })
	}
	close(over)
	all.Wait()
}

// changeLives replaces the manager by a new one, again and again, and ends the old one.
func (s *soaking) changeLives(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-time.After(rand.N(lifetime)):
		case <-ctx.Done():
		}
		s.mu.Lock()
		old := s.current
		s.current = newLife(s.keys)
		s.mu.Unlock()
		s.end(old)
	}
}

// end ends a manager, which callers may still use, and looks at what it has guarded.
func (s *soaking) end(l *life) {
	s.lives.Add(1)
	if err := l.end(); err != nil {
		s.fail(err)
	}
}

func (s *soaking) fail(err error) { s.failure.CompareAndSwap(nil, &err) }

// enter returns the manager of the moment, to be left again.
func (s *soaking) enter() *life {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.current.users.Add(1)
	return s.current
}

// await waits for the callers, and gives up when nothing moves any more.
func (s *soaking) await(callers *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { callers.Wait(); close(done) }()
	for before := int64(-1); ; {
		select {
		case <-done:
			return nil
		case <-time.After(patience):
		}
		now := s.calls.Load()
		if now == before {
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			return fmt.Errorf("no call has returned for %v: one waits forever", patience)
		}
		before = now
	}
}

// report prints a line now and then.
func (s *soaking) report(ctx context.Context, out io.Writer) {
	start, before := time.Now(), int64(0)
	for tick := time.NewTicker(s.every); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		calls := s.calls.Load()
		fmt.Fprintf(out, "%6.0fs %12d calls, %9.0f/s, %12d grants, %5d managers, %6d goroutines, %4d MiB\n",
			time.Since(start).Seconds(), calls, float64(calls-before)/s.every.Seconds(), s.grants.Load(), s.lives.Load(),
			runtime.NumGoroutine(), heapInUse()>>20)
		before = calls
	}
}

// asBefore returns an error when goroutines or memory are left.
func asBefore(out io.Writer, goroutines int, heap uint64) error {
	left, grown := runtime.NumGoroutine(), heapAfterGC()
	// The last ones of a manager may still be on their way out.
	for start := time.Now(); left > goroutines && time.Since(start) < 10*time.Second; left = runtime.NumGoroutine() {
		runtime.Gosched()
	}
	fmt.Fprintf(out, "goroutines %d, were %d; heap %d KiB, was %d KiB\n", left, goroutines, grown>>10, heap>>10)
	if left > goroutines {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		return fmt.Errorf("%d goroutines are left", left-goroutines)
	}
	if grown > heap+heapSlack {
		pprof.Lookup("heap").WriteTo(os.Stderr, 1)
		return fmt.Errorf("%d KiB are left", (grown-heap)>>10)
	}
	return nil
}

func heapAfterGC() uint64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool holds survives the first
	return heapInUse()
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A life is one manager, from its start to its end, with what its locks guard.
type life struct {
	manager *keylock.Manager[int]
	cancel  context.CancelFunc
	users   sync.WaitGroup

	counters    []int64        // one for each key; plain, because a lock guards them
	total       atomic.Int64   // what they must add up to
	sharers     []atomic.Int64 // for each key, those who read
	sharedLimit int            // how many may, where the requests do not say; 0 is no bound
}

func newLife(keys int) *life {
	ctx, cancel := context.WithCancel(context.Background())
	sharedLimit := rand.IntN(2) * 8
	return &life{
		manager:     keylock.Start[int](ctx, someOptions(sharedLimit)...),
		cancel:      cancel,
		counters:    make([]int64, keys),
		sharers:     make([]atomic.Int64, keys),
		sharedLimit: sharedLimit,
	}
}

// someOptions returns each of the other options or not, as chance will have it. Grants are kept where nothing is
// noted of requests, which would keep them from being so.
func someOptions(sharedLimit int) []keylock.Option {
	bounds := verbs.Bounds(model.State{MaxWaiters: rand.IntN(2) * 1000, SharedLimit: sharedLimit})
	if rand.IntN(2) == 0 {
		return append(bounds, keylock.WithKeptGrants(1<<rand.IntN(16)))
	}
	watch := verbs.Observer{Callers: rand.IntN(2) == 0, HoldTimes: rand.IntN(2) == 0}
	if rand.IntN(2) == 0 {
		watch.SlowLog = slog.New(slog.NewTextHandler(io.Discard, nil))
		watch.SlowAfter = time.Millisecond + rand.N(100*time.Millisecond)
	}
	return append(bounds, watch.Options()...)
}

// limit is the limit that every request has that shares a key; 0 is that of the manager.
func limit(key int) int {
	if key%3 == 1 {
		return 1 + key%5
	}
	return 0
}

// write is what an exclusive holder of a key does with it.
func (l *life) write(key int) {
	before := l.counters[key]
	if rand.IntN(8) == 0 {
		runtime.Gosched() // so that one who should not be in here has time to spoil it
	}
	l.counters[key] = before + 1
	l.total.Add(1)
}

// read is what a shared holder of a key does with it.
func (l *life) read(key int) error {
	most := limit(key)
	if most == 0 {
		most = l.sharedLimit
	}
	defer l.sharers[key].Add(-1)
	if n := l.sharers[key].Add(1); most > 0 && n > int64(most) {
		return fmt.Errorf("key %d has %d shared holders, with a limit of %d", key, n, most)
	}
	before := l.counters[key]
	runtime.Gosched()
	if after := l.counters[key]; after != before {
		return fmt.Errorf("key %d was written to beside a shared holder: %d became %d", key, before, after)
	}
	return nil
}

// end ends the manager in one of the ways that there are, waits until it is not used
// any more, and checks what it has guarded.
func (l *life) end() error {
	switch rand.IntN(4) {
	case 0:
		l.manager.Close()
	case 1:
		l.cancel()
	case 2:
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(10*time.Millisecond))
		defer cancel()
		if err := l.manager.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a shutdown returned %w", err)
		}
		l.manager.Close()
	case 3:
		if err := l.manager.Shutdown(context.Background()); err != nil {
			return fmt.Errorf("a shutdown returned %w", err)
		}
	}
	<-l.manager.Done()
	l.users.Wait()
	l.cancel()
	var sum int64
	for _, n := range l.counters {
		sum += n
	}
	if total := l.total.Load(); sum != total {
		return fmt.Errorf("the counters add up to %d, but were increased %d times: two held a key at once", sum, total)
	}
	return nil
}
