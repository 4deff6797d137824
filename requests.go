package keylock

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A message is what travels through the mailbox: a request or, by far the most frequent,
// the plain news that a grant is released.
type message[K comparable] struct {
	request request[K]     // nil for a release
	release table.Token[K] // the grant that ends
}

// serve does what the message says. The owner calls it.
func (msg message[K]) serve(o *owner[K]) {
	if msg.request == nil {
		o.release(msg.release)
		return
	}
	msg.request.serve(o)
}

// refuse is called instead of serve when the owner serves no more.
func (msg message[K]) refuse() {
	if msg.request != nil {
		msg.request.refuse()
	}
}

// A request is one verb. Exactly one of its methods is called, once: serve by the
// owner, refuse by what finds it in the mailbox when the owner serves no more. A
// request that has a reply gets it from either.
type request[K comparable] interface {
	serve(o *owner[K])
	refuse()
}

// acquire asks for one key or for many: Acquire, TryAcquire, Reserve and their kin.
//
// It belongs to the caller until it is sent, to the owner until it is answered, and to
// the caller again; or to the owner for good, when the caller withdraws.
type acquire[K comparable] struct {
	// Written by the caller, before the request is sent.
	want    table.Request[K] // its Tag is the acquire itself
	many    []K              // room for want.Keys
	session *sessionState[K] // nil when it has none

	// Written by the caller before, and then by the owner.
	tracked *tracked[K] // what an option wants to be noted of it, until it is granted

	// Owned by the owner until it replies.
	ticket *table.Ticket[K] // while it waits
	since  time.Duration    // when its wait began, on the owner's clock

	// The reply, written before replied receives.
	token   table.Token[K] // the grant
	value   any            // what a Handoff passed on with it
	parcel  *parcel        // the same, of a session; else nil
	err     error          // why there is no grant
	replied chan bool      // receives true once, when the reply is there; false before, when it is early and has to wait

	// Written by the caller that abandons it, and then by the owner.
	nextLeft *acquire[K] // of Manager.left

	// Flags, which take less room together than with what they are about.
	long      bool // of the caller: it names many keys, or may need a search for a cycle
	unread    bool // of the caller: it has no use for a value
	early     bool // of the caller: it hears at once whether it has to wait, see Manager.wait
	waited    bool // of the owner, until it replies: it had to wait
	dropped   bool // of the owner, until it replies: it was abandoned before it was served
	predicted bool // written when it is recycled, read by the next caller that uses it: it did not have to wait
	reserved  bool // of the caller: it is that of a reservation

	// Used by both at any time.
	//
	// A caller that abandons its request does not see the reply any more. So that no value
	// is lost, a Handoff makes sure of its next waiter before: the first of the two decides.
	state atomic.Uint32 // pending, abandoned or handedOff
	// Requests are used again, so a Reservation, which may be copied and kept, knows its
	// request by the generation: it goes up by one when a reservation is made, is odd until
	// the reservation is claimed, and goes up again when its request is recycled.
	generation atomic.Uint64
}

const (
	pending   uint32 = iota
	abandoned        // the caller has given up
	handedOff        // the caller waits for its answer, whatever becomes of its context
)

// newAcquire returns a request for what want says. Its keys are copied, because the
// caller may change them before the owner has seen them.
func (m *Manager[K]) newAcquire(s *sessionState[K], want table.Request[K]) *acquire[K] {
	if m == nil {
		m.mustBeStarted()
	}
	r, _ := m.pool.Get().(*acquire[K])
	if r == nil {
		m.mustBeStarted()
	}
	if s != nil {
		r.session, want.Session = s, s.entries
	}
	if len(want.Keys) > 0 { // none at all must not become nil, which would mean want.Key
		r.many = append(r.many[:0], want.Keys...)
		want.Keys = r.many
	}
	r.long = want.Keys != nil || s != nil
	want.Tag = r
	r.want = want
	if m.tracks {
		r.tracked = newTracked[K](m.callers)
	}
	return r
}

// keptKeys is how many keys a request has room for while it is not used. A request for more
// is timed always, and not as a sample of many.
const keptKeys = 16

