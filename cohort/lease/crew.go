package lease

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/parked"
)

// crew runs the engine's tasks, and counts its goroutines, so that Close can wait for
// them. Unlike with a WaitGroup, a task may come while another goroutine waits: it is
// refused then.
type crew struct {
	state atomic.Int64 // how many goroutines there are, plus dismissed
	idle  *parked.Goroutines
	over  chan struct{} // closed when the crew is dismissed
	gone  chan struct{} // closed when it is dismissed and there are no goroutines
}

const dismissed = 1 << 62

func newCrew() *crew {
	over := make(chan struct{})
	return &crew{idle: parked.New(over), over: over, gone: make(chan struct{})}
}

// start runs f in a goroutine, and reports false after dismiss.
func (c *crew) start(f func()) bool {
	for {
		n := c.state.Load()
		if n >= dismissed {
			return false
		}
		if c.idle.Take(f) {
			return true
		}
		if c.state.CompareAndSwap(n, n+1) {
			break
		}
	}
	go c.work(f)
	return true
}

func (c *crew) work(f func()) {
	defer func() {
		if c.state.Add(-1) == dismissed {
			close(c.gone)
		}
	}()
	c.idle.Work(f)
}

// dismiss lets no task start any more. It is called once.
func (c *crew) dismiss() {
	last := c.state.Add(dismissed) == dismissed
	close(c.over)
	if last {
		close(c.gone)
	}
}

// backoff spaces repeated requests.
type backoff struct {
	last time.Duration
}

// next returns the pause before the next request, longer each time up to about half a second.
func (b *backoff) next() time.Duration {
	b.last = min(2*b.last+5*time.Millisecond, 400*time.Millisecond)
	return b.last/2 + rand.N(b.last)
}

// wait waits for the pause. It returns an error when one of the contexts ends first.
func (b *backoff) wait(ctx, other context.Context) error {
	pause := time.NewTimer(b.next())
	defer pause.Stop()
	select {
	case <-pause.C:
		return context.Cause(ctx)
	case <-ctx.Done():
		return ctx.Err()
	case <-other.Done():
		return other.Err()
	}
}
