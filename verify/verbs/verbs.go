// Package verbs makes the calls of a manager, or of a session, that a request of the model
// stands for.
package verbs

import (
	"context"
	"log/slog"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
)

// A Caller is a *keylock.Manager[int] or a *keylock.Session[int].
type Caller interface {
	Acquire(context.Context, int) (keylock.Lock[int], error)
	AcquireShared(context.Context, int) (keylock.Lock[int], error)
	AcquireAll(context.Context, ...int) (keylock.Locks[int], error)
	TryAcquire(int) (keylock.Lock[int], bool)
	TryAcquireShared(int) (keylock.Lock[int], bool)
	TryAcquireAll(...int) (keylock.Locks[int], bool)
	Reserve(int) keylock.Reservation[int]
	ReserveShared(int) keylock.Reservation[int]
	ReserveAll(...int) keylock.Reservations[int]
	Do(context.Context, int, func(context.Context) error) error
}

// Bounds are the bounds of a model as options: 0 is no bound, and where MaxWaiters is
// negative no request may wait.
func Bounds(s model.State) (opts []keylock.Option) {
	if s.MaxWaiters != 0 {
		opts = append(opts, keylock.WithMaxWaiters(max(s.MaxWaiters, 0)))
	}
	if s.SharedLimit != 0 {
		opts = append(opts, keylock.WithSharedLimit(s.SharedLimit))
	}
	return opts
}

// An Observer says which of the options that only watch a manager has. The zero Observer
// has none.
type Observer struct {
	Callers, HoldTimes bool
	SlowLog            *slog.Logger // nil without
	SlowAfter          time.Duration
}

// Options are the options of an observer.
func (o Observer) Options() (opts []keylock.Option) {
	if o.Callers {
		opts = append(opts, keylock.WithCallers())
	}
	if o.HoldTimes {
		opts = append(opts, keylock.WithHoldTimes())
	}
	if o.SlowLog != nil {
		opts = append(opts, keylock.WithSlowLog(o.SlowLog, o.SlowAfter))
	}
	return opts
}

// A Lock is a grant of one key or of many.
type Lock interface {
	Release()
	Seq() uint64
}

// A Reservation is one of one key or of many.
type Reservation struct {
	Wait   func(context.Context) (Lock, error)
	Cancel func()
}

// Acquire makes the call that waits for what r asks for.
func Acquire(ctx context.Context, c Caller, r model.Request) (Lock, error) {
	switch {
	case len(r.Keys) != 1:
		return asLock(c.AcquireAll(ctx, r.Keys...))
	case r.Shared:
		return asLock(c.AcquireShared(ctx, r.Keys[0]))
	default:
		return asLock(c.Acquire(ctx, r.Keys[0]))
	}
}

// Try makes the call that does not wait for what r asks for.
func Try(c Caller, r model.Request) (Lock, bool) {
	switch {
	case len(r.Keys) != 1:
		return asLock(c.TryAcquireAll(r.Keys...))
	case r.Shared:
		return asLock(c.TryAcquireShared(r.Keys[0]))
	default:
		return asLock(c.TryAcquire(r.Keys[0]))
	}
}

// Reserve makes the call that reserves what r asks for.
func Reserve(c Caller, r model.Request) Reservation {
	if len(r.Keys) != 1 {
		all := c.ReserveAll(r.Keys...)
		return Reservation{func(ctx context.Context) (Lock, error) { return asLock(all.Wait(ctx)) }, all.Cancel}
	}
	one := c.Reserve
	if r.Shared {
		one = c.ReserveShared
	}
	v := one(r.Keys[0])
	return Reservation{func(ctx context.Context) (Lock, error) { return asLock(v.Wait(ctx)) }, v.Cancel}
}

func asLock[L Lock, R any](lock L, result R) (Lock, R) { return lock, result }
