package cohort_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// world is a store and the managers of the processes that share it.
type world struct {
	t     *testing.T
	store *cohorttest.Store
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t, cohorttest.NewStore()}
		t.Cleanup(w.store.Close)
		test(t, w)
	})
}

// process starts the manager of one more process, and closes it when the test ends.
func (w *world) process(opts ...cohort.Option) (*cohort.Manager, *cohorttest.Engine) {
	e := w.store.Engine()
	m := cohort.Start(context.Background(), e, opts...)
	w.t.Cleanup(func() { _ = m.Close() })
	return m, e
}

func acquire(t *testing.T, m *cohort.Manager, key string) cohort.Lock {
	l, err := m.Acquire(t.Context(), key)
	require.NoError(t, err)
	return l
}

// result is what an Acquire in the background returned.
type result struct {
	lock cohort.Lock
	err  error
}

// wait starts an Acquire and returns when it waits.
func wait(ctx context.Context, m *cohort.Manager, key string) <-chan result {
	c := make(chan result, 1)
	go func() {
		l, err := m.Acquire(ctx, key)
		c <- result{l, err}
	}()
	synctest.Wait()
	return c
}

func TestKeyIsHandedOffInOrderWithoutTheEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		first := acquire(t, m, "k")
		var waiting []<-chan result
		for range 3 {
			waiting = append(waiting, wait(t.Context(), m, "k"))
		}
		held := first
		for i, next := range waiting {
			assert.Empty(t, next)
			require.NoError(t, held.Release())
			got := <-next
			require.NoError(t, got.err)
			assert.Equal(t, cohort.Token{Epoch: 1, Seq: uint64(i) + 2}, got.lock.Token())
			assert.Equal(t, first.Grant(), got.lock.Grant())
			held = got.lock
		}
		require.NoError(t, held.Release())
		assert.Zero(t, w.store.Len("k"))
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, uint64(1), stats.Granted)
		assert.Equal(t, uint64(3), stats.Handoffs)
		assert.Equal(t, uint64(4), stats.Local.Acquired)
	})
}

func TestHandoffsAreBoundedByCount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process(cohort.WithMaxHandoffs(2), cohort.WithMaxHold(time.Hour))
		theirs, _ := w.process(cohort.WithMaxHandoffs(2), cohort.WithMaxHold(time.Hour))
		var order []string
		var all sync.WaitGroup
		work := func(name string, m *cohort.Manager) {
			l := acquire(t, m, "k")
			order = append(order, name) // nothing else protects it
			time.Sleep(time.Millisecond)
			assert.NoError(t, l.Release())
		}
		for range 6 {
			all.Go(func() { work("o", ours) })
		}
		synctest.Wait()
		for range 6 {
			all.Go(func() { work("t", theirs) })
		}
		all.Wait()
		assert.Equal(t, []string{"o", "o", "o", "t", "t", "t", "o", "o", "o", "t", "t", "t"}, order)
	})
}

func TestHandoffsAreBoundedByTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process(cohort.WithMaxHandoffs(1000), cohort.WithMaxHold(50*time.Millisecond))
		theirs, _ := w.process()
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for ctx.Err() == nil {
					if l, err := ours.Acquire(ctx, "k"); err == nil {
						time.Sleep(time.Millisecond)
						assert.NoError(t, l.Release())
					}
				}
			})
		}
		time.Sleep(time.Millisecond / 2)
		began := time.Now()
		l := acquire(t, theirs, "k")
		assert.InDelta(t, 50*time.Millisecond, time.Since(began), float64(2*time.Millisecond))
		assert.NoError(t, l.Release())
		cancel()
		all.Wait()
	})
}

func TestNoHandoffsAsksTheEngineEveryTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process(cohort.WithMaxHandoffs(0))
		first := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		require.NoError(t, first.Release())
		assert.Equal(t, cohort.Token{Epoch: 2, Seq: 1}, (<-next).lock.Token())
	})
}

func TestTokensGrowAcrossProcesses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var processes []*cohort.Manager
		for range 3 {
			m, _ := w.process(cohort.WithMaxHandoffs(3))
			processes = append(processes, m)
		}
		var last cohort.Token
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				l := acquire(t, processes[i%3], "k")
				assert.Equal(t, 1, l.Token().Compare(last), "%v after %v", l.Token(), last)
				last = l.Token()
				time.Sleep(time.Duration(i%5) * time.Microsecond)
				assert.NoError(t, l.Release())
			})
		}
		all.Wait()
		assert.Zero(t, w.store.Len("k"))
	})
}

