// Package fuzz drives the lock table and the manager with short random programs,
// and compares them after every step with a model that is too dull to be wrong: a
// list of requests in the order in which they came, from which everything else is
// worked out anew each time.
package fuzz

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A request is one that was made of the model. It is in the model while it holds or
// waits.
type request struct {
	id      int
	keys    []int // as they were named, duplicates and all
	many    bool  // they were named as many, even if it is one
	each    []table.Terms
	shared  bool
	limit   int32
	session string // its label; empty when it has none
	holds   bool
	seq     uint64 // of its grant, as the real thing numbered it
	value   any    // that was handed off with it

	// Of a waiter of a model that follows: the value that was handed off when it waited already,
	// and whether it is sure to come with its grant.
	promised any
	sure     bool
}

// terms are those on which it asks for a key.
func (m *model) terms(r *request, key int) table.Terms {
	is := table.Terms{Limit: r.limit}
	if r.shared {
		is.Mode = table.Shared
	}
	if i := slices.Index(r.keys, key); r.each != nil && i >= 0 {
		is = r.each[i]
	}
	switch {
	case is.Mode == table.Exclusive:
		is.Limit = 0
	case is.Limit == 0:
		is.Limit = int32(m.sharedLimit)
	}
	return is
}

// shares says whether a request shares all its keys.
func (m *model) shares(r *request) bool {
	return len(r.keys) > 0 && !slices.ContainsFunc(r.keys, func(key int) bool { return m.terms(r, key).Mode == table.Exclusive })
}

// A model says who holds and who waits.
type model struct {
	maxWaiters, sharedLimit int
	follows                 bool       // it grants what it is told that was granted, and nothing by itself
	present                 []*request // holders and waiters, in the order in which they came
	counts                  table.Counts
}

// An answer is what the model says to a request.
type answer struct {
	outcome table.Outcome
	key     int // whose queue is full
}

// clone returns a copy on which one can try what would happen.
func (m *model) clone() *model {
	c := *m
	c.present = make([]*request, len(m.present))
	for i, r := range m.present {
		copied := *r
		c.present[i] = &copied
	}
	return &c
}

// join accepts a request, unless it is refused.
func (m *model) join(r *request, try bool) answer {
	if !m.grantable(r, m.present) {
		a := m.mayWait(r, try)
		if a.outcome == table.Waiting && m.deadlocks(r) {
			a.outcome = table.Deadlock
		}
		if a.outcome != table.Waiting {
			m.counts.Rejected++
			return a
		}
	}
	m.present = append(m.present, r)
	if len(m.settle()) == 0 {
		return answer{outcome: table.Waiting}
	}
	m.counts.Waited-- // it was there at once
	return answer{outcome: table.Granted}
}

// mayWait says whether a request that cannot be granted may queue. The first of
// its keys for which it is not is the one that it is told.
func (m *model) mayWait(r *request, try bool) answer {
	for _, key := range r.keys {
		is := m.terms(r, key)
		alone := &request{keys: []int{key}, shared: is.Mode == table.Shared, limit: is.Limit}
		switch {
		case m.grantable(alone, m.present) && (try || m.maxWaiters < 0):
		case try:
			return answer{outcome: table.Busy}
		case m.maxWaiters != 0 && m.waiting(key) >= m.maxWaiters:
			return answer{table.Full, key}
		}
	}
	return answer{outcome: table.Waiting}
}

// deadlocks says whether a session's request would wait forever: even if every owner
// that does not wait dropped all that it holds, and those who are granted because of that
// did the same, again and again. An owner is a session, or a request that has none.
func (m *model) deadlocks(r *request) bool {
	if r.session == "" {
		return false
	}
	what := m.clone()
	what.present = append(what.present, &request{id: r.id, keys: r.keys, each: r.each, shared: r.shared, limit: r.limit, session: r.session})
	what.follows = false
	what.settle()
	for {
		waits := make(map[string]bool) // sessions
		for _, waiter := range what.waiters() {
			waits[waiter.session] = true
		}
		before := len(what.present)
		what.present = what.all(func(other *request) bool {
			return !other.holds || other.session != "" && waits[other.session]
		})
		if len(what.present) == before {
			return what.get(r.id) != nil
		}
		what.settle()
	}
}

// leave takes a holder or a waiter out and returns what is granted because of that.
func (m *model) leave(r *request) []*request {
	m.present = slices.DeleteFunc(m.present, func(other *request) bool { return other.id == r.id })
	if r.holds {
		m.counts.Released++
	} else {
		m.counts.Cancelled++
	}
	return m.settle()
}

