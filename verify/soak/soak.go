package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

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
