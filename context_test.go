package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/trace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// An ownContext is a context type that the context package does not know.
type ownContext struct {
	done  chan struct{}
	err   atomic.Pointer[error]
	asked atomic.Int64 // calls of its methods
}

var errOwn = errors.New("own context ended")

func (c *ownContext) end(err error) {
	c.err.Store(&err)
	close(c.done)
}

func (c *ownContext) Done() <-chan struct{} {
	c.asked.Add(1)
	return c.done
}

func (c *ownContext) Err() error {
	c.asked.Add(1)
	if err := c.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *ownContext) Value(any) any {
	c.asked.Add(1)
	return nil
}

func (c *ownContext) Deadline() (time.Time, bool) {
	c.asked.Add(1)
	return time.Time{}, false
}

// With a context of the standard library, or one that embeds it, nothing is granted once
// its cancel function has returned, not even to a call that came before.
func TestNothingIsGrantedAfterStartsContextEnded(t *testing.T) {
	type key struct{}
	type embedding struct{ context.Context }
	contexts := map[string]func(parent context.Context) (context.Context, func()){
		"WithCancel": func(parent context.Context) (context.Context, func()) {
			return context.WithCancel(parent)
		},
		"WithCancelCause": func(parent context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(parent)
			return ctx, func() { cancel(errOwn) }
		},
		"WithTimeout": func(parent context.Context) (context.Context, func()) {
			return context.WithTimeout(parent, time.Hour)
		},
		"WithValue": func(parent context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancel(parent)
			return context.WithValue(ctx, key{}, 1), cancel
		},
		"embedded": func(parent context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancel(parent)
			return embedding{ctx}, cancel
		},
	}
	for name, newContext := range contexts {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := newContext(t.Context())
					m := keylock.Start[string](ctx)
					holder := hold(t, m, "k")
					waiter := startAcquire(t.Context(), m, "k")
					cancel()
					holder.Release()
					_, ok := m.TryAcquire("free")
					require.False(t, ok)
					_, err := m.Reserve("free").Wait(t.Context())
					require.ErrorIs(t, err, keylock.ErrClosed)
					waiter.requireErr(t, keylock.ErrClosed)
				})
			}
		})
	}
}

func TestOwnContextTypeEndsTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := &ownContext{done: make(chan struct{})}
		m := keylock.Start[string](ctx)
		hold(t, m, "k")
		waiter := startAcquire(t.Context(), m, "k")
		ctx.end(errOwn)
		waiter.requireErr(t, keylock.ErrClosed)
		<-m.Done()
	})
}

func TestOwnContextTypeIsNotWatchedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := &ownContext{done: make(chan struct{})} // never ends
		m := keylock.Start[string](ctx)
		require.NoError(t, m.Close()) // the bubble ends only when no goroutine is left
	})
}

// The owner used to look at a context derived from Start's, which ends a moment later: after
// the others that were derived before.
func TestNothingIsGrantedOnceTheEndOfStartsContextCanBeSeen(t *testing.T) {
	t.Run("a type of the user's", func(t *testing.T) {
		for range 200 {
			ctx := &ownContext{done: make(chan struct{})}
			m := keylock.Start[string](ctx)
			hold(t, m, "k")
			close(ctx.done) // and Err says nothing yet
			_, ok := m.TryAcquire("free")
			require.False(t, ok)
			<-m.Done()
		}
	})
	t.Run("with many children", func(t *testing.T) {
		for range 20 {
			ctx, cancel := context.WithCancel(context.Background())
			for range 10_000 {
				_, stop := context.WithCancel(ctx)
				defer stop()
			}
			m := keylock.Start[string](ctx)
			late := make(chan bool)
			go func() {
				<-ctx.Done()
				_, ok := m.TryAcquire("free")
				late <- ok
			}()
			cancel()
			require.False(t, <-late)
			<-m.Done()
		}
	})
}

