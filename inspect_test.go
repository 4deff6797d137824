package keylock_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestSnapshotTellsWhoHoldsAndWhoWaitsForWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx, keylock.WithHoldTimes())
		defer m.Close()
		start := time.Now()
		time.Sleep(time.Second)
		m.Session("reader").AcquireShared(ctx, "k")
		m.TryAcquireSet(sharing("k")...)
		time.Sleep(time.Second)
		m.Reserve("k")
		m.ReserveSet(sharing("k")...)
		time.Sleep(time.Second)
		m.ReserveSet(alone("free", "k")...)

		got, err := m.Snapshot(ctx)
		require.NoError(t, err)
		if got[0].Key == "free" {
			got[0], got[1] = got[1], got[0]
		}
		at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
		all := keylock.Entry{Since: at(3), Keys: 2, Blocked: 1}
		inK, inFree := all, all
		inK.Position, inK.Behind = 3, 2
		inFree.Position = 1
		want := []keylock.KeyInfo[string]{{
			Key: "k", At: at(3), Held: 2, Waiting: 3,
			Holders: []keylock.Entry{
				{Seq: 1, Mode: keylock.Shared, Session: "reader", Since: at(1)},
				{Seq: 2, Mode: keylock.Shared, Since: at(1)},
			},
			Waiters: []keylock.Entry{
				{Position: 1, Since: at(2), Keys: 1, Blocked: 1},
				{Position: 2, Mode: keylock.Shared, Since: at(2), Behind: 1, Keys: 1, Blocked: 1},
				inK,
			},
		}, {
			Key: "free", At: at(3), Waiting: 1,
			Holders: []keylock.Entry{},
			Waiters: []keylock.Entry{inFree},
		}}
		assert.Equal(t, want, got)

		assert.Equal(t, `key "k": held by 2; grant 1 shared "reader" for 2s; grant 2 shared for 2s; `+
			`waiting 3; 1. exclusive for 1s; 2. shared for 1s; 3. exclusive for 0s and for 1 of its 2 keys`, fmt.Sprint(got[0]))

		one, err := m.Inspect(ctx, "k")
		require.NoError(t, err)
		assert.Equal(t, want[0], one)
		none, err := m.Inspect(ctx, "none")
		require.NoError(t, err)
		assert.Equal(t, keylock.KeyInfo[string]{Key: "none", At: at(3), Holders: []keylock.Entry{}, Waiters: []keylock.Entry{}}, none)
	})
}

func TestInspectRefusesWhatContainsRefuses(t *testing.T) {
	m := keylock.Start[any](t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Inspect(ctx, nan)
	require.ErrorIs(t, err, keylock.ErrInvalidKey)
	require.Panics(t, func() { m.Inspect(ctx, []int{1}) })
	m.Close()
	_, err = m.Inspect(ctx, 1)
	require.ErrorIs(t, err, keylock.ErrClosed)
	_, err = m.Top(ctx, 1)
	require.ErrorIs(t, err, keylock.ErrClosed)
	cancel()
	_, err = m.Inspect(ctx, nan)
	require.ErrorIs(t, err, context.Canceled)
	_, err = m.Top(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
}

var nan = func() float64 { zero := 0.0; return zero / zero }()

func TestTopTellsLongestLinesAndOldestHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[int](ctx, keylock.WithHoldTimes())
		defer m.Close()
		top, err := m.Top(ctx, 3)
		require.NoError(t, err)
		assert.Empty(t, top.LongestQueues)
		assert.Empty(t, top.OldestHolds)
		for key := range 10 {
			m.TryAcquire(key)
			for range key {
				m.Reserve(key)
			}
			time.Sleep(time.Minute)
		}
		for range 30 { // many holders of one key
			m.TryAcquireSet(sharing(10)...)
		}
		top, err = m.Top(ctx, 3)
		require.NoError(t, err)
		assert.Equal(t, []int{9, 8, 7}, keysOf(top.LongestQueues))
		assert.Equal(t, []int{0, 1, 2}, keysOf(top.OldestHolds))
		assert.Equal(t, 9, top.Stats.LongestQueue)
		assert.Equal(t, 10*time.Minute, top.Stats.OldestHold)
		assert.Equal(t, 9*time.Minute, top.Stats.OldestWait)

		top, err = m.Top(ctx, 100)
		require.NoError(t, err)
		assert.Equal(t, []int{9, 8, 7, 6, 5, 4, 3, 2, 1}, keysOf(top.LongestQueues))
		assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, keysOf(top.OldestHolds))
		assert.Equal(t, 30, top.OldestHolds[10].Held)
		assert.Len(t, top.OldestHolds[10].Holders, 16)

		top, err = m.Top(ctx, -1)
		require.NoError(t, err)
		assert.Empty(t, top.LongestQueues)
		assert.Empty(t, top.OldestHolds)
	})
}

