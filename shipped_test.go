package keylock_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// Every test in this file is a bug that some keyed lock has shipped with. Of maps that
// never shrink tells TestGuarantee07MemoryOfABurstGoesBack.

// A queue that takes its head without asking whether it still waits grants the key to none,
// and those behind it wait forever.
func TestCancelledHeadDoesNotStrandTheWaiterBehindIt(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		head := startAcquire(ctx, m, "k")
		behind := startAcquire(t.Context(), m, "k")
		cancel()
		head.requireErr(t, context.Canceled)
		behind.requireWaits(t)
		l.Release()
		behind.requireLock(t)
	})
}

// Where only the holder removes an entry, a waiter that is cancelled after its release leaves
// it behind, and the map grows with every such pair.
func TestWaiterWhoGivesUpAfterTheHolderLeftLeavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for i := range 1000 {
			key := fmt.Sprint(i)
			l, granted := hold(t, m, key), m.Reserve(key)
			l.Release()
			granted.Cancel() // the holder is gone, and no other request will come
		}
		assert.Zero(t, statsOf(t, m).Keys)
	})
}

// Readers queue behind a writer only because it came first. When it is cancelled, they must be
// granted if they fit beside the readers that hold.
func TestCancelledWriterDoesNotStrandTheReadersBehindHim(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		reader, err := m.AcquireShared(t.Context(), "k")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		writer := startAcquire(ctx, m, "k")
		var behind []*call
		for range 3 {
			behind = append(behind, start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") }))
		}
		cancel()
		writer.requireErr(t, context.Canceled)
		for _, r := range behind {
			r.requireLock(t)
		}
		assert.Equal(t, 4, statsOf(t, m).Shared)
		reader.Release()
	})
}

// The grant was sent, and the waiter has stopped listening: to lose the grant locks the key
// forever. To queue the next waiter anew instead changes the order.
func TestWaiterCancelledAtTheHandoffPassesTheGrantToTheNext(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 500 {
			l := hold(t, m, "k")
			ctx, cancel := context.WithCancel(t.Context())
			first := startAcquire(ctx, m, "k")
			second := startAcquire(t.Context(), m, "k")
			third := startAcquire(t.Context(), m, "k")
			l.Release()
			cancel()
			if first.over() && first.err == nil {
				first.lock.Release()
			}
			l = second.requireLock(t)
			third.requireWaits(t)
			l.Release()
			third.requireLock(t).Release()
		}
	})
}

// A counter that goes up when a wait begins, and down only when it succeeds, closes the
// queue after enough time-outs.
func TestTimedOutWaitersDoNotCountAgainstTheBound(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			first, second := startAcquire(ctx, m, "k"), startAcquire(ctx, m, "k")
			_, err := m.Acquire(ctx, "k")
			require.ErrorIs(t, err, keylock.ErrQueueFull)
			time.Sleep(time.Second)
			first.requireErr(t, context.DeadlineExceeded)
			second.requireErr(t, context.DeadlineExceeded)
		}
		waiter := startAcquire(t.Context(), m, "k")
		l.Release()
		waiter.requireLock(t)
	}, keylock.WithMaxWaiters(2))
}

// Between the release and the moment when the next waiter wakes up the critical section is
// empty. An entry that is removed then is made anew by a third call, beside the second.
func TestKeyThatIsBeingHandedOverIsNotFree(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 500 {
			l := hold(t, m, "k")
			second := m.Reserve("k")
			l.Release()
			requireBusy(t, m, "k")
			third := startAcquire(t.Context(), m, "k")
			l, err := second.Wait(t.Context())
			require.NoError(t, err)
			third.requireWaits(t)
			l.Release()
			third.requireLock(t).Release()
		}
	})
}

// With an unlock by key, the deferred unlock of a lock that failed frees its holder's.
func TestDeferredReleaseOfAFailedLockFreesNobody(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k")
		func() {
			l, err := m.Acquire(cancelled(), "k")
			defer l.Release()
			require.Error(t, err)
		}()
		func() {
			l, ok := m.TryAcquire("k")
			defer l.Release()
			require.False(t, ok)
		}()
		requireBusy(t, m, "k")
		assert.Equal(t, 1, statsOf(t, m).Held)
	})
}

