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
	AcquireAll(context.Context, ...int) (keylock.Lock[int], error)
	AcquireSet(context.Context, ...keylock.Want[int]) (keylock.Lock[int], error)
	TryAcquire(int) (keylock.Lock[int], bool)
	TryAcquireSet(...keylock.Want[int]) (keylock.Lock[int], bool)
	Reserve(int) keylock.Reservation[int]
	ReserveSet(...keylock.Want[int]) keylock.Reservation[int]
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

// Acquire makes the call that waits for what r asks for.
func Acquire(ctx context.Context, c Caller, r model.Request) (keylock.Lock[int], error) {
	switch {
	case r.Plain() && len(r.Keys) == 1:
		return c.Acquire(ctx, r.Keys[0])
	case r.Plain():
		return c.AcquireAll(ctx, r.Keys...)
	case len(r.Keys) == 1 && r.Of(r.Keys[0]).Limit == 0:
		return c.AcquireShared(ctx, r.Keys[0])
	}
	return c.AcquireSet(ctx, wants(r)...)
}

// Try makes the call that does not wait for what r asks for.
func Try(c Caller, r model.Request) (keylock.Lock[int], bool) {
	if r.Plain() && len(r.Keys) == 1 {
		return c.TryAcquire(r.Keys[0])
	}
	return c.TryAcquireSet(wants(r)...)
}

// Reserve makes the call that reserves what r asks for.
func Reserve(c Caller, r model.Request) keylock.Reservation[int] {
	if r.Plain() && len(r.Keys) == 1 {
		return c.Reserve(r.Keys[0])
	}
	return c.ReserveSet(wants(r)...)
}

// wants are the keys of r with their modes.
func wants(r model.Request) (set []keylock.Want[int]) {
	for _, key := range r.Keys {
		w := keylock.Want[int]{Key: key, Limit: r.Of(key).Limit}
		if r.Of(key).Shared {
			w.Mode = keylock.Shared
		}
		set = append(set, w)
	}
	return set
}
