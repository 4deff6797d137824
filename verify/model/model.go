// Package model says what a lock manager does, as plainly as it can be said: all holders and
// waiters are in one list, in the order of arrival, and the list alone says who holds.
package model

import "slices"

// A Request is for a lock of one key or of many.
type Request struct {
	ID      int
	Keys    []int   // without duplicates
	Shared  bool    // all of them
	Each    []Terms // of the Keys, where they are not nil, instead of Shared
	Session int     // 0 is none
}

// Terms are what a request asks of one key.
type Terms struct {
	Shared bool
	Limit  int // it shares while fewer hold; 0 is that of the state
}

// Of returns the terms on which a request asks for a key.
func (r Request) Of(key int) Terms {
	if i := slices.Index(r.Keys, key); i >= 0 && r.Each != nil {
		return r.Each[i]
	}
	return Terms{Shared: r.Shared}
}

// Shares reports whether a request shares all its keys, and Plain whether it shares none.
func (r Request) Shares() bool {
	return len(r.Keys) > 0 && !slices.ContainsFunc(r.Keys, func(key int) bool { return !r.Of(key).Shared })
}

func (r Request) Plain() bool {
	return !slices.ContainsFunc(r.Keys, func(key int) bool { return r.Of(key).Shared })
}

// A State is a manager at one moment. Its methods return the next state and leave it as
// it is.
type State struct {
	MaxWaiters, SharedLimit int

	Present  []Request // those who hold or wait, in the order in which they came
	Draining bool
	Closed   bool
	Sessions []int // those that are closed
}

// An Outcome is what becomes of a request.
type Outcome string

const (
	In       Outcome = "in" // it holds or waits
	Busy     Outcome = "busy"
	Full     Outcome = "full"
	Deadlock Outcome = "deadlock"
	Closed   Outcome = "closed"
)

// Join lets a request in, or says why not.
func (s State) Join(r Request, try bool) (State, Outcome) {
	if s.Closed || s.Draining || slices.Contains(s.Sessions, r.Session) {
		return s, Closed
	}
	next := s
	next.Present = append(slices.Clone(s.Present), r)
	if next.Holds(r.ID) {
		return next, In
	}
	switch {
	case try:
		return s, Busy
	case s.full(r):
		return s, Full
	case r.Session != 0 && next.stuck(r):
		return s, Deadlock
	}
	return next, In
}

// Leave takes out a holder or a waiter.
func (s State) Leave(id int) State {
	return s.without(func(r Request) bool { return r.ID == id })
}

// Downgrade makes a holder share all that it holds.
func (s State) Downgrade(id int) State {
	if i := s.index(id); i >= 0 && s.Holds(id) {
		s.Present = slices.Clone(s.Present)
		s.Present[i].Shared, s.Present[i].Each = len(s.Present[i].Keys) > 0, nil
	}
	return s
}

// Wanted reports whether a request waits for what a holder holds.
func (s State) Wanted(id int) bool {
	return slices.ContainsFunc(s.Present[s.index(id)].Keys, func(key int) bool {
		return s.FirstBlocked(key) >= 0
	})
}

// FirstBlocked returns the first that has to wait for a key, and would if it asked for no
// other; -1 when none has to.
func (s State) FirstBlocked(key int) int {
	holds := s.holding()
	for i, r := range s.Present {
		if slices.Contains(r.Keys, key) && s.blocked(r, key, i, holds) {
			return r.ID
		}
	}
	return -1
}

// CloseSession takes out all of a session, for good.
func (s State) CloseSession(session int) State {
	s.Sessions = append(slices.Clone(s.Sessions), session)
	return s.without(func(r Request) bool { return r.Session == session })
}

// Drain refuses new requests.
func (s State) Drain() State {
	s.Draining = true
	return s
}

// Close refuses new requests, and takes out all that wait.
func (s State) Close() State {
	next := s.without(func(r Request) bool { return !s.Holds(r.ID) })
	next.Closed = true
	return next
}

// Ended reports whether the manager is over.
func (s State) Ended() bool { return s.Closed || s.Draining && len(s.Present) == 0 }

// Idle reports whether no key is held or waited for.
func (s State) Idle() bool {
	return !slices.ContainsFunc(s.Present, func(r Request) bool { return len(r.Keys) > 0 })
}

// Has reports whether a request holds or waits.
func (s State) Has(id int) bool { return s.index(id) >= 0 }

// Holds reports whether a request holds: it does if it conflicts with none that came
// before it.
func (s State) Holds(id int) bool {
	i := s.index(id)
	return i >= 0 && s.holding()[i]
}

// holding says of each who is there whether it holds.
func (s State) holding() []bool {
	holds := make([]bool, len(s.Present))
	for i, r := range s.Present {
		holds[i] = !slices.ContainsFunc(r.Keys, func(key int) bool { return s.blocked(r, key, i, holds) })
	}
	return holds
}

// Line returns who holds a key and who waits for it, in their order.
func (s State) Line(key int) (holders, waiters []int) {
	holds := s.holding()
	for i, r := range s.Present {
		switch {
		case !slices.Contains(r.Keys, key):
		case holds[i]:
			holders = append(holders, r.ID)
		default:
			waiters = append(waiters, r.ID)
		}
	}
	return holders, waiters
}

// Equal reports whether two states of one manager are the same.
func (s State) Equal(other State) bool {
	return s.Closed == other.Closed && s.Draining == other.Draining &&
		slices.Equal(s.Sessions, other.Sessions) &&
		slices.EqualFunc(s.Present, other.Present, func(a, b Request) bool { return a.ID == b.ID })
}

func (s State) index(id int) int {
	return slices.IndexFunc(s.Present, func(r Request) bool { return r.ID == id })
}

// blocked reports whether r, with i others before it, has to wait for a key: because another
// does not share it, for room, or, where one of the two has a limit, for its place.
func (s State) blocked(r Request, key, i int, holds []bool) bool {
	limit := s.limit(r, key)
	before := 0
	for j, other := range s.Present[:i] {
		if !slices.Contains(other.Keys, key) {
			continue
		}
		if !r.Of(key).Shared || !other.Of(key).Shared {
			return true
		}
		if !holds[j] && (limit > 0 || s.limit(other, key) > 0) {
			return true
		}
		before++
	}
	return limit > 0 && before >= limit
}

// limit is how many may hold a key when r begins to, less one; 0 when it does not matter.
func (s State) limit(r Request, key int) int {
	if limit := r.Of(key).Limit; limit > 0 {
		return limit
	}
	return s.SharedLimit
}

// full reports whether r would have to wait where no more may.
func (s State) full(r Request) bool {
	return s.MaxWaiters != 0 && slices.ContainsFunc(r.Keys, func(key int) bool {
		_, waiters := s.Line(key)
		return (s.MaxWaiters > 0 || s.blocked(r, key, len(s.Present), s.holding())) && len(waiters) >= s.MaxWaiters
	})
}

// stuck reports whether r waits forever, even if every owner that does not wait drops all
// that it holds, again and again. An owner is a session, or a request without one.
func (s State) stuck(r Request) bool {
	for {
		waits := make(map[int]bool)
		for _, other := range s.Present {
			if !s.Holds(other.ID) {
				waits[other.Session] = true
			}
		}
		next := s.without(func(other Request) bool {
			return s.Holds(other.ID) && (other.Session == 0 || !waits[other.Session])
		})
		if len(next.Present) == len(s.Present) {
			return s.Has(r.ID)
		}
		s = next
	}
}

func (s State) without(gone func(Request) bool) State {
	s.Present = slices.DeleteFunc(slices.Clone(s.Present), gone)
	return s
}