// recycle ends a request whose reply was received, by the caller or by the owner, whichever
// received it. Nothing that a user gave stays in it.
func (m *Manager[K]) recycle(r *acquire[K]) {
	if len(r.many) > 0 {
		if clear(r.many); cap(r.many) > keptKeys {
			r.many = nil
		}
		r.many = r.many[:0]
	}
	r.want, r.session = table.Request[K]{}, nil
	r.token, r.value, r.parcel, r.err, r.tracked = table.Token[K]{}, nil, nil, nil, nil
	r.predicted, r.early, r.waited, r.unread = !r.waited, false, false, false
	r.state.Store(pending)
	if r.reserved {
		r.reserved = false
		r.generation.Add(2)
	}
	m.pool.Put(r)
}

// reply never blocks: there is room for what a request is told.
func (r *acquire[K]) reply(token table.Token[K], err error) {
	r.ticket = nil
	r.token, r.err = token, err
	r.replied <- true
}

// replyUnsent replies in place of the owner, which may still look at the ticket: an
// abandon that came too late for the request's last generation does.
func (r *acquire[K]) replyUnsent(err error) {
	r.err = err
	r.replied <- true
}

func (r *acquire[K]) serve(o *owner[K]) {
	if r.long {
		defer o.m.long.Add(-1)
	}
	if r.dropped {
		r.dropped = false
		o.m.recycle(r)
		return
	}
	if o.draining {
		o.table.Reject()
		r.refuse()
		return
	}
	if len(r.want.Keys) > keptKeys {
		o.meter.long(func() { r.join(o) })
		return
	}
	r.join(o)
}

// join enters the request into its queues, and replies unless it has to wait.
func (r *acquire[K]) join(o *owner[K]) {
	switch a := o.table.Join(&r.want); a.Outcome {
	case table.Granted:
		if r.tracked != nil {
			o.held(r, a.Token, unread)
		}
		if o.m.kept != nil && o.keeps(r) {
			o.m.kept.keep(r.want.Key, a.Token)
		}
		r.reply(a.Token, nil)
	case table.Waiting:
		r.ticket = a.Ticket
		o.endWatches()
		o.wait(r)
		r.waited = true
		if r.early {
			r.replied <- false
		}
	case table.Busy:
		r.reply(table.Token[K]{}, errBusy)
	case table.Full:
		r.reply(table.Token[K]{}, &keyError[K]{sentinel: ErrQueueFull, key: a.Refusal.Key})
	case table.Deadlock:
		r.reply(table.Token[K]{}, newDeadlockError(a.Refusal.Cycle))
	case table.Closed:
		r.refuse()
	}
}

func (r *acquire[K]) refuse() { r.reply(table.Token[K]{}, ErrClosed) }

// cancel ends the wait of a request. It never leaves the table idle: a request waits only
// because another one holds.
func (r *acquire[K]) cancel(o *owner[K], err error) {
	o.waited(r, o.meter.now(), "cancelled")
	granted := o.table.Cancel(r.ticket)
	r.reply(table.Token[K]{}, err)
	o.deliver(granted)
}

// abandon ends a request whose caller has abandoned it. A grant that crossed it goes back.
type abandon[K comparable] acquire[K]

func (w *abandon[K]) serve(o *owner[K]) {
	defer o.m.kept.served()
	r := (*acquire[K])(w)
	if r.long {
		defer o.m.long.Add(-1)
	}
	switch {
	case r.ticket != nil:
		r.cancel(o, errAbandoned)
	case len(r.replied) == 0:
		r.dropped = true // the request itself is still in the mailbox
		return
	}
	<-r.replied // the reply is there
	granted := r.token
	o.m.recycle(r)
	o.release(granted)
}

func (w *abandon[K]) refuse() {}

// countedReservation is the request of a reservation that is counted in unserved.
type countedReservation[K comparable] acquire[K]

func (r *countedReservation[K]) serve(o *owner[K]) {
	(*acquire[K])(r).serve(o)
	o.m.kept.served()
}

func (r *countedReservation[K]) refuse() { (*acquire[K])(r).refuse() }

// keeps reports whether the grant of a request may be kept now. No request is granted at once after
// the end, or during a shutdown.
func (o *owner[K]) keeps(r *acquire[K]) bool {
	return o.m.takes(r.session, &r.want) && o.idle == nil && !o.looking.looks
}

// claimed is the generation of a reservation that was claimed.
func claimed(generation uint64) uint64 { return generation + 1 }

// cancelReservation ends the wait of another goroutine for a reservation.
type cancelReservation[K comparable] struct {
	acquire    *acquire[K]
	generation uint64
}

