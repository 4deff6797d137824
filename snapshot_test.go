package keylock_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// Every key of a pair is always held together with the other, so a snapshot that shows one
// of them shows both, under the same grant, whatever happens while it is collected.
func TestSnapshotIsOnePointOfTheHistory(t *testing.T) {
	ctx := t.Context()
	m := keylock.Start[int](ctx)
	defer m.Close()
	const pairs, still = 200, 3000
	for i := range still {
		m.TryAcquire(-1 - i)
	}
	var over atomic.Bool
	var busy sync.WaitGroup
	for g := range 4 {
		busy.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			var held []keylock.Lock[int]
			for !over.Load() {
				if len(held) < 20 {
					k := random.IntN(pairs)
					if l, ok := m.TryAcquireSet(alone(2*k, 2*k+1)...); ok {
						held = append(held, l)
						continue
					}
				}
				if len(held) > 0 {
					held[0].Release()
					held = held[1:]
				}
			}
			for _, l := range held {
				l.Release()
			}
		})
	}
	for range 20 {
		mine, ok := m.TryAcquireSet(alone(-10_000, -10_001)...)
		require.True(t, ok)
		keys, err := m.Snapshot(ctx)
		require.NoError(t, err)
		mine.Release()
		seq := make(map[int]uint64)
		for _, k := range keys {
			if seq[k.Key] != 0 || len(k.Holders) != 1 { // much cheaper than require
				t.Fatalf("key %d comes twice, or with %d holders", k.Key, len(k.Holders))
			}
			seq[k.Key] = k.Holders[0].Seq
		}
		for i := range still {
			if seq[-1-i] == 0 {
				t.Fatalf("key %d is missing", -1-i)
			}
		}
		require.Equal(t, mine.Seq(), seq[-10_000], "what its caller did before is in it")
		require.Equal(t, mine.Seq(), seq[-10_001])
		for k := range pairs {
			if seq[2*k] != seq[2*k+1] {
				t.Fatalf("pair %d: one key under grant %d, the other under %d", k, seq[2*k], seq[2*k+1])
			}
		}
	}
	over.Store(true)
	busy.Wait()
}

// What is released and what is acquired while a snapshot is collected changes nothing in it.
func TestSnapshotShowsTheMomentItWasAskedFor(t *testing.T) {
	ctx := t.Context()
	m := keylock.Start[int](ctx)
	defer m.Close()
	const n = 20_000
	locks := make([]keylock.Lock[int], n)
	for i := range locks {
		locks[i], _ = m.TryAcquire(i)
	}
	got := make(chan []keylock.KeyInfo[int])
	go func() {
		keys, err := m.Snapshot(ctx)
		assert.NoError(t, err)
		got <- keys
	}()
	for range 1000 { // until it has begun
		if s, _ := m.Stats(ctx); s.Requests > n+100 {
			break
		}
	}
	for i, l := range locks {
		l.Release()
		m.TryAcquire(n + i)
	}
	keys := <-got
	mixed := slices.ContainsFunc(keys, func(k keylock.KeyInfo[int]) bool { return k.Held != 1 || k.Waiting != 0 })
	assert.False(t, mixed)
	assert.InDelta(t, n, len(keys), 1, "between a release and an acquisition one is missing")
	assert.Equal(t, keys[0].At, keys[len(keys)-1].At)
	// It is a run of keys: what was there when it began, and nothing of what came later.
	slices.SortFunc(keys, func(a, b keylock.KeyInfo[int]) int { return a.Key - b.Key })
	assert.InDelta(t, len(keys)-1, keys[len(keys)-1].Key-keys[0].Key, 1)
}

func TestSnapshotEndsWithItsContext(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	for i := range 100_000 {
		m.TryAcquire(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := m.Snapshot(ctx)
		ended <- err
	}()
	time.Sleep(time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, err := m.Snapshot(ctx)
	require.ErrorIs(t, err, context.Canceled)

	// It leaves nothing behind: the next ones are served.
	for range 3 {
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 100_000)
	}
}

// Two snapshots are collected at a time; a third that waits may be cancelled, too.
func TestManySnapshotsAtOnce(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	for i := range 2000 {
		m.TryAcquire(i)
	}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
			}
			keys, err := m.Snapshot(ctx)
			if err != nil {
				assert.ErrorIs(t, err, context.Canceled)
				return
			}
			assert.Len(t, keys, 2000)
			keys[0].Holders[0].Session = "mine" // in this copy only
		})
	}
	all.Wait()
	keys, err := m.Snapshot(t.Context())
	require.NoError(t, err)
	for _, k := range keys {
		require.Empty(t, k.Holders[0].Session)
	}
}

func TestSnapshotsAreRefusedWhenTheManagerEnds(t *testing.T) {
	for name, end := range map[string]func(m *keylock.Manager[int], l keylock.Lock[int]){
		"Close": func(m *keylock.Manager[int], _ keylock.Lock[int]) { m.Close() },
		"Shutdown": func(m *keylock.Manager[int], l keylock.Lock[int]) {
			l.Release()
			m.Shutdown(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := keylock.Start[int](t.Context())
			many := make([]int, 50_000)
			for i := range many {
				many[i] = i
			}
			locks, _ := m.TryAcquireSet(alone(many...)...)
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					keys, err := m.Snapshot(t.Context())
					if err == nil {
						assert.Len(t, keys, len(many))
						return
					}
					assert.ErrorIs(t, err, keylock.ErrClosed)
				})
			}
			time.Sleep(time.Millisecond)
			end(m, locks)
			all.Wait()
			_, err := m.Snapshot(t.Context())
			require.ErrorIs(t, err, keylock.ErrClosed)
		})
	}
}

// A shutdown serves questions, while it waits for the last holder.
func TestSnapshotDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context())
		last, _ := m.TryAcquire(1)
		go m.Shutdown(t.Context())
		synctest.Wait()
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int{1}, keysOf(keys))
		last.Release()
		synctest.Wait()
		_, err = m.Snapshot(t.Context())
		require.ErrorIs(t, err, keylock.ErrClosed)
	})
}

func TestSnapshotShowsTheFirstOfManyAndInspectToo(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	for range 1500 {
		m.TryAcquireSet(sharing(1)...)
	}
	for range 1700 {
		m.Reserve(1)
	}
	keys, err := m.Snapshot(t.Context())
	require.NoError(t, err)
	one, err := m.Inspect(t.Context(), 1)
	require.NoError(t, err)
	for _, k := range []keylock.KeyInfo[int]{keys[0], one} {
		assert.Equal(t, 1500, k.Held)
		assert.Equal(t, 1700, k.Waiting)
		assert.Len(t, k.Holders, 1000)
		assert.Len(t, k.Waiters, 1000)
		assert.EqualValues(t, 1000, k.Holders[999].Seq)
		assert.Equal(t, 1000, k.Waiters[999].Position)
	}
}

// Snapshots that were abandoned leave no memory behind.
func TestMemoryOfAbandonedSnapshotsGoesBack(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	locks := make([]keylock.Lock[int], 20_000)
	for i := range locks {
		locks[i], _ = m.TryAcquire(i)
	}
	abandon := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond)
		defer cancel()
		m.Snapshot(ctx)
	}
	abandon()
	m.Inspect(t.Context(), 1)
	before := retainedHeap()
	for range 100 {
		abandon()
	}
	for i, l := range locks { // what changes is of no interest any more
		l.Release()
		locks[i], _ = m.TryAcquire(i)
	}
	m.Inspect(t.Context(), 1)
	assert.LessOrEqual(t, int64(retainedHeap()-before), int64(1<<20))
	runtime.KeepAlive(m)
}