func keysOf(infos []keylock.KeyInfo[int]) (keys []int) {
	for _, k := range infos {
		keys = append(keys, k.Key)
	}
	return keys
}

func TestTopCutsLongLines(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	for range 101 {
		m.Reserve(1)
	}
	top, err := m.Top(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, 100, top.LongestQueues[0].Waiting)
	assert.Len(t, top.LongestQueues[0].Waiters, 16)
	assert.Nil(t, top.OldestHolds, "no option asks for it to be noted")
}

func TestHoldTimesAreThoseOfTheGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[int](ctx, keylock.WithHoldTimes())
		defer m.Close()
		first, _ := m.TryAcquire(1)
		second, third := m.Reserve(1), m.Reserve(1)
		session := m.Session("job")
		fourth := session.Reserve(1)

		time.Sleep(time.Second)
		first.Release()
		lock, _ := second.Wait(ctx)
		time.Sleep(2 * time.Second)
		require.True(t, lock.Handoff("value"))
		time.Sleep(4 * time.Second)
		third.Cancel()
		last, err := fourth.Wait(ctx)
		require.NoError(t, err)
		time.Sleep(8 * time.Second)
		require.False(t, last.Handoff("value"), "there is no waiter, so it is still held")
		s, _ := m.Stats(ctx)
		assert.Equal(t, 8*time.Second, s.OldestHold)
		session.Close()

		s, _ = m.Stats(ctx)
		assert.EqualValues(t, 4, s.Holds.Count)
		assert.Equal(t, 15.0, s.Holds.Sum)
		assert.Equal(t, 8*time.Second, s.Holds.Max)
		assert.Zero(t, s.OldestHold)
		assert.Zero(t, s.Held)
	})
}

func TestOffNothingIsNoted(t *testing.T) {
	ctx := t.Context()
	m := keylock.Start[int](ctx)
	defer m.Close()
	m.Acquire(ctx, 1)
	k, err := m.Inspect(ctx, 1)
	require.NoError(t, err)
	assert.Equal(t, []keylock.Entry{{Seq: 1}}, k.Holders)
	s, err := m.Stats(ctx)
	require.NoError(t, err)
	assert.Zero(t, s.OldestHold)
	assert.Zero(t, s.Holds)
	assert.Zero(t, s.Waits)
}

func TestStatsTellHowBusyTheOwnerIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context())
		defer m.Close()
		for range 100 {
			m.TryAcquire(1)
		}
		time.Sleep(time.Hour)
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 101, s.Requests)
		assert.Equal(t, time.Hour, s.Uptime)
		assert.Zero(t, s.Serving, "in a bubble to serve takes no time")
	})

	m := keylock.Start[int](t.Context())
	defer m.Close()
	s, err := m.Stats(t.Context())
	require.NoError(t, err)
	for range 1000 {
		for range 100 {
			m.Reserve(1).Cancel()
		}
		if s, err = m.Stats(t.Context()); err != nil || s.Serving > 0 {
			break
		}
	}
	require.NoError(t, err)
	assert.Positive(t, s.Serving)
	assert.Positive(t, s.Busy())

	assert.InDelta(t, 0.75, keylock.Stats{Serving: 3, Uptime: 4}.Busy(), 1e-9)
	assert.InDelta(t, 1, keylock.Stats{Serving: 5, Uptime: 4}.Busy(), 0)
	assert.Zero(t, keylock.Stats{}.Busy())
}