func (a *cancelReservation[K]) serve(o *owner[K]) {
	// The wait may be over, and its request in use again by another caller: then the
	// generation is another one. It cannot change while a ticket is waiting.
	if r := a.acquire; r.generation.Load() == claimed(a.generation) && r.ticket != nil {
		r.cancel(o, ErrReservationDone)
	}
}

func (a *cancelReservation[K]) refuse() {}

// release ends a grant, unless it has ended.
func (o *owner[K]) release(token table.Token[K]) {
	if o.tracking != nil {
		o.released(o.tracked(token))
	}
	o.deliver(o.table.Release(token))
	o.checkIdle()
}

// releaseAll ends a grant of many keys, which may take long.
type releaseAll[K comparable] struct{ grant table.Token[K] }

func (r *releaseAll[K]) serve(o *owner[K]) {
	defer o.m.long.Add(-1)
	o.change(r.grant, func() { o.release(r.grant) })
}

func (r *releaseAll[K]) refuse() {}

// change calls f, which changes a grant, and times it if the grant is of very many keys.
func (o *owner[K]) change(grant table.Token[K], f func()) {
	if k := grant.Ticket(); k != nil && k.Entry().Keys > keptKeys {
		o.meter.long(f)
		return
	}
	f()
}

// downgrade makes an exclusive grant shared, unless it has ended.
type downgrade[K comparable] struct {
	grant table.Token[K]
	long  bool // it is of many keys
}

func (r *downgrade[K]) serve(o *owner[K]) {
	if r.long {
		defer o.m.long.Add(-1)
	}
	o.change(r.grant, func() { o.deliver(o.table.Downgrade(r.grant)) })
}

func (r *downgrade[K]) refuse() {}

// watch asks for what is closed when a request has to wait for a grant.
type watch[K comparable] struct {
	grant   table.Token[K]
	wanted  chan struct{} // the caller's; the owner puts that of an earlier call in its place
	replied chan bool
}

func (r *watch[K]) serve(o *owner[K]) {
	if earlier, watched := o.table.Watch(r.grant, r.wanted).(chan struct{}); watched {
		r.wanted = earlier
	} else {
		close(r.wanted)
	}
	r.replied <- true
}

func (r *watch[K]) refuse() {
	close(r.wanted)
	r.replied <- true
}

// endWatches tells those who called Wanted that it is so, or that their grants have ended.
func (o *owner[K]) endWatches() {
	for _, wanted := range o.table.Over() {
		close(wanted.(chan struct{}))
	}
}

// handoff passes a grant on, or learns that no waiter can take it.
type handoff[K comparable] struct {
	grant  table.Token[K]
	value  any
	passed chan bool
}

func (r *handoff[K]) serve(o *owner[K]) { r.passed <- o.handOff(r.grant, r.value) }

// handOff passes a grant on with a value, and reports whether there was a waiter to take it.
func (o *owner[K]) handOff(grant table.Token[K], value any) bool {
	if !o.findNextWaiter(grant) {
		return false
	}
	s := o.tracked(grant)
	granted := o.table.Handoff(grant, value)
	o.released(s)
	o.deliver(granted)
	return true
}

// receive puts the value that was handed off to a waiter into its reply. The first waiter was
// made sure of in the step of the handoff. The others are granted in that step or, where very many
// share, in later ones; each has the value, unless its caller cannot read it or has left before.
//
// Between two such steps anything may be served that is served while waiters are postponed. None
// of it can take the value from them, because it stays with their queue and not with a request:
//
//   - The session of the giver is closed: its grant has ended with the handoff.
//   - A receiver releases, or its session is closed, or its reservation cancelled before it has
//     read the value: those that are postponed go on with it in any case, and a second handoff
//     finds no next waiter in them. When the last receiver has left, the first of them is granted
//     at once, by the transition in which it leaves.
//   - One that is postponed is cancelled, or its session closed: it leaves as any waiter. A caller
//     that has left, of which the owner has not heard, is granted without the value: the swap of
//     its state decides, as for the first one. It gives the grant back, and nothing with it.
//   - Another request comes: it waits behind them, and gets no value, as if they were granted.
//   - An exclusive request, or one for many keys, stands behind them: it waits for all of them.
//   - The manager ends: they get ErrClosed, as any waiter, and the value is dropped.
func (o *owner[K]) receive(w *acquire[K], g table.Grant[K]) {
	if w.state.Load() != handedOff && !w.acceptsHandoff() {
		return
	}
	if w.value = g.Value; w.session != nil {
		o.enclose(w, g.Token)
	}
}

