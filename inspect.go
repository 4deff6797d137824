package keylock

import (
	"context"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Stats returns the manager's totals at one point of its history. It costs the same
// however many keys there are. It returns an error that wraps ctx.Err() when ctx is done, and
// [ErrClosed] after the end.
func (m *Manager[K]) Stats(ctx context.Context) (Stats, error) {
	mustContext(ctx)
	return askAll(ctx, m, func(o *owner[K]) Stats { return o.stats(o.meter.read()) })
}

// Top returns the totals, the n keys with the most waiters, and the n keys whose first
// holder has held them for longest, or fewer if there are fewer, all at one point of the
// manager's history. Of each key it shows at most the first 16 holders and the first 16
// waiters. It costs in proportion to what it shows, whatever the manager holds, so it may be
// called often.
//
// The oldest holders are known only with [WithHoldTimes] or [WithCallers]. It returns an error
// that wraps ctx.Err() when ctx is done, and [ErrClosed] after the end. A negative n is 0.
func (m *Manager[K]) Top(ctx context.Context, n int) (Top[K], error) {
	mustContext(ctx)
	return askAll(ctx, m, func(o *owner[K]) Top[K] { return o.top(n) })
}

// Inspect returns what is known of one key at one point of the manager's history: how many
// holders and waiters there are, none of which means that the key is free, and at most the
// first 1,000 of either. There is no way to ask for those behind them: what a key waits for is
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
		for v := range o.table.Of(s.ticket) {
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