func TestStatsAsText(t *testing.T) {
	s := keylock.Stats{Keys: 3, Held: 2, Shared: 1, Waiting: 4, LongestQueue: 3, Acquired: 9, Waited: 5, Cancelled: 2, Rejected: 1, Released: 7}
	assert.Equal(t, "keys 3, held 2 (shared 1), waiting 4 (longest queue 3), acquired 9 (waited 5), cancelled 2, rejected 1, released 7, "+
		"waits 0, owner busy 0%", fmt.Sprint(s))
	s.Timed, s.OldestHold, s.OldestWait, s.SlowLogLost = true, 1234*time.Millisecond, 3*time.Microsecond, 5
	assert.Contains(t, s.String(), "holds 0, oldest hold 1.23s, oldest wait 3µs, owner busy 0%, slow log records lost 5")
}

// A traced program shows each wait in a queue as a region of the waiting goroutine, and
// nothing for a call that is served at once.
func TestContendedWaitIsATraceRegion(t *testing.T) {
	traced := func(contended bool) string {
		var buf bytes.Buffer
		require.NoError(t, trace.Start(&buf))
		synctest.Test(t, func(t *testing.T) {
			m := keylock.Start[int](t.Context())
			defer m.Close()
			lock, err := m.Acquire(t.Context(), 1)
			require.NoError(t, err)
			if contended {
				go func() {
					lock, err := m.Acquire(t.Context(), 1)
					assert.NoError(t, err)
					lock.Release()
				}()
				synctest.Wait() // until it listens: a call that has its reply by then has not waited
			}
			lock.Release()
			require.NoError(t, m.WaitIdle(t.Context()))
		})
		trace.Stop()
		return buf.String()
	}
	assert.Contains(t, traced(true), "keylock wait")
	assert.NotContains(t, traced(false), "keylock wait")
}

// Also where it looked as if there were something to wait for: the last call had to wait,
// and a reservation is waited for when it was granted long ago.
func TestWhoIsServedAtOnceHasNoTraceRegion(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	traced := func(part func()) string {
		var buf bytes.Buffer
		require.NoError(t, trace.Start(&buf))
		part()
		trace.Stop()
		return buf.String()
	}
	for range 5 {
		first, _ := m.TryAcquire(1)
		go func() {
			untilSomebodyWaits(t, m)
			first.Release()
		}()
		aCallerThatWaits(t, m)
		require.NoError(t, m.WaitIdle(t.Context()))
		assert.NotContains(t, traced(func() { aCallerThatWaits(t, m) }), "keylock wait")

		reservation := m.Reserve(2)
		statsOf(t, m) // it is granted by now
		assert.NotContains(t, traced(func() {
			lock, err := reservation.Wait(t.Context())
			require.NoError(t, err)
			lock.Release()
		}), "keylock wait")
	}
}

func TestBlockProfileTellsWhoWaited(t *testing.T) {
	runtime.SetBlockProfileRate(1)
	defer runtime.SetBlockProfileRate(0)
	m := keylock.Start[int](t.Context())
	defer m.Close()
	var profile bytes.Buffer
	for range 100 { // on a busy machine the answer may be there before the caller blocks
		lock, _ := m.TryAcquire(1)
		waits := make(chan struct{})
		go func() {
			defer close(waits)
			aCallerThatWaits(t, m)
		}()
		untilSomebodyWaits(t, m)
		lock.Release()
		<-waits
		require.NoError(t, m.WaitIdle(t.Context()))
		profile.Reset()
		require.NoError(t, pprof.Lookup("block").WriteTo(&profile, 1))
		if strings.Contains(profile.String(), "aCallerThatWaits") {
			return
		}
	}
	assert.Fail(t, "no wait is reported", profile.String())
}

