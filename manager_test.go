package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// This file has the tests of the numbered guarantees in the package documentation, in
// their order; what they say of memory comes last.

func TestGuarantee01Exclusion(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		keys := []string{"a", "b", "c"}
		inside := make([]int, len(keys))
		var all sync.WaitGroup
		for g := range 150 {
			all.Go(func() {
				for round := range 10 {
					k := (g + round) % len(keys)
					l, err := m.Acquire(t.Context(), keys[k])
					if !assert.NoError(t, err) {
						return
					}
					inside[k]++
					time.Sleep(time.Millisecond) // time for another to enter
					assert.Equal(t, 1, inside[k], "holders of %q", keys[k])
					inside[k]--
					l.Release()
				}
			})
		}
		all.Wait()
		assert.Equal(t, uint64(1500), statsOf(t, m).Acquired)
	})
}

func TestGuarantee02Order(t *testing.T) {
	run(t, "of acquisitions", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		var queue []*call
		for range 20 {
			queue = append(queue, startAcquire(t.Context(), m, "k"))
		}
		last := l.Seq()
		for i, c := range queue {
			l.Release()
			l = c.requireLock(t)
			assert.Greater(t, l.Seq(), last)
			last = l.Seq()
			for _, later := range queue[i+1:] {
				later.requireWaits(t)
			}
		}
	})
	run(t, "of reservations in a loop", func(t *testing.T, m manager) {
		var queue []reservation
		for range 50 {
			queue = append(queue, m.Reserve("k"))
		}
		var order []int
		for i, r := range slices.Backward(queue) { // goroutines start in any order
			go func() {
				l, err := r.Wait(t.Context())
				if assert.NoError(t, err) {
					order = append(order, i)
					l.Release()
				}
			}()
			synctest.Wait()
		}
		assert.Len(t, order, 50)
		assert.IsIncreasing(t, order)
	})
	run(t, "of one goroutine's different calls", func(t *testing.T, m manager) {
		r := m.Reserve("k")
		requireBusy(t, m, "k")
		second := startAcquire(t.Context(), m, "k")
		second.requireWaits(t)
		first, err := r.Wait(t.Context())
		require.NoError(t, err)
		first.Release()
		assert.Greater(t, second.requireLock(t).Seq(), first.Seq())
	})
	run(t, "is not broken by a try", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		waiter := startAcquire(t.Context(), m, "k")
		l.Release()
		requireBusy(t, m, "k") // the waiter may not even have woken up yet
		waiter.requireLock(t)
	})
	run(t, "is not broken by a release and an acquisition at once", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		first := startAcquire(t.Context(), m, "k")
		again := start(func() (lock, error) {
			l.Release()
			return m.Acquire(t.Context(), "k")
		})
		again.requireWaits(t)
		first.requireLock(t).Release()
		again.requireLock(t)
	})
}

func TestGuarantee03Independence(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		hold(t, m, "held")
		for range 100 {
			startAcquire(t.Context(), m, "held").requireWaits(t)
		}
		for i := range 1000 {
			startAcquire(t.Context(), m, fmt.Sprint(i)).requireLock(t)
		}
	})
}

func TestGuarantee04Cancellation(t *testing.T) {
	run(t, "ends the wait at once and changes no other's order", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		first := startAcquire(t.Context(), m, "k")
		begun := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		second := startAcquire(short, m, "k")
		third := startAcquire(t.Context(), m, "k")

		<-short.Done()
		second.requireErr(t, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begun))
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Waiting: 2, Acquired: 1, Cancelled: 1}, statsOf(t, m))

		l.Release()
		l = first.requireLock(t)
		third.requireWaits(t)
		l.Release()
		third.requireLock(t)
	})
	run(t, "of a context that is done never acquires a free key", func(t *testing.T, m manager) {
		for range 100 {
			l, err := m.Acquire(cancelled(), "k")
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, l)
		}
		assert.Zero(t, statsOf(t, m))
	})
	run(t, "works with a context type of the user's own", func(t *testing.T, m manager) {
		hold(t, m, "k")
		ctx := &ownContext{done: make(chan struct{})}
		waiter := startAcquire(ctx, m, "k")
		waiter.requireWaits(t)
		ctx.end(errOwn)
		waiter.requireErr(t, errOwn)
	})
}