func TestLossIsReportedAndEndsTheHandoff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		l := acquire(t, m, "k")
		other := acquire(t, m, "other")
		next := wait(t.Context(), m, "k")
		require.NoError(t, l.Context().Err())

		e.Expire()
		synctest.Wait()
		require.ErrorIs(t, context.Cause(l.Context()), cohort.ErrLost)
		require.ErrorIs(t, context.Cause(other.Context()), cohort.ErrLost)
		assert.Empty(t, next, "in this process, the holder still has the key")
		require.ErrorIs(t, l.Release(), cohort.ErrLost)
		got := <-next
		require.NoError(t, got.err)
		assert.Equal(t, cohort.Token{Epoch: 3, Seq: 1}, got.lock.Token(), "acquired anew")
		require.NoError(t, got.lock.Release())
		require.ErrorIs(t, other.Release(), cohort.ErrLost)
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, uint64(2), stats.Lost)
	})
}

func TestLossWhileTheHandoffIsUnderWay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		e.Revoke() // not known here yet
		theirs, _ := w.process()
		stolen := acquire(t, theirs, "k")
		require.NoError(t, l.Release())
		stale := <-next
		assert.Equal(t, -1, stale.lock.Token().Compare(stolen.Token()), "the token tells who is late")
		require.ErrorIs(t, stale.lock.Release(), cohort.ErrLost)
		require.NoError(t, stolen.Release())
	})
}

// lostFirst is an engine whose first grant is lost by the time it is looked at.
type lostFirst struct {
	*cohorttest.Engine
	grants int
}

func (e *lostFirst) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	g, err := e.Engine.Acquire(ctx, key)
	if e.grants++; e.grants == 1 {
		e.Expire()
	}
	return g, err
}

// silent is an engine that returns neither a grant nor an error the first time.
type silent struct {
	*simple
	calls int
}

func (e *silent) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	if e.calls++; e.calls == 1 {
		return nil, nil
	}
	return e.simple.Acquire(ctx, key)
}

func TestEngineThatReturnsNeitherAGrantNorAnErrorIsFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := cohort.Start(t.Context(), &silent{simple: &simple{w.store.Engine()}})
		defer m.Close()
		_, err := m.Acquire(t.Context(), "k")
		require.EqualError(t, err, "cohort: the engine returned neither a grant nor an error")
		l := acquire(t, m, "k")
		require.NoError(t, l.Release())
		assert.Equal(t, uint64(1), statsOf(t, m).Refused)
	})
}

func TestGrantThatIsLostOnArrivalIsNotUsed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := cohort.Start(t.Context(), &lostFirst{Engine: w.store.Engine()})
		defer m.Close()
		l := acquire(t, m, "k")
		assert.Equal(t, cohort.Token{Epoch: 2, Seq: 1}, l.Token())
		require.NoError(t, l.Release())
	})
}

func TestReleaseTwiceEndsOneLock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		l := acquire(t, m, "k")
		again := l
		next := wait(t.Context(), m, "k")
		third := wait(t.Context(), m, "k")
		require.NoError(t, l.Release())
		got := <-next
		require.NoError(t, again.Release())
		synctest.Wait()
		assert.Empty(t, third)
		require.ErrorIs(t, l.Context().Err(), context.Canceled)
		require.NoError(t, got.lock.Context().Err())
		require.NoError(t, got.lock.Release())
		require.NoError(t, (<-third).lock.Release())
		assert.Zero(t, w.store.Len("k"))
	})
}

// What a process calls itself at an engine, any client may have written there.
func TestHeldErrorIsOneVisibleLine(t *testing.T) {
	err := &cohort.HeldError{Holder: cohort.Contender{Process: cohort.ParseProcess("web:1 a\nlevel=ERROR")}}
	assert.EqualError(t, err, `cohort: key held by "web:1 a\nlevel=ERROR"`)
	err.Holder.Process.Label = "checkout"
	assert.EqualError(t, err, "cohort: key held by web:1 checkout")
}

func TestZeroLock(t *testing.T) {
	var l cohort.Lock
	require.NoError(t, l.Release())
	assert.Zero(t, l.Key())
	assert.Zero(t, l.Token())
	assert.Nil(t, l.Grant())
	assert.Error(t, l.Context().Err())
}

// The process's entry in the engine's queue outlives the caller it was made for.
func TestCancelledCallerLeavesItsClaimToTheNextWaiter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process()
		theirs, _ := w.process()
		last, _ := w.process()
		held := acquire(t, theirs, "k")
		ctx, cancel := context.WithCancel(t.Context())
		first := wait(ctx, ours, "k")
		second := wait(t.Context(), ours, "k")
		behind := wait(t.Context(), last, "k")
		require.Equal(t, 3, w.store.Len("k"))

		cancel()
		require.ErrorIs(t, (<-first).err, context.Canceled)
		synctest.Wait()
		require.Equal(t, 3, w.store.Len("k"))
		require.NoError(t, held.Release())
		got := <-second
		require.NoError(t, got.err)
		assert.Empty(t, behind)
		require.NoError(t, got.lock.Release())
		require.NoError(t, (<-behind).lock.Release())
	})
}

