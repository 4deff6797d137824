package fuzz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A world is the model of a manager: the model of its table, and all calls that were ever
// made.
type world struct {
	model        *model
	calls        []call
	reservations []reservation
	closed       [owners]bool // whose session is
	draining     bool
	ended        bool
}

// A call is one that was made of the manager, and what it has returned. Its context is its
// own.
type call struct {
	verb    int
	request int  // what it waits for, or got; none for calls that ask for no lock
	many    bool // keys
	result
}

const none = -1

// A result is what a call has returned.
type result struct {
	returned bool
	err      error  // a sentinel, or what a context says
	seq      uint64 // of the lock that it returned
	value    any    // that came with the lock
}

func (r result) String() string {
	switch {
	case !r.returned:
		return "not returned"
	case r.err != nil:
		return r.err.Error()
	}
	return fmt.Sprintf("lock %d with value %v", r.seq, r.value)
}

// A reservation is a claim on a future grant that no call waits for yet.
type reservation struct {
	request int
	many    bool  // keys
	err     error // what its Wait will return
	used    bool
}

// errRefused is the error of a call that says no, and not why.
var errRefused = errors.New("refused")

// An action is a step whose choices are made.
type action struct {
	step
	verb   int
	target int // the call or the reservation that it is about
	value  int // what is handed off
}

// done says that the context of the call is done when it begins.
func (a action) done() bool { return a.try }

// ofMany says that the request is for many keys: also AcquireAll of one, but not a set that names one
// key again and again.
func (a action) ofMany() bool {
	differ := slices.ContainsFunc(a.keys, func(key int) bool { return key != a.keys[0] })
	return a.many && (differ || len(a.keys) == 0 || a.verb == acquire && a.each == nil)
}

// invalid says that one of the keys is not equal to itself.
func (a action) invalid() bool { return len(a.keys) > 0 && a.arg >= 250 }

func (w *world) clone() *world {
	c := *w
	c.model = w.model.clone()
	c.calls = slices.Clone(w.calls)
	c.reservations = slices.Clone(w.reservations)
	return &c
}

// do lets the action happen.
func (w *world) do(a action) {
	switch a.verb {
	case acquire, try:
		w.calls = append(w.calls, call{verb: a.verb, request: len(w.calls), many: a.ofMany()})
		c := &w.calls[len(w.calls)-1]
		switch err := w.ask(c.request, a); {
		case a.verb == acquire && a.done():
			*c = call{verb: a.verb, request: none, result: result{returned: true, err: context.Canceled}}
		case a.verb == try && err != nil:
			*c = call{verb: a.verb, request: none, result: result{returned: true, err: errRefused}}
		case err != nil:
			*c = call{verb: a.verb, request: none, result: result{returned: true, err: err}}
		}
	case reserve:
		id := len(w.calls) // every id is used once, so a reservation is a call that has returned
		w.calls = append(w.calls, call{verb: a.verb, request: none, result: result{returned: true}})
		w.reservations = append(w.reservations, reservation{request: id, many: a.ofMany(), err: w.ask(id, a)})
	case wait:
		w.wait(a)
	case cancelReservation:
		v := &w.reservations[a.target]
		switch {
		case !v.used:
			v.used = true
			w.giveUp(v.request)
		default: // it ends the Wait, if that has not returned
			for i, c := range w.calls {
				if c.verb == wait && c.request == v.request && !c.returned {
					w.calls[i].fail(keylock.ErrReservationDone)
					w.leave(v.request)
				}
			}
		}
	case cancel:
		if c := &w.calls[a.target]; !c.returned {
			c.fail(context.Canceled)
			w.leave(c.request)
		}
	case downgrade:
		if holder := w.model.get(w.calls[a.target].request); holder != nil && !w.ended {
			w.model.downgrade(holder)
		}
	case release:
		w.leave(w.calls[a.target].request)
	case handoff:
		c := call{verb: a.verb, request: none, result: result{returned: true, err: errRefused}}
		if holder := w.model.get(w.calls[a.target].request); holder != nil && !w.ended {
			if len(w.model.handoff(holder, a.value)) > 0 {
				c.err = nil
			}
		}
		w.calls = append(w.calls, c)
	case closeSession:
		if w.closed[a.owner] {
			w.closed[a.owner] = false // a new one
			break
		}
		w.closed[a.owner] = true
		w.refuse(w.model.all(func(r *request) bool { return r.session == label(a.owner) }))
		if !w.ended {
			w.passOn(label(a.owner))
			w.model.closeSession(label(a.owner))
		}
	case waitIdle, shutdown:
		c := call{verb: a.verb, request: none}
		w.draining = w.draining || a.verb == shutdown
		switch {
		case a.done():
			c.fail(context.Canceled)
		case w.ended && a.verb == waitIdle:
			c.fail(keylock.ErrClosed)
		case w.ended:
			c.returned = true
		}
		w.calls = append(w.calls, c)
	case closeManager, endContext:
		w.end(keylock.ErrClosed)
	}
	w.settle()
}

