// Package crew has the goroutines of an engine, and the pauses between its requests.
package crew

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Crew runs tasks, and counts its goroutines, so that an engine can wait for them when it is
// closed. Unlike with a WaitGroup, a task may come while another goroutine waits: it is
// refused then. A few goroutines wait for the next task, because a new one has to grow its stack
// first, for what a client of a server puts there, which is a measurable part of a lock that no
// other process wants.
type Crew struct {
	state  atomic.Int64 // how many goroutines there are, plus dismissed
	parked atomic.Int64
	tasks  chan func()
	over   chan struct{} // closed when the crew is dismissed
	gone   chan struct{} // closed when it is dismissed and there are no goroutines
}

const (
	dismissed  = 1 << 62
	mostParked = 8
)

// New returns a crew without goroutines.
func New() *Crew {
	return &Crew{tasks: make(chan func()), over: make(chan struct{}), gone: make(chan struct{})}
}

// Start runs f in a goroutine, and reports false after Dismiss.
func (c *Crew) Start(f func()) bool {
	for {
		n := c.state.Load()
		if n >= dismissed {
			return false
		}
		select {
		case c.tasks <- f:
			return true
		default:
		}
		if c.state.CompareAndSwap(n, n+1) {
			break
		}
	}
	go c.work(f)
	return true
}

func (c *Crew) work(f func()) {
	defer func() {
		if c.state.Add(-1) == dismissed {
			close(c.gone)
		}
	}()
	for f != nil {
		f()
		f = c.park()
	}
}

// park returns the next task, nil if the goroutine shall end.
func (c *Crew) park() (f func()) {
	defer c.parked.Add(-1)
	if c.parked.Add(1) > mostParked {
		return nil
	}
	select {
	case f = <-c.tasks:
	case <-c.over:
	}
	return f
}

// Dismiss lets no task start any more. Only the first call does anything.
func (c *Crew) Dismiss() {
	for {
		n := c.state.Load()
		if n >= dismissed {
			return
		}
		if c.state.CompareAndSwap(n, n+dismissed) {
			close(c.over)
			if n == 0 {
				close(c.gone)
			}
			return
		}
	}
}

// Gone is closed when the crew was dismissed and all its goroutines have ended.
func (c *Crew) Gone() <-chan struct{} { return c.gone }

// Backoff spaces repeated requests. The zero Backoff begins with a short pause.
type Backoff struct {
	last time.Duration
}

// Next returns the pause before the next request, longer each time up to about half a second.
func (b *Backoff) Next() time.Duration {
	b.last = min(2*b.last+5*time.Millisecond, 400*time.Millisecond)
	return b.last/2 + rand.N(b.last)
}

// Wait waits for the pause. It returns the error of a context that ends first, which may be the same twice.
func (b *Backoff) Wait(ctx, other context.Context) error {
	pause := time.NewTimer(b.Next())
	defer pause.Stop()
	select {
	case <-pause.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-other.Done():
		return other.Err()
	}
}
