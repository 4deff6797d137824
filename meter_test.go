package keylock_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

func TestHistogramBounds(t *testing.T) {
	var h keylock.Histogram
	last := len(h.Buckets) - 1
	assert.Equal(t, 1024*time.Nanosecond, h.Bound(0))
	assert.InDelta(t, time.Second, h.Bound(20), float64(100*time.Millisecond))
	assert.InDelta(t, 18*time.Minute, h.Bound(last-1), float64(time.Minute))
	assert.Equal(t, time.Duration(math.MaxInt64), h.Bound(last))
	for _, i := range []int{-1, last + 1} {
		assert.PanicsWithValue(t, fmt.Sprintf("keylock: Histogram.Bound(%d): want 0 to 31", i), func() { h.Bound(i) })
	}
}

func TestQuantileOutOfRange(t *testing.T) {
	h := keylock.Histogram{Count: 2, Max: time.Second}
	h.Buckets[3], h.Buckets[20] = 1, 1
	assert.Equal(t, h.Bound(3), h.Quantile(-1))
	assert.Equal(t, h.Bound(3), h.Quantile(0))
	assert.Equal(t, h.Bound(3), h.Quantile(0.5))
	assert.Equal(t, time.Second, h.Quantile(1))
	assert.Equal(t, time.Second, h.Quantile(math.Inf(1)))
	assert.PanicsWithValue(t, "keylock: Histogram.Quantile(NaN)", func() { h.Quantile(math.NaN()) })
}

// Durations end at 292 years; what ten thousand wait for a month is more, and more than 64 bits hold.
func TestSumOfManyLongWaitsIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context(), keylock.WithHoldTimes())
		defer m.Close()
		held, _ := m.TryAcquire(1)
		waits := make([]keylock.Reservation[int], 10_000)
		for i := range waits {
			waits[i] = m.Reserve(1)
		}
		const each = 33 * 24 * time.Hour
		time.Sleep(each)
		for _, r := range waits {
			r.Cancel()
		}
		for range 400 {
			m.TryAcquireSet(sharing(2)...)
		}
		held.Release()
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.InDelta(t, 10_000*each.Seconds(), s.Waits.Sum, 1)
		assert.Equal(t, each, s.Waits.Mean())
		assert.Equal(t, each, s.Waits.Max)
		assert.Equal(t, each.Seconds(), s.Holds.Sum)
	})
}

func TestHistogramOfNothing(t *testing.T) {
	var h keylock.Histogram
	assert.Zero(t, h.Quantile(0.5))
	assert.Zero(t, h.Mean())
	assert.Equal(t, "0", h.String())
}

func TestMeanIsBetweenZeroAndMax(t *testing.T) {
	const long = 250 * 365 * 24 * time.Hour
	assert.Equal(t, long, keylock.Histogram{Count: 1, Sum: long.Seconds(), Max: long}.Mean())
	for sum, mean := range map[float64]time.Duration{0: 0, 3: 1500 * time.Millisecond, 9: 2 * time.Second, -1: 0, math.Inf(-1): 0, math.Inf(1): 2 * time.Second, math.NaN(): 2 * time.Second} {
		assert.Equal(t, mean, keylock.Histogram{Count: 2, Sum: sum, Max: 2 * time.Second}.Mean(), "sum %v", sum)
	}
}

// Each wait of a bubble takes as long as the bubble sleeps.
func TestWaitsAreCountedInTheirBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context())
		defer m.Close()
		waits := []time.Duration{0, 1023, 1024, 2047, time.Millisecond, time.Second, time.Hour}
		for _, d := range waits {
			lock, _ := m.TryAcquire(1)
			next := m.Reserve(1)
			time.Sleep(d)
			lock.Release()
			lock, err := next.Wait(t.Context())
			require.NoError(t, err)
			lock.Release()
		}
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		h := s.Waits
		assert.EqualValues(t, len(waits), h.Count)
		assert.EqualValues(t, s.Waited, h.Count)
		sum := time.Hour + time.Second + time.Millisecond + 4094
		assert.InDelta(t, sum.Seconds(), h.Sum, 1e-9)
		assert.Equal(t, time.Hour, h.Max)
		assert.InDelta(t, sum/7, h.Mean(), 1)
		want := keylock.Histogram{}.Buckets
		want[0], want[1], want[10], want[20], want[31] = 2, 2, 1, 1, 1
		assert.Equal(t, want, h.Buckets)

		assert.Equal(t, 1024*time.Nanosecond, h.Quantile(0.1))
		assert.Equal(t, 2048*time.Nanosecond, h.Quantile(0.5))
		assert.Equal(t, time.Hour, h.Quantile(1))
		assert.Equal(t, "7 (half <= 2.05µs, 99% <= 1h0m0s, max 1h0m0s)", h.String())
	})
}

func TestWaitsCountCancelledOnesAndNotThoseServedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context())
		defer m.Close()
		lock, _ := m.TryAcquire(1)
		_, ok := m.TryAcquire(1)
		require.False(t, ok)
		gone := m.Reserve(1)
		session := m.Session("job")
		session.Reserve(1)
		time.Sleep(time.Second)
		gone.Cancel()
		time.Sleep(time.Second)
		session.Close()
		lock.Release()
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 2, s.Waits.Count)
		assert.Equal(t, 3.0, s.Waits.Sum)
		assert.Zero(t, s.Waited)
	})
}
