package keylock_test

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestGrantedReservationHoldsTheKeyBeforeItsWait(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		r := m.Reserve("k")
		assert.Equal(t, 1, statsOf(t, m).Held)
		next := startAcquire(t.Context(), m, "k")
		time.Sleep(time.Hour)
		next.requireWaits(t)
		r.Cancel()
		next.requireLock(t)
	})
}

// With a context that is done Wait gives back even the grant, which goes to the next waiter.
func TestWaitWithADoneContextPassesTheGrantOn(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 50 { // both are ready, so either may be noticed first
			granted := m.Reserve("k")
			next := startAcquire(t.Context(), m, "k")
			_, err := granted.Wait(cancelled())
			require.ErrorIs(t, err, context.Canceled)
			next.requireLock(t).Release()
			requireFree(t, m, "k")
		}
	})
}

func TestReservationIsUsedOnce(t *testing.T) {
	uses := map[string]func(t *testing.T, m manager, r reservation){
		"Wait": func(t *testing.T, m manager, r reservation) {
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			l.Release()
		},
		"Wait that its context ended": func(t *testing.T, m manager, r reservation) {
			_, err := r.Wait(cancelled())
			require.ErrorIs(t, err, context.Canceled)
		},
		"Cancel": func(t *testing.T, m manager, r reservation) { r.Cancel() },
	}
	for name, use := range uses {
		run(t, "after "+name, func(t *testing.T, m manager) {
			r := m.Reserve("k")
			duplicate := r
			use(t, m, r)
			for _, used := range []reservation{r, duplicate} {
				l, err := used.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrReservationDone)
				assert.Zero(t, l)
				used.Cancel()
			}
			requireFree(t, m, "k")
		})
	}
}

func TestLaterOfTwoConcurrentWaitsIsTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		r := m.Reserve("k")
		first := start(func() (lock, error) { return r.Wait(t.Context()) })
		second := start(func() (lock, error) { return r.Wait(t.Context()) })
		second.requireErr(t, keylock.ErrReservationDone)
		first.requireWaits(t)
		l.Release()
		first.requireLock(t)
	})
}

func TestCancelEndsTheWaitOfAnotherGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		r := m.Reserve("k")
		next := m.Reserve("k")
		waiter := start(func() (lock, error) { return r.Wait(t.Context()) })
		r.Cancel()
		waiter.requireErr(t, keylock.ErrReservationDone)
		assert.Equal(t, uint64(1), statsOf(t, m).Cancelled)
		r.Cancel()
		l.Release()
		_, err := next.Wait(t.Context())
		require.NoError(t, err)
	})
}

func TestCancelAfterASuccessfulWaitDoesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		r := m.Reserve("k")
		_, err := r.Wait(t.Context())
		require.NoError(t, err)
		r.Cancel()
		requireBusy(t, m, "k")
		assert.Equal(t, 1, statsOf(t, m).Held)
	})
}

// Wait and Cancel race for a grant that is on its way: one of them gets it.
func TestCancelThatRacesWithTheGrant(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 2000 {
			l := hold(t, m, "k")
			r := m.Reserve("k")
			waiter := start(func() (lock, error) { return r.Wait(t.Context()) })
			go l.Release()
			go r.Cancel()
			if waiter.over() && waiter.err == nil {
				waiter.lock.Release()
			} else {
				waiter.requireErr(t, keylock.ErrReservationDone)
			}
			requireFree(t, m, "k")
		}
	})
}

// Requests are pooled, so an old Reservation refers to memory that serves others now.
func TestUsedReservationNeverTouchesWhoeverUsesItsMemoryNow(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		var used []reservation
		for range 100 {
			r := m.Reserve("k")
			used = append(used, r)
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			l.Release()
		}
		first := hold(t, m, "k")
		reserved := m.Reserve("k")
		acquired := startAcquire(t.Context(), m, "k")
		for _, r := range used {
			r.Cancel()
			_, err := r.Wait(t.Context())
			require.ErrorIs(t, err, keylock.ErrReservationDone)
		}
		assert.Equal(t, 2, statsOf(t, m).Waiting)
		first.Release()
		second, err := reserved.Wait(t.Context())
		require.NoError(t, err)
		second.Release()
		acquired.requireLock(t)
	})
}

