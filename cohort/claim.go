package cohort

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// claim is the process's claim to a key at the engine, from when it asks until it has
// given the key back. It belongs to the local holder of the key, the only one that changes it,
// and travels with the local lock to the next. Those who only look go by replied.
type claim struct {
	key      string
	asked    time.Time
	withdraw context.CancelFunc

	replied chan struct{} // closed when the engine has replied
	at      time.Time     // when it did; it and the fields below are written before
	err     error         // why it refused; the fields below are for when it granted
	grant   Grant
	until   time.Time // after this it is not handed off any more

	seq atomic.Uint64 // of the last local holder
}

// acquireFunc is Engine.Acquire or Engine.TryAcquire.
type acquireFunc func(ctx context.Context, key string) (Grant, error)

// ask asks the engine for key. The question outlives its asker, who may leave it to the next.
func (m *Manager) ask(key string, acquire acquireFunc) *claim {
	ctx, cancel := context.WithCancel(m.ctx)
	c := &claim{key: key, asked: time.Now(), replied: make(chan struct{}), withdraw: cancel}
	go func() {
		defer cancel()
		m.claims.do(func(cs *claims) { cs.begin(c) })
		c.grant, c.err = acquire(ctx, key)
		c.at = time.Now()
		if c.err == nil {
			c.until = c.at.Add(m.maxHold)
		} else if m.ctx.Err() != nil {
			c.err = ErrClosed
		}
		m.claims.do(func(cs *claims) { cs.replied(c) })
		close(c.replied)
	}()
	return c
}

// isLost reports whether the engine's lock is lost; it asks the grant, which knows first.
func (c *claim) isLost() bool {
	select {
	case <-c.grant.Lost():
		return true
	default:
		return false
	}
}

// giveBack gives the key back to the engine, and waits for that for a while.
func (m *Manager) giveBack(c *claim) error {
	ctx, cancel := context.WithTimeout(context.Background(), m.engineTimeout)
	defer cancel()
	began := time.Now()
	err := c.grant.Release(ctx)
	took := time.Since(began)
	m.claims.do(func(cs *claims) { cs.end(c, took, errors.Is(err, ErrLost)) })
	return err
}

// contend turns the local lock into one among processes, with the claim that came
// with it, nil for none, or by asking the engine.
func (m *Manager) contend(ctx context.Context, local keylock.Lock[string], c *claim, acquire acquireFunc) (Lock, error) {
	for inherited := true; ; inherited = false {
		if c == nil {
			c = m.ask(local.Key(), acquire)
			inherited = false
		}
		select {
		case <-c.replied:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			m.abandon(local, c)
			return Lock{}, ctx.Err()
		case c.err != nil && !inherited:
			local.Release()
			return Lock{}, c.err
		case c.err == nil && !c.isLost():
			return m.newLock(local, c, c.seq.Add(1)), nil
		case c.err == nil:
			_ = m.giveBack(c) // it is lost, and its engine may forget it
		}
		c = nil
	}
}

// abandon leaves the claim to the next waiter of the process, or withdraws it.
func (m *Manager) abandon(local keylock.Lock[string], c *claim) {
	if m.handOff(local, c) {
		return
	}
	c.withdraw()
	go m.cleanUp(local, c)
}

// cleanUp ends a claim that is not wanted any more. It holds the local lock until that is
// done, so that the engine has one contender per key.
func (m *Manager) cleanUp(local keylock.Lock[string], c *claim) {
	<-c.replied
	if c.err == nil {
		_ = m.giveBack(c)
	}
	local.Release()
}

// mayHandOff reports whether the claim may be handed off once more.
func (m *Manager) mayHandOff(c *claim) bool {
	return c.seq.Load() <= uint64(m.maxHandoffs) && time.Now().Before(c.until) && !c.isLost()
}

// handOff hands the claim off to the next waiter, with the local lock, and reports false if there
// is none. It cannot get lost: a waiter that gives up at that moment is granted the local
// lock all the same, and hands the claim off again.
func (m *Manager) handOff(local keylock.Lock[string], c *claim) bool {
	if m.waiting.Load() == 0 {
		return false // a waiter that comes now can ask the engine itself; the owner need not be asked
	}
	return local.Handoff(c)
}