// The goroutine of the manager ran methods of Start's context at its end, to stop watching
// it, and Close waited for them.
func TestNoMethodOfStartsContextIsCalledAfterStart(t *testing.T) {
	for name, parent := range map[string]func() (context.Context, context.CancelFunc){
		"that never ends": func() (context.Context, context.CancelFunc) { return context.Background(), func() {} },
		"of the standard library": func() (context.Context, context.CancelFunc) {
			return context.WithCancel(context.Background())
		},
		"of a type of the user's": func() (context.Context, context.CancelFunc) {
			own := &ownContext{done: make(chan struct{})}
			return own, func() { own.end(errOwn) }
		},
	} {
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ends %t", name, ends), func(t *testing.T) {
				standard, cancel := parent()
				ctx := &hostileContext{Context: standard}
				m := keylock.Start[string](ctx)
				ctx.hostile.Store(true) // from now on it panics
				l := hold(t, m, "k")
				waiter := m.Reserve("k")
				if ends {
					cancel()
				}
				watch(t, time.Minute, func() { assert.NoError(t, m.Close()) })
				_, err := waiter.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrClosed)
				l.Release()
				ctx.hostile.Store(false)
				if !ends {
					cancel()
				}
			})
		}
	}
}

// A hostileContext panics in every method, once it is hostile.
type hostileContext struct {
	context.Context
	hostile atomic.Bool
}

func (c *hostileContext) check() {
	if c.hostile.Load() {
		panic("a method of the user's context was called")
	}
}

func (c *hostileContext) Done() <-chan struct{} { c.check(); return c.Context.Done() }
func (c *hostileContext) Err() error            { c.check(); return c.Context.Err() }
func (c *hostileContext) Value(key any) any     { c.check(); return c.Context.Value(key) }

func TestStartWithADoneContextGrantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](cancelled())
		_, ok := m.TryAcquire("k")
		assert.False(t, ok)
		_, err := m.Acquire(t.Context(), "k")
		assert.ErrorIs(t, err, keylock.ErrClosed)
		<-m.Done()
	})
}

func TestStartsContextEndsAShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := keylock.Start[string](ctx)
		hold(t, m, "k")
		shutdown := startErr(func() error { return m.Shutdown(t.Context()) })
		shutdown.requireWaits(t)
		time.Sleep(time.Minute)
		shutdown.requireErr(t, keylock.ErrClosed)
	})
}

// The context of an acquisition bounds the wait, not the lock.
func TestLockOutlivesTheContextOfItsAcquisition(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		time.Sleep(1000 * time.Hour)
		requireBusy(t, m, "k")
		l.Release()
		requireFree(t, m, "k")
	})
}

// A context that is done wins over everything else that a call could return.
func TestDoneContextWins(t *testing.T) {
	calls := map[string]func(ctx context.Context, m manager) error{
		"Acquire": func(ctx context.Context, m manager) error {
			_, err := m.Acquire(ctx, "k")
			return err
		},
		"Wait": func(ctx context.Context, m manager) error {
			_, err := m.Reserve("k").Wait(ctx)
			return err
		},
		"Wait of the zero Reservation": func(ctx context.Context, _ manager) error {
			_, err := reservation{}.Wait(ctx)
			return err
		},
		"Wait of a cancelled Reservation": func(ctx context.Context, m manager) error {
			r := m.Reserve("k")
			r.Cancel()
			_, err := r.Wait(ctx)
			return err
		},
		"Do": func(ctx context.Context, m manager) error {
			return m.Do(ctx, "k", func(context.Context) error { return errOwn })
		},
		"Stats": func(ctx context.Context, m manager) error {
			_, err := m.Stats(ctx)
			return err
		},
		"Inspect": func(ctx context.Context, m manager) error {
			found, err := m.Inspect(ctx, "k")
			assert.Zero(t, found, "what is not known is not told")
			return err
		},
		"Snapshot": func(ctx context.Context, m manager) error {
			_, err := m.Snapshot(ctx)
			return err
		},
		"WaitIdle": func(ctx context.Context, m manager) error { return m.WaitIdle(ctx) },
		"Shutdown": func(ctx context.Context, m manager) error { return m.Shutdown(ctx) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			for range 50 { // a select among ready cases would be right half of the time
				bubble(t, func(t *testing.T, m manager) { // over a free key, and an idle manager
					require.ErrorIs(t, call(cancelled(), m), context.Canceled)
				})
				bubble(t, func(t *testing.T, m manager) { // over a full queue
					m.Reserve("k")
					m.Reserve("k")
					require.ErrorIs(t, call(cancelled(), m), context.Canceled)
				}, keylock.WithMaxWaiters(1))
				bubble(t, func(t *testing.T, m manager) { // over ErrClosed
					m.Close()
					require.ErrorIs(t, call(cancelled(), m), context.Canceled)
				})
			}
		})
	}
}