func TestCancelledCallerWithoutSuccessorLeavesTheQueue(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process()
		theirs, _ := w.process()
		held := acquire(t, theirs, "k")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := ours.Acquire(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		assert.Equal(t, 1, w.store.Len("k"))
		require.NoError(t, ours.WaitIdle(t.Context()))
		require.NoError(t, held.Release())
		require.NoError(t, acquire(t, ours, "k").Release())
	})
}

// A waiter that gives up at the very moment at which the key is handed to it must not take the
// engine's lock with it. It is not in a bubble: the moment has to be hit.
func TestHandoffToACancelledWaiterIsNotLost(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(t.Context(), store.Engine())
	defer m.Close()
	for range 3000 {
		l := acquire(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan result, 1)
		go func() {
			l, err := m.Acquire(ctx, "k")
			gone <- result{l, err}
		}()
		for range rand.IntN(20) {
			runtime.Gosched()
		}
		go cancel()
		for range rand.IntN(20) {
			runtime.Gosched()
		}
		require.NoError(t, l.Release())
		if r := <-gone; r.err == nil {
			require.NoError(t, r.lock.Release())
		}
		cancel()
		require.NoError(t, m.WaitIdle(t.Context()))
		// An engine removes an abandoned entry after it has replied.
		require.Eventually(t, func() bool { return store.Len("k") == 0 }, time.Minute, time.Millisecond,
			"the engine's lock was left behind")
	}
}

func TestContextThatIsDoneNeverAcquires(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.Acquire(ctx, "k")
		require.ErrorIs(t, err, context.Canceled)
		_, err = m.TryAcquire(ctx, "k")
		require.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, w.store.Len("k"))
	})
}

// earlyContext closes Done before it sets Err, and its methods panic when they are called once more.
type earlyContext struct {
	context.Context
	done  chan struct{}
	calls atomic.Int64 // that are left
}

func (c *earlyContext) Done() <-chan struct{} { c.called(); return c.done }

func (c *earlyContext) Err() error { c.called(); return nil }

func (c *earlyContext) called() {
	if c.calls.Add(-1) < 0 {
		panic("once too often")
	}
}

// A call fails closed whatever its context does: it returns an error if it has no lock, and strands no key.
func TestContextWithoutErrAndWithPanicsStrandsNoKey(t *testing.T) {
	for calls := range int64(8) {
		inWorld(t, func(t *testing.T, w *world) {
			theirs, _ := w.process()
			holder := acquire(t, theirs, "k")
			m, _ := w.process()
			ctx := &earlyContext{Context: t.Context(), done: make(chan struct{})}
			ctx.calls.Store(calls)
			var l cohort.Lock
			var err error
			go func() {
				defer func() {
					if recover() != nil {
						err = errors.New("it has panicked")
					}
				}()
				l, err = m.Acquire(ctx, "k")
			}()
			synctest.Wait()
			close(ctx.done)
			synctest.Wait()
			require.Error(t, err)
			require.Equal(t, cohort.Lock{}, l)
			require.NoError(t, holder.Release())

			after, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err = m.Acquire(after, "k")
			require.NoError(t, err, "%d calls of its methods", calls)
			require.NoError(t, l.Release())
		})
	}
}

// deadly is a context that panics when it is asked for its error.
type deadly struct{ context.Context }

func (deadly) Err() error { panic("asked") }

// A caller whose context panics waits no more: a release without a waiter asks the local owner for none.
func TestContextThatPanicsLeavesNoWaiter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		assert.PanicsWithValue(t, "asked", func() { _, _ = m.Acquire(deadly{t.Context()}, "k") })
		requests := func() uint64 {
			s, err := m.Stats(t.Context())
			require.NoError(t, err)
			return s.Local.Requests
		}
		before := requests()
		require.NoError(t, acquire(t, m, "k").Release())
		assert.Equal(t, uint64(3), requests()-before, "the key, its release and the second look")
	})
}

// What is derived from a context that ends without an error must not, because package context panics then.
func TestContextWithoutErrMayBeDerivedFrom(t *testing.T) {
	for name, call := range map[string]func(context.Context, *cohort.Manager) error{
		"AcquireAll": func(ctx context.Context, m *cohort.Manager) error {
			_, err := m.AcquireAll(ctx, "j", "k")
			return err
		},
		"Do": func(ctx context.Context, m *cohort.Manager) error {
			return m.Do(ctx, "j", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		},
		"Snapshot": func(ctx context.Context, m *cohort.Manager) error { _, err := m.Snapshot(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				theirs, _ := w.process()
				holder := acquire(t, theirs, "k")
				m, e := w.process()
				next := wait(t.Context(), m, "k")
				synctest.Wait()
				if name == "Snapshot" {
					e.Cut() // it asks the engine who holds the key, and waits
				}
				ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
				returned := make(chan error, 1)
				go func() { returned <- call(ctx, m) }()
				synctest.Wait()
				close(ctx.Ended)
				require.ErrorIs(t, <-returned, context.Canceled)
				e.Heal()
				require.NoError(t, holder.Release())
				require.NoError(t, (<-next).lock.Release())
			})
		})
	}
}

