package keylock_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// requests returns how many requests the owner has received, and calls in what is kept.
func requests(t *testing.T, m manager) uint64 {
	t.Helper()
	s, err := m.Stats(t.Context())
	require.NoError(t, err)
	return s.Requests
}

// use locks a key n times, one after the other.
func use(t *testing.T, m manager, key string, n int) {
	t.Helper()
	for range n {
		l, err := m.Acquire(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, l.Key())
		l.Release()
	}
}

func TestKeptGrantsNeedNoOwner(t *testing.T) {
	ways := map[string]func(t *testing.T, m manager){
		"acquired": func(t *testing.T, m manager) { use(t, m, "k", 1) },
		"tried":    func(t *testing.T, m manager) { hold(t, m, "k").Release() },
		"reserved": func(t *testing.T, m manager) {
			l, err := m.Reserve("k").Wait(t.Context())
			require.NoError(t, err)
			l.Release()
		},
		"done": func(t *testing.T, m manager) {
			require.NoError(t, m.Do(t.Context(), "k", func(context.Context) error { return nil }))
		},
		"reserved and cancelled": func(t *testing.T, m manager) {
			m.Reserve("k").Cancel()
			synctest.Wait() // a cancelled reservation goes to the owner, and so does what follows at once
		},
	}
	for name, way := range ways {
		run(t, name, func(t *testing.T, m manager) {
			before := requests(t, m)
			use(t, m, "k", 1)
			for range 100 {
				way(t, m)
			}
			after := requests(t, m)
			if name == "reserved and cancelled" {
				assert.Greater(t, after-before, uint64(100))
			} else {
				assert.LessOrEqual(t, after-before, uint64(2), "one to acquire, and one to ask")
			}
			assert.Equal(t, keylock.Stats{Acquired: 101, Released: 101}, statsOf(t, m))
		}, keylock.WithKeptGrants(4))
	}
}

func TestGrantsAreKeptUpToTheirNumber(t *testing.T) {
	for _, n := range []int{-1, 0, 1<<24 + 1, math.MaxInt} { // a cell for each: the last ones were "makeslice: len out of range" in Start
		want := fmt.Sprintf("keylock: WithKeptGrants(%d): want 1 to 16777216", n)
		assert.PanicsWithValue(t, want, func() { keylock.WithKeptGrants(n) })
	}
	bubble(t, func(t *testing.T, m manager) {
		use(t, m, "a", 10_000) // the owner counts for itself now and then
		assert.Equal(t, uint64(10_000), statsOf(t, m).Acquired)
		before := requests(t, m)
		use(t, m, "a", 1)
		for range 100 { // of two keys with one place only one is kept
			use(t, m, "a", 1)
			use(t, m, "b", 1)
		}
		assert.Greater(t, requests(t, m)-before, uint64(100))
		before = requests(t, m)
		use(t, m, "a", 1)
		use(t, m, "b", 1)
		use(t, m, "a", 100) // it has the place still
		assert.Less(t, requests(t, m)-before, uint64(10))
		before = requests(t, m)
		use(t, m, "a", 1)
		use(t, m, "b", 100) // it takes the place when it is asked for again
		assert.Less(t, requests(t, m)-before, uint64(10))
	}, keylock.WithKeptGrants(1))
}

// No two grants have one number, and of two of a key the later has the higher one, though the
// numbers of each cell are used up, which are 8,192 at most.
func TestGuarantee06KeptGrantsAreNumberedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		given := make(map[uint64]bool)
		last := make(map[string]uint64)
		note := func(l lock, err error, keys ...string) {
			require.NoError(t, err)
			require.False(t, given[l.Seq()], "grant %d", l.Seq())
			given[l.Seq()] = true
			for _, key := range keys {
				require.Greater(t, l.Seq(), last[key])
				last[key] = l.Seq()
			}
			l.Release()
		}
		for i := range 20_000 {
			for _, key := range []string{"a", "b"} {
				l, err := m.Acquire(t.Context(), key)
				note(l, err, key)
			}
			if i%9000 == 0 { // all is called in, and the numbers are given anew
				l, err := m.AcquireAll(t.Context(), "a", "b", "c")
				note(l, err, "a", "b", "c")
			}
		}
		for key := range last {
			l, err := m.AcquireShared(t.Context(), key)
			note(l, err, key)
		}
	}, keylock.WithKeptGrants(64))
}

func TestNoGrantsAreKeptWhereRequestsAreNoted(t *testing.T) {
	for name, with := range map[string]keylock.Option{
		"callers":    keylock.WithCallers(),
		"hold times": keylock.WithHoldTimes(),
		"slow log":   keylock.WithSlowLog(slog.New(slog.DiscardHandler), time.Hour),
	} {
		run(t, name, func(t *testing.T, m manager) {
			before := requests(t, m)
			use(t, m, "k", 100)
			assert.GreaterOrEqual(t, requests(t, m)-before, uint64(200))
		}, keylock.WithKeptGrants(4), with)
	}
}

