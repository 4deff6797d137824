package keylock

import (
	"context"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Stats returns the manager's totals at one point of its history. It costs the same
// however many keys there are. It returns ctx.Err() when ctx is done and [ErrClosed]
// after the end.
func (m *Manager[K]) Stats(ctx context.Context) (Stats, error) {
	mustContext(ctx)
	return ask(ctx, m, func(o *owner[K]) Stats { return o.stats(o.meter.now()) })
}

// Contains reports whether key is held or waited for. It returns ctx.Err() when ctx is
// done, [ErrClosed] after the end, and [ErrInvalidKey] for a key that is not equal to
// itself. A key that cannot be compared panics.
func (m *Manager[K]) Contains(ctx context.Context, key K) (bool, error) {
	mustContext(ctx)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := checkKeys(table.Request[K]{Key: key}); err != nil {
		return false, err
	}
	return ask(ctx, m, func(o *owner[K]) bool { return o.table.Contains(key) })
}

// Snapshot returns what is known of every key that is held or waited for, all at one
// point of the manager's history, in no particular order. While the owner collects it
// nobody is served, so it costs everybody time in proportion to the number of holders
// and waiters: for a million of them seconds, and hundreds of megabytes. [Manager.Top]
// and [Manager.Inspect] are for looking at a manager that is large, or busy. It returns
// ctx.Err() when ctx is done and [ErrClosed] after the end.
func (m *Manager[K]) Snapshot(ctx context.Context) ([]KeyInfo[K], error) {
	mustContext(ctx)
	return ask(ctx, m, (*owner[K]).snapshot)
}

// Top returns the totals, the at most n keys with the most waiters, and the at most n
// keys that have been held for longest, all at one point of the manager's history. Of
// each key it shows at most the first 16 holders and the first 16 waiters. Whatever the
// manager holds, it costs no more than these: it may be called as often as somebody
// cares to look.
//
// The oldest holders are known only [WithHoldTimes] or [WithCallers]. It returns
// ctx.Err() when ctx is done and [ErrClosed] after the end. A negative n is 0.
func (m *Manager[K]) Top(ctx context.Context, n int) (Top[K], error) {
	mustContext(ctx)
	return ask(ctx, m, func(o *owner[K]) Top[K] { return o.top(n) })
}

// Inspect returns what is known of one key: all its holders and all its waiters, and
// none of either when there are none. It costs everybody time in proportion to how many
// they are. It returns ctx.Err() when ctx is done, [ErrClosed] after the end, and
// [ErrInvalidKey] for a key that is not equal to itself. A key that cannot be compared
// panics.
func (m *Manager[K]) Inspect(ctx context.Context, key K) (KeyInfo[K], error) {
	mustContext(ctx)
	if err := ctx.Err(); err != nil {
		return KeyInfo[K]{}, err
	}
	if err := checkKeys(table.Request[K]{Key: key}); err != nil {
		return KeyInfo[K]{}, err
	}
	return ask(ctx, m, func(o *owner[K]) KeyInfo[K] {
		return o.describe(o.table.Look(key), o.meter.now(), everybody)
	})
}

// stats returns the totals.
func (o *owner[K]) stats(now time.Duration) Stats {
	c := o.table.Counts()
	s := Stats{
		Keys: c.Keys, Held: c.Held, Shared: c.Shared, Waiting: c.Waiting, LongestQueue: o.table.LongestQueue(),
		Acquired: c.Acquired, Waited: c.Waited, Cancelled: c.Cancelled, Rejected: c.Rejected, Released: c.Released,
		Waits: o.meter.waits, Requests: o.meter.requests, Serving: o.meter.serving, Uptime: now,
	}
	if t := o.tracking; t != nil && t.timed {
		s.Timed = true
		s.Holds, s.OldestHold, s.OldestWait = t.times, t.grants.age(now), t.waits.age(now)
		if t.slow != nil {
			s.SlowLogLost = t.slow.lost.Load()
		}
	}
	return s
}

// snapshot describes all keys.
func (o *owner[K]) snapshot() []KeyInfo[K] {
	keys, now := make([]KeyInfo[K], 0, o.table.Counts().Keys), o.meter.now()
	for v := range o.table.All() {
		keys = append(keys, o.describe(v, now, everybody))
	}
	return keys
}

// top describes the keys that one would look at first.
func (o *owner[K]) top(n int) Top[K] {
	now := o.meter.now()
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
	seen := make(map[K]bool) // a key may have many holders
	left := n * topPlaces    // of whom not all are looked at
	for s := range o.tracking.grants.oldest {
		for v := range o.table.Of(s.ticket) {
			if !seen[v.Key] {
				seen[v.Key] = true
				found = append(found, o.describe(v, now, topPlaces))
			}
			if left--; left == 0 || len(found) == n {
				return found
			}
		}
	}
	return found
}

const (
	topPlaces = 16 // how many holders and waiters of a key Top shows
	everybody = int(^uint(0) >> 1)
)

// describe describes a key, with at most so many holders and so many waiters.
func (o *owner[K]) describe(v table.View[K], now time.Duration, most int) KeyInfo[K] {
	info := KeyInfo[K]{Key: v.Key, At: o.meter.at(now), Held: v.Held, Waiting: v.Waiting}
	if most == everybody {
		info.Holders, info.Waiters = make([]Holder, 0, v.Held), make([]Waiter, 0, v.Waiting)
	}
	for p := range v.Entries {
		switch {
		case p.Seq == 0 && len(info.Waiters) == most:
			return info
		case p.Seq == 0:
			info.Waiters = append(info.Waiters, o.waiter(p, len(info.Waiters)+1))
		case len(info.Holders) < most:
			info.Holders = append(info.Holders, o.holder(p))
		}
	}
	return info
}

func (o *owner[K]) holder(p table.Entry) Holder {
	h := Holder{Seq: p.Seq, Mode: Mode(p.Mode), Session: p.Label}
	if s, ok := p.Tag.(*tracked[K]); ok {
		h.Since, h.Caller = o.meter.at(s.since), s.caller
	}
	return h
}

func (o *owner[K]) waiter(p table.Entry, position int) Waiter {
	r := p.Tag.(*acquire[K])
	w := Waiter{
		Position: position, Mode: Mode(p.Mode), Session: p.Label, Since: o.meter.at(r.since),
		Behind: p.Behind, Keys: p.Keys, Blocked: p.Blocked,
	}
	if r.tracked != nil {
		w.Caller = r.tracked.caller
	}
	return w
}
