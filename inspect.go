package keylock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/show"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Stats returns the manager's totals at one point of its history. It costs the same
// however many keys there are, but for those that [WithKeptGrants] keeps, which it calls in. It
// returns an error that wraps ctx.Err() when ctx is done, and [ErrClosed] after the end.
func (m *Manager[K]) Stats(ctx context.Context) (Stats, error) {
	mustContext(ctx)
	return askAll(ctx, m, func(o *owner[K]) Stats { return o.stats(o.meter.read()) })
}

// Top returns the totals, the n keys with the most waiters, if any, and the n keys whose first
// holder has held them for longest, or fewer if there are fewer, all at one point of the
// manager's history. Of each key it shows at most the first 16 holders and the first 16
// waiters. It costs in proportion to what it shows, whatever the manager holds, so it may be
// called often; what [WithKeptGrants] keeps it calls in, as Stats does.
//
// The oldest holders are known only with [WithHoldTimes] or [WithCallers]. It returns an error
// that wraps ctx.Err() when ctx is done, and [ErrClosed] after the end. A negative n is 0.
func (m *Manager[K]) Top(ctx context.Context, n int) (Top[K], error) {
	mustContext(ctx)
	return askAll(ctx, m, func(o *owner[K]) Top[K] { return o.top(n) })
}

// Inspect returns what is known of one key at one point of the manager's history: how many
// holders and waiters it has, which is 0 and 0 for a free key, and at most the first 1,000
// of either. There is no way to ask for those behind them: what a key waits for is
// at the front of its queue, and a second call would show another queue, of a later point.
//
// It returns an error that wraps ctx.Err() when ctx is done, [ErrClosed] after the end, and [ErrInvalidKey] for a
// key that is not equal to itself. A key that cannot be compared panics.
func (m *Manager[K]) Inspect(ctx context.Context, key K) (KeyInfo[K], error) {
	mustContext(ctx)
	if ctx.Err() != nil {
		return KeyInfo[K]{}, endOf(ctx, keyOf(key))
	}
	if err := checkKeys(&table.Request[K]{Key: key}); err != nil {
		return KeyInfo[K]{}, err
	}
	return ask(ctx, m, func(o *owner[K]) KeyInfo[K] {
		return o.describe(o.table.Look(key), o.meter.now(), table.Shown)
	})
}

// stats returns the totals.
func (o *owner[K]) stats(now time.Duration) Stats {
	c := o.table.Counts()
	s := Stats{
		Keys: c.Keys, Held: c.Held, Shared: c.Shared, Waiting: c.Waiting, LongestQueue: o.table.LongestQueue(),
		Acquired: c.Acquired, Waited: c.Waited, Cancelled: c.Cancelled, Rejected: c.Rejected, Released: c.Released,
		Waits: o.meter.waits.shown(), Requests: o.meter.requests, Serving: o.meter.serving, Uptime: now,
	}
	if t := o.tracking; t != nil && t.timed {
		s.Timed = true
		s.Holds, s.OldestHold, s.OldestWait = t.times.shown(), t.grants.age(now), t.waits.age(now)
		s.SlowLogLost = t.lost()
	}
	return s
}

// top describes the keys that one would look at first.
func (o *owner[K]) top(n int) Top[K] {
	now := o.meter.read()
	found := Top[K]{Stats: o.stats(now)}
	if n > 0 {
		for v := range o.table.Ranked() {
			found.LongestQueues = append(found.LongestQueues, o.describe(v, now, topPlaces))
			if len(found.LongestQueues) == n {
				break
			}
		}
		found.OldestHolds = o.oldest(n, now)
	}
	return found
}

// oldest describes the keys that have been held for longest.
func (o *owner[K]) oldest(n int, now time.Duration) (found []KeyInfo[K]) {
	if o.tracking == nil {
		return nil
	}
	for s := range o.tracking.firsts.oldest {
		for v := range o.table.Firsts(s.ticket) {
			found = append(found, o.describe(v, now, topPlaces))
			if len(found) == n {
				return found
			}
		}
	}
	return found
}

// topPlaces is how many holders and waiters of a key Top shows.
const topPlaces = 16

// describe describes a key, with at most so many holders and so many waiters.
func (o *owner[K]) describe(v table.View[K], now time.Duration, most int) KeyInfo[K] {
	info := KeyInfo[K]{
		Key: v.Key, At: o.meter.at(now), Held: v.Held, Waiting: v.Waiting,
		Holders: make([]Entry, 0, min(v.Held, most)), Waiters: make([]Entry, 0, min(v.Waiting, most)),
	}
	for p := range v.First(most) {
		if p.Seq == 0 {
			info.Waiters = append(info.Waiters, o.waiter(p, len(info.Waiters)+1))
		} else {
			info.Holders = append(info.Holders, o.holder(p))
		}
	}
	return info
}

func (o *owner[K]) holder(p table.Entry) Entry {
	h := Entry{Seq: p.Seq, Mode: Mode(p.Mode), Session: p.Label}
	if s, ok := p.Tag.(*tracked[K]); ok {
		h.Since, h.Caller = o.meter.at(s.since), s.caller
	}
	return h
}

func (o *owner[K]) waiter(p table.Entry, position int) Entry {
	r := p.Tag.(*acquire[K])
	w := Entry{
		Position: position, Mode: Mode(p.Mode), Session: p.Label, Since: o.meter.at(r.since),
		Behind: p.Behind, Keys: p.Keys, Blocked: p.Blocked,
	}
	if r.tracked != nil {
		w.Caller = r.tracked.caller
	}
	return w
}

