package keylock_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestMaxWaitersBoundsEachKey(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for _, key := range []string{"a", "b"} {
			l := hold(t, m, key)
			first, second := startAcquire(t.Context(), m, key), startAcquire(t.Context(), m, key)
			_, err := m.Acquire(t.Context(), key)
			assert.ErrorIs(t, err, keylock.ErrQueueFull)
			_, err = m.Reserve(key).Wait(t.Context())
			assert.ErrorIs(t, err, keylock.ErrQueueFull)
			never := func(context.Context) error { panic("without the key") }
			assert.ErrorIs(t, m.Do(t.Context(), key, never), keylock.ErrQueueFull)
			m.Reserve(key).Cancel()

			// An entry of the queue is free as soon as a waiter has the key.
			l.Release()
			first.requireLock(t)
			startAcquire(t.Context(), m, key).requireWaits(t)
			second.requireWaits(t)
		}
		assert.Equal(t, keylock.Stats{Keys: 2, Held: 2, Waiting: 4, Acquired: 4, Waited: 2, Rejected: 8, Released: 2}, statsOf(t, m))
	}, keylock.WithMaxWaiters(2))
}

func TestNoBoundByDefault(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for range 10_000 {
			m.Reserve("k")
		}
		assert.Equal(t, 9_999, statsOf(t, m).Waiting)
	})
}

// More than the table counts to used to be read as less than none, and then only one was let in.
func TestSharedLimitMayBeAnyNumber(t *testing.T) {
	for _, limit := range []int{math.MaxInt32, math.MaxInt} {
		bubble(t, func(t *testing.T, m manager) {
			for range 2 {
				l, err := m.AcquireShared(t.Context(), "k")
				require.NoError(t, err)
				defer l.Release()
				own, ok := m.TryAcquireSet(upTo(limit, "own"))
				require.True(t, ok)
				defer own.Release()
			}
		}, keylock.WithSharedLimit(limit), keylock.WithMaxWaiters(0))
	}
}

// A bound that was computed as 0 used to be none at all.
func TestMaxWaitersOfZeroRefusesWhatWouldWait(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		_, err := m.Acquire(t.Context(), "k")
		assert.ErrorIs(t, err, keylock.ErrQueueFull)
		_, err = m.AcquireShared(t.Context(), "k")
		assert.ErrorIs(t, err, keylock.ErrQueueFull)
		_, err = m.AcquireAll(t.Context(), "other", "k")
		assert.ErrorIs(t, err, keylock.ErrQueueFull)
		requireFree(t, m, "other")
		_, err = m.Reserve("k").Wait(t.Context())
		assert.ErrorIs(t, err, keylock.ErrQueueFull)
		l.Release()
		l, err = m.Acquire(t.Context(), "k")
		require.NoError(t, err)
		l.Release()
	}, keylock.WithMaxWaiters(0))
}

func TestBoundsThatMakeNoSensePanic(t *testing.T) {
	assert.PanicsWithValue(t, "keylock: WithMaxWaiters(-1): want 0 or more", func() { keylock.WithMaxWaiters(-1) })
	for _, n := range []int{0, -1} {
		assert.PanicsWithValue(t, fmt.Sprintf("keylock: WithSharedLimit(%d): want 1 or more", n), func() { keylock.WithSharedLimit(n) })
	}
	assert.PanicsWithValue(t, "keylock: Start with a nil Option", func() { keylock.Start[int](t.Context(), nil) })
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "k") // a Do that looked only when it has the lock would wait
		assert.PanicsWithValue(t, "keylock: Do with a nil function", func() { m.Do(t.Context(), "k", nil) })
		assert.PanicsWithValue(t, "keylock: Do with a nil function", func() { m.Session("").Do(t.Context(), "k", nil) })
	})
}

func TestStatsCountEverything(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		assert.Zero(t, statsOf(t, m))
		l := hold(t, m, "k")
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Acquired: 1}, statsOf(t, m))
		waiter, gone := startAcquire(t.Context(), m, "k"), m.Reserve("k")
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Waiting: 2, Acquired: 1}, statsOf(t, m))
		requireBusy(t, m, "k")
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Waiting: 2, Acquired: 1, Rejected: 1}, statsOf(t, m))
		gone.Cancel()
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Waiting: 1, Acquired: 1, Rejected: 1, Cancelled: 1}, statsOf(t, m))
		l.Release()
		l.Release()
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Acquired: 2, Waited: 1, Rejected: 1, Cancelled: 1, Released: 1}, statsOf(t, m))
		waiter.requireLock(t).Release()
		assert.Equal(t, keylock.Stats{Acquired: 2, Waited: 1, Rejected: 1, Cancelled: 1, Released: 2}, statsOf(t, m))
	})
}