// A waiter in the middle of a queue a hundred times as long leaves it about as fast. A
// walk along the queue would take a hundred times as long; memory that is no longer in
// the cache takes a few times as long.
func TestGuarantee04CancellationCostDoesNotGrowWithTheLine(t *testing.T) {
	const leaving = 500
	cost := func(length int) time.Duration {
		m := keylock.Start[string](t.Context())
		defer m.Close()
		hold(t, m, "k")
		queue := make([]reservation, length)
		for i := range queue {
			queue[i] = m.Reserve("k")
		}
		statsOf(t, m) // the owner has served them all
		best := time.Duration(math.MaxInt64)
		for range 5 {
			middle := len(queue)/2 - leaving/2
			begun := time.Now()
			for _, r := range queue[middle : middle+leaving] {
				r.Cancel()
			}
			statsOf(t, m)
			best = min(best, time.Since(begun))
			queue = slices.Delete(queue, middle, middle+leaving)
		}
		return best
	}
	ratio := math.Inf(1)
	for tries := 0; tries < 5 && ratio >= 20; tries++ { // a pause of the machine does not repeat itself
		ratio = min(ratio, float64(cost(300_000))/float64(cost(3_000)))
	}
	assert.Less(t, ratio, 20.0)
}

func TestGuarantee05GrantOrCancelNeverBothNeverNeither(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		granted, gaveUp := 0, 0
		for round := range 2000 {
			l := hold(t, m, "k")
			ctx, cancel := context.WithCancel(t.Context())
			racer := startAcquire(ctx, m, "k")
			next := startAcquire(t.Context(), m, "k")

			// The grant and the cancellation cross, in both orders.
			if round%2 == 0 {
				l.Release()
				cancel()
			} else {
				cancel()
				l.Release()
			}
			require.True(t, racer.over())
			if racer.err == nil {
				granted++
				next.requireWaits(t)
				racer.lock.Release()
			} else {
				gaveUp++
				racer.requireErr(t, context.Canceled)
			}
			next.requireLock(t).Release()
			requireFree(t, m, "k")
		}
		s := statsOf(t, m)
		assert.Equal(t, s.Acquired, s.Released)
		assert.NotZero(t, gaveUp)
		t.Logf("granted %d, cancelled %d", granted, gaveUp)
	})
}

func TestGuarantee06ReleaseIsExact(t *testing.T) {
	run(t, "a second one, from anywhere, frees no other's lock", func(t *testing.T, m manager) {
		first := hold(t, m, "k")
		second := startAcquire(t.Context(), m, "k")
		third := startAcquire(t.Context(), m, "k")
		first.Release()
		second.requireLock(t)

		first.Release()
		duplicate := first
		duplicate.Release()
		go first.Release()
		third.requireWaits(t)
		assert.Equal(t, uint64(1), statsOf(t, m).Released)
	})
	run(t, "a late one frees no later grant, of this key or another", func(t *testing.T, m manager) {
		old := hold(t, m, "k")
		old.Release()
		var held []lock
		for i := range 100 { // whatever the table used for the old grant, it uses again
			held = append(held, hold(t, m, fmt.Sprint(i)))
		}
		held = append(held, hold(t, m, "k"))
		for range 10 {
			old.Release()
		}
		assert.Equal(t, len(held), statsOf(t, m).Held)
		for _, l := range held {
			requireBusy(t, m, l.Key())
		}
	})
	run(t, "another goroutine may release", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		go l.Release()
		synctest.Wait()
		requireFree(t, m, "k")
	})
	run(t, "after Close it does nothing", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		require.NoError(t, m.Close())
		for range 1000 { // more than fit into any mailbox
			l.Release()
		}
	})
	run(t, "it never waits for a critical section", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		next := start(func() (lock, error) {
			l, err := m.Acquire(t.Context(), "k")
			time.Sleep(time.Hour)
			return l, err
		})
		begun := time.Now()
		l.Release()
		assert.Zero(t, time.Since(begun))
		time.Sleep(time.Hour)
		next.requireLock(t)
	})
}

