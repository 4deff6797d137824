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
	if err := w.checkExclusion(); err != nil {
		return err
	}
	if w.atRest() {
		return w.checkEnd()
	}
	return nil
}

// checkExclusion looks at what the callers have, whatever the table says: also after
// the manager has ended nobody may have what somebody else holds.
func (w *world) checkExclusion() error {
	var exclusive, shared [exploreKeys]int
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, h := range c.holds {
			if h.want.Mode == table.Shared {
				shared[h.want.Key]++
				continue
			}
			for key := range exclusive {
				if h.want.Keys == nil && h.want.Key == key || slices.Contains(h.want.Keys, key) {
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

// checkEnd checks that nobody and nothing was left behind. All callers give back what
// they get, so the manager is as it was, or has ended.
func (w *world) checkEnd() error {
	owner := w.actors[0]
	for _, a := range w.actors {
		if !a.over && !a.moves[0].outside && a != owner {
			return fmt.Errorf("%s waits for ever: never %s", a.name, a.moves[0].label)
		}
	}
	if w.o.ended != owner.over {
		return fmt.Errorf("the owner stopped before it was done: never %s", owner.moves[0].label)
	}
	if w.o.ended {
		return nil
	}
	counts := w.o.table.Counts()
	switch {
	case !w.o.table.Idle() || counts.Held != 0 || counts.Waiting != 0:
		return fmt.Errorf("something was left in the table: %+v", counts)
	case w.o.idle != nil:
		return fmt.Errorf("somebody still waits for a moment that has come")
	case len(w.taken) > 0:
		return fmt.Errorf("%d of %d requests did not come back", len(w.taken), len(w.requests))
	}
	return nil
}