// ask asks for keys and returns the error with which the manager answers at once.
func (w *world) ask(id int, a action) error {
	r := &request{id: id, keys: a.keys, many: a.ofMany(), each: a.each, shared: a.shared, limit: a.limit, session: label(a.owner)}
	switch {
	case a.verb == acquire && a.done():
		return context.Canceled
	case a.invalid():
		return keylock.ErrInvalidKey
	case w.ended:
		return keylock.ErrClosed
	case w.draining, w.closed[a.owner]:
		w.model.counts.Rejected++
		return keylock.ErrClosed
	}
	switch w.model.join(r, a.verb == try).outcome {
	case table.Busy:
		return errRefused
	case table.Full:
		return keylock.ErrQueueFull
	case table.Deadlock:
		return keylock.ErrDeadlock
	}
	return nil
}

// wait begins a Wait for a reservation.
func (w *world) wait(a action) {
	v := &w.reservations[a.target]
	c := call{verb: wait, request: none}
	switch {
	case a.done() && (v.used || v.err != nil || !w.hasValue(v.request)):
		c.fail(context.Canceled)
		if !v.used {
			w.leave(v.request)
		}
	case v.used:
		c.fail(keylock.ErrReservationDone)
	case v.err != nil:
		c.fail(v.err)
	default:
		c.request, c.many = v.request, v.many
	}
	v.used = true
	w.calls = append(w.calls, c)
}

// leave takes a request out, whether it holds or waits, if it does.
func (w *world) leave(id int) {
	if r := w.model.get(id); r != nil && !w.ended {
		w.model.leave(r)
	}
}

// hasValue says whether a request holds what came with a value. No such lock is given back
// unseen.
func (w *world) hasValue(id int) bool {
	r := w.model.get(id)
	return r != nil && r.value != nil
}

// receives says whether a request was the first to be granted what came with its value, since
// the world before: the one that a handoff makes sure of.
func (w *world) receives(id int, before *world) bool {
	receiver := w.model.get(id)
	return !slices.ContainsFunc(w.model.holders(), func(r *request) bool {
		old := before.model.get(r.id)
		return r.id < id && r.value == receiver.value && !(old != nil && old.holds)
	})
}

// giveUp is leave for a reservation that is cancelled: its value goes to the next.
func (w *world) giveUp(id int) {
	if w.hasValue(id) && !w.ended {
		r := w.model.get(id)
		if len(w.model.handoff(r, r.value)) > 0 {
			return
		}
	}
	w.leave(id)
}

// passOn hands off what came with a value to a reservation of a session that is about to be
// closed, and has not been waited for. What the session waits for is cancelled before, so that
// nothing goes to itself.
func (w *world) passOn(session string) {
	var unread []*request
	for _, v := range w.reservations {
		if r := w.model.get(v.request); !v.used && r != nil && r.session == session && w.hasValue(v.request) {
			unread = append(unread, r)
		}
	}
	if len(unread) == 0 {
		return
	}
	for _, r := range w.model.all(func(r *request) bool { return r.session == session && !r.holds }) {
		w.model.leave(r)
	}
	for _, r := range unread {
		w.model.handoff(r, r.value)
	}
}

// refuse tells requests that are closed. Locks that calls have returned already are not taken
// back.
func (w *world) refuse(closed []*request) {
	for _, r := range closed {
		for i := range w.reservations {
			if w.reservations[i].request == r.id {
				w.reservations[i].err = keylock.ErrClosed
			}
		}
		for i := range w.calls {
			if c := &w.calls[i]; c.request == r.id && !c.returned {
				c.fail(keylock.ErrClosed)
			}
		}
	}
}

// end ends the manager.
func (w *world) end(cause error) {
	if w.ended {
		return
	}
	w.refuse(w.model.leaveAll())
	w.ended = true
	for i := range w.calls {
		c := &w.calls[i]
		switch {
		case c.returned:
		case c.verb == waitIdle:
			c.fail(keylock.ErrClosed)
		case c.verb == shutdown:
			c.returned, c.err = true, cause
		}
	}
}

// settle lets calls return that can.
func (w *world) settle() {
	idle := len(w.model.queues()) == 0
	for i := range w.calls {
		c := &w.calls[i]
		switch {
		case c.returned:
		case c.verb == waitIdle:
			c.returned = idle
		case c.request == none:
		default:
			if r := w.model.get(c.request); r != nil && r.holds {
				c.returned = true
				if !r.many { // many keys have no use for a value
					c.value = r.value
				}
			}
		}
	}
	if len(w.model.present) == 0 && w.draining { // locks of no keys are waited for, too
		w.end(nil)
	}
}

// fail lets the call return an error.
func (c *call) fail(err error) { c.result = result{returned: true, err: err} }

// pending are the calls that have not returned.
func (w *world) pending() []int {
	var ids []int
	for i, c := range w.calls {
		if !c.returned {
			ids = append(ids, i)
		}
	}
	return ids
}