func untilSomebodyWaits(t *testing.T, m *keylock.Manager[int]) {
	for s, _ := m.Stats(t.Context()); s.Waiting == 0; s, _ = m.Stats(t.Context()) {
		runtime.Gosched()
	}
}

func aCallerThatWaits(t *testing.T, m *keylock.Manager[int]) {
	lock, err := m.Acquire(t.Context(), 1)
	assert.NoError(t, err)
	lock.Release()
}

// Whatever shares keys with whatever, the oldest holds are those that a look at everything
// finds, too.
func TestOldestHoldsAreThoseOfASnapshot(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(30) {
		m := keylock.Start[int](ctx, keylock.WithHoldTimes())
		random := rand.New(rand.NewPCG(seed, 5))
		session := m.Session("some")
		var held []keylock.Lock[int]
		var batches []keylock.Lock[int]
		for step := range 400 {
			key := random.IntN(12)
			switch random.IntN(10) {
			case 0, 1, 2, 3:
				if l, ok := m.TryAcquireSet(sharing(key)...); ok {
					held = append(held, l)
				}
			case 4:
				if l, ok := m.TryAcquire(key); ok {
					held = append(held, l)
				}
			case 5:
				if l, ok := m.TryAcquireSet(alone(key, random.IntN(12), random.IntN(12))...); ok {
					batches = append(batches, l)
				}
				if l, ok := m.TryAcquireSet(append(sharing(key), alone(random.IntN(12))...)...); ok {
					batches = append(batches, l)
				}
				session.TryAcquireSet(append(alone(random.IntN(12)), sharing(key)...)...)
				session.TryAcquireSet(sharing(key)...)
			case 6:
				m.ReserveSet(sharing(key)...).Cancel()
				m.Reserve(key).Cancel()
			case 7, 8:
				if len(held) > 0 {
					i := random.IntN(len(held))
					if random.IntN(4) > 0 || !held[i].Handoff("value") {
						held[i].Release()
					}
					held = slices.Delete(held, i, i+1)
				}
			case 9:
				if len(batches) > 0 {
					batches[0].Release()
					batches = batches[1:]
				}
				if random.IntN(5) == 0 {
					session.Close()
					session = m.Session("another")
				}
			}
			if step%7 != 0 {
				continue
			}
			all, err := m.Snapshot(ctx)
			require.NoError(t, err)
			all = slices.DeleteFunc(all, func(k keylock.KeyInfo[int]) bool { return k.Held == 0 })
			first := func(k keylock.KeyInfo[int]) uint64 { return k.Holders[0].Seq }
			slices.SortFunc(all, func(a, b keylock.KeyInfo[int]) int { return cmp.Compare(first(a), first(b)) })
			n := 1 + random.IntN(14)
			top, err := m.Top(ctx, n)
			require.NoError(t, err)
			require.Len(t, top.OldestHolds, min(n, len(all)))
			for i, k := range top.OldestHolds {
				require.Equal(t, first(all[i]), first(k), "seed %d, step %d: %v", seed, step, top.OldestHolds)
			}
		}
		m.Close()
	}
}

// A key that very many hold does not hide the others, nor does a very large n.
func TestOldestHoldsBesideAKeyWithManyHolders(t *testing.T) {
	ctx := t.Context()
	m := keylock.Start[int](ctx, keylock.WithHoldTimes())
	defer m.Close()
	for range 5000 {
		m.TryAcquireSet(sharing(1)...)
	}
	m.TryAcquire(2)
	for _, n := range []int{2, math.MaxInt} {
		top, err := m.Top(ctx, n)
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2}, keysOf(top.OldestHolds))
	}
}
