package inorder_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/inorder"
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

// Every step is compared with the dullest model: a set of open offsets.
func TestTrackerIsLikeItsModel(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var tracker inorder.Tracker
		marks := make(map[int64]inorder.Mark)
		open := make(map[int64]bool)
		last := int64(-1)
		_, ok := tracker.Next()
		require.False(t, ok)
		for range 200 {
			if random.IntN(2) == 0 {
				last += 1 + random.Int64N(3) // with holes
				marks[last], open[last] = track(t, &tracker, last), true
			} else if last >= 0 {
				offset := random.Int64N(last + 1)
				if mark, known := marks[offset]; known {
					mark.Done() // perhaps again
					delete(open, offset)
				}
			}
			if last < 0 {
				continue
			}
			want, span := last+1, int64(0)
			for offset := range open {
				want = min(want, offset)
			}
			if len(open) > 0 {
				span = last - want + 1
			}
			require.Equal(t, want, next(t, &tracker), "seed %d", seed)
			require.Equal(t, len(open), tracker.Open())
			require.Equal(t, span, tracker.Span())
		}
	}
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

func BenchmarkTracker(b *testing.B) {
	for _, window := range []int{1, 1000, 1_000_000} {
		b.Run(map[int]string{1: "window=1", 1000: "window=1000", 1_000_000: "window=1e6"}[window], func(b *testing.B) {
			b.ReportAllocs()
			var tracker inorder.Tracker
			open := make([]inorder.Mark, window)
			order := rand.New(rand.NewPCG(1, 2)).Perm(window)
			for i := range window {
				open[i], _ = tracker.Track(int64(i))
			}
			slices.Sort(order[:window/2])
			offset := int64(window)
			b.ResetTimer()
			for i := range b.N {
				at := order[i%window]
				open[at].Done()
				open[at], _ = tracker.Track(offset)
				tracker.Next()
				offset++
			}
		})
	}
}
