package inorder_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

func next(t testing.TB, tracker *inorder.Tracker) int64 {
	t.Helper()
	offset, ok := tracker.Next()
	require.True(t, ok)
	return offset
}

func track(t testing.TB, tracker *inorder.Tracker, offset int64) inorder.Mark {
	t.Helper()
	mark, err := tracker.Track(offset)
	require.NoError(t, err)
	return mark
}

// Every step is compared with the dullest model: a list of the open offsets. It fills and drains in
// turns, so that whole stretches of the log are done, at either end and in between.
func TestTrackerIsLikeItsModel(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		var tracker inorder.Tracker
		var all, open []int64
		marks := make(map[int64]inorder.Mark)
		started := make(map[int64]bool)
		last := int64(-1)
		_, ok := tracker.Next()
		require.False(t, ok)
		for step := range 1000 {
			switch fills := 2 + 5*(step/150%2); { // of nine
			case random.IntN(9) < fills:
				last += 1 + random.Int64N(3) // with holes
				marks[last] = track(t, &tracker, last)
				all, open = append(all, last), append(open, last)
			case len(open) > 0:
				at := random.IntN(len(open))
				if random.IntN(2) == 0 {
					at = min(at, 3) // more often where the log is old
				}
				marks[open[at]].Done()
				open = slices.Delete(open, at, at+1)
			}
			if len(all) == 0 {
				continue
			}
			if offset := all[random.IntN(len(all))]; slices.Contains(open, offset) {
				marks[offset].Start()
				started[offset] = true
			} else {
				marks[offset].Done() // again
			}
			want, span := last+1, int64(0)
			if len(open) > 0 {
				want, span = open[0], last-open[0]+1
			}
			require.Equal(t, want, next(t, &tracker), "seed %d, step %d", seed, step)
			require.Equal(t, len(open), tracker.Open())
			require.Equal(t, span, tracker.Span())
			oldest, since, ok := tracker.Oldest()
			require.Equal(t, len(open) > 0, ok)
			if ok {
				require.Equal(t, want, oldest)
				require.Equal(t, started[want], !since.IsZero())
			}
		}
	}
}

// What an open record takes: little when its neighbours are open too, a stretch of the log when they are
// all done; and those that are done take nothing.
func TestTrackerTakesMemoryForWhatIsOpen(t *testing.T) {
	if locktest.RaceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	for name, test := range map[string]struct {
		every int64 // that stays open
		most  float64
	}{
		"all are open":      {1, 20},
		"one in 100 is":     {100, 600},
		"one in 100,000 is": {100_000, 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 1_000_000
			var tracker inorder.Tracker
			before := heap()
			for offset := range int64(n) {
				mark := track(t, &tracker, offset)
				if offset%test.every > 0 {
					mark.Done()
				}
			}
			each := float64(heap()-before) / float64(tracker.Open())
			t.Logf("%.1f bytes for each that is open", each)
			assert.LessOrEqual(t, each, test.most)
			runtime.KeepAlive(&tracker)
		})
	}
}

// Records share what is allocated, also when each is done before the next one comes.
func TestTrackerAllocatesOnceForManyRecords(t *testing.T) {
	var tracker inorder.Tracker
	offset := int64(0)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		offset++
		mark, _ := tracker.Track(offset)
		mark.Done()
	}))
}

func TestTrackerRefusesALogThatWentBack(t *testing.T) {
	var tracker inorder.Tracker
	track(t, &tracker, 7)
	for _, offset := range []int64{7, 3} {
		_, err := tracker.Track(offset)
		assert.ErrorContains(t, err, "went back")
	}
	assert.Equal(t, 1, tracker.Open())
}

func TestTrackerRefusesOffsetsThatNoLogHas(t *testing.T) {
	var log inorder.Tracker
	for _, offset := range []int64{-1, math.MinInt64, math.MaxInt64} {
		mark, err := log.Track(offset)
		assert.Error(t, err)
		mark.Start()
		mark.Done()
		assert.NoError(t, mark.DoneIf(nil))
	}
	_, begun := log.Next()
	assert.False(t, begun)
	last, err := log.Track(math.MaxInt64 - 1)
	require.NoError(t, err)
	last.Done()
	next, _ := log.Next()
	assert.EqualValues(t, math.MaxInt64, next)
}

func TestOldestTellsWhatHoldsTheCommitBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tracker inorder.Tracker
		_, _, ok := tracker.Oldest()
		assert.False(t, ok)
		first, second := track(t, &tracker, 4), track(t, &tracker, 5)
		offset, started, ok := tracker.Oldest()
		assert.True(t, ok)
		assert.EqualValues(t, 4, offset)
		assert.Zero(t, started, "it waits")
		time.Sleep(time.Second)
		began := time.Now()
		first.Start()
		time.Sleep(time.Second)
		first.Start() // another try
		_, started, _ = tracker.Oldest()
		assert.True(t, started.Equal(began))
		assert.ErrorIs(t, first.DoneIf(errBad), errBad)
		assert.Equal(t, 2, tracker.Open())
		second.Done()
		assert.NoError(t, first.DoneIf(nil))
		_, _, ok = tracker.Oldest()
		assert.False(t, ok)
		assert.EqualValues(t, 6, next(t, &tracker))
	})
}

func TestTrackerIsSafeForManyGoroutines(t *testing.T) {
	var tracker inorder.Tracker
	var workers sync.WaitGroup
	marks := make(chan inorder.Mark, 100)
	for range 4 {
		workers.Go(func() {
			low := int64(0)
			for mark := range marks {
				mark.Start()
				mark.Done()
				offset, _ := tracker.Next()
				assert.GreaterOrEqual(t, offset, low, "it never goes down")
				low = offset
			}
		})
	}
	for offset := range int64(20_000) {
		marks <- track(t, &tracker, offset)
	}
	close(marks)
	workers.Wait()
	assert.EqualValues(t, 20_000, next(t, &tracker))
	assert.Zero(t, tracker.Span())
}

// A record is done and another one tracked while so many are open: the oldest, or any of them.
func BenchmarkTracker(b *testing.B) {
	for _, window := range []int{1, 1000, 1_000_000} {
		for _, which := range []string{"oldest", "any"} {
			b.Run(fmt.Sprintf("open=%d/%s", window, which), func(b *testing.B) {
				b.ReportAllocs()
				var tracker inorder.Tracker
				open := make([]inorder.Mark, window)
				for i := range open {
					open[i], _ = tracker.Track(int64(i))
				}
				offset := int64(window)
				random := rand.NewPCG(1, 2)
				b.ResetTimer()
				for i := range b.N {
					at := i % window
					if which == "any" {
						at = int(random.Uint64() % uint64(window))
					}
					open[at].Done()
					open[at], _ = tracker.Track(offset)
					tracker.Next()
					offset++
				}
			})
		}
	}
}
