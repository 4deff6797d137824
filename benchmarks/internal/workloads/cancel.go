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
			crew := newCrew(p, l, crowd)
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
	// A client that begins a wait before the budget is spent will be cancelled: fewer may wait
	// than there are, so one of them is awake, and cancels the others when it ends.
	// One that begins later may be the last.
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

// cancelOne measures from the cancellation of a waiter to its return. There are always
// as many waiters, so that as much of them is in no cache; only the lines in which they
// stand differ.
func cancelOne(name string, waiters, perKey int) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("one of %d waiters, %d of which wait for the same key, is cancelled and returns", waiters, perKey),
		Admits: cancels,
		Heavy:  true,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			keys := keys(waiters / perKey)
			holders := newHolders(l, keys)
			holders.lock()
			defer holders.unlock()
			waits := newQueues(l, waiters, keys)
			defer waits.leave()
			settle()
			waits.cancelInTurn(budget.warmUp(0))
			return waits.cancelInTurn(budget)
		},
	}
}

// queues are goroutines that wait for held keys, again and again.
type queues struct {
	waiters []*waiter
	left    chan struct{} // receives whenever one has given up
}

type waiter struct {
	again  chan context.Context // to wait once more; closed at the end
	cancel context.CancelFunc
}

// newQueues spreads the waiters evenly over the keys.
func newQueues(l peers.Locker, waiters int, keys []string) *queues {
	q := &queues{left: make(chan struct{}, 1)}
	for i := range waiters {
		w := &waiter{again: make(chan context.Context, 1)}
		q.waiters = append(q.waiters, w)
		client, key := l.Client(), keys[i%len(keys)]
		go func() {
			for ctx := range w.again {
				mustBeCancelled(client.Lock(ctx, key))
				q.left <- struct{}{}
			}
		}()
		w.wait()
	}
	return q
}

func (w *waiter) wait() {
	ctx, cancel := context.WithCancel(background)
	w.cancel = cancel
	w.again <- ctx
}

// stride goes from waiter to waiter all over the place; it has no divisor in common
// with their number.
const stride = 61_803

// cancelInTurn cancels one waiter after the other. Each of them then waits again, at
// the end of its line; that counts as CPU time only.
func (q *queues) cancelInTurn(budget Budget) results.Figures {
	var ops int64
	var elapsed time.Duration
	cpuBefore, end := cpuTime(), time.Now().Add(budget.Time)
	for i := stride; ; i += stride {
		w := q.waiters[i%len(q.waiters)]
		started := time.Now()
		w.cancel()
		<-q.left
		elapsed += time.Since(started)
		ops++
		w.wait()
		if ops >= budget.Ops && time.Now().After(end) {
			break
		}
	}
	return results.Figures{
		results.PerOp: float64(elapsed) / float64(ops),
		results.CPU:   float64(cpuTime()-cpuBefore) / float64(ops),
	}
}

func (q *queues) leave() {
	for _, w := range q.waiters {
		close(w.again)
		w.cancel()
		<-q.left
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