// Whatever comes to the owner for a key finds what is kept of it as it is.
func TestKeptGrantIsOneLikeAnyOther(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		use(t, m, "k", 2)
		first := hold(t, m, "k")
		first.Release()
		l := hold(t, m, "k")
		assert.Greater(t, l.Seq(), first.Seq())
		assert.Nil(t, l.Value())
		first.Release() // late
		requireBusy(t, m, "k")
		info, err := m.Inspect(t.Context(), "k")
		require.NoError(t, err)
		assert.Equal(t, 1, info.Held)
		assert.Equal(t, l.Seq(), info.Holders[0].Seq)

		waiters := []*call{
			startAcquire(t.Context(), m, "k"),
			start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") }),
			start(func() (lock, error) { return m.AcquireAll(t.Context(), "other", "k") }),
		}
		for _, w := range waiters {
			w.requireWaits(t)
		}
		for _, w := range waiters {
			l.Release()
			l.Release()
			l = w.requireLock(t)
		}
		l.Release()
		requireFree(t, m, "k")
		first.Release()

		use(t, m, "k", 2)
		l = hold(t, m, "k")
		next := startAcquire(t.Context(), m, "k")
		require.True(t, l.Handoff("value"))
		l = next.requireLock(t)
		assert.Equal(t, "value", l.Value())
		l.Release()

		use(t, m, "k", 2)
		both, err := m.AcquireAll(t.Context(), "other", "k")
		require.NoError(t, err)
		requireBusy(t, m, "k")
		both.Release()

		use(t, m, "k", 2)
		s := m.Session("")
		_, ok := s.TryAcquire("k")
		require.True(t, ok)
		requireBusy(t, m, "k")
		require.NoError(t, s.Close())
		requireFree(t, m, "k")

		use(t, m, "k", 2)
		var readers []lock
		for range 2 {
			reader, err := m.AcquireShared(t.Context(), "k")
			require.NoError(t, err)
			readers = append(readers, reader)
		}
		for _, reader := range readers {
			requireBusy(t, m, "k")
			reader.Release()
		}

		use(t, m, "k", 2)
		l = hold(t, m, "k")
		l.Downgrade()
		shared, err := m.AcquireShared(t.Context(), "k")
		require.NoError(t, err)
		l.Release()
		requireBusy(t, m, "k")
		shared.Release()

		use(t, m, "k", 2)
		l = hold(t, m, "k")
		wanted := l.Wanted()
		select {
		case <-wanted:
			t.Error("nothing waits yet")
		default:
		}
		next = startAcquire(t.Context(), m, "k")
		<-wanted
		l.Release()
		next.requireLock(t).Release()

		use(t, m, "k", 2)
		l = hold(t, m, "k")
		l.Release()
		<-l.Wanted() // it has ended, though another may hold it
		assert.False(t, l.Handoff(nil))
	}, keylock.WithKeptGrants(4))
}

func TestWhoLooksSeesKeptGrants(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		use(t, m, "free", 2)
		use(t, m, "held", 2)
		l := hold(t, m, "held")
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 1)
		assert.Equal(t, "held", keys[0].Key)
		use(t, m, "free", 2)
		top, err := m.Top(t.Context(), 9)
		require.NoError(t, err)
		assert.Empty(t, top.LongestQueues) // no key has a waiter
		use(t, m, "free", 2)
		assert.Equal(t, keylock.Stats{Keys: 1, Held: 1, Acquired: 9, Released: 8}, statsOf(t, m))
		use(t, m, "free", 2)
		assert.True(t, active(t, m, "held"))
		assert.False(t, active(t, m, "free"))
		l.Release()
	}, keylock.WithKeptGrants(16))
}

func TestManagerWithKeptGrantsIsIdle(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		use(t, m, "k", 2)
		require.NoError(t, m.WaitIdle(t.Context()))
		use(t, m, "k", 2)
		l := hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		both := []*call{startErr(func() error { return m.WaitIdle(ctx) }), startErr(func() error { return m.WaitIdle(t.Context()) })}
		cancel()
		both[0].requireErr(t, context.Canceled)
		both[1].requireWaits(t)
		l.Release()
		both[1].requireNil(t)

	}, keylock.WithKeptGrants(16))
}