func TestKeyNotEqualToItselfIsInvalid(t *testing.T) {
	type point struct{ x, y float64 }
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[any](t.Context())
		defer m.Close()
		for _, key := range []any{math.NaN(), float32(math.NaN()), complex(0, math.NaN()), point{1, math.NaN()}, [2]any{1, math.NaN()}} {
			l, err := m.Acquire(t.Context(), key)
			assert.ErrorIs(t, err, keylock.ErrInvalidKey)
			assert.Zero(t, l)
			l, ok := m.TryAcquire(key)
			assert.False(t, ok)
			assert.Zero(t, l)
			_, err = m.Reserve(key).Wait(t.Context())
			assert.ErrorIs(t, err, keylock.ErrInvalidKey)
			err = m.Do(t.Context(), key, func(context.Context) error { panic("without the key") })
			assert.ErrorIs(t, err, keylock.ErrInvalidKey)
			found, err := m.Inspect(t.Context(), key)
			assert.ErrorIs(t, err, keylock.ErrInvalidKey)
			assert.Zero(t, found)
		}
		assert.Zero(t, statsOf(t, m))
	})
}

func TestKeyThatCannotBeComparedPanicsInItsCaller(t *testing.T) {
	type nested struct {
		name string
		rest any
	}
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[any](t.Context())
		defer m.Close()
		for _, key := range []any{[]int{}, map[int]int(nil), func() {}, nested{"n", []int{1}}, [1]any{[]byte(nil)}} {
			for name, call := range map[string]func(){
				"Acquire":    func() { m.Acquire(t.Context(), key) },
				"TryAcquire": func() { m.TryAcquire(key) },
				"Reserve":    func() { m.Reserve(key) },
				"Do":         func() { m.Do(t.Context(), key, func(context.Context) error { return nil }) },
				"Inspect":    func() { m.Inspect(t.Context(), key) },
			} {
				assert.Panics(t, call, "%s(%T)", name, key)
			}
		}
		for _, key := range []any{nil, 1, "", nested{"n", 1}, [0]any{}, new(int), struct{}{}} { // others are well
			l, err := m.Acquire(t.Context(), key)
			require.NoError(t, err)
			assert.Equal(t, key, l.Key())
			l.Release()
		}
		assert.Zero(t, statsOf(t, m).Keys)
	})
}

func TestErrorsNameTheKey(t *testing.T) {
	run(t, "of a full queue", func(t *testing.T, m manager) {
		fullQueue := func(key string) error {
			m.Reserve(key)
			m.Reserve(key)
			_, err := m.Acquire(t.Context(), key)
			require.ErrorIs(t, err, keylock.ErrQueueFull)
			return err
		}
		assert.EqualError(t, fullQueue("order/42"), `keylock: queue is full: key "order/42"`)
		for _, huge := range []string{
			strings.Repeat("x", 1<<20), strings.Repeat("é", 1<<10), "x" + strings.Repeat("é", 1<<10), strings.Repeat("\x80", 1<<10),
		} {
			text := fullQueue(huge).Error()
			assert.Less(t, len(text), 600)
			assert.True(t, utf8.ValidString(text), "cut in the middle of a letter: %q", text)
			assert.True(t, strings.HasSuffix(text, fmt.Sprintf("…(%d bytes)", len(huge))), text)
		}
	}, keylock.WithMaxWaiters(1))
	t.Run("that is invalid", func(t *testing.T) {
		m := keylock.Start[float64](t.Context())
		defer m.Close()
		_, err := m.Acquire(t.Context(), math.NaN())
		assert.EqualError(t, err, "keylock: key is not equal to itself: key NaN")
	})
}

func TestErrorsHaveOneMeaning(t *testing.T) {
	all := []error{keylock.ErrClosed, keylock.ErrInvalidKey, keylock.ErrQueueFull, keylock.ErrReservationDone}
	for i, a := range all {
		assert.True(t, strings.HasPrefix(a.Error(), "keylock: "), fmt.Sprint(a))
		for _, b := range all[i+1:] {
			assert.NotErrorIs(t, a, b)
		}
	}
}