// A Cancel may be held up until the Wait that it wants to end is over, and its request
// belongs to another call.
func TestCancelThatComesLateDoesNotEndTheNextWait(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 100 {
			r := m.Reserve("k")
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			next := m.Reserve("k")
			waiter := start(func() (lock, error) { return next.Wait(t.Context()) })
			r.CancelLate()
			waiter.requireWaits(t)
			l.Release()
			waiter.requireLock(t).Release()
		}
	})
}

// The owner used to look at the request of a Wait that Cancel wanted to end while the
// waiter, which had its reply already, was free to reserve with it again; with a bad key,
// which fails without the owner, both touched the request at once. Only -race saw
// it.
func TestCancelThatComesLateDoesNotTouchTheNextReservation(t *testing.T) {
	m := keylock.Start[float64](t.Context())
	defer m.Close()
	watch(t, time.Minute, func() {
		for range 2000 {
			l, err := m.Acquire(t.Context(), 1)
			assert.NoError(t, err)
			r := m.Reserve(1)
			var waiter sync.WaitGroup
			waiter.Go(func() {
				l, _ := r.Wait(t.Context())
				for range 4 {
					m.Reserve(math.NaN()).Cancel()
				}
				l.Release()
			})
			for statsOf(t, m).Waiting == 0 {
				runtime.Gosched()
			}
			l.Release()
			r.Cancel()
			waiter.Wait()
		}
	})
}

func TestZeroReservationIsUsedUp(t *testing.T) {
	var zero reservation
	zero.Cancel()
	l, err := zero.Wait(t.Context())
	assert.ErrorIs(t, err, keylock.ErrReservationDone)
	assert.Zero(t, l)
	zero.Cancel()
}

// Reserve never fails itself; its Wait says what Acquire would have said.
func TestWaitTellsWhatReserveMet(t *testing.T) {
	run(t, "a full queue", func(t *testing.T, m manager) {
		hold(t, m, "k")
		m.Reserve("k")
		_, err := m.Reserve("k").Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrQueueFull)
	}, keylock.WithMaxWaiters(1))
	t.Run("a bad key", func(t *testing.T) {
		m := keylock.Start[float64](t.Context())
		defer m.Close()
		l, err := m.Reserve(math.NaN()).Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrInvalidKey)
		assert.Zero(t, l)
		m.Reserve(math.NaN()).Cancel()
		assert.Zero(t, statsOf(t, m))
	})
	run(t, "a closed manager", func(t *testing.T, m manager) {
		m.Close()
		_, err := m.Reserve("k").Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrClosed)
		m.Reserve("k").Cancel()
	})
	run(t, "a manager that is shutting down", func(t *testing.T, m manager) {
		hold(t, m, "k")
		startErr(func() error { return m.Shutdown(t.Context()) })
		_, err := m.Reserve("free").Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrClosed)
		m.Reserve("free").Cancel()
	})
	run(t, "a manager that closed before the wait", func(t *testing.T, m manager) {
		granted, waiting := m.Reserve("k"), m.Reserve("k")
		m.Close()
		_, err := waiting.Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrClosed)
		// This one was granted in time and stays with its holder.
		l, err := granted.Wait(t.Context())
		assert.NoError(t, err)
		l.Release()
	})
}

func TestFailedCallReturnsTheZeroLock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		held := hold(t, m, "k")
		l, ok := m.TryAcquire("k")
		require.False(t, ok)
		assert.Zero(t, l)
		assert.Zero(t, l.Key())
		assert.Zero(t, l.Seq())
		l.Release()
		requireBusy(t, m, "k")
		assert.Equal(t, "k", held.Key())
		assert.Equal(t, uint64(1), held.Seq())
	})
}

// Grant numbers follow the order of grants, over all keys, and are not used again.
func TestSeqIncreasesOverTheManagersLife(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		var seqs []uint64
		for i := range 100 {
			l := hold(t, m, []string{"a", "b"}[i%2])
			seqs = append(seqs, l.Seq())
			l.Release()
			m.Reserve("c").Cancel() // was granted, so it used one up
		}
		assert.Equal(t, uint64(1), seqs[0])
		assert.Equal(t, uint64(199), seqs[99])
		assert.IsIncreasing(t, seqs)
	}, keylock.WithHoldTimes()) // with which no grants are kept
}