// Stats are a manager's totals at one point of its history. Acquired - Released == Held
// always.
type Stats struct {
	Keys         int // keys that are held or waited for now
	Held         int // grants that are live now; one for many keys counts once
	Shared       int // those of them that are shared
	Waiting      int // requests that wait now
	LongestQueue int // the most waiters that any key has now

	Acquired  uint64 // grants since Start
	Waited    uint64 // those of them that had to queue
	Cancelled uint64 // waits that ended without a grant: by context, Cancel or close
	Rejected  uint64 // requests refused at once: a full queue, a failed try, a deadlock, a closing manager or session
	Released  uint64 // grants that have ended

	// Waits are how long requests waited that had to queue, whether they were granted in the
	// end or cancelled. Those that were served at once are not counted. The owner uses a reading of
	// its clock for about sixteen short requests in a row, so each wait is right to within the
	// time that these take it, some microseconds; so are holds.
	Waits Histogram

	Timed      bool          // WithHoldTimes is on; else these are zero:
	Holds      Histogram     // how long the grants that have ended were held
	OldestHold time.Duration // how long the oldest live grant has been held
	OldestWait time.Duration // how long the request that has waited for longest has

	// How busy the owner has been since Start. Serving is an estimate, never more than Uptime:
	// questions, Session.Close, and what is for more than 16 keys or grants very many waiters are
	// timed, and of other requests one in 61, which stands for the others for as much time as has
	// passed. So a few long ones among many short ones may be missed, such as one of a session
	// whose search for a deadlock meets thousands of others.
	Requests uint64        // of any kind, that it received
	Serving  time.Duration // that these took it
	Uptime   time.Duration // since Start

	SlowLogLost uint64 // records that WithSlowLog did not log
}

// Busy returns how much of its time since Start the owner has been busy, from 0, when it
// waits for requests, to 1, when requests wait for it. For the share of a recent period, divide
// the differences of Serving and Uptime between two Stats.
func (s Stats) Busy() float64 {
	if s.Uptime == 0 {
		return 0
	}
	return min(s.Serving.Seconds()/s.Uptime.Seconds(), 1)
}

// String describes the totals on one line.
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keys %d, held %d (shared %d), waiting %d (longest queue %d), acquired %d (waited %d), cancelled %d, rejected %d, released %d, waits %v",
		s.Keys, s.Held, s.Shared, s.Waiting, s.LongestQueue, s.Acquired, s.Waited, s.Cancelled, s.Rejected, s.Released, s.Waits)
	if s.Timed {
		fmt.Fprintf(&b, ", holds %v, oldest hold %v, oldest wait %v", s.Holds, brief(s.OldestHold), brief(s.OldestWait))
	}
	fmt.Fprintf(&b, ", owner busy %.0f%%", 100*s.Busy())
	if s.SlowLogLost > 0 {
		fmt.Fprintf(&b, ", slow log records lost %d", s.SlowLogLost)
	}
	return b.String()
}

// KeyInfo describes one key at one point of the manager's history.
type KeyInfo[K comparable] struct {
	Key     K
	At      time.Time // that point
	Held    int       // how many hold it
	Waiting int       // how many wait for it

	// Holders and waiters in their order: at most the first 1,000 of either, of Top the first
	// 16. Those that are left out are missing at the end.
	Holders []Entry
	Waiters []Entry
}

// An Entry is a holder of a key, or a waiter. A request for many keys waits for each of them
// until it has them all, and holds them all at once.
type Entry struct {
	Mode    Mode      // exclusive or shared
	Session string    // the label of its session; empty when it has none
	Since   time.Time // when it began to wait, or was granted; of holders zero unless WithHoldTimes
	Caller  Caller    // who asked for it; empty unless WithCallers

	// Of a holder:
	Seq uint64 // the number of the grant, as in Lock.Seq

	// Of a waiter. Behind is the position of the last waiter that must be granted, and
	// release, before this one can be granted; 0 when only holders are in its way in this
	// queue, or nothing is. Of the Keys that its request names, Blocked could not be granted yet.
	Position int // in the queue of the key; 1 is next
	Behind   int
	Keys     int
	Blocked  int
}

// String describes the key, and the first of its holders and waiters, on one line.
func (k KeyInfo[K]) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "key %s: held by %d", show.Quoted(&k.Key), k.Held)
	for i, h := range k.Holders {
		if i == shownEntries {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; grant %d %v", h.Seq, whoText(h.Mode, h.Session, k.At, h.Since, h.Caller))
	}
	fmt.Fprintf(&b, "; waiting %d", k.Waiting)
	for i, w := range k.Waiters {
		if i == shownEntries {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; %d. %v", w.Position, whoText(w.Mode, w.Session, k.At, w.Since, w.Caller))
		if w.Keys > 1 {
			fmt.Fprintf(&b, " and for %d of its %d keys", w.Blocked, w.Keys)
		}
	}
	return b.String()
}

// shownEntries is how many holders and waiters are shown in one line of text.
const shownEntries = 4

// whoText describes a holder or a waiter.
func whoText(mode Mode, session string, at, since time.Time, caller Caller) string {
	text := mode.String()
	if session != "" {
		text += " " + show.Quoted(&session)
	}
	if !since.IsZero() {
		text += " for " + brief(at.Sub(since)).String()
	}
	if where := caller.String(); where != "" {
		text += " from " + where
	}
	return text
}

// A Top is what one would look at first, at one point of the manager's history.
type Top[K comparable] struct {
	Stats         Stats
	LongestQueues []KeyInfo[K] // the keys with the most waiters, most first; none without a waiter
	OldestHolds   []KeyInfo[K] // the keys that have been held for longest, longest first
}

// A Mode says whether a lock is shared.
type Mode uint8

const (
	Exclusive Mode = iota // the only lock of its key
	Shared                // held together with other shared locks of the key
)

// String returns "exclusive" or "shared".
func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}
