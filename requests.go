package keylock

import (
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A message is what travels through the mailbox.
type message[K comparable] struct {
	request request[K]
	token   table.Token[K] // the grant that a release ends; the zero token otherwise
}

// A request is one verb. Exactly one of its methods is called, once: serve by the
// owner, refuse by whoever finds it in the mailbox when the owner serves no more. A
// request that has an answer gets it from either.
type request[K comparable] interface {
	serve(o *owner[K], of table.Token[K])
	refuse()
}

// acquire asks for one key or for many: Acquire, TryAcquire, Reserve and their kin.
//
// It belongs to the caller until it is sent, to the owner until it is answered, and to
// the caller again; or to the owner for good, when the caller withdraws.
type acquire[K comparable] struct {
	want table.Request[K] // its Tag is the acquire itself
	many []K              // room for want.Keys

	ticket  *table.Ticket[K] // while it waits in line
	since   time.Duration    // when its wait began, on the owner's clock
	tracked *tracked[K]      // what an option wants to be noted of it, until it is granted

	token   table.Token[K] // the answer: the grant
	value   any            // the answer: what a Handoff passed on with it
	err     error          // the answer: why there is none
	replied chan bool      // receives true once, when the answer is there

	// A prompt request is told at once that it has to wait, if it has to: answered
	// receives false first. See Manager.wait.
	early     bool
	waited    bool // it had to
	predicted bool // the last request that used this memory did not have to

	// Who gives up leaves, and does not see the answer any more. So that no value is lost,
	// a Handoff makes sure of its next before: whichever of the two comes first decides.
	state atomic.Uint32 // pending, left or next

	// Requests are used again, so a Reservation, which may be copied and kept, knows
	// its request by the generation: the count goes up by one when a reservation is made, is
	// odd until somebody claims it, and goes up again when its request is recycled.
	generation atomic.Uint64
	reserved   bool
}

const (
	pending   uint32 = iota
	abandoned        // the caller has given up
	handedOff        // the caller waits for its answer, whatever becomes of its context
)

// newAcquire returns a request for what want says. Its keys are copied, because the
// caller may change them before the owner has seen them.
func (m *Manager[K]) newAcquire(want table.Request[K]) *acquire[K] {
	r := m.pool.Get().(*acquire[K])
	if len(want.Keys) > 0 { // none at all must not become nil, which would mean want.Key
		r.many = append(r.many[:0], want.Keys...)
		want.Keys = r.many
	}
	want.Tag = r
	r.want = want
	if m.watched {
		r.tracked = m.newTracked()
	}
	return r
}

// recycle ends a request whose answer was received, by whoever has received it.
func (m *Manager[K]) recycle(r *acquire[K]) {
	clear(r.many)
	r.want = table.Request[K]{}
	r.token, r.value, r.err, r.tracked = table.Token[K]{}, nil, nil, nil
	r.predicted, r.early, r.waited = !r.waited, false, false
	r.state.Store(pending)
	if r.reserved {
		r.reserved = false
		r.generation.Add(2)
	}
	m.pool.Put(r)
}

// answer never blocks: there is room for what a request is told.
func (r *acquire[K]) reply(token table.Token[K], err error) {
	r.ticket = nil
	r.token, r.err = token, err
	r.replied <- true
}

// answerUnsent answers in place of the owner, which may still look at the ticket: an
// abandon that came too late for the request's last turn does.
func (r *acquire[K]) replyUnsent(err error) {
	r.err = err
	r.replied <- true
}

func (r *acquire[K]) serve(o *owner[K], _ table.Token[K]) {
	if o.draining {
		o.table.Reject()
		r.refuse()
		return
	}
	switch a := o.table.Join(&r.want); a.Outcome {
	case table.Granted:
		if r.tracked != nil {
			o.held(r, a.Token, unread)
		}
		r.reply(a.Token, nil)
	case table.Waiting:
		r.ticket = a.Ticket
		o.wait(r)
		r.waited = true
		if r.early {
			r.replied <- false
		}
	case table.Busy:
		r.reply(table.Token[K]{}, errBusy)
	case table.Full:
		r.reply(table.Token[K]{}, &keyError{sentinel: ErrQueueFull, key: a.Refusal.Key})
	case table.Deadlock:
		r.reply(table.Token[K]{}, newDeadlockError(a.Refusal.Cycle))
	case table.Closed:
		r.refuse()
	}
}

func (r *acquire[K]) refuse() { r.reply(table.Token[K]{}, ErrClosed) }

// cancel ends the wait of a request that is in line. It never leaves the table idle:
// whoever waits does so because somebody holds.
func (r *acquire[K]) cancel(o *owner[K], err error) {
	o.waited(r, o.meter.now(), "cancelled")
	granted := o.table.Cancel(r.ticket)
	r.reply(table.Token[K]{}, err)
	o.deliver(granted)
}

// withdraw ends a request whose caller has left. Where a grant crossed it, that goes back.
type abandon[K comparable] acquire[K]

func (w *abandon[K]) serve(o *owner[K], _ table.Token[K]) {
	r := (*acquire[K])(w)
	if r.ticket != nil {
		r.cancel(o, errAbandoned)
	}
	<-r.replied // the answer is there: the request was served before
	granted := r.token
	o.m.recycle(r)
	release[K]{}.serve(o, granted)
}

func (w *abandon[K]) refuse() {}

// abandon ends the wait of another goroutine for a reservation.
type cancelReservation[K comparable] struct {
	acquire    *acquire[K]
	generation uint64
}

func (a *cancelReservation[K]) serve(o *owner[K], _ table.Token[K]) {
	// The wait may be over, and its request in use again by somebody else: then the
	// turn is another one. The turn cannot change while a ticket is waiting.
	if r := a.acquire; r.generation.Load() == claimed(a.generation) && r.ticket != nil {
		r.cancel(o, ErrReservationDone)
	}
}

func (a *cancelReservation[K]) refuse() {}

// release ends the grant that its message names. Nobody waits for it.
type release[K comparable] struct{}

func (release[K]) serve(o *owner[K], of table.Token[K]) {
	if o.meter.tracking != nil {
		o.released(o.tracked(of))
	}
	o.deliver(o.table.Release(of))
	o.checkIdle()
}

func (release[K]) refuse() {}

// handoff passes a grant on, or learns that nobody can take it.
type handoff[K comparable] struct {
	value  any
	passed chan bool
}

func (r *handoff[K]) serve(o *owner[K], of table.Token[K]) {
	if !o.findNextWaiter(of) {
		r.passed <- false
		return
	}
	s := o.tracked(of)
	granted := o.table.Release(of)
	o.released(s)
	for i, g := range granted {
		if w := g.Tag.(*acquire[K]); i == 0 || w.acceptsHandoff() { // the first is the next that was found
			w.value = r.value
		}
	}
	o.deliver(granted)
	r.passed <- true
}

// findNextWaiter makes sure of the waiter to whom a grant can be handed off, and reports whether
// there is one. Who has left is passed over.
func (o *owner[K]) findNextWaiter(of table.Token[K]) bool {
	for {
		next := o.table.NextWaiter(of)
		if next == nil {
			return false
		}
		w := next.Tag().(*acquire[K])
		if w.acceptsHandoff() {
			return true
		}
		w.cancel(o, errAbandoned)
	}
}

// acceptsHandoff reports whether the caller will take what is handed over to its request.
func (r *acquire[K]) acceptsHandoff() bool { return r.state.CompareAndSwap(pending, handedOff) }

func (r *handoff[K]) refuse() { r.passed <- false }

// closeSession ends all that a session waits for and holds.
type closeSession[K comparable] struct{ session *table.Session[K] }

func (r *closeSession[K]) serve(o *owner[K], _ table.Token[K]) {
	cancelled, released, granted := o.table.CloseSession(r.session)
	for _, tag := range cancelled {
		o.waited(tag.(*acquire[K]), o.meter.now(), "session closed")
		tag.(*acquire[K]).refuse()
	}
	for _, tag := range released {
		o.released(tag.(*tracked[K]))
	}
	o.deliver(granted)
	o.checkIdle()
}

func (r *closeSession[K]) refuse() {}

// A question is the part of a request that is answered at once, by a value.
type question[V any] struct {
	replied chan reply[V]
}

type reply[V any] struct {
	value V
	err   error
}

func newQuestion[V any]() question[V] { return question[V]{make(chan reply[V], 1)} }

func (q question[V]) reply(value V) { q.replied <- reply[V]{value: value} }

func (q question[V]) refuse() { q.replied <- reply[V]{err: ErrClosed} }

// contains asks whether a key is held or waited for.
type contains[K comparable] struct {
	question[bool]
	key K
}

func (r *contains[K]) serve(o *owner[K], _ table.Token[K]) { r.reply(o.table.Contains(r.key)) }

// waitIdle asks what to wait for until the manager is idle; nil when it is.
type waitIdle[K comparable] struct{ question[*idle] }

// idle is one busy period, shared by all who wait for its end.
type idle struct {
	over chan struct{} // closed when the manager is idle, or closed
	err  error         // which of the two; written before over is closed
}

func (r *waitIdle[K]) serve(o *owner[K], _ table.Token[K]) {
	if o.idle == nil && !o.table.Idle() {
		o.idle = &idle{over: make(chan struct{})}
	}
	r.reply(o.idle)
}

// shutdown asks to drain.
type shutdown[K comparable] struct {
	drains chan bool // receives whether there is anything left to end
}

func (r *shutdown[K]) serve(o *owner[K], _ table.Token[K]) {
	o.draining = true
	r.drains <- true
	o.checkIdle() // nobody may be there even now
}

func (r *shutdown[K]) refuse() { r.drains <- false }

// closing asks to end at once.
type closing[K comparable] struct{}

func (closing[K]) serve(o *owner[K], _ table.Token[K]) { o.end(ErrClosed) }

func (closing[K]) refuse() {}

// wake makes the owner look at its context.
type wake[K comparable] struct{}

func (wake[K]) serve(*owner[K], table.Token[K]) {}

func (wake[K]) refuse() {}
