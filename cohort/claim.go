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

	seq     atomic.Uint64           // of the last local holder
	listens atomic.Bool             // the engine was asked to tell when another process wants the key
	wanted  atomic.Pointer[wanting] // nil while none does, or the engine was not asked
	other   chan struct{}           // closed when one does; nil if the engine cannot tell

	// For the keeper. Of these its holder owns hits and stored, and the keeper's goroutine next and appointed.
	state     atomic.Uint32
	keptAt    atomic.Int64  // by the keeper's clock
	hits      int           // local holders that found it kept
	stored    bool          // it was kept once, and is in the store
	queued    atomic.Bool   // it is in the inbox, or about to be
	next      *claim        // there
	appointed bool          // it is in the schedule
	returned  chan struct{} // closed when a recalled claim is given back
}

// wanting is from when on handoffs and the time count.
type wanting struct {
	at  time.Time
	seq uint64 // of the local holder then, or the first to come
}

// ask asks the engine for key. The question outlives its asker, who may leave it to the next.
func (m *Manager) ask(key string, try bool) *claim {
	ctx, cancel := context.WithCancel(m.ctx)
	c := &claim{key: key, asked: time.Now(), replied: make(chan struct{}), withdraw: cancel}
	m.claims.do(func(cs *claims) { cs.begin(c) })
	reply := func(g Grant, err error) {
		c.grant, c.err, c.at = g, err, time.Now()
		if c.err == nil {
			m.heed(c)
		} else if m.ctx.Err() != nil {
			c.err = ErrClosed
		}
		m.claims.do(func(cs *claims) { cs.replied(c) })
		close(c.replied)
		cancel()
	}
	if m.asker != nil {
		m.asker.Ask(ctx, key, try, reply)
		return c
	}
	acquire := m.engine.Acquire
	if try {
		acquire = m.engine.TryAcquire
	}
	go func() { reply(acquire(ctx, key)) }()
	return c
}

// heed follows the grant. An engine that cannot tell when another process wants the key counts as wanting it from the start.
func (m *Manager) heed(c *claim) {
	if _, tells := c.grant.(Recaller); !tells {
		c.wanted.Store(&wanting{c.at, 1})
		return
	}
	c.other = make(chan struct{})
}

// listen has the engine tell, from now on, when another process wants the key. It is called when that first matters: when
// the claim was handed off, is to be kept, or its holder asks. It may cost this process a request, and each
// that waits for the key another one.
func (m *Manager) listen(c *claim) {
	if c.other == nil || c.listens.Load() || !c.listens.CompareAndSwap(false, true) {
		return
	}
	c.grant.(Recaller).OnWanted(func() {
		if m.keeper != nil {
			m.keeper.gate.before("notes that it is wanted", c)
		}
		if !c.wanted.CompareAndSwap(nil, &wanting{time.Now(), max(c.seq.Load(), 1)}) {
			return
		}
		close(c.other)
		if m.keeper != nil {
			m.keeper.heed(c)
		}
	})
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
	lost := errors.Is(err, ErrLost)
	m.claims.do(func(cs *claims) { cs.end(c, took, lost) })
	return err
}

// leave gives the key back to the engine. Called by the holder of the claim.
func (m *Manager) leave(c *claim) error {
	err := m.giveBack(c)
	if m.keeper != nil {
		m.keeper.forget(c, errors.Is(err, ErrLost))
	}
	return err
}

// contend turns the local lock into one among processes: with the claim that came with it, with the
// one that is kept, or by asking the engine.
func (m *Manager) contend(ctx context.Context, local keylock.Lock[string], try bool) (Lock, error) {
	c, _ := local.Value().(*claim)
	for c == nil && m.keeper != nil {
		kept, returned := m.keeper.take(local.Key())
		if returned == nil {
			c = kept
			break
		}
		if try {
			local.Release()
			return Lock{}, ErrHeld
		}
		select {
		case <-returned:
		case <-ctx.Done():
			local.Release()
			return Lock{}, ctx.Err()
		}
	}
	for inherited := true; ; inherited = false {
		if c == nil {
			c = m.ask(local.Key(), try)
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
			if inherited && c.seq.Load() > 0 {
				m.listen(c)
			}
			return m.newLock(local, c, c.seq.Add(1)), nil
		case c.err == nil:
			_ = m.leave(c) // it is lost, and its engine may forget it
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
		_ = m.leave(c)
	}
	local.Release()
}

// mayHandOff reports whether the claim may be handed off once more.
func (m *Manager) mayHandOff(c *claim) bool {
	if m.maxHandoffs == 0 || c.isLost() {
		return false
	}
	w := c.wanted.Load()
	return w == nil || c.seq.Load() < w.seq+uint64(m.maxHandoffs) && time.Now().Before(w.at.Add(m.maxHold))
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
