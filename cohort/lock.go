package cohort

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
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

// Wanted returns a channel that is closed when another caller has to wait for the key: in this process
// or, as far as the engine can tell, in another, also one whose try was refused, see [Recaller]. It is closed
// as well when an engine that can tell cannot for a while, when the lock is lost and when it is released; that
// of the zero Lock is closed. A holder that can stop may release the lock then; nothing ends it.
func (l Lock) Wanted() <-chan struct{} {
	if l.holder == nil {
		return keylock.Lock[string]{}.Wanted()
	}
	c := l.holder.claim
	l.holder.m.listen(c)
	here, lost := l.holder.local.Wanted(), c.grant.Lost()
	wanted := make(chan struct{})
	go func() {
		defer close(wanted)
		select {
		case <-here: // also when the lock is released
		case <-c.other: // nil, which is never ready, if the engine cannot tell
		case <-lost:
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

// Release ends the lock: it hands the key off to the next waiter of this process, keeps it, see [WithKeep], or gives it
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
		// The next waiter of this process finds a kept claim too, and Release need not wait for the local owner's reply.
		if h.m.keeper != nil && h.m.keeper.keep(h.claim) {
			h.local.Release()
			return nil
		}
		if h.m.handOff(h.local, h.claim) {
			h.m.handoffs.Add(1)
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

// Locks are several keys held by this process. The zero Locks is released.
type Locks struct {
	all *heldKeys
}

// heldKeys is what the copies of a Locks share.
type heldKeys struct {
	locks    []Lock // by their keys
	released atomic.Bool
	context  atomic.Pointer[lockContext] // nil until Context is first called
}

// AcquireAll waits until all the keys are granted, all or nothing. It acquires one after the other in the order
// of their bytes, so that two processes that want some of the same keys never wait for each other, in
// whichever order they name them. Keys that are named twice count once; with no keys it returns at once.
//
// While it waits for a key, it holds those before it. If one of these is lost meanwhile, it gives the others back and
// begins anew. It fails as [Manager.Acquire] does, and holds nothing then; when ctx has ended, those that it had are
// given back in the background.
//
// Two rules keep it free of deadlock: a goroutine that holds a lock of this manager does not call
// AcquireAll or Acquire for other keys, and the processes spell keys alike.
func (m *Manager) AcquireAll(ctx context.Context, keys ...string) (Locks, error) {
	m.mustBeStarted()
	ctx = ended.Sound(ctx)
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(keys) == 0 && m.refusing() {
		return Locks{}, ErrClosed
	}
	for {
		locks, err := m.acquireSorted(ctx, keys)
		switch {
		case err == nil:
			return Locks{&heldKeys{locks: locks}}, nil
		case !errors.Is(err, ErrLost):
			return Locks{}, err
		case ctx.Err() != nil: // whose cause may be the loss of another lock
			return Locks{}, ctx.Err()
		}
	}
}

// acquireSorted acquires the keys in turn. It returns ErrLost when one was lost before it had the last.
func (m *Manager) acquireSorted(ctx context.Context, keys []string) (locks []Lock, err error) {
	waits, lose := context.WithCancelCause(ctx) // ends also when one of those that are held is lost
	defer lose(nil)
	defer func() {
		if err == nil {
			return
		}
		released := inBackground(func() { _ = releaseAll(locks) })
		select {
		case <-released:
		case <-ctx.Done():
		}
	}()
	for _, key := range keys {
		l, err := m.Acquire(waits, key)
		if err != nil {
			if errors.Is(context.Cause(waits), ErrLost) {
				err = ErrLost
			}
			return locks, err
		}
		locks = append(locks, l)
		if len(locks) < len(keys) {
			held := l.Context()
			defer context.AfterFunc(held, func() { lose(context.Cause(held)) })()
		}
	}
	for _, l := range locks {
		if l.holder.claim.isLost() {
			return locks, ErrLost
		}
	}
	if ctx.Err() != nil {
		return locks, endOf(ctx, keys...)
	}
	return locks, nil
}

// releaseAll releases the locks at the same time, because each may wait for the engine, and joins the errors.
func releaseAll(locks []Lock) error {
	errs := make([]error, len(locks))
	done := make(chan struct{})
	for i, l := range locks[:max(len(locks)-1, 0)] {
		go func() {
			errs[i] = l.Release()
			done <- struct{}{}
		}()
	}
	if last := len(locks) - 1; last >= 0 {
		errs[last] = locks[last].Release()
	}
	for range len(locks) - 1 {
		<-done
	}
	return errors.Join(errs...)
}

// Keys returns the keys in the order of their bytes, each once.
func (l Locks) Keys() []string {
	if l.all == nil {
		return nil
	}
	keys := make([]string, len(l.all.locks))
	for i, one := range l.all.locks {
		keys[i] = one.Key()
	}
	return keys
}

// String returns the first key, and how many more there are; of one key what that of its [Lock] does.
func (l Locks) String() string {
	if l.all == nil {
		return "no lock"
	}
	switch locks := l.all.locks; len(locks) {
	case 0:
		return "lock of no key"
	case 1:
		return locks[0].String()
	default:
		first := locks[0].Key()
		return "lock of " + show.First(&first, len(locks))
	}
}

// Token returns the number of this holder of key among all holders of that key, in all processes; the zero
// Token if key is not one of the keys.
func (l Locks) Token(key string) Token {
	if l.all == nil {
		return Token{}
	}
	for _, one := range l.all.locks {
		if one.Key() == key {
			return one.Token()
		}
	}
	return Token{}
}

// Context returns a context that ends with the locks: with the cause [ErrLost] when any of them is lost, with
// context.Canceled when they are released. It carries no token: there is one for each key, see [Locks.Token]. That of the
// zero Locks has ended.
func (l Locks) Context() context.Context {
	all := l.all
	if all == nil {
		return Lock{}.Context()
	}
	if c := all.context.Load(); c != nil {
		return c.Context
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	if !all.context.CompareAndSwap(nil, &lockContext{ctx, cancel}) {
		cancel(nil)
		return all.context.Load().Context
	}
	if all.released.Load() { // by a Release that found no context to end
		cancel(nil)
	}
	for _, one := range all.locks {
		held := one.Context()
		stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
		context.AfterFunc(ctx, func() { stop() })
	}
	return ctx
}

// Release releases every key, as [Lock.Release] does, and returns their errors, joined: [ErrLost] among them when any
// of the keys was lost while they were held. Releasing again, or the zero Locks, does nothing and returns nil.
func (l Locks) Release() error {
	all := l.all
	if all == nil || !all.released.CompareAndSwap(false, true) {
		return nil
	}
	if c := all.context.Load(); c != nil {
		c.cancel(nil)
	}
	return releaseAll(all.locks)
}

// Token numbers the holders of one key over all processes: a later holder of the
// key has the greater token. The resource that a lock protects should
// remember the greatest token it has seen and refuse a smaller one: that, and
// not the lock, keeps out a holder that was paused past its lease.
type Token struct {
	Epoch uint64 // the engine's number for the grant; the same for all who share it
	Seq   uint64 // the position among those that share it, from 1
}

// Compare returns -1, 0 or +1 as t is smaller than, equal to or greater than u:
// by Epoch first, then by Seq.
func (t Token) Compare(u Token) int {
	return cmp.Or(cmp.Compare(t.Epoch, u.Epoch), cmp.Compare(t.Seq, u.Seq))
}

// String returns the token in a form whose alphabetical order is Compare's, for
// stores that compare text.
func (t Token) String() string {
	return fmt.Sprintf("%016x-%016x", t.Epoch, t.Seq)
}
