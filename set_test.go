package keylock_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func shared(key string) keylock.Want[string] {
	return keylock.Want[string]{Key: key, Mode: keylock.Shared}
}

func upTo(limit int, key string) keylock.Want[string] {
	return keylock.Want[string]{Key: key, Mode: keylock.Shared, Limit: limit}
}

func startSet(ctx context.Context, m manager, set ...keylock.Want[string]) *call {
	return start(func() (lock, error) { return m.AcquireSet(ctx, set...) })
}

// Who waits for a child does not keep others from other children.
func TestASetThatWaitsForOneKeyIsPassedWhereItShares(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		child := hold(t, m, "/docs/a")
		waits := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/a"})
		waits.requireWaits(t)
		other := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/b"}).requireLock(t)
		folder := startAcquire(t.Context(), m, "/docs")
		folder.requireWaits(t)
		late := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/c"})
		late.requireWaits(t) // behind the one that wants the folder alone

		child.Release()
		first := waits.requireLock(t)
		assert.Greater(t, first.Seq(), other.Seq())
		first.Release()
		folder.requireWaits(t)
		other.Release()
		folder.requireLock(t).Release()
		late.requireLock(t).Release()
	})
}

func TestALimitTravelsWithTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one := startSet(t.Context(), m, upTo(2, "a")).requireLock(t)
		two := startSet(t.Context(), m, upTo(2, "a")).requireLock(t)
		_, ok := m.TryAcquireSet(upTo(2, "a"))
		assert.False(t, ok, "two hold it")
		waits := startSet(t.Context(), m, upTo(2, "a"))
		waits.requireWaits(t)
		_, ok = m.TryAcquireSet(upTo(3, "a"))
		assert.False(t, ok, "it does not pass one that waits")
		other, ok := m.TryAcquireSet(upTo(1, "b"))
		assert.True(t, ok, "each key has its own")
		other.Release()
		one.Release()
		waits.requireLock(t).Release()
		third, ok := m.TryAcquireSet(upTo(3, "a"))
		assert.True(t, ok)
		two.Release()
		third.Release()
		requireFree(t, m, "a")
	})
}

func TestOfAKeyThatIsNamedTwiceTheStricterTermsCount(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for name, set := range map[string][]keylock.Want[string]{
			"alone":       {shared("k"), {Key: "k"}, shared("l")},
			"alone first": {{Key: "k"}, shared("k")},
			"limit":       {upTo(3, "k"), upTo(1, "k"), shared("k")},
		} {
			reader, ok := m.TryAcquireSet(shared("k"))
			require.True(t, ok)
			_, ok = m.TryAcquireSet(set...)
			assert.False(t, ok, name)
			reader.Release()
			l, ok := m.TryAcquireSet(set...)
			assert.True(t, ok, name)
			l.Release()
		}
		none, ok := m.TryAcquireSet()
		assert.True(t, ok)
		none.Release()
		assert.PanicsWithValue(t, "keylock: Want with the Limit -1: want 0 or more", func() { m.TryAcquireSet(upTo(-1, "k")) })
		assert.PanicsWithValue(t, "keylock: Want with the Mode 2: want Exclusive or Shared", func() {
			m.ReserveSet(keylock.Want[string]{Key: "k", Mode: keylock.Shared + 1})
		})
		l, ok := m.TryAcquireSet(keylock.Want[string]{Key: "k"})
		assert.True(t, ok)
		assert.Equal(t, "k", l.Key())
		l.Release()
		requireFree(t, m, "k")
	})
}

// Without a limit of its own, a request has that of the manager, and that may be the stricter one.
func TestOfAKeyThatIsNamedTwiceTheLimitOfTheManagerCountsToo(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		s := m.Session("s")
		defer s.Close()
		both := []keylock.Want[string]{shared("k"), upTo(3, "k")}
		for range 2 {
			l, ok := m.TryAcquireSet(both...)
			require.True(t, ok)
			defer l.Release()
		}
		for range 2 {
			_, ok := m.TryAcquireSet(both...)
			assert.False(t, ok, "two hold it")
			_, ok = s.TryAcquireSet(both...)
			assert.False(t, ok, "two hold it")
			both[0], both[1] = both[1], both[0]
		}
		third, ok := m.TryAcquireSet(upTo(3, "k"))
		assert.True(t, ok, "its own limit stands above that of the manager")
		third.Release()
		var none *keylock.Manager[string]
		assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() { none.TryAcquireSet(both...) })
	}, keylock.WithSharedLimit(2))
}

func TestTheLockOfASetOfOneKeyIsHandedOff(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for _, set := range [][]keylock.Want[string]{{{Key: "k"}}, {{Key: "k"}, {Key: "k"}}, {shared("k"), {Key: "k"}, upTo(2, "k")}} {
			holder := startSet(t.Context(), m, set...).requireLock(t)
			next := startSet(t.Context(), m, set...)
			next.requireWaits(t)
			assert.True(t, holder.Handoff("value"), "%v", set)
			holder.Release()
			got := next.requireLock(t)
			assert.Equal(t, "value", got.Value(), "%v", set)
			got.Release()
		}
		requireFree(t, m, "k")
	})
}

func TestSetsInSessionsDoNotDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, two := m.Session("one"), m.Session("two")
		defer one.Close()
		defer two.Close()
		one.Acquire(t.Context(), "a")
		two.AcquireShared(t.Context(), "b")
		waits := start(func() (lock, error) { return two.AcquireSet(t.Context(), shared("a"), shared("c")) })
		waits.requireWaits(t)
		free, err := one.AcquireSet(t.Context(), shared("b"), shared("c"))
		require.NoError(t, err, "it shares both")
		free.Release()
		_, err = one.AcquireSet(t.Context(), keylock.Want[string]{Key: "b"}, shared("c"))
		assert.ErrorIs(t, err, keylock.ErrDeadlock)
	})
}

func TestLocker(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := m.Locker("k")
		l.Lock()
		waiter := startAcquire(t.Context(), m, "k")
		waiter.requireWaits(t)
		l.Unlock()
		assert.PanicsWithValue(t, "keylock: Unlock of a Locker that is not locked", l.Unlock)
		requireBusy(t, m, "k") // the second Unlock has freed no lock
		waiter.requireLock(t).Release()

		n := 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				l.Lock()
				defer l.Unlock()
				n++
			})
		}
		all.Wait()
		assert.Equal(t, 100, n)

		l.Lock()
		m.Close()
		for range 2 {
			l.Unlock() // does nothing
			assert.PanicsWithValue(t, keylock.ErrClosed, l.Lock)
		}
	})
}

// The Wait of a sync.Cond locks again when it is over. Where that panics, the deferred Unlock used
// to panic, too, and what was recovered was that of the Unlock.
func TestCondThatWaitsWhenTheManagerEndsPanicsWithErrClosed(t *testing.T) {
	for _, shutDown := range []bool{false, true} {
		bubble(t, func(t *testing.T, m manager) {
			changed := sync.NewCond(m.Locker("k"))
			panicked := make(chan any, 1)
			go func() {
				defer func() { panicked <- recover() }()
				changed.L.Lock()
				defer changed.L.Unlock()
				changed.Wait()
			}()
			synctest.Wait()
			other := hold(t, m, "other")
			if shutDown {
				go m.Shutdown(t.Context())
				synctest.Wait()
			} else {
				m.Close()
			}
			changed.Broadcast()
			assert.Equal(t, keylock.ErrClosed, <-panicked)
			other.Release()
		})
	}
}