// The context of a lock that is lost ends with ErrLost as its cause, but that is no loss of the keys of this call.
func TestAcquireAllUnderTheContextOfALostLock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cohort.ErrLost)
		_, err := m.AcquireAll(ctx, "j", "l")
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, cohort.ErrLost)
	})
}

func TestTryAcquireReportsWhyItFailed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, engine := w.process()
		theirs, _ := w.process()
		l, err := ours.TryAcquire(t.Context(), "k")
		require.NoError(t, err)
		_, err = ours.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld, "held here")
		_, err = theirs.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld, "held there")
		require.NoError(t, theirs.WaitIdle(t.Context()))
		require.NoError(t, l.Release())
		l, err = theirs.TryAcquire(t.Context(), "k")
		require.NoError(t, err)
		require.NoError(t, l.Release())

		engine.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err = ours.TryAcquire(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded, "out of reach")
		assert.Equal(t, time.Second, time.Since(began))
		engine.Heal()

		refused := errors.New("permission denied")
		refusing := cohort.Start(t.Context(), w.store.Engine(cohorttest.Fault{Call: cohorttest.Acquire, Err: refused}))
		defer refusing.Close()
		_, err = refusing.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, refused)
		l, err = refusing.TryAcquire(t.Context(), "k")
		require.NoError(t, err, "a try that was refused leaves nothing behind")
		go refusing.Shutdown(t.Context())
		synctest.Wait()
		_, err = refusing.TryAcquire(t.Context(), "other")
		require.ErrorIs(t, err, cohort.ErrClosed, "shutting down")
		require.NoError(t, l.Release())
		<-refusing.Done()
		_, err = refusing.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrClosed)
	})
}

// A waiter behind a TryAcquire does not inherit its impatience.
func TestWaiterBehindATryGoesOnWaiting(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		held := acquire(t, theirs, "k")
		ours := cohort.Start(t.Context(), w.store.Engine(cohorttest.Fault{Call: cohorttest.Acquire, Delay: time.Second}))
		defer ours.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		tried := make(chan error, 1)
		go func() {
			_, err := ours.TryAcquire(ctx, "k")
			tried <- err
		}()
		synctest.Wait()
		waiting := wait(t.Context(), ours, "k")
		require.ErrorIs(t, <-tried, context.DeadlineExceeded)
		time.Sleep(2 * time.Second)
		assert.Empty(t, waiting)
		require.NoError(t, held.Release())
		got := <-waiting
		require.NoError(t, got.err)
		require.NoError(t, got.lock.Release())
	})
}

func TestEngineErrorGoesToTheCallerAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refused := errors.New("permission denied")
		m := cohort.Start(t.Context(), w.store.Engine(cohorttest.Fault{Call: cohorttest.Acquire, Delay: time.Second, Err: refused}))
		defer m.Close()
		first := wait(t.Context(), m, "k")
		second := wait(t.Context(), m, "k")
		require.ErrorIs(t, (<-first).err, refused)
		got := <-second
		require.NoError(t, got.err)
		require.NoError(t, got.lock.Release())
	})
}

func TestDo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		failed := errors.New("failed")
		require.ErrorIs(t, m.Do(t.Context(), "k", func(ctx context.Context) error {
			assert.Equal(t, cohort.Token{Epoch: 1, Seq: 1}, cohort.TokenFrom(ctx))
			assert.Equal(t, 1, w.store.Len("k"))
			return failed
		}), failed)
		assert.Panics(t, func() {
			_ = m.Do(t.Context(), "k", func(context.Context) error { panic("oh") })
		})
		require.NoError(t, m.WaitIdle(t.Context()))

		err := m.Do(t.Context(), "k", func(ctx context.Context) error {
			e.Expire()
			<-ctx.Done()
			assert.Equal(t, cohort.ErrLost, context.Cause(ctx))
			return nil
		})
		require.ErrorIs(t, err, cohort.ErrLost)

		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, m.Do(ctx, "k", func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return nil
		}), "the end of the caller's context does not lose the lock")
		assert.Zero(t, cohort.TokenFrom(t.Context()))
	})
}

func TestSnapshotAndWaitIdle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 1)
		assert.Equal(t, "k", keys[0].Key)
		assert.Equal(t, 1, keys[0].Held)
		assert.Equal(t, 1, keys[0].Waiting)
		idle := make(chan error, 1)
		go func() { idle <- m.WaitIdle(t.Context()) }()
		require.NoError(t, l.Release())
		synctest.Wait()
		assert.Empty(t, idle)
		require.NoError(t, (<-next).lock.Release())
		require.NoError(t, <-idle)
	})
}

