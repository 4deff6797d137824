package lease

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Grant is a key held at the store. It implements cohort.Grant.
type Grant struct {
	attempt   *attempt
	releasing atomic.Bool
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

// Epoch returns the store's number of the grant.
func (g *Grant) Epoch() uint64 { return g.attempt.granted.Load() }

// Key returns the key.
func (g *Grant) Key() string { return g.attempt.entry.Key }

// Entry returns the entry that holds the key.
func (g *Grant) Entry() Entry { return g.attempt.entry }

// Lost returns a channel that is closed when the session can no longer be trusted: a fifth of
// the TTL before the earliest moment at which it could have run out, as soon as the
// store says that it or the entry is gone, when the engine closes, or after Release. The
// call itself compares the deadline with the clock.
func (g *Grant) Lost() <-chan struct{} {
	g.attempt.session.trusted()
	return g.attempt.ctx.Done()
}

// Wanted is closed when another process waits for the key or was refused it, when a notice of
// that may have been lost, and when the grant is lost.
func (g *Grant) Wanted() <-chan struct{} {
	g.attempt.warn()
	return g.attempt.wanted
}

// OnWanted implements cohort.Recaller: f is called when Wanted is closed.
func (g *Grant) OnWanted(f func()) {
	if !g.attempt.onWanted.CompareAndSwap(nil, &f) {
		f()
		return
	}
	g.attempt.warn()
}

// Release implements cohort.Grant. While the store cannot be reached, the key is
// released in the background until the session has ended.
func (g *Grant) Release(ctx context.Context) error {
	if g.releasing.CompareAndSwap(false, true) {
		if outcome, over := g.attempt.leaveNow(ctx); over {
			g.finish(outcome)
		} else if !g.attempt.session.engine.crew.start(func() { g.finish(g.attempt.leave()) }) {
			g.attempt.end()
			g.finish(cohort.ErrLost) // the engine is closed, and the session has ended with it
		}
	}
	select {
	case <-g.released:
	case <-ctx.Done():
		select {
		case <-g.released: // both at once: the outcome says more
		default:
			return g.explain(ctx.Err())
		}
	}
	if g.outcome != nil {
		return g.explain(g.outcome)
	}
	return nil
}

func (g *Grant) finish(outcome error) {
	g.outcome = outcome
	close(g.released)
}

func (g *Grant) explain(err error) error {
	return fmt.Errorf("%s: release %s: %w", g.attempt.session.engine.Name, brief(g.Key()), err)
}
