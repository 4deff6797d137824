package keylock_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestHandoffPassesTheKeyAndTheValueToTheNextWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		defer m.Close()

		first, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		next, last := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff(7))

		second, err := next.Wait(ctx)
		require.NoError(t, err)
		assert.Equal(t, 7, second.Value())
		assert.Greater(t, second.Seq(), first.Seq())
		assert.False(t, first.Handoff(8), "its grant has ended")
		first.Release()

		second.Release()
		third, err := last.Wait(ctx)
		require.NoError(t, err)
		assert.Nil(t, third.Value(), "a release passes nothing on")
	})
}

func TestHandoffPassesTheValueToAllReadersWhoAreLetInTogether(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		writer := hold(t, m, "k")
		readers := make([]reservation, 1000) // which a release would grant in parts
		for i := range readers {
			readers[i] = m.ReserveSet(sharing("k")...)
		}
		require.True(t, writer.Handoff(7))
		for _, r := range readers {
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 7, l.Value())
		}
	})
}

func TestHandoffKeepsTheKeyWhenNobodyCanTakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		lock, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		other, err := m.Acquire(ctx, "other")
		require.NoError(t, err)

		assert.False(t, lock.Handoff(1), "there is no waiter")
		both := m.ReserveSet(alone("k", "other")...)
		assert.False(t, lock.Handoff(1), "the next waits for the other key as well")
		_, ok := m.TryAcquire("k")
		assert.False(t, ok, "it is still held")
		other.Release()
		assert.False(t, lock.Handoff(1), "many keys have no value")
		both.Cancel()

		_, err = m.AcquireShared(ctx, "shared")
		require.NoError(t, err)
		shared, err := m.AcquireShared(ctx, "shared")
		require.NoError(t, err)
		m.Reserve("shared")
		assert.False(t, shared.Handoff(1), "the other reader is in the way")
		assert.False(t, keylock.Lock[string]{}.Handoff(1), "the zero lock holds nothing")
		require.NoError(t, m.Close())
		assert.False(t, lock.Handoff(1), "nothing is granted after the end")
	})
}

// The handoff and the end of the receiver's context cross: the owner grants first, and
// the receiver, woken by both, must not throw away what it was given.
func TestHandoffLosesNoValueToACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](t.Context())
		defer m.Close()
		for range 100 { // both ways round
			ctx, cancel := context.WithCancel(t.Context())
			first, err := m.Acquire(ctx, "k")
			require.NoError(t, err)
			next := m.Reserve("k")
			require.True(t, first.Handoff("state"))
			cancel()
			second, err := next.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, "state", second.Value())
			second.Release()
		}
	})
}

func TestCancelledReservationPassesItsValueOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		defer m.Close()
		first, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		next, last := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff("state"))
		next.Cancel()
		third, err := last.Wait(ctx)
		require.NoError(t, err)
		assert.Equal(t, "state", third.Value())
		last = m.Reserve("k")
		require.True(t, third.Handoff("state"))
		last.Cancel()
		assert.NoError(t, m.WaitIdle(ctx), "without a next waiter the key is free")
	})
}

// A Do would have no way to read the value.
func TestHandoffIsNotForADo(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		first := hold(t, m, "k")
		ran := startErr(func() error { return m.Do(t.Context(), "k", func(context.Context) error { return nil }) })
		ran.requireWaits(t)
		require.False(t, first.Handoff("baton"))
		ran.requireWaits(t)
		first.Release()
		ran.requireNil(t)

		// Nor is it for one that has left before it.
		first = hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		gone := startErr(func() error { return m.Do(ctx, "k", func(context.Context) error { return nil }) })
		next := m.Reserve("k")
		cancel()
		gone.requireErr(t, context.Canceled)
		require.True(t, first.Handoff("baton"))
		second, err := next.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "baton", second.Value())
	})
}

// A session that is closed hands off what it has not read, and keeps nothing of what it has.
func TestClosedSessionPassesItsValueOn(t *testing.T) {
	for name, opts := range map[string][]keylock.Option{"plain": nil, "observed": {keylock.WithHoldTimes()}} {
		t.Run(name, func(t *testing.T) {
			run(t, "to the next waiter", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				unread := s.Reserve("k")
				again := s.ReserveSet(sharing("other")...)
				require.True(t, first.Handoff("baton"))
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				_, err := unread.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrClosed)
				_, err = again.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrClosed)
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", l.Value())
				l.Release()
				requireFree(t, m, "k")
			}, opts...)
			run(t, "past its own waiters and one that has left", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				unread := s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				m.Reserve("k").Cancel()
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				unread.Cancel()
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", l.Value())
			}, opts...)
			run(t, "only once", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				r := s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				read, err := r.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", read.Value())
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Nil(t, l.Value())
			}, opts...)
			run(t, "to none", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				require.NoError(t, s.Close())
				requireFree(t, m, "k")
			}, opts...)
		})
	}
}

// The lock of many keys is a Lock like any other, but it is never handed off and comes with
// no value.
func TestTheLockOfManyKeysIsALock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for _, want := range []struct {
			keys []string
			key  string
			text string
		}{
			{[]string{"a", "b", "c"}, "a", `lock of key "a" and 2 more, grant `},
			{[]string{"a"}, "a", `lock of key "a", grant `},
			{nil, "", "lock of no key, grant "},
		} {
			lock, err := m.AcquireAll(t.Context(), want.keys...)
			require.NoError(t, err)
			assert.Equal(t, want.key, lock.Key())
			assert.Equal(t, want.text+fmt.Sprint(lock.Seq()), lock.String())
			assert.Nil(t, lock.Value())
			waiter := startAcquire(t.Context(), m, "a")
			assert.False(t, lock.Handoff(7))
			if len(want.keys) > 0 {
				waiter.requireWaits(t)
			}
			lock.Release()
			lock.Release()
			next := waiter.requireLock(t)
			assert.Nil(t, next.Value())
			next.Release()
			for _, key := range want.keys {
				requireFree(t, m, key)
			}
		}
	})
}