// Some contexts close Done a moment before Err says why, and those of tests never say. A call
// that saw the one and asked the other returned no lock and no error.
func TestContextThatClosesDoneBeforeErr(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, m manager) error{
		"Acquire": func(ctx context.Context, m manager) error { _, err := m.Acquire(ctx, "k"); return err },
		"Wait":    func(ctx context.Context, m manager) error { _, err := m.Reserve("k").Wait(ctx); return err },
		"Do": func(ctx context.Context, m manager) error {
			return m.Do(ctx, "k", func(context.Context) error { panic("beside the holder") })
		},
		"WaitIdle": func(ctx context.Context, m manager) error { return m.WaitIdle(ctx) },
		"Shutdown": func(ctx context.Context, m manager) error { return m.Shutdown(ctx) },
	} {
		run(t, name, func(t *testing.T, m manager) {
			hold(t, m, "k")
			ctx := &ownContext{done: make(chan struct{})}
			waits := startErr(func() error { return call(ctx, m) })
			waits.requireWaits(t)
			close(ctx.done)
			waits.requireErr(t, context.Canceled)
		})
	}
	run(t, "a free key", func(t *testing.T, m manager) {
		ctx := &ownContext{done: make(chan struct{})}
		close(ctx.done)
		_, err := m.Acquire(ctx, "k")
		assert.ErrorIs(t, err, context.Canceled)
		_, err = m.Stats(ctx)
		assert.ErrorIs(t, err, context.Canceled)
		requireFree(t, m, "k")
	})
}

// A panickyContext panics in its n-th call.
type panickyContext struct {
	context.Context
	calls, n int
}

func (c *panickyContext) count() {
	if c.calls++; c.calls == c.n {
		panic("a method of the user's context")
	}
}

func (c *panickyContext) Done() <-chan struct{} { c.count(); return c.Context.Done() }
func (c *panickyContext) Err() error            { c.count(); return c.Context.Err() }
func (c *panickyContext) Value(key any) any     { c.count(); return c.Context.Value(key) }

// Whichever call panics, no key is held by a call that has not returned it.
func TestContextThatPanicsStrandsNoKey(t *testing.T) {
	for name, call := range map[string]func(context.Context, manager) (lock, error){
		"Acquire": func(ctx context.Context, m manager) (lock, error) { return m.Acquire(ctx, "k") },
		"Wait": func(ctx context.Context, m manager) (lock, error) {
			r := m.Reserve("k")
			defer r.Cancel()
			return r.Wait(ctx)
		},
	} {
		for _, traced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, traced %t", name, traced), func(t *testing.T) {
				if traced {
					require.NoError(t, trace.Start(io.Discard))
					defer trace.Stop()
				}
				panics := 0
				for n := range 8 {
					for _, ends := range []bool{false, true} {
						bubble(t, func(t *testing.T, m manager) {
							holder := hold(t, m, "k")
							inner, cancel := context.WithCancel(t.Context())
							defer cancel()
							ctx := &panickyContext{Context: inner, n: n}
							caller := start(func() (l lock, err error) {
								defer func() {
									if recover() != nil {
										panics++
										err = errOwn
									}
								}()
								return call(ctx, m)
							})
							if ends {
								cancel()
							}
							holder.Release()
							if caller.over(); caller.err == nil {
								caller.requireLock(t).Release()
							}
							requireFree(t, m, "k")
						})
					}
				}
				assert.NotZero(t, panics)
			})
		}
	}
}