// findNextWaiter makes sure of the waiter to which a grant can be handed off, and reports
// whether there is one. One that was abandoned is passed over, whatever it asks for.
func (o *owner[K]) findNextWaiter(of table.Token[K]) bool {
	for {
		next, alone := o.table.NextWaiter(of)
		if next == nil {
			return false
		}
		w := next.Tag().(*acquire[K])
		if alone && w.acceptsHandoff() {
			return true
		}
		if w.state.Load() != abandoned {
			return false
		}
		w.cancel(o, errAbandoned)
	}
}

// A parcel is a value on its way to a call of a session, which may be closed before the call
// has read it. Then it is passed on: whichever comes first, the call or the owner, takes it.
type parcel struct {
	value any
	taken atomic.Bool
}

func (p *parcel) take() bool { return p.taken.CompareAndSwap(false, true) }

// enclose notes on the grant of a session that it comes with a value.
func (o *owner[K]) enclose(w *acquire[K], grant table.Token[K]) {
	w.parcel = &parcel{value: w.value}
	w.session.received = true
	if w.tracked != nil {
		w.tracked.tag = w.parcel
	} else {
		grant.Ticket().SetTag(w.parcel)
	}
}

// parcelOf returns the parcel that a grant came with; nil when there is none.
func parcelOf[K comparable](grant table.Token[K]) *parcel {
	tag := grant.Ticket().Tag()
	if s, ok := tag.(*tracked[K]); ok {
		tag = s.tag
	}
	p, _ := tag.(*parcel)
	return p
}

// giveBack ends a grant that came by a handoff to a reservation that was cancelled: it is
// passed on, with its value. Of a session, Session.Close may have done so before.
type giveBack[K comparable] struct {
	grant  table.Token[K]
	value  any
	parcel *parcel // what the value is in; nil without a session
}

func (r *giveBack[K]) serve(o *owner[K]) {
	if r.parcel != nil && !r.parcel.take() {
		return
	}
	if r.value == nil || !o.handOff(r.grant, r.value) {
		o.release(r.grant)
	}
}

func (r *giveBack[K]) refuse() {}

// acceptsHandoff reports whether the caller will take what is handed off to its request.
func (r *acquire[K]) acceptsHandoff() bool {
	return !r.unread && r.state.CompareAndSwap(pending, handedOff)
}

func (r *handoff[K]) refuse() { r.passed <- false }

// A sessionState is what a request of a session knows of it.
type sessionState[K comparable] struct {
	entries  *table.Session[K]
	closed   atomic.Bool // set before the owner hears of it
	received bool        // it was handed a value; owned by the owner
}

// closeSession ends all that a session waits for and holds.
type closeSession[K comparable] struct{ session *sessionState[K] }

func (r *closeSession[K]) serve(o *owner[K]) {
	defer o.m.kept.served()
	defer o.m.long.Add(-1)
	o.meter.long(func() { o.closeSession(r.session) })
}

func (o *owner[K]) closeSession(s *sessionState[K]) {
	if s.received {
		cancelled, granted := o.table.CancelSession(s.entries)
		o.refuseSession(cancelled)
		o.deliver(granted)
		for _, grant := range s.entries.Grants() {
			if p := parcelOf(grant); p != nil && p.take() {
				o.handOff(grant, p.value)
			}
		}
	}
	cancelled, released, granted := o.table.CloseSession(s.entries)
	o.refuseSession(cancelled)
	for _, tag := range released {
		if s, ok := tag.(*tracked[K]); ok {
			o.released(s)
		}
	}
	o.deliver(granted)
	o.checkIdle()
}

// refuseSession refuses what a session waited for.
func (o *owner[K]) refuseSession(cancelled []any) {
	for _, tag := range cancelled {
		o.waited(tag.(*acquire[K]), o.meter.now(), "session closed")
		tag.(*acquire[K]).refuse()
	}
}

func (r *closeSession[K]) refuse() {}

// wait notes that a request has to wait.
func (o *owner[K]) wait(r *acquire[K]) {
	r.since = o.meter.now()
	if s := r.tracked; s != nil {
		s.ticket, s.since = r.ticket, r.since
		o.tracking.begin(s, &o.tracking.waits)
	}
}

