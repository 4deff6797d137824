package keylock

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// A Histogram counts durations. Each bucket is twice as wide as the one before it.
type Histogram struct {
	Count   uint64
	Sum     float64 // of all, in seconds: more than a Duration can hold when many wait for long
	Max     time.Duration
	Buckets [32]uint64 // see Bound
}

// finest is the base 2 logarithm of the first bound in nanoseconds.
const finest = 10

// Bound returns the upper bound of bucket i, which counts durations below it: 1.024µs for
// the first, about a second for the 21st, about 18 minutes for the last but one, and the
// largest Duration for the last. It panics when there is no bucket i.
func (h Histogram) Bound(i int) time.Duration {
	last := len(h.Buckets) - 1
	switch {
	case i < 0 || i > last:
		panic(fmt.Sprintf("keylock: Histogram.Bound(%d): want 0 to %d", i, last))
	case i == last:
		return math.MaxInt64
	}
	return 1 << (finest + i)
}

// Quantile returns an upper bound of the shortest duration that a share q of all does not
// exceed: the bound of its bucket, or Max where that is less. Between 1µs and 18 minutes it
// is at most twice too large; below it is 1.024µs, above it is Max. It is 0 when nothing was
// counted. A q below 0 is 0, one above 1 is 1, and NaN panics.
func (h Histogram) Quantile(q float64) time.Duration {
	if math.IsNaN(q) {
		panic("keylock: Histogram.Quantile(NaN)")
	}
	if h.Count == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(min(max(q, 0), 1)*float64(h.Count))))
	for i, n := range h.Buckets {
		if n >= rank {
			return min(h.Bound(i), h.Max)
		}
		rank -= n
	}
	return h.Max
}

// Mean returns the mean; 0 when nothing was counted.
func (h Histogram) Mean() time.Duration {
	if h.Count == 0 {
		return 0
	}
	if mean := h.Sum / float64(h.Count) * float64(time.Second); mean < float64(h.Max) {
		return time.Duration(math.Round(max(mean, 0)))
	}
	return h.Max
}

// A histogram is a Histogram that is being counted. Its sum is exact, in nanoseconds.
type histogram struct {
	counted   Histogram
	high, low uint64
}

// observe counts a duration.
func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	c := &h.counted
	c.Count++
	c.Max = max(c.Max, d)
	c.Buckets[min(bits.Len64(uint64(d)>>finest), len(c.Buckets)-1)]++
	low, carry := bits.Add64(h.low, uint64(d), 0)
	h.low, h.high = low, h.high+carry
}

// shown returns what was counted.
func (h *histogram) shown() Histogram {
	c := h.counted
	c.Sum = (math.Ldexp(float64(h.high), 64) + float64(h.low)) / float64(time.Second)
	return c
}

// String returns the count, bounds of the median and of the 99th percentile, and the maximum.
func (h Histogram) String() string {
	if h.Count == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (half <= %v, 99%% <= %v, max %v)",
		h.Count, brief(h.Quantile(0.5)), brief(h.Quantile(0.99)), brief(h.Max))
}

// brief rounds a duration to three digits or so.
func brief(d time.Duration) time.Duration {
	for unit := time.Duration(1e18); unit >= 1000; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
