package lockhttp

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// A memory keeps the totals that were seen in the last looks at a manager, so that the next
// look can tell what has happened since.
type memory struct {
	seen atomic.Pointer[[]keylock.Stats] // oldest first, never changed
}

const (
	window   = 10 * time.Second // that rates are of, if there was a look so long ago
	spacing  = time.Second      // between what is kept
	longest  = time.Minute      // that rates are of
	shortest = spacing / 2
)

// since keeps the totals, and returns those to compare them with; false when there was no
// look lately.
func (m *memory) since(now keylock.Stats) (before keylock.Stats, ok bool) {
	for {
		old := m.seen.Load()
		var kept []keylock.Stats
		if old != nil {
			kept = *old
		}
		for len(kept) > 0 && (now.Uptime-kept[0].Uptime > longest || len(kept) > 1 && now.Uptime-kept[1].Uptime >= window) {
			kept = kept[1:] // a later one is as good
		}
		ok = len(kept) > 0 && now.Uptime-kept[0].Uptime >= shortest
		if ok {
			before = kept[0]
		}
		if len(kept) == 0 || now.Uptime-kept[len(kept)-1].Uptime >= spacing {
			kept = append(kept[:len(kept):len(kept)], now)
		}
		if m.seen.CompareAndSwap(old, &kept) {
			return before, ok
		}
	}
}

// A recent is what has happened in the last seconds.
type recent struct {
	Seconds   float64 `json:"seconds"`
	Acquired  float64 `json:"acquired_per_second"`
	Waited    float64 `json:"waited_per_second"`
	Cancelled float64 `json:"cancelled_per_second"`
	Rejected  float64 `json:"rejected_per_second"`
	Released  float64 `json:"released_per_second"`
	Busy      float64 `json:"owner_busy_share"`

	Waits histogram `json:"waits"`
	Holds histogram `json:"holds"`
}

// newRecent compares two looks; nil when there is none before.
func newRecent(before, now keylock.Stats, ok bool) *recent {
	if !ok {
		return nil
	}
	passed := now.Uptime - before.Uptime
	perSecond := func(before, now uint64) float64 { return float64(now-before) / passed.Seconds() }
	return &recent{
		Seconds:   passed.Seconds(),
		Acquired:  perSecond(before.Acquired, now.Acquired),
		Waited:    perSecond(before.Waited, now.Waited),
		Cancelled: perSecond(before.Cancelled, now.Cancelled),
		Rejected:  perSecond(before.Rejected, now.Rejected),
		Released:  perSecond(before.Released, now.Released),
		Busy:      min(max(float64(now.Serving-before.Serving)/float64(passed), 0), 1),
		Waits:     newHistogram(difference(before.Waits, now.Waits)),
		Holds:     newHistogram(difference(before.Holds, now.Holds)),
	}
}

// difference counts what a histogram has more than an earlier one. Its longest duration is
// known as far as its bucket.
func difference(before, now keylock.Histogram) keylock.Histogram {
	d := keylock.Histogram{Count: now.Count - before.Count, Sum: now.Sum - before.Sum}
	for i, n := range now.Buckets {
		if d.Buckets[i] = n - before.Buckets[i]; d.Buckets[i] > 0 {
			d.Max = min(now.Bound(i), now.Max)
		}
	}
	return d
}

// bucket returns the bucket of a histogram that counts a duration.
func bucket(d time.Duration) int {
	return min(max(bits.Len64(uint64(d)/uint64(keylock.Histogram{}.Bound(0))), 0), len(keylock.Histogram{}.Buckets)-1)
}