// waited notes that the wait of a request has ended.
func (o *owner[K]) waited(r *acquire[K], now time.Duration, outcome string) {
	o.meter.waits.observe(now - r.since)
	if r.tracked != nil {
		o.tracking.end(r.tracked, now, outcome)
	}
}

// held notes that a request is about to be answered with its grant, if anything is noted
// of it.
func (o *owner[K]) held(r *acquire[K], token table.Token[K], now time.Duration) {
	s := r.tracked
	r.tracked = nil
	switch {
	case !o.tracking.timed:
		now = unread
	case now == unread:
		now = o.meter.now()
	}
	s.ticket, s.since = token.Ticket(), now
	s.seq = token.Seq()
	s.ticket.SetTag(s)
	if s.ticket.First() {
		o.tracking.firsts.push(s)
	}
	o.tracking.begin(s, &o.tracking.grants)
}

// tracked returns what is noted of a live grant; nil when nothing is.
func (o *owner[K]) tracked(token table.Token[K]) *tracked[K] {
	s, _ := token.Ticket().Tag().(*tracked[K])
	return s
}

// released notes that a grant has ended, if anything is noted of it.
func (o *owner[K]) released(s *tracked[K]) {
	if s == nil {
		return
	}
	tracking, now := o.tracking, unread
	if tracking.timed {
		now = o.meter.now()
		tracking.times.observe(now - s.since)
	}
	tracking.end(s, now, "released")
}

// A question is answered in the step in which it is served. Its closure is one that this
// package wrote, and runs on the owner's goroutine.
type question[K comparable] struct {
	answer  func(*owner[K]) // keeps the answer where the one who asks finds it
	replied chan error      // receives nil when the answer is there, or why there is none
}

func (q *question[K]) serve(o *owner[K]) {
	if o.draining && o.looking.looks {
		o.whenKnown((*questionOfAll[K])(q)) // a Shutdown before it may end the manager then
		return
	}
	defer o.m.long.Add(-1)
	o.meter.long(func() { q.answer(o) })
	q.replied <- nil
}

func (q *question[K]) refuse() { q.replied <- ErrClosed }

// ask asks the owner a question and returns the answer, or ctx.Err() when ctx ends first.
func ask[K comparable, V any](ctx context.Context, m *Manager[K], answer func(*owner[K]) V) (V, error) {
	return askAs(ctx, m, answer, func(q *question[K]) request[K] { return q })
}

// askAs is ask with a request of another type.
func askAs[K comparable, V any](ctx context.Context, m *Manager[K], answer func(*owner[K]) V, as func(*question[K]) request[K]) (V, error) {
	var found, none V
	m.mustBeStarted()
	if ctx.Err() != nil {
		return none, endOf(ctx, named[K]{})
	}
	done := ctx.Done()
	q := &question[K]{func(o *owner[K]) { found = answer(o) }, make(chan error, 1)}
	m.long.Add(1)
	if !m.sendUntil(done, message[K]{request: as(q)}) {
		m.long.Add(-1)
		return none, endOf(ctx, named[K]{})
	}
	m.gate.selects(ctx, q.replied, &found)
	select {
	case err := <-q.replied:
		m.gate.before("looks at its context")
		if ended.Is(done) {
			return none, endOf(ctx, named[K]{})
		}
		return found, err
	case <-done:
		return none, endOf(ctx, named[K]{}) // what the owner may still find stays unseen
	}
}

// askAll is ask for a question about more than one key.
func askAll[K comparable, V any](ctx context.Context, m *Manager[K], answer func(*owner[K]) V) (V, error) {
	if m == nil || m.kept == nil {
		return ask(ctx, m, answer)
	}
	return askAs(ctx, m, answer, func(q *question[K]) request[K] { return (*questionOfAll[K])(q) })
}

// A questionOfAll is one about more than one key.
type questionOfAll[K comparable] question[K]

func (q *questionOfAll[K]) serve(o *owner[K]) { o.whenKnown(q) }

func (q *questionOfAll[K]) refuse() { (*question[K])(q).refuse() }

func (q *questionOfAll[K]) look(o *owner[K]) {
	defer o.m.long.Add(-1)
	if o.ended {
		q.refuse()
		return
	}
	o.long(func() { q.answer(o) })
	q.replied <- nil
}

// A looker looks at all grants, or learns that the manager has ended.
type looker[K comparable] interface{ look(o *owner[K]) }

