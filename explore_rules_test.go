//go:build explore

package keylock

import (
	"fmt"
	"slices"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// check returns an error when the world is in a state that the guarantees exclude.
func (w *world) check() error {
	if w.broken != nil {
		return w.broken
	}
	if err := w.o.table.Check(); err != nil {
		return err
	}
	for _, r := range w.requests {
		messages := 1
		switch {
		case !slices.Contains(w.taken, r):
			messages = 0
		case r.early:
			messages = 2
		}
		if len(r.replied) > messages {
			return fmt.Errorf("a request was answered twice")
		}
	}
	for _, check := range []func() error{w.checkExclusion, w.checkWanted, w.checkGifts, w.checkLast, w.checkTracking, w.checkSlowLog, w.checkDeadlines, w.checkKept} {
		if err := check(); err != nil {
			return err
		}
	}
	if w.atRest() {
		return w.checkEnd()
	}
	return nil
}

// checkExclusion looks at what the callers have, whatever the table says: also after
// the manager has ended no call may have what another holds.
func (w *world) checkExclusion() error {
	var exclusive, shared [exploreKeys]int
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, h := range c.holds {
			want := h.want
			if want.Keys == nil {
				want.Keys = []int{want.Key}
			}
			for i, key := range want.Keys {
				mode := want.Mode
				if want.Each != nil {
					mode = want.Each[i].Mode
				}
				switch {
				case slices.Contains(want.Keys[:i], key):
				case mode == table.Shared:
					shared[key]++
				default:
					exclusive[key]++
				}
			}
		}
	}
	limit := w.scenario.config.SharedLimit
	for key, n := range exclusive {
		if n > 1 || n > 0 && shared[key] > 0 || limit > 0 && shared[key] > limit {
			return fmt.Errorf("key %d is held by %d exclusively and by %d shared", key, n, shared[key])
		}
	}
	return nil
}

const exploreKeys = 2

// checkWanted checks that one who holds hears that a request waits for it, or that its grant
// has ended, as soon as it is so and not before.
func (w *world) checkWanted() error {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		switch {
		case !ok || c.wanted == nil:
		case closed(c.wanted) && !c.isWanted:
			return fmt.Errorf("%s hears that its lock is wanted, which it is not", c.name)
		case !closed(c.wanted) && w.isWanted(c.asked):
			return fmt.Errorf("%s does not hear that its lock is wanted", c.name)
		}
	}
	return nil
}

// checkGifts checks that a value that was handed off is received by one call, or by several
// that share the lock. That none is lost is checked at the end.
func (w *world) checkGifts() error {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, g := range c.gave {
			if g.over && !g.passed && (g.received > 0 || g.cancelled) {
				return fmt.Errorf("%s has kept a value that was received", c.name)
			}
			if g.received > 1 && !w.scenario.shares() {
				return fmt.Errorf("a value of %s was received %d times", c.name, g.received)
			}
		}
	}
	return nil
}

// checkLast checks that nothing is granted after the end of Start's context, and that no
// request is accepted when the manager is closed to new ones.
func (w *world) checkLast() error {
	if w.last != nil && w.acquired() != *w.last {
		return fmt.Errorf("a lock was granted after Start's context had ended")
	}
	if w.joined != nil && w.joins() != *w.joined {
		return fmt.Errorf("a request came in after the manager was closed to new ones")
	}
	return nil
}

// mayTakeLong reports whether a message may keep the owner for long.
func mayTakeLong(msg message[int]) bool {
	switch r := msg.request.(type) {
	case *question[int], *closeSession[int], *releaseAll[int], closing[int]:
		return true
	case *acquire[int]:
		return r.long
	case *downgrade[int]:
		return r.long
	case *abandon[int]:
		return r.long
	}
	return false
}