// handoff is leave for a holder that leaves only if that grants a request for one key.
func (m *model) handoff(r *request, value any) []*request {
	if r.many {
		return nil
	}
	first := m.firstBlocked(r.keys[0])
	next := m.clone().leave(r)
	if first == nil || first.many || !slices.ContainsFunc(next, func(r *request) bool { return r.id == first.id }) {
		return nil
	}
	granted := m.leave(r)
	for _, next := range granted {
		if !next.many && next.keys[0] == r.keys[0] { // others were let in by one of many keys
			next.value = value
		}
	}
	return granted
}

// downgrade makes a holder share all its keys and returns what is granted because of that.
func (m *model) downgrade(r *request) []*request {
	if !m.shares(r) && len(r.keys) > 0 {
		r.shared, r.each, r.limit = true, nil, 0
	}
	return m.settle()
}

// wanted says whether a request has to wait for one of the keys of a holder.
func (m *model) wanted(r *request) bool {
	return slices.ContainsFunc(r.keys, func(key int) bool { return m.firstBlocked(key) != nil })
}

// firstBlocked returns the first waiter that would wait for a key also if it asked for no
// other; nil when there is none.
func (m *model) firstBlocked(key int) *request {
	for i, r := range m.present {
		if !r.holds && slices.Contains(r.keys, key) && m.blocked(r, key, m.present[:i]) {
			return r
		}
	}
	return nil
}

// leaveAll cancels all waiters and returns them. None is granted.
func (m *model) leaveAll() []*request {
	gone := m.waiters()
	m.counts.Cancelled += uint64(len(gone))
	m.present = m.holders()
	return gone
}

// closeSession takes out all that a session waits for and holds, at once.
func (m *model) closeSession(label string) (cancelled, granted []*request) {
	for _, r := range m.all(func(r *request) bool { return r.session == label }) {
		if r.holds {
			m.counts.Released++
		} else {
			m.counts.Cancelled++
			cancelled = append(cancelled, r)
		}
	}
	m.present = m.all(func(r *request) bool { return r.session != label })
	return cancelled, m.settle()
}

// settle grants what can be granted and returns it, in the order in which it came.
func (m *model) settle() []*request {
	if m.follows {
		return nil
	}
	var granted []*request
	for i, r := range m.present {
		if !r.holds && m.grantable(r, m.present[:i]) {
			r.holds = true
			granted = append(granted, r)
			m.counts.Acquired++
			m.counts.Waited++
		}
	}
	return granted
}

// follow grants what was granted, if it could be.
func (m *model) follow(r *request) error {
	i := slices.Index(m.present, r)
	if i < 0 || r.holds || !m.grantable(r, m.present[:i]) {
		return fmt.Errorf("request %d was granted, which has to wait", r.id)
	}
	r.holds = true
	m.counts.Acquired++
	m.counts.Waited++
	return nil
}

// goesOn says whether a waiter need not wait for a key any more, and whether one of those that
// ask for nothing else.
func (m *model) goesOn(key int) (any, alone bool) {
	for i, r := range m.present {
		if !r.holds && slices.Contains(r.keys, key) && !m.blocked(r, key, m.present[:i]) {
			any, alone = true, alone || !r.many
		}
	}
	return any, alone
}

// promise promises a value to those who wait for a key alone.
func (m *model) promise(key int, value any) {
	for _, r := range m.waiters() {
		if !r.many && r.keys[0] == key {
			r.promised, r.sure = value, true
		}
	}
}

// expire forgets what was promised where none goes on any more, and what is not sure: a request for
// many keys may go on or wait for another key.
func (m *model) expire() {
	for _, r := range m.waiters() {
		if r.promised == nil {
			continue
		}
		switch any, alone := m.goesOn(r.keys[0]); {
		case !any:
			r.promised = nil
		case !alone:
			r.sure = false
		}
	}
}

// isBehind says whether a waiter could be granted.
func (m *model) isBehind() bool {
	for i, r := range m.present {
		if !r.holds && m.grantable(r, m.present[:i]) {
			return true
		}
	}
	return false
}

// grantable is the rule: a request is granted when it conflicts with no holder and with
// no earlier waiter. Holders who came later than r count as well.
func (m *model) grantable(r *request, earlier []*request) bool {
	return !slices.ContainsFunc(r.keys, func(key int) bool { return m.blocked(r, key, earlier) })
}

