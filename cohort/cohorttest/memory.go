package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Engine is one process's engine on a Store. Its calls can be made to fail by a
// script, its session to be lost, its connection to be cut.
type Engine struct {
	store  *Store
	closed chan struct{} // closed by Close

	// Owned by the store's goroutine.
	script   []Fault
	session  *session
	healed   chan struct{} // nil while the store can be reached; else closed by Heal
	isClosed bool
}

// Call names the calls that a Fault can strike.
type Call string

// The calls to the store.
const (
	Acquire Call = "acquire" // taking an entry in a queue, also for TryAcquire
	Release Call = "release" // leaving it, also after a wait that was abandoned
)

// Fault befalls one call of an engine to its store.
type Fault struct {
	Call  Call
	Delay time.Duration // the request travels this long
	Err   error         // the store does nothing and answers with this error
	Drop  bool          // the store does what it is asked, and its answer never arrives
}

// Expire ends the engine's session in good order: Lost is closed first, then
// the store drops what the session had.
func (e *Engine) Expire() {
	e.store.decide(func(l *queues) {
		lost := e.session
		e.renew()
		l.revoke(lost)
	})
}

// Revoke has the store drop the engine's session behind its back: others get its
// keys while it still believes that they are its own, until Notice.
func (e *Engine) Revoke() {
	e.store.decide(func(l *queues) { l.revoke(e.session) })
}

// Notice tells the engine of a Revoke.
func (e *Engine) Notice() {
	e.store.decide(func(*queues) { e.notice() })
}

// Cut makes the store unreachable for the engine: its calls wait until Heal.
func (e *Engine) Cut() {
	e.store.decide(func(*queues) {
		if e.healed == nil {
			e.healed = make(chan struct{})
		}
	})
}

// Heal ends a Cut.
func (e *Engine) Heal() {
	e.store.decide(func(*queues) {
		if e.healed != nil {
			close(e.healed)
			e.healed = nil
		}
	})
}

// Acquire implements cohort.Engine.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, false)
}

// TryAcquire implements cohort.Engine.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, true)
}

func (e *Engine) acquire(ctx context.Context, key string, try bool) (cohort.Grant, error) {
	for {
		p, dropped, err := e.enter(ctx, key, try)
		if err != nil {
			return nil, fmt.Errorf("cohorttest: acquire %q: %w", key, err)
		}
		granted := p.granted
		if dropped {
			granted = nil // the answer never arrives
		}
		select {
		case epoch := <-granted:
			return &grant{engine: e, entry: p, epoch: epoch, released: make(chan struct{})}, nil
		case <-p.session.lost: // and the entry with it: Acquire enters the queue anew, unless the engine is closed
		case <-ctx.Done():
			go e.leave(p)
			return nil, fmt.Errorf("cohorttest: acquire %q: %w", key, ctx.Err())
		}
	}
}

// Close implements cohort.Engine.
func (e *Engine) Close(ctx context.Context) error {
	e.store.decide(func(*queues) {
		if !e.isClosed {
			e.isClosed = true
			close(e.closed)
			close(e.session.lost)
		}
	})
	err := e.reach(ctx)
	if err == nil {
		e.store.decide(func(l *queues) { l.revoke(e.session) })
	}
	return err
}

// enter takes a entry in the queue for key.
func (e *Engine) enter(ctx context.Context, key string, try bool) (p *entry, dropped bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if dropped, err = e.send(ctx, Acquire); err != nil {
		return nil, false, err
	}
	err = cohort.ErrClosed
	e.store.decide(func(l *queues) {
		switch {
		case e.isClosed:
		case try && len(l.byKey[key]) > 0:
			err = cohort.ErrHeld
		default:
			e.notice()
			p, err = &entry{session: e.session, key: key, granted: make(chan uint64, 1)}, nil
			l.join(p)
		}
	})
	return p, dropped, err
}

// leave gives up the entry, which may be a grant. It takes as long as the store cannot be reached.
func (e *Engine) leave(p *entry) (dropped bool, err error) {
	dropped, err = e.send(context.Background(), Release)
	if err != nil && !errors.Is(err, cohort.ErrClosed) { // with the engine closed, the session has ended and everything it had
		return dropped, err
	}
	err = cohort.ErrLost
	e.store.decide(func(l *queues) {
		if l.leave(p) {
			err = nil
		}
	})
	return dropped, err
}

// send stands for the way of a request to the store, and suffers the fault that
// is next for the call.
func (e *Engine) send(ctx context.Context, call Call) (dropped bool, err error) {
	var f Fault
	e.store.decide(func(*queues) {
		if next := slices.IndexFunc(e.script, func(f Fault) bool { return f.Call == call }); next >= 0 {
			f = e.script[next]
			e.script = slices.Concat(e.script[:next], e.script[next+1:])
		}
	})
	select {
	case <-time.After(f.Delay):
	case <-ctx.Done():
		return f.Drop, ctx.Err()
	case <-e.closed:
		return f.Drop, cohort.ErrClosed
	}
	if err := e.reach(ctx); err != nil {
		return f.Drop, err
	}
	return f.Drop, f.Err
}

// reach waits while the store cannot be reached.
func (e *Engine) reach(ctx context.Context) error {
	var healed chan struct{}
	if !e.store.decide(func(*queues) { healed = e.healed }) {
		return cohort.ErrClosed
	}
	if healed == nil {
		return nil
	}
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.store.done:
		return cohort.ErrClosed
	}
}

// notice lets the engine learn that its session was revoked. Called by the store's goroutine.
func (e *Engine) notice() {
	if e.session.revoked && !e.isClosed {
		e.renew()
	}
}

// renew replaces the engine's session. Called by the store's goroutine.
func (e *Engine) renew() {
	close(e.session.lost)
	e.session = newSession()
}

// grant is an entry in a queue that came first.
type grant struct {
	engine *Engine
	entry  *entry
	epoch  uint64

	releasing bool          // owned by the store's goroutine
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

func (g *grant) Epoch() uint64 { return g.epoch }

func (g *grant) Lost() <-chan struct{} { return g.entry.session.lost }

func (g *grant) Release(ctx context.Context) error {
	first := false
	g.engine.store.decide(func(*queues) {
		first = !g.releasing
		g.releasing = true
	})
	if first {
		go func() {
			dropped, err := g.engine.leave(g.entry)
			if !dropped {
				g.outcome = err
				close(g.released)
			}
		}()
	}
	select {
	case <-g.released:
		return g.outcome
	case <-ctx.Done():
		return fmt.Errorf("cohorttest: release %q: %w", g.entry.key, ctx.Err())
	case <-g.engine.closed:
		return cohort.ErrLost
	case <-g.engine.store.done:
		return cohort.ErrLost
	}
}
