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
	q := newQuestion[Stats]()
	return ask(ctx, m, &stats[K]{q}, q)
}

// Snapshot returns what is known of every key that is held or waited for, all at one
// point of the manager's history, in no particular order. While the owner collects it
// nobody is served, so it costs everybody time in proportion to the number of holders
// and waiters: for a million of them seconds, and hundreds of megabytes. [Manager.Top]
// and [Manager.Inspect] are for looking at a manager that is large, or busy. It returns
// ctx.Err() when ctx is done and [ErrClosed] after the end.
func (m *Manager[K]) Snapshot(ctx context.Context) ([]KeyInfo[K], error) {
	mustContext(ctx)
	q := newQuestion[[]KeyInfo[K]]()
	return ask(ctx, m, &snapshot[K]{q}, q)
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
	q := newQuestion[Top[K]]()
	return ask(ctx, m, &top[K]{q, n}, q)
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
	q := newQuestion[KeyInfo[K]]()
	return ask(ctx, m, &inspect[K]{q, key}, q)
}

// stats asks for the totals.
type stats[K comparable] struct{ question[Stats] }

func (r *stats[K]) serve(o *owner[K], _ table.Token[K]) { r.reply(o.stats(o.meter.now())) }

func (o *owner[K]) stats(now time.Duration) Stats {
	c := o.table.Counts()
	s := Stats{
		Keys: c.Keys, Held: c.Held, Shared: c.Shared, Waiting: c.Waiting, LongestQueue: o.table.LongestQueue(),
		Acquired: c.Acquired, Waited: c.Waited, Cancelled: c.Cancelled, Rejected: c.Rejected, Released: c.Released,
		Waits: o.meter.waits, Requests: o.meter.requests, Serving: o.meter.serving, Uptime: now,
	}
	if t := o.meter.tracking; t != nil && t.timed {
		s.Timed = true
		s.Holds, s.OldestHold, s.OldestWait = t.times, t.grants.age(now), t.waits.age(now)
		if t.slow != nil {
			s.SlowLogLost = t.slow.lost.Load()
		}
	}
	return s
}

// snapshot asks for all keys.
type snapshot[K comparable] struct{ question[[]KeyInfo[K]] }

func (r *snapshot[K]) serve(o *owner[K], _ table.Token[K]) {
	keys, now := make([]KeyInfo[K], 0, o.table.Counts().Keys), o.meter.now()
	for v := range o.table.All() {
		keys = append(keys, o.describe(v, now, everybody))
	}
	r.reply(keys)
}

// inspect asks for one key.
type inspect[K comparable] struct {
	question[KeyInfo[K]]
	key K
}

func (r *inspect[K]) serve(o *owner[K], _ table.Token[K]) {
	r.reply(o.describe(o.table.Look(r.key), o.meter.now(), everybody))
}

// top asks for the keys that one would look at first.
type top[K comparable] struct {
	question[Top[K]]
	n int
}

func (r *top[K]) serve(o *owner[K], _ table.Token[K]) {
	now := o.meter.now()
	found := Top[K]{Stats: o.stats(now)}
	if r.n > 0 {
		for v := range o.table.Ranked() {
			found.LongestQueues = append(found.LongestQueues, o.describe(v, now, topPlaces))
			if len(found.LongestQueues) == r.n {
				break
			}
		}
		found.OldestHolds = o.oldest(r.n, now)
	}
	r.reply(found)
}

// oldest describes the keys that have been held for longest.
func (o *owner[K]) oldest(n int, now time.Duration) (found []KeyInfo[K]) {
	if o.meter.tracking == nil {
		return nil
	}
	seen := make(map[K]bool) // a key may have many holders
	left := n * topPlaces    // of whom not all are looked at
	for s := range o.meter.tracking.grants.oldest {
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