// A lock that is marked free before the next waiter has it goes to any call that comes
// along: the waiter starves.
func TestReleasedLockGoesToTheQueueNotToWhoComesAlong(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		waiter := m.Reserve("k")
		for range 100 {
			l.Release()
			requireBusy(t, m, "k")
			newcomer := m.Reserve("k")
			var err error
			l, err = waiter.Wait(t.Context())
			require.NoError(t, err)
			waiter = newcomer
		}
	})
}

// A try that fails when it meets another call, not another holder, fails on a free
// key.
func TestTryNeverFailsOnAFreeKey(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	var all sync.WaitGroup
	for g := range 50 {
		all.Go(func() {
			for range 200 {
				l, ok := m.TryAcquire(g)
				if !assert.True(t, ok) {
					return
				}
				l.Release()
				m.Reserve(g).Cancel()
			}
		})
	}
	watch(t, time.Minute, all.Wait)
}

// A lease that a timer ends grants it to the next one while its holder still runs. Here no
// amount of time ends a lock.
func TestNoAmountOfTimeEndsALock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		waiter := startAcquire(t.Context(), m, "k")
		time.Sleep(100 * 365 * 24 * time.Hour)
		waiter.requireWaits(t)
		l.Release()
		waiter.requireLock(t)
	})
}

// Batches that lock one key after the other deadlock when they name the same keys in
// opposite orders, and with themselves when they name one twice.
func TestBatchesInOppositeOrderWithDuplicatesDoNotDeadlock(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	var all sync.WaitGroup
	for g := range 20 {
		all.Go(func() {
			keys := []string{"a", "b", "a"}
			if g%2 == 0 {
				keys = []string{"b", "a", "b"}
			}
			for range 100 {
				l, err := m.AcquireAll(t.Context(), keys...)
				if !assert.NoError(t, err) {
					return
				}
				runtime.Gosched()
				l.Release()
			}
		})
	}
	watch(t, time.Minute, all.Wait)
}

// A goroutine that waits for its caller, so that the caller can watch the context,
// stays behind until the key is free.
func TestCancelledWaiterLeavesNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k")
		before := bubbleGoroutines()
		ctx, cancel := context.WithCancel(t.Context())
		for range 100 {
			startAcquire(ctx, m, "k")
		}
		assert.Equal(t, before+100, bubbleGoroutines()) // those of the test
		cancel()
		assert.Equal(t, before, bubbleGoroutines())
	})
}

// A flag that is read before the request is queued accepts a request after the shutdown
// has looked at the queue for the last time.
func TestNobodyGetsInAfterTheShutdown(t *testing.T) {
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			m := keylock.Start[string](t.Context())
			l := hold(t, m, "k")
			var racers []*call
			for range 4 {
				racer := &call{returned: make(chan struct{})}
				racers = append(racers, racer)
				go func() {
					defer close(racer.returned)
					racer.lock, racer.err = m.Acquire(context.Background(), "k")
					racer.lock.Release()
				}()
			}
			l.Release()
			require.NoError(t, m.Shutdown(t.Context()))
			for _, racer := range racers {
				require.True(t, racer.over())
				if racer.err != nil {
					require.ErrorIs(t, racer.err, keylock.ErrClosed)
				}
			}
			requireBusy(t, m, "k")
			_, err := m.Acquire(t.Context(), "other")
			require.ErrorIs(t, err, keylock.ErrClosed)
		})
	}
}

// With a fixed number of stripes, some pair of keys shares one, and a caller that takes both
// waits for itself.
func TestOneHolderMayTakeAnyNumberOfKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for i := range 5000 {
			l, err := m.Acquire(t.Context(), fmt.Sprint(i))
			require.NoError(t, err)
			defer l.Release()
		}
		assert.Equal(t, 5000, statsOf(t, m).Held)
	})
}
