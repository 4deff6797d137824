package keylock_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// An account is locked by its address, and changed only under its lock.
type account struct {
	seen   map[int]bool
	secret string
}

// A part holds a pointer further inside.
type part struct {
	n  int
	of any
}

// While a holder writes what its key points to, texts of the key are made everywhere. Reading
// it there would be a race, and with a map in it the end of the process.
func TestTextsOfKeysDoNotReadWhatAHolderWrites(t *testing.T) {
	a := &account{seen: map[int]bool{}, secret: "hunter2"}
	for name, key := range map[string]any{"a pointer": a, "in a struct": part{1, a}, "in an array": [2]any{1, part{2, a}}} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			m := keylock.Start[any](ctx, keylock.WithMaxWaiters(1), keylock.WithCallers(),
				keylock.WithSlowLog(slog.New(slog.NewTextHandler(io.Discard, nil)), time.Millisecond))
			defer m.Close()
			mine, yours := m.Session("mine"), m.Session("yours")
			lock, ok := mine.TryAcquire(key)
			require.True(t, ok)
			_, ok = yours.TryAcquire("other")
			require.True(t, ok)
			waiting := yours.Reserve(key)

			over := make(chan struct{})
			go func() {
				defer close(over)
				for i, end := 0, time.Now().Add(30*time.Millisecond); time.Now().Before(end); i++ {
					a.seen[i%1000] = true
				}
			}()
			var texts []any
			for range 100 {
				_, full := m.Acquire(ctx, key)
				_, deadlock := mine.Acquire(ctx, "other")
				info, err := m.Inspect(ctx, key)
				require.NoError(t, err)
				texts = []any{full, deadlock, info, waiting, lock, m, mine}
				for _, of := range texts {
					assert.NotContains(t, fmt.Sprintf("%v %+v %s", of, of, of), "hunter2")
				}
			}
			require.ErrorIs(t, texts[0].(error), keylock.ErrQueueFull)
			require.ErrorIs(t, texts[1].(error), keylock.ErrDeadlock)
			<-over
		})
	}
}

func TestDeadlockNamesKeysAndSessions(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	cycle := func(labels ...string) error {
		sessions := make([]*keylock.Session[int], len(labels))
		for i, label := range labels {
			sessions[i] = m.Session(label)
			t.Cleanup(func() { sessions[i].Close() })
			_, ok := sessions[i].TryAcquire(i)
			require.True(t, ok)
		}
		for i, s := range sessions[1:] {
			s.Reserve((i + 2) % len(labels))
		}
		_, err := sessions[0].Acquire(t.Context(), 1)
		require.ErrorIs(t, err, keylock.ErrDeadlock)
		for _, s := range sessions {
			s.Close()
		}
		return err
	}
	assert.EqualError(t, cycle("a", ""), `keylock: deadlock: session "a" waits for key 1, held by an unlabelled session, which waits for key 0, held by session "a"`)
	assert.Contains(t, cycle("a\nb", "\u202e").Error(), `session "a\nb" waits for key 1, held by session "\u202e"`)

	huge := strings.Repeat("x", 1<<20)
	assert.Less(t, len(cycle(huge, huge, huge).Error()), 3000)
	long := cycle(make([]string, 1000)...).Error()
	assert.Less(t, len(long), 1000)
	assert.Contains(t, long, "; 991 more waits; an unlabelled session waits for key 0, held by an unlabelled session")
	for n := 2; n < 12; n++ {
		text := cycle(make([]string, n)...).Error()
		assert.Equal(t, n <= 9, strings.Count(text, "waits for") == n, text)
	}
}

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