// whenKnown lets one look when the owner knows of all grants, which is now where none are kept.
func (o *owner[K]) whenKnown(l looker[K]) {
	if o.m.kept == nil {
		l.look(o)
		return
	}
	o.looking.asked = append(o.looking.asked, l)
}

// looking is what an owner that keeps grants knows of questions about all keys.
type looking[K comparable] struct {
	asked   []looker[K] // what needs a moment at which it knows of all grants
	looks   bool        // it is on the way to that moment
	left    int         // requests that it has to serve before
	waiting int         // calls of WaitIdle that wait for the end of the busy period
}

// stops reports whether the owner stops serving: when it has ended, or has served what it has
// to serve before it looks at all grants.
func (o *owner[K]) stops() bool { return o.ended || o.m.kept != nil && o.isToLook() }

// isToLook looks at all grants, where that is due, and reports whether the owner stops serving.
func (o *owner[K]) isToLook() bool {
	switch k := &o.looking; {
	case !k.looks && len(k.asked) > 0:
		o.look()
	case k.looks && k.left == 0:
		return true
	case k.looks:
		k.left--
	}
	return o.ended
}

// look goes on to a moment at which the owner knows of all grants, and lets those look that
// wait for it. It calls in some cells at a time, and serves what has come meanwhile.
//
// What a caller has sent before it took a key, or parked it, may still be in the mailbox when the
// last cell is called in. So the moment comes when what is in the mailbox by then is
// served. It is one point of the history, because after their cells are called in callers can
// only send requests, which are served later.
func (o *owner[K]) look() {
	k := &o.looking
	k.looks = true
	for cells := range slices.Chunk(o.m.kept.cells, o.m.kept.atOnce) {
		o.long(func() { o.m.kept.callIn(cells) })
		k.left = len(o.m.mailbox)
		if o.serve(); o.ended {
			break
		}
	}
	k.looks = false
	asked := k.asked
	k.asked = nil
	for _, l := range asked {
		l.look(o)
	}
}

// long does what may take long, between two requests.
func (o *owner[K]) long(serve func()) {
	o.meter.long(serve)
	o.meter.sampled = min(o.meter.sampled, o.meter.requests)
}

// A waitIdle is a call of WaitIdle. No grants are kept while any waits, so the owner must hear
// when the context of one has ended. Only the owner touches its fields.
type waitIdle[K comparable] struct {
	period *idle // for the end of which it waits
	left   bool  // its context has ended
}

// wait returns what to wait for until the manager is idle; nil when it is.
func (w *waitIdle[K]) wait(o *owner[K]) *idle {
	if w.left {
		return nil
	}
	if o.m.kept == nil {
		return o.busyPeriod()
	}
	if o.idle == nil {
		o.looking.waiting = 0
	}
	if w.period = o.busyPeriod(); w.period != nil {
		o.looking.waiting++
	}
	return w.period
}

// leave ends a call whose context has ended.
func (w *waitIdle[K]) leave(m *Manager[K]) {
	if m.kept != nil {
		m.sendSoon(message[K]{request: w})
	}
}

func (w *waitIdle[K]) serve(o *owner[K]) {
	w.left = true
	if w.period == nil || w.period != o.idle {
		return
	}
	if o.looking.waiting--; o.looking.waiting == 0 {
		o.idle = nil
	}
}

func (w *waitIdle[K]) refuse() {}

// shutdown asks to drain.
type shutdown[K comparable] struct {
	drains chan bool // receives whether there is anything left to end
}

func (r *shutdown[K]) serve(o *owner[K]) {
	o.draining = true
	r.drains <- true
	o.whenKnown(r)
}

// look ends the manager if it is idle even now, and has not ended.
func (r *shutdown[K]) look(o *owner[K]) {
	if !o.ended {
		o.checkIdle()
	}
	o.m.kept.served()
}

func (r *shutdown[K]) refuse() { r.drains <- false }

// closing asks to end at once.
type closing[K comparable] struct{}

func (closing[K]) serve(o *owner[K]) { o.end(ErrClosed) }

func (closing[K]) refuse() {}

// tick makes the owner look at what lasts long. The timer of the slow log sends it.
type tick[K comparable] struct{}

func (tick[K]) serve(o *owner[K]) { o.logSlow() }

func (tick[K]) refuse() {}

// wake makes the owner look at its context.
type wake[K comparable] struct{}

func (wake[K]) serve(*owner[K]) {}

func (wake[K]) refuse() {}
