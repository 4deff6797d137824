package keylock_test

import (
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
}

func TestHistogramOfNothing(t *testing.T) {
	var h keylock.Histogram
	assert.Zero(t, h.Quantile(0.5))
	assert.Zero(t, h.Mean())
	assert.Equal(t, "0", h.String())
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
		assert.Equal(t, time.Hour+time.Second+time.Millisecond+4094, h.Sum)
		assert.Equal(t, time.Hour, h.Max)
		assert.Equal(t, h.Sum/7, h.Mean())
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
		assert.Equal(t, 3*time.Second, s.Waits.Sum)
		assert.Zero(t, s.Waited)
	})
}