// No grants are kept until the owner has served what is counted, nor while anything waits in WaitIdle. Then they are.
func TestGrantsAreKeptAgain(t *testing.T) {
	soon := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		return ctx
	}
	giveUp := func(t *testing.T, m manager) { require.ErrorIs(t, m.WaitIdle(soon(t)), context.DeadlineExceeded) }
	for name, do := range map[string]func(t *testing.T, m manager){
		"after a reservation": func(t *testing.T, m manager) {
			l, err := m.Reserve("other").Wait(t.Context())
			require.NoError(t, err)
			l.Release()
		},
		"after a reservation that was cancelled": func(_ *testing.T, m manager) { m.Reserve("other").Cancel() },
		"after a wait that has ended": func(t *testing.T, m manager) {
			l := hold(t, m, "other")
			_, err := m.Acquire(soon(t), "other")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			l.Release()
		},
		"after a reservation whose wait has ended": func(t *testing.T, m manager) {
			l := hold(t, m, "other")
			_, err := m.Reserve("other").Wait(soon(t))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			l.Release()
		},
		"after a session":             func(t *testing.T, m manager) { require.NoError(t, m.Session("").Close()) },
		"after WaitIdle was given up": giveUp,
		"after the last WaitIdle was given up": func(t *testing.T, m manager) {
			ctx, cancel := context.WithCancel(t.Context())
			last := startErr(func() error { return m.WaitIdle(ctx) })
			last.requireWaits(t)
			giveUp(t, m)
			before := requests(t, m)
			use(t, m, "k", 100)
			assert.Greater(t, requests(t, m)-before, uint64(200), "one waits still")
			cancel()
			last.requireErr(t, context.Canceled)
		},
	} {
		run(t, name, func(t *testing.T, m manager) {
			// While a key is held the manager does not become idle. No cell is taken by a lock that is shared.
			busy, err := m.AcquireShared(t.Context(), "busy")
			require.NoError(t, err)
			first := startErr(func() error { return m.WaitIdle(t.Context()) })
			first.requireWaits(t)
			busy.Release()
			first.requireNil(t)

			busy, err = m.AcquireShared(t.Context(), "busy")
			require.NoError(t, err)
			do(t, m)
			before := requests(t, m)
			use(t, m, "k", 100)
			assert.Less(t, requests(t, m)-before, uint64(10))
			busy.Release()
		}, keylock.WithKeptGrants(16))
	}
}

func TestKeptGrantsEndWithTheManager(t *testing.T) {
	with := keylock.WithKeptGrants(4)
	run(t, "closed", func(t *testing.T, m manager) {
		use(t, m, "k", 2)
		l := hold(t, m, "other")
		m.Close()
		requireBusy(t, m, "k")
		l.Release()
		requireBusy(t, m, "other")
	}, with)
	run(t, "shut down", func(t *testing.T, m manager) {
		use(t, m, "k", 2)
		l := hold(t, m, "k")
		require.ErrorIs(t, m.Shutdown(cancelled()), context.Canceled)
		requireBusy(t, m, "other")
		down := startErr(func() error { return m.Shutdown(t.Context()) })
		down.requireWaits(t)
		l.Release()
		down.requireNil(t)
		requireBusy(t, m, "k")
	}, with)
	run(t, "shut down while all are free", func(t *testing.T, m manager) {
		use(t, m, "k", 2)
		require.NoError(t, m.Shutdown(t.Context()))
	}, with)
	t.Run("the end of Start's context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := keylock.Start[string](ctx, with)
		use(t, m, "k", 2)
		cancel()
		requireBusy(t, m, "k")
		<-m.Done()
	})
}

// A Shutdown that its caller does not wait for ends a manager whose keys are all free, kept ones
// too, before the owner answers what the same goroutine asks next.
func TestManagerThatHasEndedIsNotInspected(t *testing.T) {
	for range 200 {
		m := keylock.Start[string](t.Context(), keylock.WithKeptGrants(4))
		use(t, m, "k", 2)
		_ = m.Shutdown(cancelled()) // nil if it was fast
		_, err := m.Inspect(t.Context(), "k")
		require.ErrorIs(t, err, keylock.ErrClosed)
	}
}

// A Shutdown that its caller does not wait for, and requests that it has left, come to the
// owner before what the same goroutine does next.
func TestKeptGrantsDoNotOvertakeTheSameGoroutine(t *testing.T) {
	for range 200 {
		m := keylock.Start[string](t.Context(), keylock.WithKeptGrants(4))
		use(t, m, "k", 2)
		earlier := m.Reserve("k")
		requireBusy(t, m, "k")
		earlier.Cancel()
		hold(t, m, "k").Release()
		require.ErrorIs(t, m.Shutdown(cancelled()), context.Canceled)
		requireBusy(t, m, "k")
		m.Close()
	}
}

// At most n keys are remembered, and none when something has looked at all.
func TestGuarantee07KeptGrantsAreBounded(t *testing.T) {
	const n, keys = 10_000, 50_000
	m := keylock.Start[int](t.Context(), keylock.WithKeptGrants(n))
	defer m.Close()
	touch := func() {
		for key := range keys {
			for range 2 {
				l, err := m.Acquire(t.Context(), key)
				require.NoError(t, err)
				l.Release()
			}
		}
	}
	before := retainedHeap()
	touch()
	kept := retainedHeap() - before
	t.Logf("%d bytes for each of %d keys", kept/n, n)
	assert.Less(t, kept, int64(n*500), "bytes")
	assert.Zero(t, statsOf(t, m).Keys)
	assert.Less(t, retainedHeap()-before, kept/4, "bytes that are not given back")
	runtime.KeepAlive(m)
}
