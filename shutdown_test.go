package keylock_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestShutdownOfAnIdleManagerEndsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		require.NoError(t, m.Shutdown(t.Context()))
		<-m.Done()
	})
}

func TestShutdownWhoseContextEndsGoesOnDraining(t *testing.T) {
	run(t, "and can be called again", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Shutdown(ctx), context.DeadlineExceeded)
		requireBusy(t, m, "free")
		again := startErr(func() error { return m.Shutdown(t.Context()) })
		again.requireWaits(t)
		l.Release()
		again.requireNil(t)
	})
	run(t, "to its end, if it is not called again", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		require.ErrorIs(t, m.Shutdown(cancelled()), context.Canceled)
		requireBusy(t, m, "free")
		l.Release()
		<-m.Done()
		require.NoError(t, m.Shutdown(t.Context()))
	})
	run(t, "and Close can follow", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		waiter := startAcquire(t.Context(), m, "k")
		require.ErrorIs(t, m.Shutdown(cancelled()), context.Canceled)
		waiter.requireWaits(t)
		require.NoError(t, m.Close())
		waiter.requireErr(t, keylock.ErrClosed)
		l.Release()
	})
}

func TestCloseDuringAShutdownEndsIt(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k")
		waiter := startAcquire(t.Context(), m, "k")
		var shutdowns []*call
		for range 5 {
			shutdowns = append(shutdowns, startErr(func() error { return m.Shutdown(t.Context()) }))
		}
		require.NoError(t, m.Close())
		for _, s := range shutdowns {
			s.requireErr(t, keylock.ErrClosed)
		}
		waiter.requireErr(t, keylock.ErrClosed)
		require.NoError(t, m.Shutdown(t.Context())) // it has ended
	})
}

func TestShutdownIsOverWhenTheLastWaiterGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		waiting := m.Reserve("k")
		shutdown := startErr(func() error { return m.Shutdown(t.Context()) })
		l.Release()
		shutdown.requireWaits(t)
		waiting.Cancel()
		shutdown.requireNil(t)
	})
}

func TestEndingAnEndedManager(t *testing.T) {
	ends := map[string]func(m manager) error{
		"Close":    func(m manager) error { return m.Close() },
		"Shutdown": func(m manager) error { return m.Shutdown(context.Background()) },
	}
	for first, endFirst := range ends {
		for later, endLater := range ends {
			run(t, later+" after "+first, func(t *testing.T, m manager) {
				require.NoError(t, endFirst(m))
				for range 300 {
					require.NoError(t, endLater(m))
				}
			})
		}
	}
	run(t, "by many at once", func(t *testing.T, m manager) {
		hold(t, m, "k") // so that no Shutdown may finish by itself
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { assert.NoError(t, m.Close()) })
			all.Go(func() {
				if err := m.Shutdown(t.Context()); err != nil { // it was under way when a Close came
					assert.Equal(t, keylock.ErrClosed, err)
				}
			})
		}
		all.Wait()
		assert.NoError(t, m.Shutdown(t.Context()))
	})
	run(t, "by many at once, in peace", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { assert.NoError(t, m.Shutdown(t.Context())) })
		}
		synctest.Wait()
		l.Release()
		all.Wait()
	})
}

// When Close returns the owner has exited.
func TestDoneIsClosedAtTheEndAndNotBefore(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		startErr(func() error { return m.Shutdown(t.Context()) })
		select {
		case <-m.Done():
			t.Fatal("done while a key is held")
		default:
		}
		m.Close()
		select {
		case <-m.Done():
		default:
			t.Fatal("not done when Close had returned")
		}
		l.Release()
	})
}

func TestQuestionsDuringAShutdownAndAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k")
		startErr(func() error { return m.Shutdown(t.Context()) })

		requireBusy(t, m, "free")
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Acquired: 1, Rejected: 1}, statsOf(t, m))
		assert.True(t, active(t, m, "k"))
		keys, err := m.Snapshot(t.Context())
		assert.NoError(t, err)
		require.Len(t, keys, 1)
		assert.Equal(t, "k", keys[0].Key)

		m.Close()
		s, err := m.Stats(t.Context())
		assert.Equal(t, keylock.ErrClosed, err)
		assert.Zero(t, s)
		found, err := m.Inspect(t.Context(), "k")
		assert.Equal(t, keylock.ErrClosed, err)
		assert.Zero(t, found)
		keys, err = m.Snapshot(t.Context())
		assert.Equal(t, keylock.ErrClosed, err)
		assert.Empty(t, keys)
		assert.Equal(t, keylock.ErrClosed, m.WaitIdle(t.Context()))
	})
}

func TestWaitIdleDuringAShutdown(t *testing.T) {
	run(t, "returns nil when the last holder leaves", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		before := startErr(func() error { return m.WaitIdle(t.Context()) })
		shutdown := startErr(func() error { return m.Shutdown(t.Context()) })
		during := startErr(func() error { return m.WaitIdle(t.Context()) })
		l.Release()
		before.requireNil(t)
		during.requireNil(t)
		shutdown.requireNil(t)
	})
	run(t, "returns ErrClosed when Close strikes", func(t *testing.T, m manager) {
		hold(t, m, "k")
		startErr(func() error { return m.Shutdown(t.Context()) })
		idle := startErr(func() error { return m.WaitIdle(t.Context()) })
		m.Close()
		idle.requireErr(t, keylock.ErrClosed)
	})
}

// Locks that are held when the manager ends stay with their holders.
func TestHeldLocksOutliveTheManager(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		m.Close()
		requireBusy(t, m, "k")
		l.Release()
		requireBusy(t, m, "k")
		assert.Equal(t, "k", l.Key())
		assert.Equal(t, uint64(1), l.Seq())
	})
}

// Every call that is made while the manager ends returns, and what is granted was granted
// before the end.
func TestCallsThatRaceWithTheEndAreAnswered(t *testing.T) {
	for round := range 300 {
		m := keylock.Start[int](context.Background())
		var ended atomic.Bool
		var all sync.WaitGroup
		for g := range 20 {
			all.Go(func() {
				for i := 0; ; i++ {
					late := ended.Load()
					var err error
					switch ctx := context.Background(); (g + i) % 5 {
					case 0:
						var l keylock.Lock[int]
						l, err = m.Acquire(ctx, i%3)
						l.Release()
					case 1:
						var l keylock.Lock[int]
						l, err = m.Reserve(i % 3).Wait(ctx)
						l.Release()
					case 2:
						l, ok := m.TryAcquire(i % 3)
						l.Release()
						if late && ok {
							t.Error("TryAcquire acquired after the end")
						}
						if late {
							return
						}
					case 3:
						_, err = m.Stats(ctx)
					case 4:
						err = m.WaitIdle(ctx)
					}
					if late && err == nil && (g+i)%5 != 2 {
						t.Errorf("call %d succeeded after the end", (g+i)%5)
					}
					if err != nil {
						assert.ErrorIs(t, err, keylock.ErrClosed)
						return
					}
				}
			})
		}
		watch(t, time.Minute, func() {
			if round%2 == 0 {
				assert.NoError(t, m.Close())
			} else {
				assert.NoError(t, m.Shutdown(context.Background()))
			}
			ended.Store(true)
			all.Wait()
		})
	}
}

// Locks of no keys are a grant, too.
func TestShutdownWaitsForLocksOfNoKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		locks, err := m.AcquireAll(t.Context())
		require.NoError(t, err)
		shutdown := startErr(func() error { return m.Shutdown(t.Context()) })
		shutdown.requireWaits(t)
		locks.Release()
		shutdown.requireNil(t)
	})
}