func TestShutdownServesWaiters(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process()
		theirs, _ := w.process()
		held := acquire(t, theirs, "k")
		first, second := wait(t.Context(), ours, "k"), wait(t.Context(), ours, "k")
		down := make(chan error, 1)
		go func() { down <- ours.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err := ours.Acquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrClosed)
		require.NoError(t, held.Release())
		require.NoError(t, (<-first).lock.Release())
		got := <-second
		assert.Empty(t, down)
		require.NoError(t, got.lock.Release())
		require.NoError(t, <-down)
		<-ours.Done()
		require.NoError(t, ours.Close())
	})
}

func TestCloseReachesHoldersAndWaiters(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ours, _ := w.process()
		theirs, _ := w.process()
		held := acquire(t, ours, "ours")
		foreign := acquire(t, theirs, "k")
		atEngine, behind := wait(t.Context(), ours, "k"), wait(t.Context(), ours, "k")
		require.NoError(t, ours.Close())
		require.ErrorIs(t, (<-atEngine).err, cohort.ErrClosed)
		require.ErrorIs(t, (<-behind).err, cohort.ErrClosed)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(held.Context()), cohort.ErrLost)
		assert.Zero(t, w.store.Len("ours"))
		require.ErrorIs(t, held.Release(), cohort.ErrLost)
		_, err := ours.Stats(t.Context())
		require.ErrorIs(t, err, cohort.ErrClosed)
		require.ErrorIs(t, ours.WaitIdle(t.Context()), keylock.ErrClosed)
		require.NoError(t, foreign.Release())
	})
}

func TestEndOfStartsContextCloses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		m := cohort.Start(ctx, w.store.Engine())
		l := acquire(t, m, "k")
		cancel()
		<-m.Done()
		require.ErrorIs(t, l.Release(), cohort.ErrLost)
		assert.Zero(t, w.store.Len("k"))
	})
}

// With the engine out of reach, waits end with their contexts and the rest within the WithEngineTimeout.
func TestUnreachableEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process(cohort.WithEngineTimeout(3 * time.Second))
		l := acquire(t, m, "held")
		e.Cut()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := wait(ctx, m, "k")
		second := wait(ctx, m, "k")
		require.ErrorIs(t, (<-first).err, context.DeadlineExceeded)
		require.ErrorIs(t, (<-second).err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))

		require.ErrorIs(t, l.Release(), context.DeadlineExceeded)
		assert.Equal(t, 4*time.Second, time.Since(began))
		require.ErrorIs(t, m.Close(), context.DeadlineExceeded)
		assert.Equal(t, 7*time.Second, time.Since(began))
	})
}

// With the engine out of reach, a wait ends with its context also where it has a claim to give back: that is done in
// the background, with the key locked in this process until it is over.
func TestUnreachableEngineDelaysNoEndOfAWait(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		theirs, _ := w.process()
		held := acquire(t, theirs, "b")
		keepsKey(t, m, "lost")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		all := make(chan error, 1)
		go func() {
			_, err := m.AcquireAll(ctx, "a", "b")
			all <- err
		}()
		synctest.Wait()
		e.Cut()
		e.Pause() // it is noticed by the caller that finds the key kept
		one := wait(ctx, m, "lost")
		require.ErrorIs(t, <-all, context.DeadlineExceeded)
		require.ErrorIs(t, (<-one).err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		_, err := m.TryAcquire(t.Context(), "lost")
		require.ErrorIs(t, err, cohort.ErrHeld, "it is being given back")
		e.Heal()
		require.NoError(t, held.Release())
		for _, key := range []string{"a", "b", "lost"} {
			require.NoError(t, acquire(t, m, key).Release())
		}
	})
}

// Processes come, abandon waits, lose their sessions and are cut off; in the end everything is free.
func TestManyProcessesInTrouble(t *testing.T) { trouble(t) }

// With keys that are kept, nothing is left either.
func TestManyProcessesInTroubleThatKeepKeys(t *testing.T) {
	stats := trouble(t, cohort.WithKeep(20*time.Millisecond, 2))
	assert.NotZero(t, stats.Hits)
	assert.NotZero(t, stats.Recalls)
}

