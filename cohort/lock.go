package cohort

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Lock is a key held by this process. The zero Lock is released.
type Lock struct {
	holder *holder
}

// holder is what the copies of a Lock share.
type holder struct {
	m        *Manager
	local    keylock.Lock[string]
	claim    *claim
	token    Token
	released atomic.Bool
	context  atomic.Pointer[lockContext] // nil until Context is first called
}

type lockContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

func (m *Manager) newLock(local keylock.Lock[string], c *claim, seq uint64) Lock {
	return Lock{&holder{m: m, local: local, claim: c, token: Token{c.grant.Epoch(), seq}}}
}

// Key returns the key; "" for the zero Lock.
func (l Lock) Key() string {
	if l.holder == nil {
		return ""
	}
	return l.holder.local.Key()
}

// String returns the key and the token.
func (l Lock) String() string {
	if l.holder == nil {
		return "no lock"
	}
	key := l.Key()
	return fmt.Sprintf("lock of key %s, token %v", show.Quoted(&key), l.Token())
}

// Token returns the number of this holder among all holders of the key, in all
// processes; the zero Token for the zero Lock.
func (l Lock) Token() Token {
	if l.holder == nil {
		return Token{}
	}
	return l.holder.token
}

// Context returns a context that ends with the lock: with the cause [ErrLost] when it is lost, with
// context.Canceled when it is released. It carries the token, see [TokenFrom],
// and nothing else of the context of Acquire. That of the zero Lock has ended.
func (l Lock) Context() context.Context {
	h := l.holder
	if h == nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx
	}
	if c := h.context.Load(); c != nil {
		return c.Context
	}
	ctx, cancel := context.WithCancelCause(withToken(context.Background(), h.token))
	if !h.context.CompareAndSwap(nil, &lockContext{ctx, cancel}) {
		cancel(nil)
		return h.context.Load().Context
	}
	switch {
	case h.released.Load(): // by a Release that found no context to end
		cancel(nil)
	case h.claim.isLost():
		cancel(ErrLost)
	default:
		go func() {
			select {
			case <-h.claim.grant.Lost():
				cancel(ErrLost)
			case <-ctx.Done():
			}
		}()
	}
	return ctx
}

// Wanted returns a channel that is closed when another caller has to wait for the key: in this
// process, or in another as far as the engine can tell, see [Recaller], which then has been refused
// by a try perhaps. It is closed as well when it is not known whether another process wants the key, when the lock is lost and when it
// is released; that of the zero Lock is closed. A holder that can stop may release the lock then; nothing ends it.
func (l Lock) Wanted() <-chan struct{} {
	if l.holder == nil {
		return keylock.Lock[string]{}.Wanted()
	}
	l.holder.m.listen(l.holder.claim)
	here, elsewhere := l.holder.local.Wanted(), l.holder.claim.other
	if elsewhere == nil {
		return here
	}
	wanted := make(chan struct{})
	go func() {
		defer close(wanted)
		select {
		case <-here: // also when the lock is released
		case <-elsewhere:
		}
	}()
	return wanted
}

// Grant returns the engine's lock, which the local holders of the key share one
// after the other; nil for the zero Lock. An engine's own type may offer more than
// cohort.Grant does, such as etcdlock's IsOwner.
func (l Lock) Grant() Grant {
	if l.holder == nil {
		return nil
	}
	return l.holder.claim.grant
}

// Release ends the lock: it hands the key off to the next waiter of this process, or gives it
// back to the engine and waits for the engine to confirm it, for at most [WithEngineTimeout]. It depends
// on no context. It returns [ErrLost] when the lock was lost while it was held, so
// that what was done under it may have been refused by the resource; any other
// error means that the engine did not confirm it in time, and that other processes may have to
// wait until it has dropped the lock. Releasing again, or the zero Lock, does nothing
// and returns nil.
func (l Lock) Release() error {
	h := l.holder
	if h == nil || !h.released.CompareAndSwap(false, true) {
		return nil
	}
	if c := h.context.Load(); c != nil {
		c.cancel(nil)
	}
	if h.m.mayHandOff(h.claim) {
		if h.m.handOff(h.local, h.claim) {
			h.m.handoffs.Add(1)
			return nil
		}
		if h.m.keeper != nil && h.m.keeper.keep(h.claim) {
			h.local.Release()
			return nil
		}
	}
	err := h.m.leave(h.claim)
	h.local.Release()
	return err
}

// withToken returns a context that carries the token.
func withToken(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, t)
}

type tokenKey struct{}

// TokenFrom returns the token of the lock whose context this is, or that [Manager.Do]
// called with it; the zero Token if there is none.
func TokenFrom(ctx context.Context) Token {
	t, _ := ctx.Value(tokenKey{}).(Token)
	return t
}
