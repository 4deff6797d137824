package workloads

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// storm lets a crowd wait for a key that is never freed. Each wait is cancelled when
// half the crowd has begun to wait after it.
func storm(name string) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("%d goroutines wait for a held key, each wait is cancelled; with the making of its context", crowd),
		Admits: cancels,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			defer hold(l, hotKey)()
			crew := newCrew(p, crowd, l.Client)
			defer crew.cancel()
			waits := make(waits, crowd/2)
			crew.goHome = waits.cancelAll
			figures := crew.run(budget, func(c *client) {
				ctx := waits.begin(c.crew)
				mustBeCancelled(c.Lock(ctx, hotKey))
			}).figures()
			figures[results.Allocs] = max(0, figures[results.Allocs]-contextAllocs())
			return figures
		},
	}
}

// waits are the contexts of those who wait and are not cancelled yet, the oldest first.
type waits chan context.CancelFunc

// begin returns the context of a new wait, and cancels the oldest when there are too
// many.
func (w waits) begin(crew *crew) context.Context {
	ctx, cancel := context.WithCancel(background)
	ctx.Done() // now, so that its channel counts as an allocation of the context
	for !w.add(cancel) {
		w.cancelOldest()
	}
	// Who begins a wait before the budget is spent will be cancelled: fewer may wait
	// than there are, so somebody is awake, and cancels everybody when he goes home.
	// Who begins later may be the last.
	if crew.over.Load() {
		w.cancelAll()
	}
	return ctx
}

func (w waits) add(cancel context.CancelFunc) bool {
	select {
	case w <- cancel:
		return true
	default:
		return false
	}
}

func (w waits) cancelOldest() bool {
	select {
	case cancel := <-w:
		cancel()
		return true
	default:
		return false
	}
}

func (w waits) cancelAll() {
	for w.cancelOldest() {
	}
}

// contextAllocs is how often the making and cancelling of a context allocates.
func contextAllocs() float64 {
	return testing.AllocsPerRun(1000, func() {
		ctx, cancel := context.WithCancel(background)
		ctx.Done()
		cancel()
	})
}

// cancelOne measures from the cancellation of one of many waiters to its return.
func cancelOne(name string, waiters int) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("one of %d waiters is cancelled and returns", waiters),
		Admits: cancels,
		Heavy:  true,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			defer hold(l, hotKey)()
			line := newLine(l, waiters)
			defer line.leave()
			settle()
			line.cancelInTurn(budget.warmUp())
			ops, elapsed := line.cancelInTurn(budget)
			return results.Figures{results.PerOp: float64(elapsed) / float64(ops)}
		},
	}
}

// A line is goroutines that wait for the hot key, again and again.
type line struct {
	waiters []*waiter
	left    chan struct{} // receives whenever one has given up
}

type waiter struct {
	again  chan context.Context // to wait once more; closed at the end
	cancel context.CancelFunc
}

func newLine(l peers.Locker, size int) *line {
	line := &line{left: make(chan struct{}, 1)}
	for range size {
		w := &waiter{again: make(chan context.Context, 1)}
		line.waiters = append(line.waiters, w)
		client := l.Client()
		go func() {
			for ctx := range w.again {
				mustBeCancelled(client.Lock(ctx, hotKey))
				line.left <- struct{}{}
			}
		}()
		w.wait()
	}
	return line
}

func (w *waiter) wait() {
	ctx, cancel := context.WithCancel(background)
	w.cancel = cancel
	w.again <- ctx
}

// stride visits the waiters all over the line; it has no divisor in common with the
// length of any.
const stride = 61_803

// cancelInTurn cancels one after the other, each of which then waits again at the end.
func (l *line) cancelInTurn(budget Budget) (ops int64, elapsed time.Duration) {
	end := time.Now().Add(budget.Time)
	for i := stride; ; i += stride {
		if budget.Ops > 0 && ops == budget.Ops || budget.Ops == 0 && time.Now().After(end) {
			return ops, elapsed
		}
		w := l.waiters[i%len(l.waiters)]
		started := time.Now()
		w.cancel()
		<-l.left
		elapsed += time.Since(started)
		ops++
		w.wait()
	}
}

func (l *line) leave() {
	for _, w := range l.waiters {
		close(w.again)
		w.cancel()
		<-l.left
	}
}

// hold locks key and returns what frees it.
func hold(l peers.Locker, key string) (free func()) {
	holder := l.Client()
	if err := holder.Lock(background, key); err != nil {
		panic(err)
	}
	return holder.Unlock
}

func mustBeCancelled(err error) {
	if !errors.Is(err, context.Canceled) {
		panic(fmt.Sprintf("a wait that was cancelled returned %v", err))
	}
}