func TestGuarantee07EvictionIsImmediate(t *testing.T) {
	requireEmpty := func(t *testing.T, m manager) {
		t.Helper()
		assert.Zero(t, statsOf(t, m).Keys)
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		assert.Empty(t, keys)
		assert.False(t, active(t, m, "k"))
	}
	run(t, "before anything", requireEmpty)
	run(t, "after a release", func(t *testing.T, m manager) {
		hold(t, m, "k").Release()
		requireEmpty(t, m)
	})
	run(t, "after a cancelled reservation", func(t *testing.T, m manager) {
		m.Reserve("k").Cancel()
		requireEmpty(t, m)
	})
	run(t, "after a wait that its context ended", func(t *testing.T, m manager) {
		_, err := m.Reserve("k").Wait(cancelled())
		require.ErrorIs(t, err, context.Canceled)
		requireEmpty(t, m)
	})
	run(t, "when the holder goes before the last waiter is cancelled", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		waiter := startAcquire(ctx, m, "k")
		cancel()
		l.Release()
		if waiter.over() {
			waiter.lock.Release() // in case it was faster
		}
		requireEmpty(t, m)
	})
	run(t, "but not while a request waits", func(t *testing.T, m manager) {
		first, second := m.Reserve("k"), m.Reserve("k")
		first.Cancel()
		assert.True(t, active(t, m, "k"))
		second.Cancel()
		requireEmpty(t, m)
	})
}

func TestGuarantee08Idle(t *testing.T) {
	run(t, "at once when nothing is active", func(t *testing.T, m manager) {
		require.NoError(t, m.WaitIdle(t.Context()))
		hold(t, m, "k").Release()
		require.NoError(t, m.WaitIdle(t.Context()))
	})
	run(t, "any number of callers, at the first moment", func(t *testing.T, m manager) {
		a := hold(t, m, "a")
		var idle []*call
		for range 10 {
			idle = append(idle, startErr(func() error { return m.WaitIdle(t.Context()) }))
		}
		a.Release()
		hold(t, m, "a") // busy again at once, perhaps before a waiter woke up
		for _, c := range idle {
			c.requireNil(t)
		}
		startErr(func() error { return m.WaitIdle(t.Context()) }).requireWaits(t)
	})
	run(t, "counts keys acquired after the call", func(t *testing.T, m manager) {
		a := hold(t, m, "a")
		idle := startErr(func() error { return m.WaitIdle(t.Context()) })
		b := hold(t, m, "b")
		a.Release()
		idle.requireWaits(t)
		b.Release()
		idle.requireNil(t)
	})
	run(t, "counts waiters", func(t *testing.T, m manager) {
		a := hold(t, m, "a")
		waiter := startAcquire(t.Context(), m, "a")
		idle := startErr(func() error { return m.WaitIdle(t.Context()) })
		a.Release()
		idle.requireWaits(t)
		waiter.requireLock(t).Release()
		idle.requireNil(t)
	})
	run(t, "comes with a cancellation too", func(t *testing.T, m manager) {
		granted, waiting := m.Reserve("a"), m.Reserve("a")
		idle := startErr(func() error { return m.WaitIdle(t.Context()) })
		waiting.Cancel()
		idle.requireWaits(t)
		granted.Cancel()
		idle.requireNil(t)
	})
	run(t, "ends with its context", func(t *testing.T, m manager) {
		hold(t, m, "k")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		patient := startErr(func() error { return m.WaitIdle(t.Context()) })
		hasty := startErr(func() error { return m.WaitIdle(ctx) })
		time.Sleep(time.Second)
		hasty.requireErr(t, context.DeadlineExceeded)
		patient.requireWaits(t)
	})
}

func TestGuarantee09Shutdown(t *testing.T) {
	ends := map[string]func(m manager, cancel func()){
		"Close":               func(m manager, _ func()) { m.Close() },
		"Start's context end": func(_ manager, cancel func()) { cancel() },
	}
	for name, end := range ends {
		t.Run("after "+name+" nothing is granted", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				m := keylock.Start[string](ctx)
				holder := hold(t, m, "k")
				first := startAcquire(t.Context(), m, "k")
				second := startAcquire(t.Context(), m, "k")
				end(m, cancel)
				holder.Release() // the owner may not have noticed yet
				_, ok := m.TryAcquire("free")
				require.False(t, ok)
				_, err := m.Acquire(t.Context(), "free")
				require.ErrorIs(t, err, keylock.ErrClosed)
				first.requireErr(t, keylock.ErrClosed)
				second.requireErr(t, keylock.ErrClosed)
				<-m.Done()
			})
		})
	}
	run(t, "Shutdown serves what is queued and refuses what is new", func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		queued := startAcquire(t.Context(), m, "k")
		reserved := m.Reserve("k")
		shutdown := startErr(func() error { return m.Shutdown(t.Context()) })

		for _, key := range []string{"k", "free"} {
			_, err := m.Acquire(t.Context(), key)
			require.ErrorIs(t, err, keylock.ErrClosed)
			requireBusy(t, m, key)
		}
		l.Release()
		shutdown.requireWaits(t)
		queued.requireLock(t).Release()
		shutdown.requireWaits(t)
		last, err := reserved.Wait(t.Context())
		require.NoError(t, err)
		shutdown.requireWaits(t)
		last.Release()
		shutdown.requireNil(t)
		<-m.Done()
	})
}