// trouble returns what all the managers have counted.
func trouble(t *testing.T, opts ...cohort.Option) (total cohort.Stats) {
	inWorld(t, func(t *testing.T, w *world) {
		last := make(map[string]cohort.Token) // what the resource remembers
		var mu sync.Mutex
		var refused, written int
		var managers []*cohort.Manager
		write := func(l cohort.Lock) {
			mu.Lock()
			defer mu.Unlock()
			if l.Token().Compare(last[l.Key()]) < 0 {
				refused++
				return
			}
			assert.NotEqual(t, l.Token(), last[l.Key()])
			last[l.Key()] = l.Token()
			written++
		}
		var all sync.WaitGroup
		for p := range 4 {
			m, e := w.process(append(opts, cohort.WithMaxHandoffs(5), cohort.WithEngineTimeout(time.Second))...)
			managers = append(managers, m)
			random := rand.New(rand.NewPCG(uint64(p), 1))
			seeds := make([]uint64, 8)
			for i := range seeds {
				seeds[i] = random.Uint64()
			}
			all.Go(func() {
				for range 20 {
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
					switch random.IntN(4) {
					case 0:
						e.Expire()
					case 1:
						e.Revoke()
						time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
						e.Notice()
					case 2:
						e.Cut()
						time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
						e.Heal()
					case 3:
						e.Deafen()
						time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
						e.Hear()
					}
				}
			})
			for _, seed := range seeds {
				all.Go(func() {
					random := rand.New(rand.NewPCG(seed, 2))
					for range 100 {
						key := fmt.Sprint("k", random.IntN(3))
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(10))*time.Millisecond)
						l, err := m.Acquire(ctx, key)
						cancel()
						if err != nil {
							assert.ErrorIs(t, err, context.DeadlineExceeded)
							continue
						}
						time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
						write(l)
						_ = l.Release()
					}
				})
			}
		}
		all.Wait()
		time.Sleep(time.Minute) // for what is cleaned up in the background
		for key := range last {
			assert.Zero(t, w.store.Len(key), key)
		}
		for _, m := range managers {
			stats := statsOf(t, m)
			total.Hits += stats.Hits
			total.Recalls += stats.Recalls
			assert.Zero(t, stats.Held)
			assert.Zero(t, stats.Kept)
		}
		t.Logf("%d writes, %d refused, %d hits, %d recalls", written, refused, total.Hits, total.Recalls)
		assert.Greater(t, written, 300)
	})
	return total
}

func TestManagerThatStartDidNotMakePanicsWithASentence(t *testing.T) {
	ctx := context.Background()
	for _, m := range []*cohort.Manager{nil, new(cohort.Manager)} {
		for name, call := range map[string]func(){
			"Acquire":    func() { _, _ = m.Acquire(ctx, "k") },
			"TryAcquire": func() { _, _ = m.TryAcquire(ctx, "k") },
			"AcquireAll": func() { _, _ = m.AcquireAll(ctx, "k") },
			"Do":         func() { _ = m.Do(ctx, "k", func(context.Context) error { return nil }) },
			"WaitIdle":   func() { _ = m.WaitIdle(ctx) },
			"Shutdown":   func() { _ = m.Shutdown(ctx) },
			"Close":      func() { _ = m.Close() },
			"Done":       func() { m.Done() },
			"Stats":      func() { _, _ = m.Stats(ctx) },
			"Snapshot":   func() { _, _ = m.Snapshot(ctx) },
			"Top":        func() { _, _ = m.Top(ctx, 1) },
			"Inspect":    func() { _, _ = m.Inspect(ctx, "k") },
		} {
			assert.PanicsWithValue(t, "cohort: a Manager must be made by Start", call, name)
		}
		assert.Equal(t, "no manager", m.String())
	}
}

func TestNilArgumentsPanicInTheirCaller(t *testing.T) {
	var none context.Context
	var absent *cohorttest.Engine // as a New returns it with an error
	for _, engine := range []cohort.Engine{nil, absent} {
		assert.PanicsWithValue(t, "cohort: Start with a nil engine", func() { cohort.Start(t.Context(), engine) })
	}
	store := cohorttest.NewStore()
	defer store.Close()
	engine := store.Engine()
	assert.PanicsWithValue(t, "cohort: Start with a nil context", func() { cohort.Start(none, engine) })
	assert.PanicsWithValue(t, "cohort: Start with a nil Option", func() { cohort.Start(t.Context(), engine, nil) })
	assert.PanicsWithValue(t, "keylock: Start with a nil Option", func() { cohort.Start(t.Context(), engine, cohort.WithLocal(keylock.Option(nil))) })
	m := cohort.Start(t.Context(), engine) // which has no manager yet
	defer m.Close()
	assert.PanicsWithValue(t, "cohort: Do with a nil function", func() { m.Do(t.Context(), "k", nil) })
	assert.PanicsWithValue(t, "cohort: nil context", func() { m.Shutdown(none) })
	for name, call := range map[string]func(){
		"Acquire":              func() { _, _ = m.Acquire(none, "k") },
		"TryAcquire":           func() { _, _ = m.TryAcquire(none, "k") },
		"AcquireAll":           func() { _, _ = m.AcquireAll(none, "k") },
		"AcquireAll of no key": func() { _, _ = m.AcquireAll(none) },
		"Do":                   func() { _ = m.Do(none, "k", func(context.Context) error { return nil }) },
		"WaitIdle":             func() { _ = m.WaitIdle(none) },
		"Stats":                func() { _, _ = m.Stats(none) },
		"Top":                  func() { _, _ = m.Top(none, 1) },
		"Snapshot":             func() { _, _ = m.Snapshot(none) },
		"Inspect":              func() { _, _ = m.Inspect(none, "k") },
	} {
		func() {
			defer func() { assert.Regexp(t, "^(keylock|cohort): nil context$", recover(), name) }()
			call()
		}()
	}
	for want, option := range map[string]func(){
		"cohort: WithMaxHandoffs(-1): want 0 or more":     func() { cohort.WithMaxHandoffs(-1) },
		"cohort: WithMaxHold(-1ns): want more than 0":     func() { cohort.WithMaxHold(-1) },
		"cohort: WithEngineTimeout(0s): want more than 0": func() { cohort.WithEngineTimeout(0) },
		"cohort: WithSlowLog(0s): want more than 0":       func() { cohort.WithSlowLog(slog.Default(), 0) },
		"cohort: WithSlowLog with a nil logger":           func() { cohort.WithSlowLog(nil, 1) },
	} {
		assert.PanicsWithValue(t, want, option)
	}
	_, err := m.AcquireAll(t.Context())
	require.NoError(t, err, "it is not shutting down")
}

