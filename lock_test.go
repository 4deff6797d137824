package keylock_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// isWanted reports whether a channel of Wanted is closed, when all goroutines have come to rest.
func isWanted(wanted <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-wanted:
		return true
	default:
		return false
	}
}

func TestWantedIsClosedWhenARequestHasToWait(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		wanted := l.Wanted()
		requireBusy(t, m, "k")
		hold(t, m, "other")
		assert.False(t, isWanted(wanted), "a try does not wait, and another key is another key")

		ctx, cancel := context.WithCancel(t.Context())
		waiter := startAcquire(ctx, m, "k")
		assert.True(t, isWanted(wanted))
		assert.True(t, isWanted(l.Wanted()), "the request waits already")
		cancel()
		waiter.requireErr(t, context.Canceled)
		assert.True(t, isWanted(wanted), "it stays closed")
		again := l.Wanted()
		assert.False(t, isWanted(again), "nothing waits any more")
		assert.Equal(t, again, l.Wanted(), "there is one channel for all who ask")

		l.Release()
		assert.True(t, isWanted(again))
		assert.True(t, isWanted(l.Wanted()), "of a lock that was released")
		assert.True(t, isWanted(lock{}.Wanted()), "of the zero Lock")
	})
}

func TestWantedOfAllWhoShareAndOfManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, _ := m.AcquireShared(t.Context(), "k")
		two, _ := m.AcquireShared(t.Context(), "k")
		many, _ := m.AcquireAll(t.Context(), "a", "b")
		wanted := []<-chan struct{}{one.Wanted(), two.Wanted(), many.Wanted()}
		three, _ := m.AcquireShared(t.Context(), "k")
		for _, w := range wanted {
			assert.False(t, isWanted(w))
		}
		start(func() (lock, error) { return m.AcquireAll(t.Context(), "k", "b") })
		for _, w := range append(wanted, three.Wanted()) {
			assert.True(t, isWanted(w))
		}
	})
}

func TestWantedIsClosedWhenTheGrantOrTheManagerEnds(t *testing.T) {
	for name, end := range map[string]func(m manager, s *keylock.Session[string], l lock){
		"another copy is released": func(_ manager, _ *keylock.Session[string], l lock) { l.Release() },
		"the session is closed":    func(_ manager, s *keylock.Session[string], _ lock) { s.Close() },
		"the manager is closed":    func(m manager, _ *keylock.Session[string], _ lock) { m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m manager) {
				s := m.Session("s")
				l, err := s.Acquire(t.Context(), "k")
				require.NoError(t, err)
				wanted := l.Wanted()
				assert.False(t, isWanted(wanted))
				end(m, s, l)
				assert.True(t, isWanted(wanted))
				assert.True(t, isWanted(l.Wanted()))
			})
		})
	}
}

// What is handed off has a new holder, who is asked again.
func TestWantedBelongsToTheGrant(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		first := hold(t, m, "k")
		second, third := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff("value"))
		assert.True(t, isWanted(first.Wanted()))
		l, err := second.Wait(t.Context())
		require.NoError(t, err)
		assert.True(t, isWanted(l.Wanted()), "the third waits")
		third.Cancel()
		assert.False(t, isWanted(l.Wanted()))
	})
}

func TestDowngradeLetsInTheSharedRequestsDirectlyBehind(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		shared := start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") })
		shared.requireWaits(t)
		writer := startAcquire(t.Context(), m, "k")
		writer.requireWaits(t)
		late := start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") })
		late.requireWaits(t)

		l.Downgrade()
		l.Downgrade()
		reader := shared.requireLock(t)
		late.requireWaits(t)
		assert.Equal(t, 2, statsOf(t, m).Shared)
		reader.Downgrade() // it is shared already
		reader.Release()
		writer.requireWaits(t)
		l.Release()
		l.Downgrade() // of a grant that has ended: the writer keeps the key to itself
		writer.requireLock(t)
		late.requireWaits(t)
	})
}

func TestDowngradeOfManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l, err := m.AcquireAll(t.Context(), "a", "b")
		require.NoError(t, err)
		l.Downgrade()
		for _, key := range []string{"a", "b"} {
			requireBusy(t, m, key)
			reader, err := m.AcquireShared(t.Context(), key)
			require.NoError(t, err)
			reader.Release()
		}
		l.Release()
		requireFree(t, m, "a")
		requireFree(t, m, "b")

		none, err := m.AcquireAll(t.Context())
		require.NoError(t, err)
		none.Downgrade()
		lock{}.Downgrade()
		assert.Equal(t, 1, statsOf(t, m).Held)
		none.Release()
		m.Close()
		l.Downgrade()
	})
}

// Of a session, what waits for another only because that one was alone does not any more.
func TestDowngradeInASession(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, two := m.Session("one"), m.Session("two")
		defer one.Close()
		defer two.Close()
		l, _ := one.Acquire(t.Context(), "k")
		two.Acquire(t.Context(), "other")
		reader := start(func() (lock, error) { return two.AcquireShared(t.Context(), "k") })
		reader.requireWaits(t)
		l.Downgrade()
		reader.requireLock(t)
		waits := start(func() (lock, error) { return one.Acquire(t.Context(), "other") })
		waits.requireWaits(t)
		_, err := two.Acquire(t.Context(), "k")
		assert.ErrorIs(t, err, keylock.ErrDeadlock)
	})
}