func TestGuarantee10NoLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := bubbleGoroutines()
		m := keylock.Start[string](t.Context())
		assert.Equal(t, before+1, bubbleGoroutines(), "one goroutine per manager")

		hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 50 {
			startAcquire(ctx, m, "k")
			startErr(func() error { return m.WaitIdle(ctx) })
			m.Reserve("k")
		}
		startErr(func() error { return m.Shutdown(ctx) })
		assert.Equal(t, before+1+101, bubbleGoroutines(), "a waiting call starts none")

		require.NoError(t, m.Close()) // whatever is held and queued
		<-m.Done()
		assert.Equal(t, before, bubbleGoroutines(), "none is left")
	})
}

// When the context of Start ends at the moment of Close, a goroutine is about to wake the
// owner up. It is gone as well when the manager is done.
func TestGuarantee10WhoWakesTheOwnerIsGoneToo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // what is made ready last runs first
	const rounds = 50
	left := 0
	for range rounds {
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(context.Background())
		m := keylock.Start[string](ctx)
		statsOf(t, m) // the owner waits for requests by now
		cancel()
		m.Close()
		left += max(0, runtime.NumGoroutine()-before)
	}
	assert.Less(t, left, rounds/2, "goroutines that were left when Close returned")
}

func TestGuarantee11OneHistory(t *testing.T) {
	run(t, "a goroutine sees its own earlier calls", func(t *testing.T, m manager) {
		for range 1000 {
			granted, waiting := m.Reserve("k"), m.Reserve("k")
			assert.True(t, active(t, m, "k"))
			s := statsOf(t, m)
			assert.Equal(t, []int{1, 1, 1}, []int{s.Keys, s.Held, s.Waiting})
			keys, err := m.Snapshot(t.Context())
			require.NoError(t, err)
			require.Len(t, keys, 1)
			assert.Equal(t, []any{"k", 1, 1}, []any{keys[0].Key, keys[0].Held, keys[0].Waiting})
			waiting.Cancel()
			l, err := granted.Wait(t.Context())
			require.NoError(t, err)
			assert.True(t, active(t, m, "k"))
			l.Release()
			assert.False(t, active(t, m, "k"))
		}
	})
	t.Run("each answer shows one point of it", func(t *testing.T) {
		m := keylock.Start[string](t.Context())
		defer m.Close()
		stop := make(chan struct{})
		var work sync.WaitGroup
		for pair := range 8 {
			outer, inner := fmt.Sprint("outer", pair), fmt.Sprint("inner", pair)
			work.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					a, _ := m.Acquire(t.Context(), outer)
					b, _ := m.Acquire(t.Context(), inner)
					b.Release()
					a.Release()
				}
			})
		}
		for range 500 {
			keys, err := m.Snapshot(t.Context())
			require.NoError(t, err)
			active := make(map[string]bool)
			for _, k := range keys {
				active[k.Key] = true
				assert.Equal(t, 1, k.Held)
			}
			for key := range active {
				if pair, inner := strings.CutPrefix(key, "inner"); inner {
					assert.True(t, active["outer"+pair], "%v shows two points of the history", keys)
				}
			}
			s := statsOf(t, m)
			assert.Equal(t, uint64(s.Held), s.Acquired-s.Released)
			assert.Equal(t, s.Keys, s.Held)
		}
		close(stop)
		work.Wait()
	})
}