// An error says which key was waited for, and why the context has ended.
func TestErrorOfAContextSaysWhatWasWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errOwn)
		_, err := m.Acquire(ctx, "k")
		assert.ErrorIs(t, err, context.Canceled)
		assert.ErrorIs(t, err, errOwn)
		assert.EqualError(t, err, `keylock: key "k": context canceled: own context ended`)
		_, err = m.AcquireAll(ctx, "k", "l", "m")
		assert.EqualError(t, err, `keylock: key "k" and 2 more: context canceled: own context ended`)

		// What is not of this package is cut as keys are.
		rude, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("two\nlines" + strings.Repeat("x", 1<<20)))
		_, err = m.Acquire(rude, "k")
		assert.Less(t, len(err.Error()), 400)
		assert.Contains(t, err.Error(), `keylock: key "k": context canceled: "two\nlinesxxx`)
		_, err = m.Stats(ctx)
		assert.EqualError(t, err, "keylock: context canceled: own context ended")

		soon, cancelSoon := context.WithTimeout(t.Context(), time.Second)
		defer cancelSoon()
		_, err = m.Acquire(soon, "k")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, `keylock: key "k": context deadline exceeded`)
		var timeout interface{ Timeout() bool }
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
	})
}

// A context that ends together with the manager wins as well.
func TestContextThatEndsWithTheManagerWins(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			m := keylock.Start[string](ctx)
			hold(t, m, "k")
			waiter := startAcquire(ctx, m, "k")
			idle := startErr(func() error { return m.WaitIdle(ctx) })
			shutdown := startErr(func() error { return m.Shutdown(ctx) })
			cancel()
			waiter.requireErr(t, context.Canceled)
			idle.requireErr(t, context.Canceled)
			shutdown.requireErr(t, context.Canceled)
		})
	}
}

func TestNilContextPanicsInItsCaller(t *testing.T) {
	var none context.Context
	for name, opts := range map[string][]keylock.Option{"plain": nil, "kept": {keylock.WithKeptGrants(2)}} {
		run(t, name, func(t *testing.T, m manager) {
			r := m.Reserve("reserved")
			for name, call := range map[string]func(){
				"Start":    func() { keylock.Start[string](none) },
				"Acquire":  func() { m.Acquire(none, "k") },
				"Wait":     func() { r.Wait(none) },
				"zero":     func() { reservation{}.Wait(none) },
				"Do":       func() { m.Do(none, "k", func(context.Context) error { return nil }) },
				"Stats":    func() { m.Stats(none) },
				"Inspect":  func() { m.Inspect(none, "k") },
				"Snapshot": func() { m.Snapshot(none) },
				"WaitIdle": func() { m.WaitIdle(none) },
				"Shutdown": func() { m.Shutdown(none) },
			} {
				want := "keylock: nil context"
				if name == "Start" {
					want = "keylock: Start with a nil context"
				}
				assert.PanicsWithValue(t, want, call, name)
			}
			// Nothing has changed, and the reservation is still good.
			assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Acquired: 1}, statsOf(t, m))
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			l.Release()
			requireFree(t, m, "k")
		}, opts...)
	}
}

// A context that computes its Err, and does not close Done in time, or has none.
type computedContext struct {
	context.Context
	done chan struct{}
}

func (c computedContext) Done() <-chan struct{} { return c.done }
func (computedContext) Err() error              { return context.DeadlineExceeded }

func TestContextWithErrAndOpenDoneIsDone(t *testing.T) {
	for name, done := range map[string]chan struct{}{"no Done": nil, "open Done": make(chan struct{})} {
		run(t, name, func(t *testing.T, m manager) {
			ctx := computedContext{t.Context(), done}
			for call, err := range map[string]error{
				"Acquire": second(m.Acquire(ctx, "k")), "AcquireAll": second(m.AcquireAll(ctx, "k", "other")),
				"Do":   m.Do(ctx, "k", func(context.Context) error { return nil }),
				"Wait": second(m.Reserve("k").Wait(ctx)), "Wait for all": second(m.ReserveSet(alone("k", "other")...).Wait(ctx)),
				"Stats": second(m.Stats(ctx)), "Inspect": second(m.Inspect(ctx, "k")),
				"Top": second(m.Top(ctx, 1)), "Snapshot": second(m.Snapshot(ctx)), "WaitIdle": m.WaitIdle(ctx),
			} {
				assert.ErrorIs(t, err, context.DeadlineExceeded, call)
			}
			requireFree(t, m, "k")
			requireFree(t, m, "other")
			assert.ErrorIs(t, m.Shutdown(ctx), context.DeadlineExceeded)
		})
	}
}

func second[V any](_ V, err error) error { return err }
