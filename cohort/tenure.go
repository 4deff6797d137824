package cohort

import (
	"context"
	"errors"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// tenure is the process's claim to a key at the engine, from when it asks until it has
// given the key back. It belongs to the local holder of the key, the only one who touches it,
// and travels with the local lock to the next.
type tenure struct {
	answered chan struct{} // closed when the engine has answered
	err      error         // why it refused; the other fields are for when it granted
	withdraw context.CancelFunc

	grant Grant
	until time.Time // for how long it may be handed over
	seq   uint64    // of the last local holder
}

// ask asks the engine for key. The question outlives its asker, who may leave it to the next.
func (m *Manager) ask(key string, acquire func(context.Context, string) (Grant, error)) *tenure {
	ctx, cancel := context.WithCancel(m.ctx)
	t := &tenure{answered: make(chan struct{}), withdraw: cancel}
	go func() {
		defer close(t.answered)
		defer cancel()
		t.grant, t.err = acquire(ctx, key)
		switch {
		case t.err == nil:
			t.until = time.Now().Add(m.maxHold)
			m.granted.Add(1)
		case m.ctx.Err() != nil:
			t.err = ErrClosed
		}
	}()
	return t
}

// isLost reports whether the engine's lock is lost; it asks the grant, which knows first.
func (t *tenure) isLost() bool {
	select {
	case <-t.grant.Lost():
		return true
	default:
		return false
	}
}

// giveBack gives the key back to the engine, and waits for that for a while.
func (m *Manager) giveBack(t *tenure) error {
	ctx, cancel := context.WithTimeout(context.Background(), m.engineTimeout)
	defer cancel()
	err := t.grant.Release(ctx)
	if errors.Is(err, ErrLost) {
		m.lost.Add(1)
	}
	return err
}

// contend turns the local lock into one among processes, with the tenure that came
// with it, nil for none, or by asking the engine.
func (m *Manager) contend(ctx context.Context, place keylock.Lock[string], t *tenure, acquire func(context.Context, string) (Grant, error)) (Lock, error) {
	for inherited := true; ; inherited = false {
		if t == nil {
			t = m.ask(place.Key(), acquire)
			inherited = false
		}
		select {
		case <-t.answered:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			m.abandon(place, t)
			return Lock{}, ctx.Err()
		case t.err != nil && !inherited:
			place.Release()
			return Lock{}, t.err
		case t.err == nil && !t.isLost():
			t.seq++
			return m.newLock(place, t), nil
		case t.err == nil:
			_ = m.giveBack(t) // it is lost, and its engine may forget it
		}
		t = nil
	}
}

// abandon leaves the claim to the next waiter of the process, or withdraws it.
func (m *Manager) abandon(place keylock.Lock[string], t *tenure) {
	if m.pass(place, t) {
		return
	}
	t.withdraw()
	go m.settle(place, t)
}

// settle ends a claim that nobody wants any more. It holds the local lock until that is
// done, so that the engine has one contender per key.
func (m *Manager) settle(place keylock.Lock[string], t *tenure) {
	<-t.answered
	if t.err == nil {
		_ = m.giveBack(t)
	}
	place.Release()
}

// pass hands the claim to the next waiter with the local lock, and reports false if there
// is none. It cannot get lost: a waiter who gives up at that moment is granted the local
// lock all the same, and passes the claim on.
func (m *Manager) pass(place keylock.Lock[string], t *tenure) bool {
	if m.waiting.Load() == 0 {
		return false // whoever comes now will not mind; the owner need not be asked
	}
	return place.HandOff(t)
}
