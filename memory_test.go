package keylock_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// After a burst the retained heap is within 1 MiB of where it began, also while a few
// keys are held.
func TestGuarantee07MemoryOfABurstGoesBack(t *testing.T) {
	const mebibyte = 1 << 20
	keys, waiters := 1_000_000, 100_000
	if locktest.RaceEnabled {
		keys, waiters = 100_000, 20_000
	}
	bursts := map[string]func(m *keylock.Manager[int]){
		"of keys": func(m *keylock.Manager[int]) {
			locks := make([]keylock.Lock[int], keys)
			for i := range locks {
				locks[i], _ = m.TryAcquire(i)
			}
			assert.GreaterOrEqual(t, statsOf(t, m).Held, keys)
			for _, l := range locks {
				l.Release()
			}
		},
		"of waiters for one key": func(m *keylock.Manager[int]) {
			queue := make([]keylock.Reservation[int], waiters)
			for i := range queue {
				queue[i] = m.Reserve(0)
			}
			assert.Equal(t, waiters-1, statsOf(t, m).Waiting)
			for i, r := range queue {
				if i%2 == 0 {
					r.Cancel()
					continue
				}
				l, err := r.Wait(context.Background())
				assert.NoError(t, err)
				l.Release()
			}
		},
		"of waiters who leave from the end": func(m *keylock.Manager[int]) {
			queue := make([]keylock.Reservation[int], waiters)
			for i := range queue {
				queue[i] = m.Reserve(0)
			}
			for i := range queue {
				queue[len(queue)-1-i].Cancel()
			}
		},
		"of readers that are granted together": func(m *keylock.Manager[int]) {
			writer, _ := m.TryAcquire(0)
			queue := make([]keylock.Reservation[int], waiters)
			for i := range queue {
				queue[i] = m.ReserveSet(sharing(0)...)
			}
			writer.Release()
			for statsOf(t, m).Shared < waiters { // a part of them after the other
				runtime.Gosched()
			}
			for _, r := range queue {
				r.Cancel()
			}
		},
		"of one lock on many keys": func(m *keylock.Manager[int]) {
			all := make([]int, waiters)
			for i := range all {
				all[i] = i
			}
			locks, err := m.AcquireAll(context.Background(), all...)
			assert.NoError(t, err)
			locks.Release()
		},
	}
	for name, burst := range bursts {
		for _, held := range []int{0, 10} {
			t.Run(name+map[bool]string{true: ", others held"}[held > 0], func(t *testing.T) {
				m := keylock.Start[int](t.Context())
				defer m.Close()
				for i := range held {
					_, ok := m.TryAcquire(-1 - i)
					require.True(t, ok)
				}
				before := retainedHeap()
				burst(m)
				assert.Equal(t, held, statsOf(t, m).Keys)
				after := retainedHeap()
				assert.Less(t, after-before, int64(mebibyte), "bytes more than before")
				assert.Equal(t, held, statsOf(t, m).Keys) // the manager is alive until here
			})
		}
	}
}

// Requests are used again, but what they named is forgotten when they are over.
func TestGuarantee07KeysAreForgotten(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that each call uses the last one's memory
	type big [1 << 10]byte
	m := keylock.Start[*big](t.Context())
	defer m.Close()
	ask := map[string]func(key *big) error{
		"one key": func(key *big) error {
			l, err := m.Acquire(t.Context(), key)
			l.Release()
			return err
		},
		"many keys": func(key *big) error {
			l, err := m.AcquireAll(t.Context(), key, nil)
			l.Release()
			return err
		},
	}
	for name, acquire := range ask {
		t.Run(name, func(t *testing.T) {
			key := new(big)
			forgotten := weak.Make(key)
			require.NoError(t, acquire(key))
			key = nil
			for range 10 { // calls, or the garbage collector would empty the pool
				l, err := m.Acquire(t.Context(), nil)
				require.NoError(t, err)
				l.Release()
				statsOf(t, m) // calls in what may be kept
				runtime.GC()
			}
			assert.True(t, forgotten.Value() == nil)
		})
	}
}

// retainedHeap is what survives garbage collection, sync.Pool's two generations
// included.
func retainedHeap() int64 {
	for range 3 {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// The steady state allocates nothing, neither in the caller nor in the owner.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := keylock.Start[string](ctx)
	defer m.Close()
	ended, end := context.WithCancel(ctx)
	end()
	_, err := m.Acquire(ended, "k")
	for name, call := range map[string]func(){
		"a look at the error of a wait that was cancelled": func() { _ = errors.Is(err, context.Canceled) },
		"Acquire": func() {
			l, _ := m.Acquire(ctx, "k")
			l.Release()
		},
		"Acquire without a cancellable context": func() {
			l, _ := m.Acquire(context.Background(), "k")
			l.Release()
		},
		"TryAcquire": func() {
			l, _ := m.TryAcquire("k")
			l.Release()
		},
		"TryAcquire that fails": func() {
			l, _ := m.TryAcquire("k")
			m.TryAcquire("k")
			l.Release()
		},
		"Reserve and Wait": func() {
			l, _ := m.Reserve("k").Wait(ctx)
			l.Release()
		},
		"Reserve and Cancel": func() { m.Reserve("k").Cancel() },
		"a handoff": func() {
			l, _ := m.Acquire(ctx, "k")
			r := m.Reserve("k")
			l.Release()
			l, _ = r.Wait(ctx)
			l.Release()
		},
	} {
		t.Run(name, func(t *testing.T) {
			allocations := testing.AllocsPerRun(1000, call)
			if !locktest.RaceEnabled { // where sync.Pool drops items at random
				assert.Zero(t, allocations)
			}
		})
	}
}