func TestGuarantee12OwnerNeverRunsUserCodeAndNeverWaits(t *testing.T) {
	t.Run("a bad key fails in its own call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := keylock.Start[any](t.Context())
			defer m.Close()
			l, err := m.Acquire(t.Context(), "held")
			require.NoError(t, err)
			waiter := start(func() (lock, error) {
				_, err := m.Acquire(t.Context(), "held")
				return lock{}, err
			})
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					assert.Panics(t, func() { m.Acquire(t.Context(), []int{1}) })
					_, err := m.Acquire(t.Context(), math.NaN())
					assert.ErrorIs(t, err, keylock.ErrInvalidKey)
				})
			}
			all.Wait()
			waiter.requireWaits(t)
			assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Waiting: 1, Acquired: 1}, statsOf(t, m))
			l.Release()
			waiter.requireNil(t)
		})
	})
	t.Run("contexts are asked by their callers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx := &ownContext{done: make(chan struct{})}
			m := keylock.Start[string](ctx)
			synctest.Wait()
			asked := ctx.asked.Load()
			for range 100 {
				hold(t, m, "k").Release()
			}
			statsOf(t, m)
			assert.Equal(t, asked, ctx.asked.Load(), "the owner asked the user's context")
			ctx.end(errOwn)
			<-m.Done()
		})
	})
	run(t, "a caller need not collect what it asked for", func(t *testing.T, m manager) {
		for i := range 1000 {
			m.Reserve(fmt.Sprint(i % 10))
		}
		assert.Equal(t, 990, statsOf(t, m).Waiting)
	})
}

// Meaningful with -race only.
func TestGuarantee13ReleaseHappensBeforeTheNextAcquisition(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	const each = 200
	count := 0
	var all sync.WaitGroup
	for g := range 30 {
		all.Go(func() {
			for range each {
				switch g % 3 {
				case 0:
					l, err := m.Acquire(t.Context(), "k")
					assert.NoError(t, err)
					count++
					l.Release()
				case 1:
					l, err := m.Reserve("k").Wait(t.Context())
					assert.NoError(t, err)
					count++
					l.Release()
				case 2:
					l, ok := m.TryAcquire("k")
					for !ok {
						runtime.Gosched()
						l, ok = m.TryAcquire("k")
					}
					count++
					l.Release()
				}
			}
		})
	}
	watch(t, time.Minute, all.Wait)
	assert.Equal(t, 30*each, count)
}

func TestGuarantee14Bubbles(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		begun := time.Now()
		var all sync.WaitGroup
		for range 24 {
			all.Go(func() {
				assert.NoError(t, m.Do(t.Context(), "k", func(context.Context) error {
					time.Sleep(time.Hour)
					return nil
				}))
			})
		}
		all.Wait()
		assert.Equal(t, 24*time.Hour, time.Since(begun))
	})
}

func TestGuarantee15Scope(t *testing.T) {
	run(t, "fn has the key and the context, its error comes back as it is", func(t *testing.T, m manager) {
		type scope struct{}
		ctx := context.WithValue(t.Context(), scope{}, 15)
		want := errors.New("fn's own")
		err := m.Do(ctx, "k", func(inner context.Context) error {
			assert.Equal(t, 15, inner.Value(scope{}))
			requireBusy(t, m, "k")
			return want
		})
		assert.True(t, err == want)
		requireFree(t, m, "k")
		assert.NoError(t, m.Do(ctx, "k", func(context.Context) error { return nil }))
		requireFree(t, m, "k")
	})
	run(t, "a panic releases and goes on", func(t *testing.T, m manager) {
		assert.PanicsWithValue(t, "fn", func() {
			m.Do(t.Context(), "k", func(context.Context) error { panic("fn") })
		})
		requireFree(t, m, "k")
	})
	run(t, "runtime.Goexit releases", func(t *testing.T, m manager) {
		go m.Do(t.Context(), "k", func(context.Context) error {
			runtime.Goexit()
			return nil
		})
		synctest.Wait()
		assert.Equal(t, uint64(1), statsOf(t, m).Acquired)
		requireFree(t, m, "k")
	})
	run(t, "fn is not called without the key", func(t *testing.T, m manager) {
		never := func(context.Context) error {
			t.Error("fn was called")
			return nil
		}
		assert.ErrorIs(t, m.Do(cancelled(), "k", never), context.Canceled)
		hold(t, m, "k")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, m.Do(ctx, "k", never), context.DeadlineExceeded)
		m.Close()
		assert.ErrorIs(t, m.Do(t.Context(), "k", never), keylock.ErrClosed)
	})
}

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