// locks are the calls that have returned a lock, of many keys or of one, which may have been
// released.
func (w *world) locks(many bool) []int {
	var ids []int
	for i, c := range w.calls {
		if c.request != none && c.returned && c.err == nil && c.many == many {
			ids = append(ids, i)
		}
	}
	return ids
}

// A view is all that can be seen of a manager.
type view struct {
	results []result
	done    bool
	err     error         // what its questions answered
	stats   keylock.Stats // without what tells of time
	queues  map[int][]table.Entry
	present [keys]bool // what Inspect says
}

// is reports whether a call has returned what it should, with an error that wraps the
// one that it should.
func (r result) is(want result) bool {
	if errors.Is(r.err, want.err) {
		r.err = want.err
	}
	return r == want
}

// compare returns an error when the view is not that of this world, after some of its
// requests were granted since the world before. It takes over the numbers of these grants.
func (w *world) compare(v view, before *world) error {
	if v.done != w.ended {
		return fmt.Errorf("Done is %t", v.done)
	}
	if err := w.number(v, before); err != nil {
		return err
	}
	for i, c := range w.calls {
		if !v.results[i].is(c.result) {
			return fmt.Errorf("call %d: %s, want %s", i, v.results[i], c.result)
		}
	}
	if w.ended {
		if v.err != keylock.ErrClosed {
			return fmt.Errorf("questions are answered by %v", v.err)
		}
		return nil
	}
	queues := w.model.queues()
	if !maps.EqualFunc(v.queues, queues, slices.Equal) {
		return fmt.Errorf("Snapshot is %v, want %v", v.queues, queues)
	}
	for key, present := range v.present {
		if _, want := queues[key]; present != want {
			return fmt.Errorf("Inspect(%d) finds it: %t", key, present)
		}
	}
	longest := 0
	for _, entries := range queues {
		waiting := func(p table.Entry) bool { return p.Seq == 0 }
		if i := slices.IndexFunc(entries, waiting); i >= 0 {
			longest = max(longest, len(entries)-i)
		}
	}
	c := w.model.totals()
	if want := (keylock.Stats{
		Keys: c.Keys, Held: c.Held, Shared: c.Shared, Waiting: c.Waiting, LongestQueue: longest,
		Acquired: c.Acquired, Waited: c.Waited, Cancelled: c.Cancelled, Rejected: c.Rejected, Released: c.Released,
	}); v.stats != want || v.err != nil {
		return fmt.Errorf("Stats is %+v, %v, want %+v", v.stats, v.err, want)
	}
	return nil
}

// oneByOne says that a manager numbers its grants one by one. Where it keeps grants it reserves
// numbers for them.
var oneByOne = true

// number gives the holders the numbers of their grants, where the view shows them. Grants
// since the world before have the numbers that come next, each its own, and of two for one key
// the earlier request has the lower one.
func (w *world) number(v view, before *world) error {
	var granted []*request
	for _, r := range w.model.holders() {
		if r.seq == 0 {
			granted = append(granted, r)
		}
	}
	for i, c := range w.calls { // some know it
		if r := w.model.get(c.request); r != nil && r.seq == 0 && c.returned && c.err == nil {
			r.seq = v.results[i].seq
		}
	}
	for key, entries := range v.queues { // and of the others the earlier one has the earlier number
		var others []*request
		for _, r := range w.model.holders() {
			if !slices.Contains(r.keys, key) {
				continue
			}
			if r.seq == 0 {
				others = append(others, r)
			}
			entries = slices.DeleteFunc(slices.Clone(entries), func(p table.Entry) bool { return p.Seq == r.seq || p.Seq == 0 })
		}
		for i, r := range others[:min(len(others), len(entries))] {
			r.seq = entries[i].Seq
		}
	}
	for i := range w.calls {
		c := &w.calls[i]
		if !c.returned || c.err != nil || c.request == none || c.seq != 0 {
			continue
		}
		r := w.model.get(c.request)
		if r != nil && r.seq == 0 {
			r.seq = v.results[i].seq // of no key, which no queue shows
		}
		if r != nil {
			c.seq = r.seq
		} else {
			c.seq = v.results[i].seq // it came and went
		}
	}
	var known []*request
	for _, r := range granted {
		if r.seq == 0 {
			continue // of no key, and no call has returned the lock
		}
		old := before.model.get(r.id)
		isNew := old == nil || !old.holds
		if oneByOne && (r.seq > w.model.counts.Acquired || isNew && r.seq <= before.model.counts.Acquired) {
			return fmt.Errorf("request %d has the grant number %d", r.id, r.seq)
		}
		if slices.ContainsFunc(known, func(other *request) bool { return other.seq == r.seq }) {
			return fmt.Errorf("two grants have the number %d", r.seq)
		}
		known = append(known, r)
	}
	return w.model.inOrder(known)
}
