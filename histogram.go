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
	Sum     time.Duration
	Max     time.Duration
	Buckets [32]uint64 // see Bound
}

// finest is the base 2 logarithm of the first bound in nanoseconds.
const finest = 10

// Bound returns up to which duration bucket i counts, itself excluded: 1.024µs for the
// first, about a second for the 21st, about 18 minutes for the last but one, and the
// largest Duration for the last.
func (Histogram) Bound(i int) time.Duration {
	if i == len(Histogram{}.Buckets)-1 {
		return math.MaxInt64
	}
	return 1 << (finest + i)
}

// observe counts a duration.
func (h *Histogram) observe(d time.Duration) {
	h.Count++
	h.Sum += d
	h.Max = max(h.Max, d)
	h.Buckets[min(bits.Len64(uint64(d)>>finest), len(h.Buckets)-1)]++
}

// Quantile returns an upper bound, at most twice too large, of the shortest duration that
// a share q, from 0 to 1, of all does not exceed; 0 when nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.Count)))
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
	return h.Sum / time.Duration(h.Count)
}

// String tells the count and, for people, the shape.
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