// wrapped is an engine that is a value: it can be compared if what it has can.
type wrapped struct{ cohort.Engine }

type incomparable struct {
	cohort.Engine
	_ []int
}

func TestEngineThatCannotBeComparedMayHaveAManager(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	engine := store.Engine()
	m := cohort.Start(t.Context(), wrapped{engine})
	assert.Panics(t, func() { cohort.Start(t.Context(), wrapped{engine}) }, "it is the same")
	require.NoError(t, m.Close())
	m = cohort.Start(t.Context(), wrapped{incomparable{Engine: store.Engine()}})
	require.NoError(t, acquire(t, m, "k").Release())
	require.NoError(t, m.Close())
}

// processes returns managers of different processes, which are closed when the test ends.
func processes(t *testing.T, store *cohorttest.Store, n int) (managers []*cohort.Manager, engines []*cohorttest.Engine) {
	for range n {
		e := store.Engine()
		m := cohort.Start(t.Context(), e, cohort.WithMaxHandoffs(1))
		t.Cleanup(func() { assert.NoError(t, m.Close()) })
		managers, engines = append(managers, m), append(engines, e)
	}
	return managers, engines
}

func TestNoKeysOfAClosedManagerAreRefused(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(t.Context(), store.Engine())
	none, err := m.AcquireAll(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Close())
	assert.NoError(t, none.Release())
	_, err = m.AcquireAll(t.Context())
	assert.ErrorIs(t, err, cohort.ErrClosed)
}

// Three processes name overlapping keys in every order, and never wait for each other for good.
func TestAllKeysWithoutDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, _ := processes(t, store, 3)
		names := []string{"a", "b", "c", "d"}
		var inside [4]atomic.Int32
		last := make([]cohort.Token, len(names)) // written by the holder of the key
		done := make(chan error)
		const goroutines, rounds = 4, 50
		for _, m := range managers {
			for range goroutines {
				go func() {
					done <- func() error {
						for range rounds {
							order := rand.Perm(len(names))[:1+rand.IntN(len(names))]
							var keys []string
							for _, i := range order {
								keys = append(keys, names[i])
							}
							held, err := m.AcquireAll(t.Context(), keys...)
							if err != nil {
								return err
							}
							for _, i := range order {
								if inside[i].Add(1) != 1 {
									return errors.New("two are inside")
								}
								token := held.Token(names[i])
								if token.Compare(last[i]) <= 0 {
									return errors.New("the token has not grown")
								}
								last[i] = token
							}
							time.Sleep(time.Millisecond)
							for _, i := range order {
								inside[i].Add(-1)
							}
							if err := held.Release(); err != nil {
								return err
							}
						}
						return nil
					}()
				}()
			}
		}
		for range len(managers) * goroutines {
			require.NoError(t, <-done)
		}
	})
}

func TestAllKeysOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, _ := processes(t, store, 2)
		here, there := managers[0], managers[1]
		last, err := there.Acquire(t.Context(), "c")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failed, err := here.AcquireAll(ctx, "c", "a", "b")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Zero(t, failed)
		assert.Empty(t, failed.Keys())
		require.NoError(t, failed.Release())
		require.Error(t, failed.Context().Err())
		require.NoError(t, here.WaitIdle(t.Context()), "it holds nothing")
		require.NoError(t, last.Release())

		held, err := here.AcquireAll(t.Context(), "c", "a", "b", "a")
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "c"}, held.Keys())
		assert.Positive(t, held.Token("c").Compare(last.Token()))
		assert.Zero(t, held.Token("d"))
		ends := held.Context()
		require.NoError(t, ends.Err())
		require.NoError(t, held.Release())
		require.NoError(t, held.Release(), "again")
		assert.Equal(t, context.Canceled, context.Cause(ends))
		require.Error(t, held.Context().Err())

		none, err := here.AcquireAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, none.Context().Err())
		require.NoError(t, none.Release())
		unasked, err := here.AcquireAll(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, unasked.Release())
		require.Error(t, unasked.Context().Err(), "a context that is asked for after the release")
	})
}