// blocked is the rule for one key. A shared request without a limit does not conflict with
// waiters of that kind; with one, it conflicts with all waiters.
func (m *model) blocked(r *request, key int, earlier []*request) bool {
	is := m.terms(r, key)
	sharers := int32(0)
	for _, holder := range m.holders() {
		if !slices.Contains(holder.keys, key) {
			continue
		}
		if is.Mode == table.Exclusive || m.terms(holder, key).Mode == table.Exclusive {
			return true
		}
		sharers++
	}
	if is.Limit > 0 && sharers >= is.Limit {
		return true
	}
	for _, waiter := range earlier {
		if waiter.holds || !slices.Contains(waiter.keys, key) {
			continue
		}
		if other := m.terms(waiter, key); is.Mode == table.Exclusive || other.Mode == table.Exclusive || is.Limit > 0 || other.Limit > 0 {
			return true
		}
	}
	return false
}

func (m *model) holders() []*request { return m.all(func(r *request) bool { return r.holds }) }

func (m *model) waiters() []*request { return m.all(func(r *request) bool { return !r.holds }) }

func (m *model) all(is func(*request) bool) []*request {
	var found []*request
	for _, r := range m.present {
		if is(r) {
			found = append(found, r)
		}
	}
	return found
}

// get returns the request with the id; nil when it neither holds nor waits.
func (m *model) get(id int) *request {
	for _, r := range m.present {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (m *model) waiting(key int) int {
	return len(m.all(func(r *request) bool { return !r.holds && slices.Contains(r.keys, key) }))
}

// queues are the entries of every key that is held or waited for: its holders, and then its
// waiters.
func (m *model) queues() map[int][]table.Entry {
	queues := make(map[int][]table.Entry)
	holders := m.holders()
	slices.SortStableFunc(holders, func(a, b *request) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range append(holders, m.waiters()...) {
		for i, key := range r.keys {
			if !slices.Contains(r.keys[:i], key) {
				queues[key] = append(queues[key], table.Entry{Seq: r.seq, Mode: m.terms(r, key).Mode, Label: r.session})
			}
		}
	}
	return queues
}

// totals are the counts, of which those of now are counted now.
func (m *model) totals() table.Counts {
	c := m.counts
	c.Keys, c.Held, c.Waiting = len(m.queues()), len(m.holders()), len(m.waiters())
	c.Shared = len(m.all(func(r *request) bool { return r.holds && m.shares(r) }))
	return c
}

// cycleError returns an error when what a session's request was told is not a cycle of
// waits that it would close.
func (m *model) cycleError(r *request, cycle []table.WaitEdge[int]) error {
	what := m.clone()
	what.present = append(what.present, &request{id: r.id, keys: r.keys, each: r.each, shared: r.shared, limit: r.limit, session: r.session})
	for i, e := range cycle {
		if i == 0 && e.Waiter != r.session {
			return fmt.Errorf("the cycle begins with %q, not with %q", e.Waiter, r.session)
		}
		if next := cycle[(i+1)%len(cycle)]; e.Blocker != next.Waiter {
			return fmt.Errorf("the cycle goes from %q on to %q", e.Blocker, next.Waiter)
		}
		if !what.waitsFor(e, i == 0) {
			return fmt.Errorf("the cycle has an edge that is not there: %+v", e)
		}
	}
	if len(cycle) == 0 {
		return fmt.Errorf("the cycle is empty")
	}
	return nil
}

// waitsFor says whether an edge is there: some request of the one stands behind one of the
// other in the queue, and in conflict with it. The first edge is that of the last request.
func (m *model) waitsFor(e table.WaitEdge[int], first bool) bool {
	for i, waiter := range m.present {
		if waiter.holds || waiter.session != e.Waiter || first && i < len(m.present)-1 {
			continue
		}
		for _, owner := range m.present[:i] {
			if owner.session == e.Blocker && owner.holds == e.Held && m.blocks(owner, waiter, e.Key) {
				return true
			}
		}
	}
	return false
}

// blocks says whether one who came earlier is in the way of a waiter, in the queue of a key,
// directly or by those between them who have no session and only pass it on.
func (m *model) blocks(earlier, waiter *request, key int) bool {
	if !slices.Contains(earlier.keys, key) || !slices.Contains(waiter.keys, key) {
		return false
	}
	one, two := m.terms(earlier, key), m.terms(waiter, key)
	if one.Mode == table.Exclusive || two.Mode == table.Exclusive || two.Limit > 0 || one.Limit > 0 && !earlier.holds {
		return true
	}
	from, to := slices.Index(m.present, earlier), slices.Index(m.present, waiter)
	return slices.ContainsFunc(m.present[from+1:to], func(between *request) bool {
		is := m.terms(between, key)
		return !between.holds && (is.Mode == table.Exclusive || is.Limit > 0) && between.session == "" && slices.Contains(between.keys, key)
	})
}
