package cohort

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

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
// begins anew. It fails as [Manager.Acquire] does, and holds nothing then.
//
// Two rules keep it free of deadlock: a goroutine that holds a lock of this manager does not call
// AcquireAll or Acquire for other keys, and the processes spell keys alike.
func (m *Manager) AcquireAll(ctx context.Context, keys ...string) (Locks, error) {
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
		case !errors.Is(err, ErrLost) || ctx.Err() != nil:
			return Locks{}, err
		}
	}
}

// acquireSorted acquires the keys in turn. It returns ErrLost when one was lost before it had the last.
func (m *Manager) acquireSorted(ctx context.Context, keys []string) (locks []Lock, err error) {
	waits, lose := context.WithCancelCause(ctx) // ends also when one of those that are held is lost
	defer lose(nil)
	defer func() {
		if err != nil {
			_ = releaseAll(locks)
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
	return locks, ctx.Err()
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
		return fmt.Sprintf("lock of key %s and %d more", show.Quoted(&first), len(locks)-1)
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