// One key of three is taken away: the context of all ends, and the others are released.
func TestLossOfOneKeyIsTheLossOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, engines := processes(t, store, 2)
		held, err := managers[0].AcquireAll(t.Context(), "a", "b", "c")
		require.NoError(t, err)
		ctx := held.Context()
		broken, err := engines[1].Break(t.Context(), "b", held.Token("b").Epoch)
		require.NoError(t, err)
		require.True(t, broken)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), cohort.ErrLost)
		require.ErrorIs(t, held.Release(), cohort.ErrLost)
		again, err := managers[1].AcquireAll(t.Context(), "a", "b", "c")
		require.NoError(t, err)
		assert.Positive(t, again.Token("b").Compare(held.Token("b")))
		require.NoError(t, again.Release())
	})
}

// A key is lost while the next is waited for: it begins anew, and what it returns is held.
func TestAllKeysBeginAnewAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, engines := processes(t, store, 2)
		ahead, err := managers[1].Acquire(t.Context(), "b")
		require.NoError(t, err)
		granted := make(chan cohort.Locks)
		go func() {
			held, err := managers[0].AcquireAll(t.Context(), "a", "b")
			assert.NoError(t, err)
			granted <- held
		}()
		synctest.Wait()
		queue, err := engines[1].Inspect(t.Context(), "a")
		require.NoError(t, err)
		first := queue[0].Epoch
		broken, err := engines[1].Break(t.Context(), "a", first)
		require.NoError(t, err)
		require.True(t, broken)
		time.Sleep(time.Second)
		queue, err = engines[1].Inspect(t.Context(), "a")
		require.NoError(t, err)
		require.Len(t, queue, 1)
		assert.Greater(t, queue[0].Epoch, first, "it has the first key again")
		require.NoError(t, ahead.Release())
		held := <-granted
		assert.Greater(t, held.Token("a").Epoch, first)
		require.NoError(t, held.Context().Err())
		require.NoError(t, held.Release())
	})
}

// A manager that ends ends the wait.
func TestAllKeysAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		m := cohort.Start(t.Context(), store.Engine())
		require.NoError(t, m.Close())
		_, err := m.AcquireAll(t.Context(), "a", "b")
		require.ErrorIs(t, err, cohort.ErrClosed)
	})
}

// Tokens of one engine grant share its epoch (P7 of the pitfalls): only epoch and
// sequence together tell holders apart.
func TestTokenOrdersByEpochThenSeq(t *testing.T) {
	ascending := []cohort.Token{{}, {1, 1}, {1, 2}, {1, 10}, {2, 1}, {10, 1}, {1 << 40, 3}}
	for i, a := range ascending {
		for j, b := range ascending {
			assert.Equal(t, cmp.Compare(i, j), a.Compare(b), "%v against %v", a, b)
			assert.Equal(t, cmp.Compare(i, j), cmp.Compare(a.String(), b.String()), "%v against %v as text", a, b)
		}
	}
}

// A wait reports its key and the cause of its end in the queue of the process and at the engine, and a call that comes later
// does too.
func TestErrorOfAnEndedContextNamesTheKeyAndTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		here, there := store.Engine(), store.Engine()
		m := cohort.Start(t.Context(), here, cohort.WithKeep(time.Hour, 1))
		defer m.Close()
		other := cohort.Start(t.Context(), there)
		defer other.Close()
		tooSlow := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, tooSlow)
		defer cancel()
		reported := func(err error) {
			t.Helper()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, tooSlow)
			require.ErrorContains(t, err, `key "order/42": context deadline exceeded: too slow`)
			assert.True(t, os.IsTimeout(err))
		}
		held, err := other.Acquire(t.Context(), "order/42")
		require.NoError(t, err)
		errs := make(chan error)
		for range 2 { // the one waits at the engine, the other behind it
			go func() {
				_, err := m.Acquire(ctx, "order/42")
				errs <- err
			}()
		}
		reported(<-errs)
		reported(<-errs)
		_, err = m.TryAcquire(ctx, "order/42")
		reported(err)
		_, err = m.AcquireAll(ctx, "order/42", "order/43")
		reported(err)
		_, err = m.AcquireAll(ctx)
		require.EqualError(t, err, "cohort: context deadline exceeded: too slow")
		require.ErrorIs(t, err, tooSlow)
		require.NoError(t, held.Release())
	})
}