// checkDeadlines checks that a call whose context may end does not listen to it only while
// nothing that may take long is before its own request.
func (w *world) checkDeadlines() error {
	if w.keepsGrants() { // a caller stops between its look for what may take long and its request
		return nil
	}
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok || c.context == nil || c.context.endless || c.over || slices.ContainsFunc(c.moves, move.possible) {
			continue
		}
		mail := w.mail()
		own := slices.IndexFunc(mail, func(msg message[int]) bool {
			return msg.request != nil && slices.Contains(c.met, any(msg.request))
		})
		if own < 0 || slices.ContainsFunc(mail[:own], mayTakeLong) {
			return fmt.Errorf("%s does not look at its context: %s waits for others", c.name, c.moves[0].label)
		}
	}
	return nil
}

// checkTracking checks that what the options ask for is noted of those who wait and of those
// who hold, and of no others.
func (w *world) checkTracking() error {
	t := w.o.tracking
	if t == nil {
		return nil
	}
	counts := w.o.table.Counts()
	for _, list := range []struct {
		ages *ages[int]
		want int
	}{{&t.waits, counts.Waiting}, {&t.grants, counts.Held}} {
		n := 0
		for s := range list.ages.oldest {
			if n++; s.list != list.ages || s.ticket == nil {
				return fmt.Errorf("what is tracked is not where it says")
			}
		}
		if n != list.want {
			return fmt.Errorf("%d requests are tracked, of %d: %+v", n, list.want, counts)
		}
	}
	return nil
}

// checkSlowLog checks that what was logged is noted of what goes on, of one wait for each key,
// and of nothing that is over; and that the owner will look again while anything goes on.
func (w *world) checkSlowLog() error {
	if w.timer == nil {
		return nil
	}
	t, logged := w.o.tracking, 0
	for s := range t.waits.oldest {
		if s.told == nil {
			continue
		}
		if logged++; !s.told.wait || t.slow.waiting[s.told.key] != s.told {
			return fmt.Errorf("a wait that was logged is not known to the slow log")
		}
	}
	for s := range t.grants.oldest {
		if s.told != nil && s.told.wait {
			return fmt.Errorf("a hold is known to the slow log as a wait")
		}
	}
	if logged != len(t.slow.waiting) {
		return fmt.Errorf("the slow log knows %d waits, of which %d go on", len(t.slow.waiting), logged)
	}
	if counts := w.o.table.Counts(); t.slow.timer == nil && !w.o.ended && counts.Waiting+counts.Held > 0 {
		return fmt.Errorf("the slow log does not look again")
	}
	return nil
}

// atRest reports whether nothing more happens, unless something from outside does.
func (w *world) atRest() bool {
	for _, a := range w.actors {
		for _, m := range a.moves {
			if !m.outside && m.possible() {
				return false
			}
		}
	}
	return true
}

// checkEnd checks that nothing was left behind. All callers give back what they get, so the manager is as it was, or has ended.
func (w *world) checkEnd() error {
	owner := w.actors[0]
	for _, a := range w.actors {
		if !a.over && !a.moves[0].outside && a != owner {
			return fmt.Errorf("%s waits forever: never %s", a.name, a.moves[0].label)
		}
	}
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, g := range c.gave {
			interrupted := w.o.ended && (g.cancelled || g.closed)
			if g.passed && g.received == 0 && !g.dropped && !interrupted {
				return fmt.Errorf("a value of %s was lost", c.name)
			}
		}
	}
	if w.o.ended != owner.over {
		return fmt.Errorf("the owner stopped before it was done: never %s", owner.moves[0].label)
	}
	if w.o.ended {
		return nil
	}
	counts := w.o.table.Counts()
	parked := w.parked()
	switch {
	case counts.Keys != parked || counts.Held != parked || counts.Waiting != 0:
		return fmt.Errorf("something was left in the table: %+v", counts)
	case len(w.o.snapshots) > 0:
		return fmt.Errorf("%d snapshots were not ended", len(w.o.snapshots))
	case w.o.idle != nil:
		return fmt.Errorf("a call still waits for a moment that has come")
	case len(w.taken) > 0:
		return fmt.Errorf("%d of %d requests did not come back", len(w.taken), len(w.requests))
	}
	return nil
}
