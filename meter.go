package keylock

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// A meter is the owner's clock, and what it has measured: how long waits took, and how
// busy it is. Only the owner touches it.
type meter struct {
	started time.Time // the zero of the owner's clock
	waits   histogram
	worked  func() uint64 // how much the table has done since the manager began; nil for nothing

	reading time.Duration // the last of the clock; unread when it is not good any more
	readAt  uint64        // requests, and what the table had done, at that time
	paused  bool          // the owner may have to wait for the next request

	// How busy the owner is. One request in some sixty is timed, and stands for all since the
	// last that was; what may take long is timed always.
	requests uint64        // received
	serving  time.Duration // the time that they took; never more than has passed
	sample   uint64        // the request that is timed next
	sampled  uint64        // requests that are in serving
	until    time.Duration // when the last sample was complete
	timed    time.Duration // what was timed always since then
	timing   bool          // the request that is being served is timed
	begun    time.Duration // when it was received
}

func newMeter(worked func() uint64) meter {
	return meter{started: time.Now(), worked: worked, reading: unread}
}

const (
	sampleEvery = 61 // an odd number, because acquisitions and releases take turns
	readEvery   = 16
)

// next notes that the owner has received a request, and how many more are there. It costs
// a few additions and comparisons, and the length of a channel whose memory has just been
// touched.
func (w *meter) next(more int) {
	w.requests++
	if w.paused {
		w.reading = unread
	}
	w.paused = more == 0
	if w.requests >= w.sample {
		w.timing, w.begun = true, w.read()
	}
}

// served ends the timing of a request.
func (w *meter) served() {
	now := time.Since(w.started)
	took, passed := now-w.begun, now-w.until-w.timed
	if all := took * time.Duration(w.requests-w.sampled); all/time.Duration(w.requests-w.sampled) == took {
		took = all
	}
	// A long request stands for no more than could have been.
	w.serving += min(took, passed)
	w.sampled, w.sample = w.requests, w.requests+sampleEvery
	w.until, w.timed, w.timing = now, 0, false
}

// long does what may take long, and times it.
func (w *meter) long(serve func()) {
	if w.timing {
		w.timing, w.sample = false, w.requests+1 // the next one is timed instead
	}
	start := time.Since(w.started)
	serve()
	w.reading = unread
	took := time.Since(w.started) - start
	w.serving += took
	w.timed += took
	w.sampled++
}

// now reads the owner's clock: when a request has to queue and when its wait is over,
// never for a request that is served at once, unless an option asks for it. An owner that
// has had no pause since uses a reading again until it has done a little, sixteen short
// requests or as much within a long one, because on a key that many want, to read the
// clock twice per grant would be a quarter of its work. So a reading is late by what that
// takes, which is microseconds, unless the system stops the owner meanwhile.
func (w *meter) now() time.Duration {
	if w.reading == unread || w.work()-w.readAt >= readEvery {
		return w.read()
	}
	return w.reading
}

// work is how much the owner has done.
func (w *meter) work() uint64 {
	if w.worked == nil {
		return w.requests
	}
	return w.requests + w.worked()
}

// read reads the clock.
func (w *meter) read() time.Duration {
	w.reading, w.readAt = time.Since(w.started), w.work()
	return w.reading
}

// at is the date of a reading; zero when there was none.
func (w *meter) at(reading time.Duration) time.Time {
	if reading == unread {
		return time.Time{}
	}
	return w.started.Add(reading)
}

// unread stands for a clock that was not read.
const unread time.Duration = -1

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
