//go:build explore

package keylock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A world is a manager in slow motion: its owner and its callers are coroutines, which stop
// at the gates, before each step by which they can affect each other, and the explorer
// decides which of them goes on. A world in which the same ones go on is the same world.
//
// Everything that they do is the real code. The world decides what the machine does
// otherwise: which goroutine goes on, which of two ready branches a select takes, when a
// context ends, and which request a pool returns. What a goroutine has to wait for is there
// when it goes on, so none of them ever blocks.
//
// Not every gate is a stop: where two accesses are one step, the comment there says why nothing can
// come between them that could not as well come before or after. The owner serves a message
// in one step. It may reply to several callers in it, and the first of them may go on before
// the second has its reply; but all that it can do is send, which the owner sees after the
// step in any case, and claim a reservation, which it looks at in the first access of a
// step.
type world struct {
	scenario scenario
	m        *Manager[int]
	o        *owner[int]
	ctx      *lifetime // Start's
	woken    bool      // by the end of ctx
	requests []*acquire[int]
	taken    []*acquire[int] // those of them that are in use
	pool     pool            // of all actors that have none of their own
	actors   []*actor
	callers  [][][]*actor // those who do the same, each with its partner
	others   []*actor
	running  *actor
	broken   error                             // an actor panicked
	keeps    keeps                             // what it knows of kept grants
	last     *uint64                           // grants when Start's context ended, after which there are no more
	joined   *uint64                           // requests in the table when it was closed to new ones
	instants map[*snapshot[int]][]KeyInfo[int] // what the table was when a snapshot began
	timer    *caller                           // of the slow log; nil without one
	fired    *time.Timer                       // what it was when it went off last

	unobserved bool // the owner has ended the slow log
}

// A pool has the requests that were put into it, the last one on top.
type pool struct{ spare []*acquire[int] }

// newWorld is [Start], and the callers' goroutines.
func newWorld(s scenario) *world {
	w := &world{scenario: s, ctx: newLifetime(true)}
	options := options{table: s.config, callers: s.observes, holdTimes: s.observes}
	w.m, w.o = newManager[int](w.ctx.done, options, s.mailbox)
	w.o.observe(options)
	hashAlike(w.o.table)
	w.fillCells()
	w.m.gate.scheduler = w
	if w.m.kept != nil {
		w.m.kept.gate.scheduler = w
	}
	w.m.pool.take, w.m.pool.keep = w.get, w.put
	w.others = append(w.others, w.start("owner", w.own))
	if s.logs {
		look := func() { w.m.send(message[int]{request: tick[int]{}}) }
		w.o.tracking.slow = newSlowLog[int](slog.New(slog.DiscardHandler), time.Hour, look)
		w.o.tracking.slow.calling.Store(notCalling) // or a record that comes late starts a goroutine
		c := &caller{w: w, ctx: forever}
		c.start("slow log's timer", func() { w.goOff(c) })
		w.others = append(w.others, c.actor)
		w.timer = c
	}
	for i, p := range s.callers {
		c := &caller{w: w, ctx: newLifetime(p.cancels)}
		name := fmt.Sprintf("%c (%s)", 'A'+i, p.name)
		c.start(name, func() { p.run(c) })
		if p.partner != nil {
			// The partner is another goroutine, which uses what this one has made.
			partner := &caller{w: w, ctx: forever, mate: c}
			c.mate = partner
			partner.start(name+"'s partner", func() { p.partner(partner, c) })
		}
		actors := w.actors[len(w.actors)-1:]
		if p.partner != nil {
			actors = w.actors[len(w.actors)-2:]
		}
		if i > 0 && p.name == s.callers[i-1].name {
			w.callers[len(w.callers)-1] = append(w.callers[len(w.callers)-1], actors)
		} else {
			w.callers = append(w.callers, [][]*actor{actors})
		}
	}
	if s.contextEnds {
		c := &caller{w: w, ctx: forever}
		c.start("Start's context", func() { w.endContext(c) })
		w.others = append(w.others, c.actor)
	}
	for _, a := range w.actors {
		w.resume(a) // up to its first step
	}
	return w
}

// hashAlike lets all tables keep their keys in the same buckets, as a Snapshot looks at one
// bucket after the other.
func hashAlike(t *table.Table[int]) {
	at := reflect.ValueOf(t).Elem().FieldByName("queues").FieldByName("seed").Addr()
	*(*maphash.Seed)(at.UnsafePointer()) = seed
}

// own is the owner's goroutine.
func (w *world) own(a *actor) {
	w.o.run()
	if w.timer != nil {
		a.step("ends the slow log", func() bool {
			l := w.o.tracking.slow
			return l.timer == nil || l.timer != w.fired || ended.Is(l.looked)
		})
		w.o.tracking.stop()
		w.unobserved = true
	}
	a.step("exits", func() bool { return w.ctx.err == nil || w.woken })
	close(w.m.done)
}

// endContext is the end of Start's context, and the function that [Start] runs then.
func (w *world) endContext(c *caller) {
	c.context = forever
	c.choose(move{label: "ends", outside: true})
	w.ctx.end()
	last := w.acquired()
	w.last = &last
	w.m.wake()
	w.woken = true
}

// goOff is the timer of the slow log, which goes off twice. By then so much time has passed
// that whatever waits or holds is logged, also what was logged before.
func (w *world) goOff(c *caller) {
	l := w.o.tracking.slow
	for n := range 2 {
		c.context = forever
		c.choose(move{label: "goes off", outside: true, ready: func() bool { return c.armed }})
		l.timer.Stop()
		w.fired = l.timer
		looked := l.looked
		w.o.meter.started = w.o.meter.started.Add(-l.after * time.Duration(3*n*n+2*n+2) / 2)
		w.o.meter.reading = unread
		l.look()
		close(looked)
	}
}

// get takes a request out of a pool that forgets nothing and returns what was put into it
// last, because that is the worst for one who still has an old reservation.
func (w *world) get(fresh func() any) any {
	var r *acquire[int]
	if p := w.running.pool; p != nil && len(p.spare) > 0 {
		last := len(p.spare) - 1
		r, p.spare = p.spare[last], p.spare[:last]
	} else {
		r = fresh().(*acquire[int])
		r.replied = make(chan bool, cap(r.replied)+1) // a reply too many is found instead of blocking
		w.requests = append(w.requests, r)
	}
	w.taken = append(w.taken, r)
	return r
}

// put puts a request into the pool of the running actor.
func (w *world) put(request any) {
	r := request.(*acquire[int])
	i := slices.Index(w.taken, r)
	if i < 0 {
		panic("a request was put into the pool twice")
	}
	w.taken = slices.Delete(w.taken, i, i+1)
	if w.running.pool != nil {
		w.running.pool.spare = append(w.running.pool.spare, r)
	}
	if c, ok := w.running.memory.(*caller); ok {
		c.met = slices.DeleteFunc(c.met, func(met any) bool { return met == r })
	}
}

// receives is the owner's gate. To receive, to look at the context and to serve are one
// step: only the owner receives, and refuseAll, which comes later; and if the context
// ends after the look it might as well have ended after the step.
func (w *world) receives() {
	a := w.at()
	a.choose(move{label: "serves", ready: func() bool { return len(w.m.mailbox) > 0 }, own: w.servesUnseen})
	w.keeps.inTime = w.ctx.err == nil
	msg := w.mail()[0]
	a.did = "serves " + kind(msg)
	w.foresees(msg)
}

// sends is the gate of the mailbox. To look at the context, to take a request out of the
// pool and to send it are one step: a context may as well end after the step, or before; and
// a request that another puts into the pool between the second and the third can be taken,
// which is worse.
func (w *world) sends(done <-chan struct{}, msg message[int]) {
	c := w.caller()
	c.kept.sends()
	c.meets(&msg)
	if !c.straight {
		late := c.until(done).ends("sees its context end, and sends nothing")
		late.ready = func() bool { return !c.room() }
		if c.choose(move{label: "sends " + kind(msg), ready: c.room}, late) == 1 {
			c.context.end()
			return
		}
	}
	c.straight = false
	c.parts(msg)
}

// tries is the gate of a send that does not wait.
func (w *world) tries(msg message[int]) {
	c := w.caller()
	c.meets(&msg)
	if !c.straight {
		c.step("tries to send "+kind(msg), nil)
	}
	c.straight = false
}

// starts is the gate of a goroutine that a call leaves behind.
func (w *world) starts(run func()) {
	parent := w.caller()
	c := &caller{w: w, ctx: forever, context: forever}
	c.start(parent.name+"'s goroutine", run)
	w.others = append(w.others, c.actor)
	running := w.running
	w.resume(c.actor)
	w.running = running
}

// hears is the gate of a channel on which a caller waits for the owner alone.
func (w *world) hears(channel, of any) {
	c := w.caller()
	c.straight = false
	c.meets(of)
	r, ok := of.(*acquire[int])
	if !ok {
		c.choose(move{label: "hears of its " + name(of), ready: filled(channel), own: always})
		c.notes(channel, of)
		return
	}
	// To receive the reply, to read it, to recycle the request and to look at the context
	// are one step: no other caller uses the request, but for the generation, of which a Cancel
	// learns nothing that it would not learn before.
	told := move{label: "hears of its request", ready: filled(r.replied), own: c.unseen}
	if c.choose(told, c.context.ends(told.label+", and its context ends").when(told.ready)) == 1 {
		c.ending = true
	}
	c.notes(channel, of)
}

// selects is the gate of a channel on which a caller waits for the owner or for the end of
// its context.
func (w *world) selects(ctx context.Context, channel, of any) {
	c := w.caller()
	c.straight = false
	c.meets(of)
	l := c.until(ctx.Done())
	told := move{label: "gets the reply", ready: filled(channel), own: always}
	late, both := l.ends("sees its context end"), l.ends("gets the reply, and its context ends").when(told.ready)
	if _, ok := of.(*acquire[int]); ok {
		told.own = c.unseen
	}
	if l.err != nil { // a select that gets the reply is the same as if it had ended a step later
		told.never, both.never = true, true
	}
	switch c.choose(told, late, both) {
	case 1:
		l.end()
		if r, ok := of.(*acquire[int]); ok {
			c.straight = !c.stops(r) && c.room()
		}
		c.hides(channel)
		return
	case 2:
		c.ending = true
	}
	c.notes(channel, of)
}

// before is the gate of everything else. An access that is not known here is a step.
func (w *world) before(access string) {
	a := w.at()
	c, _ := a.memory.(*caller)
	next := move{label: access}
	switch access {
	case "looks whether the manager has ended":
		if !w.scenario.unhurried {
			return // a caller who has not looked yet and one who has are the same, but for what is refused
		}
	case "looks at its context":
		if c.ending {
			c.ending = false
			c.context.end()
		}
		return
	case "abandons its request":
		return // what comes before has been argued where the step before begins
	case "looks whether its session is closed":
		return // it may as well have been closed before
	case "claims its reservation", "looks who has claimed it":
		next.own = c.unseen
	case "closes its session":
		next.own = c.last // a Wait may look at that
	}
	if c != nil {
		c.choose(next)
	} else {
		a.choose(next)
	}
}

// at returns the running actor, at a gate.
func (w *world) at() *actor {
	if w.running.over {
		panic(errStopped) // by a deferred call
	}
	return w.running
}

// caller returns the running caller, at a gate.
func (w *world) caller() *caller {
	c := w.at().memory.(*caller)
	c.shows()
	return c
}

// servesUnseen reports whether it makes no difference to any caller, and to the owner
// neither, when it serves the first message of the mailbox. A caller that sends meanwhile puts
// its message behind it; one that gets a reply by it may look later. What else the owner
// has in common with others is Start's context, the timer of the slow log, the generation of a reservation, the state
// of a waiter when a lock is handed off, or when one goes on that has a value, and the pool.
func (w *world) servesUnseen() bool {
	if w.keepsGrants() || w.scenario.contextEnds && !w.woken || w.timer != nil && w.timer.armed {
		return false
	}
	if w.scenario.passes() && w.o.table.Postponed() {
		return false
	}
	mail := w.mail()
	if len(mail) == 0 || len(mail) == cap(w.m.mailbox) { // who sees that there is no room leaves its request elsewhere
		return false
	}
	switch r := mail[0].request.(type) {
	case *cancelReservation[int]:
		return false
	case *closeSession[int]:
		return !r.session.received // its call may take the value meanwhile
	case *handoff[int], *giveBack[int]:
		return !slices.ContainsFunc(w.taken, func(r *acquire[int]) bool {
			return r.ticket != nil && r.state.Load() == pending // it may be abandoned meanwhile
		})
	case *abandon[int]:
		return w.scenario.apart && !(r.reserved && w.looksAt((*acquire[int])(r)))
	}
	return true
}

// foresees notes, before the owner serves a message, which values it will have to drop.
func (w *world) foresees(msg message[int]) {
	switch r := msg.request.(type) {
	case *handoff[int]:
		if could := w.receivable(r.grant, nil); w.m.left.Load() == nil {
			g := r.value.(*gift)
			if g.could = &could; could {
				g.promised = w.sharers(r.grant)
			}
		}
	case *giveBack[int]:
		if g, ok := r.value.(*gift); ok && r.grant.Live() && (r.parcel == nil || !r.parcel.taken.Load()) {
			g.dropped = g.dropped || !w.receivable(r.grant, nil)
		}
	case *closeSession[int]:
		for _, grant := range r.session.entries.Grants() {
			p := parcelOf(grant)
			if p == nil || p.taken.Load() {
				continue
			}
			if g, ok := p.value.(*gift); ok {
				g.dropped = g.dropped || !w.receivable(grant, r.session)
			}
		}
	}
}

// receivable reports whether there is a waiter that can receive a value with a grant, when
// what a session waits for is cancelled before. It is false also when requests were abandoned
// of which the owner will learn only now.
func (w *world) receivable(grant table.Token[int], cancelled *sessionState[int]) bool {
	if grant.Ticket() == nil || w.m.left.Load() != nil {
		return false
	}
	for v := range w.o.table.Of(grant.Ticket()) {
		held, mode, gone := 0, table.Exclusive, false
		postponed := w.o.table.Postponed() && !v.Blocked()
		for e := range v.Entries {
			if e.Seq != 0 {
				held, mode = held+1, e.Mode
				continue
			}
			r := e.Tag.(*acquire[int])
			limit := cmp.Or(int(r.want.Limit), w.scenario.config.SharedLimit)
			fits := e.Mode == table.Shared && mode == table.Shared && (limit == 0 || held < limit)
			switch {
			case r.state.Load() == abandoned || cancelled != nil && r.session == cancelled:
				gone = true
			case postponed && fits:
				return false // it goes on in any case
			case gone && fits:
				held++ // it is granted as soon as those before it are gone
				postponed = w.scenario.config.Part == 1
			default:
				return r.want.Keys == nil && !r.unread && (held == 1 || e.Mode == table.Shared && (limit == 0 || held-1 < limit))
			}
		}
	}
	return false
}

// sharers returns those that a handoff of a grant is for, when the first of them shares: all that
// wait next and share without a limit.
func (w *world) sharers(grant table.Token[int]) (waiters []*acquire[int]) {
	for v := range w.o.table.Of(grant.Ticket()) {
		for e := range v.Entries {
			r, waits := e.Tag.(*acquire[int])
			left := waits && r.state.Load() == abandoned
			switch {
			case !waits || left && len(waiters) == 0: // it is passed over
			case e.Mode != table.Shared || r.want.Keys != nil || cmp.Or(int(r.want.Limit), w.scenario.config.SharedLimit) > 0:
				return waiters
			case !left:
				waiters = append(waiters, r)
			}
		}
	}
	return waiters
}

// keepPromises looks which of those that were promised a gift are granted, and returns an error
// when one does not have it.
func (w *world) keepPromises() (err error) {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, g := range c.gave {
			g.promised = slices.DeleteFunc(g.promised, func(r *acquire[int]) bool {
				if r.ticket != nil {
					return false // it waits
				}
				switch state := r.state.Load(); {
				case !slices.Contains(w.taken, r) || r.err != nil || state == abandoned:
				case r.value != any(g):
					err = errors.New("one of those that share a lock that was handed off has no value")
				case state != handedOff:
					err = errors.New("one that has a value may leave without it")
				}
				return true
			})
		}
	}
	return err
}

// looksAt reports whether any caller may yet look at the generation of a request.
func (w *world) looksAt(r *acquire[int]) bool {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok || c.reservation.r != r && c.cancelled.r != r && c.old.r != r {
			continue
		}
		if !c.over || !c.last() && c.session == nil { // who closes a session has nothing else of it
			return true
		}
	}
	return false
}

// mail returns the messages in the mailbox.
func (w *world) mail() (mail []message[int]) {
	for range len(w.m.mailbox) {
		msg := <-w.m.mailbox
		w.m.mailbox <- msg
		mail = append(mail, msg)
	}
	return mail
}

// A caller is a goroutine that uses the manager. Its fields are what it remembers from one
// stop to the next.
type caller struct {
	*actor
	w    *world
	mate *caller   // its partner, or whose partner it is
	ctx  *lifetime // of all its calls; it may end if the program says so

	// Of the running call. What a call does depends on where it is, which the steps that
	// it has made tell, and on what it has met at the gates, so that tells its local
	// variables.
	context  *lifetime // forever when the call has none
	trail    []string  // the steps
	met      []any     // objects, and what was received from channels
	straight bool      // the next send is the same step as the one before
	ending   bool      // its context ends before it looks next
	hidden   func()    // shows again what a select must not see
	kept     keptCaller

	// Of the program. What it does depends on what its calls have returned.
	returned    []outcome
	holds       []held // acquired and not released
	offers      held   // to the next waiter
	gave        []*gift
	reservation Reservation[int]
	old         Reservation[int] // one that was used
	cancelled   Reservation[int] // the one of the running Cancel
	doing       bool             // its calls are Do, which cannot read a value
	reserved    bool             // for the partner: the reservation can be used
	abandoned   bool             // by the partner
	session     *Session[int]
	armed       bool // for the timer of the slow log: it may go off

	// Of the last lock of which it asked whether it is wanted.
	asked    table.Token[int]
	wanted   <-chan struct{} // nil before the call has returned
	isWanted bool            // a request has waited for it, or it has ended, since it asked
}

// A held is a lock that a caller may rely on, with what was asked for.
type held struct {
	Lock[int]
	want table.Request[int]
}

// A gift is a value that was handed off with a lock.
type gift struct {
	over, passed bool  // the Handoff has returned, with true
	could        *bool // there was a waiter for it when the Handoff was served; nil when that is not known
	received     int   // by calls that returned it
	cancelled    bool  // a Cancel has met it
	closed       bool  // a call of a session has, which may be closed
	dropped      bool  // it came back to the owner, and no waiter could receive it

	promised []*acquire[int] // waiters that share it when they are granted
}

// An outcome is what a call has returned.
type outcome struct {
	what  string
	token table.Token[int]
}

// start adds the caller's goroutine.
func (c *caller) start(name string, run func()) {
	c.actor = c.w.start(name, func(*actor) {
		run()
		if !c.w.scenario.remembers {
			c.returned = nil
		}
	})
	c.actor.memory = c
}

// begins begins a call. A call that sends at once begins with the step in which it does, if
// there is room.
func (c *caller) begins(ctx *lifetime, first string) {
	c.context = ctx
	if first == "" {
		return
	}
	if c.choose(move{label: first}, ctx.ends(first+" with a context that is done")) == 1 {
		ctx.end()
	} else {
		c.straight = c.room()
	}
}

// returns ends a call.
func (c *caller) ends(token table.Token[int], what ...any) {
	c.shows()
	c.context, c.trail, c.met, c.straight, c.ending = nil, nil, nil, false, false
	c.kept.sends()
	c.returned = append(c.returned, outcome{fmt.Sprint(what...), token})
}

// choose is [actor.choose], and notes the step.
func (c *caller) choose(moves ...move) int {
	chosen := c.actor.choose(moves...)
	if c.context != nil {
		c.trail = append(c.trail, moves[chosen].label)
	}
	return chosen
}

// step is choose for a single move.
func (c *caller) step(label string, ready func() bool) { c.choose(move{label: label, ready: ready}) }

// meets notes an object on which the running call may depend.
func (c *caller) meets(of any) { c.met = append(c.met, of) }

// notes notes what the running call receives from a channel next.
func (c *caller) notes(channel, of any) {
	items := take(channel)
	for _, item := range items {
		reflect.ValueOf(channel).Send(item)
	}
	if len(items) == 0 {
		return // it is closed
	}
	c.meets(items[0].Interface())
	if r, ok := of.(*acquire[int]); ok && items[0].Bool() {
		if g, ok := r.value.(*gift); ok {
			g.cancelled = g.cancelled || c.cancelled.r == r
			g.closed = g.closed || c.session != nil
			if c.doing {
				c.w.broken = errors.New("a Do, which cannot read it, is handed a value")
			}
		}
		c.meets(&struct {
			token table.Token[int]
			value any
			err   error
		}{r.token, r.value, r.err})
	}
}

// hides takes what is in a channel out of it until the next gate.
func (c *caller) hides(channel any) {
	if items := take(channel); len(items) > 0 {
		c.hidden = func() {
			for _, item := range items {
				reflect.ValueOf(channel).Send(item)
			}
		}
	}
}

// shows ends what hides has begun.
func (c *caller) shows() {
	if c.hidden != nil {
		c.hidden()
		c.hidden = nil
	}
}

// until returns the context that has done; forever for nil.
func (c *caller) until(done <-chan struct{}) *lifetime {
	switch {
	case done == nil:
		return forever
	case c.context.Done() != done:
		panic("waits for the end of another context")
	}
	return c.context
}

// take takes everything out of a channel.
func take(channel any) (items []reflect.Value) {
	v := reflect.ValueOf(channel)
	for range v.Len() {
		item, _ := v.Recv()
		items = append(items, item)
	}
	return items
}

// filled returns what reports whether a channel receives at once.
func filled(channel any) func() bool {
	switch channel := channel.(type) {
	case chan bool:
		return func() bool { return len(channel) > 0 }
	case chan error:
		return func() bool { return len(channel) > 0 }
	case chan struct{}:
		return func() bool { return ended.Is(channel) }
	}
	panic(fmt.Sprintf("a channel of another type: %T", channel))
}

// room reports whether there is room in the mailbox.
func (c *caller) room() bool { return len(c.w.m.mailbox) < cap(c.w.m.mailbox) }

// parts notes what a caller relies on no longer when it sends a message.
func (c *caller) parts(msg message[int]) {
	switch r := msg.request.(type) {
	case nil:
		c.drop(msg.release)
	case *releaseAll[int]:
		c.drop(r.grant)
	case *handoff[int]:
		c.drop(r.grant)
	case *downgrade[int]:
		for i := range c.holds {
			if c.holds[i].token == r.grant {
				c.holds[i].want.Mode, c.holds[i].want.Each = table.Shared, nil
			}
		}
	case *giveBack[int]:
		c.drop(r.grant)
	case *closeSession[int]:
		c.holds = nil
		if c.mate != nil {
			c.mate.holds, c.mate.offers = nil, held{}
		}
	}
}

// drop notes that a lock is held no longer.
func (c *caller) drop(token table.Token[int]) {
	c.holds = slices.DeleteFunc(c.holds, func(h held) bool { return h.token == token })
}

// stops reports whether anything can come between the end of its context, which a caller
// who waits has seen, and its message to the owner. Nothing can, unless there is a reply
// which it might choose instead, or another hands off a lock and looks whether it has left:
// what it has seen it may as well see later.
func (c *caller) stops(r *acquire[int]) bool { return len(r.replied) > 0 || c.w.scenario.passes() }

// unseen reports whether it makes no difference to any other caller when this one takes up
// a request or ends one: no other uses its pool, looks at the generation of its
// reservation or changes it, or closes the session that it looks at.
func (c *caller) unseen() bool {
	if !c.w.scenario.apart {
		return false
	}
	if c.reservation.r == nil && c.cancelled.r == nil {
		return true
	}
	for _, msg := range c.w.mail() {
		switch r := msg.request.(type) {
		case *cancelReservation[int]:
			return false
		case *abandon[int]:
			if r.reserved {
				return false
			}
		}
	}
	return c.last()
}

// last reports whether no other caller will do anything with what the caller has.
func (c *caller) last() bool { return c.mate == nil || c.mate.over }

// got notes the lock, or the error, that a call returns.
func (c *caller) got(want table.Request[int], lock Lock[int], err error) (Lock[int], error) {
	if (err == nil) != (lock.token.Seq() != 0) {
		panic(fmt.Sprintf("returns the lock %v with the error %v", lock.token, err))
	}
	if g, ok := lock.Value().(*gift); ok {
		g.received++
	}
	if err == nil && c.session != nil && c.session.state.closed.Load() {
		panic("returns a lock of a closed session")
	}
	if err == nil {
		c.holds = append(c.holds, held{lock, want})
		c.w.keeps.gets(c, lock, want)
	}
	c.ends(lock.token, reason(err))
	return lock, err
}

// acquire is every call that returns a lock, of the manager and of a session.
func (c *caller) acquire(want table.Request[int]) (Lock[int], error) {
	if want.Try {
		c.begins(forever, "tries")
	} else {
		c.begins(c.ctx, "asks")
	}
	lock, err := c.call(want)
	return c.got(want, lock, err)
}

func (c *caller) call(want table.Request[int]) (Lock[int], error) {
	tried := func(lock Lock[int], ok bool) (Lock[int], error) {
		if !ok {
			return lock, errBusy
		}
		return lock, nil
	}
	m, s := c.w.m, c.session
	set := want.Each != nil || want.Limit > 0
	shared := want.Mode == table.Shared
	switch {
	case want.Try && (set || shared || want.Keys != nil) && s != nil:
		return tried(s.TryAcquireSet(wantsOf(want)...))
	case want.Try && (set || shared || want.Keys != nil):
		return tried(m.TryAcquireSet(wantsOf(want)...))
	case want.Try && s != nil:
		return tried(s.TryAcquire(want.Key))
	case want.Try:
		return tried(m.TryAcquire(want.Key))
	case set && s != nil:
		return s.AcquireSet(c.ctx, wantsOf(want)...)
	case set:
		return m.AcquireSet(c.ctx, wantsOf(want)...)
	case want.Keys != nil && s != nil:
		return s.AcquireAll(c.ctx, want.Keys...)
	case want.Keys != nil:
		return m.AcquireAll(c.ctx, want.Keys...)
	case shared && s != nil:
		return s.AcquireShared(c.ctx, want.Key)
	case shared:
		return m.AcquireShared(c.ctx, want.Key)
	case s != nil:
		return s.Acquire(c.ctx, want.Key)
	}
	return m.Acquire(c.ctx, want.Key)
}

// wantsOf is what a request asks for, key by key.
func wantsOf(r table.Request[int]) (set []Want[int]) {
	if r.Keys == nil {
		return []Want[int]{{Key: r.Key, Mode: Mode(r.Mode), Limit: int(r.Limit)}}
	}
	for i, key := range r.Keys {
		w := Want[int]{Key: key}
		if r.Each != nil {
			w.Mode, w.Limit = Mode(r.Each[i].Mode), int(r.Each[i].Limit)
		}
		set = append(set, w)
	}
	return set
}

// reserve is every call that returns a reservation. An old reservation of the same request
// fails whatever the generation has become, so that to count it and to send are one step.
func (c *caller) reserve(want table.Request[int]) {
	c.begins(forever, "reserves")
	m, s := c.w.m, c.session
	set := want.Keys != nil || want.Mode == table.Shared
	switch {
	case set && s != nil:
		c.reservation = s.ReserveSet(wantsOf(want)...)
	case set:
		c.reservation = m.ReserveSet(wantsOf(want)...)
	case s != nil:
		c.reservation = s.Reserve(want.Key)
	default:
		c.reservation = m.Reserve(want.Key)
	}
	c.reserved = true
	c.ends(table.Token[int]{}, "reserved")
}

// Do is [Manager.Do] and [Session.Do].
func (c *caller) Do(key int) error {
	c.begins(c.ctx, "asks")
	want := table.Request[int]{Key: key}
	called := false
	c.doing = true
	section := func(context.Context) error {
		called = true
		c.holds = append(c.holds, held{want: want})
		c.step("is in the section", nil)
		c.drop(table.Token[int]{}) // which it cannot see
		c.context = forever        // a release waits for the owner
		return nil
	}
	var err error
	if c.session != nil {
		err = c.session.Do(c.ctx, key, section)
	} else {
		err = c.w.m.Do(c.ctx, key, section)
	}
	if called != (err == nil) {
		panic(fmt.Sprintf("Do calls the function: %t, and returns %v", called, err))
	}
	c.ends(table.Token[int]{}, reason(err))
	return err
}

// Wait is [Reservation.Wait].
func (c *caller) Wait(want table.Request[int]) (Lock[int], error) {
	c.begins(c.ctx, "")
	lock, err := c.reservation.Wait(c.ctx)
	return c.got(want, lock, err)
}

// Cancel is [Reservation.Cancel].
func (c *caller) Cancel(v Reservation[int]) {
	c.begins(forever, "")
	c.cancelled = v
	v.Cancel()
	c.ends(table.Token[int]{}, "cancelled")
}

// Release is [Lock.Release].
func (c *caller) Release(lock Lock[int]) {
	c.begins(forever, "")
	lock.Release()
	c.ends(table.Token[int]{}, "released")
}

// Downgrade is [Lock.Downgrade].
func (c *caller) Downgrade(lock Lock[int]) {
	c.begins(forever, "")
	lock.Downgrade()
	c.ends(table.Token[int]{}, "downgraded")
}

// Wanted is [Lock.Wanted].
func (c *caller) Wanted(lock Lock[int]) {
	c.begins(forever, "")
	c.asked, c.wanted, c.isWanted = lock.token, nil, false
	c.wanted = lock.Wanted()
	c.ends(table.Token[int]{}, "has asked whether it is wanted")
}

// isWanted reports whether a request waits for a grant, or it has ended.
func (w *world) isWanted(grant table.Token[int]) bool {
	if w.holdsKept(grant) {
		return false
	}
	if w.o.ended || !grant.Live() {
		return true
	}
	for v := range w.o.table.Of(grant.Ticket()) {
		if v.Blocked() {
			return true
		}
	}
	return false
}

// Handoff is [Lock.Handoff], with a value of its own.
func (c *caller) Handoff(lock Lock[int]) bool {
	c.begins(forever, "")
	value := new(gift)
	c.gave = append(c.gave, value)
	i := slices.IndexFunc(c.holds, func(h held) bool { return h.token == lock.token })
	c.offers = c.holds[i] // which the next one may have before this one hears of it
	passed := lock.Handoff(value)
	if !passed && c.offers.m != nil {
		c.holds = append(c.holds, c.offers)
	}
	c.offers = held{}
	if value.could != nil && passed != *value.could && !c.w.o.ended {
		panic(fmt.Sprintf("Handoff returns %t, and there is a waiter for it: %t", passed, *value.could))
	}
	value.over, value.passed = true, passed
	c.ends(table.Token[int]{}, "passed ", passed)
	return passed
}

// CloseSession is [Session.Close].
func (c *caller) CloseSession() {
	c.begins(forever, "")
	c.session.Close()
	c.ends(table.Token[int]{}, "closed the session")
}

// WaitIdle is [Manager.WaitIdle].
func (c *caller) WaitIdle() error {
	c.begins(c.ctx, "asks")
	c.kept.idle(true)
	err := c.w.m.WaitIdle(c.ctx)
	c.kept.idle(false)
	c.ends(table.Token[int]{}, reason(err))
	return err
}

// Snapshot is [Manager.Snapshot]. It shows the table as it was when the snapshot began.
func (c *caller) Snapshot() error {
	c.begins(c.ctx, "asks")
	found, err := c.w.m.Snapshot(c.ctx)
	if err == nil {
		i := slices.IndexFunc(c.met, func(met any) bool { _, ok := met.(*snapshot[int]); return ok })
		want := c.w.instants[c.met[i].(*snapshot[int])]
		slices.SortFunc(found, byKey)
		if shown, was := fmt.Sprint(untimed(found)), fmt.Sprint(untimed(want)); shown != was {
			panic(fmt.Sprintf("Snapshot shows %s, and not %s", shown, was))
		}
	}
	c.ends(table.Token[int]{}, reason(err))
	return err
}

// note notes, after each step, what later ones are held to.
func (w *world) note() {
	if w.timer != nil && !w.actors[0].over {
		l := w.o.tracking.slow
		w.timer.armed = l.timer != nil && l.timer != w.fired && !w.timer.over && !w.unobserved
	}
	for _, a := range w.actors {
		if c, ok := a.memory.(*caller); ok && c.asked.Seq() != 0 {
			c.isWanted = c.isWanted || w.isWanted(c.asked)
		}
	}
	if err := w.keepPromises(); err != nil {
		w.broken = err
	}
	w.keeps.note(w)
	if w.joined == nil && (w.o.draining || w.o.ended) && w.allCalled() {
		n := w.joins()
		w.joined = &n
	}
	for _, s := range w.o.snapshots {
		if _, known := w.instants[s]; s.cut != nil && !known {
			if w.instants == nil {
				w.instants = make(map[*snapshot[int]][]KeyInfo[int])
			}
			w.instants[s] = w.instant()
		}
	}
}

// joins returns how many requests have been accepted.
func (w *world) joins() uint64 {
	c := w.o.table.Counts()
	return w.acquired() + c.Cancelled + uint64(c.Waiting)
}

// instant describes the table as it is, by its keys.
func (w *world) instant() (found []KeyInfo[int]) {
	for v := range w.o.table.All() {
		found = append(found, w.o.describe(v, 0, table.Shown))
	}
	slices.SortFunc(found, byKey)
	return found
}

func byKey(a, b KeyInfo[int]) int { return cmp.Compare(a.Key, b.Key) }

// untimed forgets the time that a description was made at.
func untimed(found []KeyInfo[int]) []KeyInfo[int] {
	for i := range found {
		found[i].At = time.Time{}
	}
	return found
}

// Shutdown is [Manager.Shutdown].
func (c *caller) Shutdown() error {
	c.begins(c.ctx, "")
	err := c.w.m.Shutdown(c.ctx)
	c.ends(table.Token[int]{}, reason(err))
	return err
}

// Close is [Manager.Close].
func (c *caller) Close() {
	c.begins(forever, "")
	c.w.m.Close()
	c.ends(table.Token[int]{}, "closed")
}

// reason names an error.
func reason(err error) string {
	for _, sentinel := range []error{context.Canceled, ErrClosed, ErrReservationDone, ErrQueueFull, ErrDeadlock, errBusy} {
		if errors.Is(err, sentinel) {
			return sentinel.Error()
		}
	}
	return fmt.Sprint(err)
}

// An actor is one who takes steps.
type actor struct {
	name   string
	moves  []move // what it may do next
	over   bool   // it has ended, or has to
	memory any    // what else it remembers
	pool   *pool

	did    string // the step that it has just made, where the move did not say it all
	chosen int    // the move that it was told to make
	yield  func(struct{}) bool
	resume func() (struct{}, bool)
	stop   func()
}

// A move is one of the steps that an actor may take next.
type move struct {
	label   string
	ready   func() bool // nil when it always is
	never   bool        // it is not possible at all
	outside bool        // it comes from outside: nothing may depend on its ever being made
	// own reports whether the move concerns this actor only: to make it now or later is
	// the same for all that others do meanwhile, and they can not prevent it. Never, when
	// it is nil.
	own func() bool
}

// always is for moves that are the actor's own whatever happens.
func always() bool { return true }

// possible reports whether the move can be made now.
func (m move) possible() bool { return !m.never && (m.ready == nil || m.ready()) }

// aside reports whether the next move of an actor is its own, whichever it chooses, and
// can be made now.
func (a *actor) aside() bool {
	for _, m := range a.moves {
		if !m.never && (m.own == nil || !m.own() || !m.possible()) {
			return false
		}
	}
	return len(a.moves) > 0
}

// when is the move, made ready by something else.
func (m move) when(ready func() bool) move {
	if m.ready == nil {
		m.ready = ready
	}
	return m
}

// errStopped unwinds the coroutine of a world that is not needed any more.
var errStopped = errors.New("stopped")

// start adds an actor.
func (w *world) start(name string, run func(*actor)) *actor {
	a := &actor{name: name}
	switch {
	case !w.scenario.apart:
		a.pool = &w.pool
	case len(w.actors) > 0: // only it takes what the owner puts back
		a.pool = new(pool)
	}
	a.resume, a.stop = iter.Pull(func(yield func(struct{}) bool) {
		a.yield = yield
		defer func() {
			if r := recover(); r != nil && r != errStopped {
				panic(r)
			}
		}()
		run(a)
		a.over, a.moves = true, nil
	})
	w.actors = append(w.actors, a)
	return a
}

// choose stops until the actor is told to make one of the moves, and returns which.
func (a *actor) choose(moves ...move) int {
	a.moves = moves
	if !a.yield(struct{}{}) {
		a.over = true
		panic(errStopped)
	}
	return a.chosen
}

// step is choose for a single move.
func (a *actor) step(label string, ready func() bool) { a.choose(move{label: label, ready: ready}) }

// name names what a caller waits for.
func name(of any) string {
	switch of.(type) {
	case *handoff[int]:
		return "handoff"
	case *watch[int]:
		return "watch"
	case *shutdown[int]:
		return "shutdown"
	case *Manager[int]:
		return "manager's end"
	}
	return fmt.Sprintf("%T", of)
}

// kind names what a message asks for.
func kind(msg message[int]) string {
	switch msg.request.(type) {
	case *acquire[int]:
		return "acquire"
	case *abandon[int]:
		return "abandon"
	case *cancelReservation[int]:
		return "cancelReservation"
	case nil:
		return "release"
	case *releaseAll[int]:
		return "release of many"
	case *handoff[int]:
		return "handoff"
	case *giveBack[int]:
		return "return of a handoff"
	case *downgrade[int]:
		return "downgrade"
	case *watch[int]:
		return "watch"
	case *closeSession[int]:
		return "close of a session"
	case *question[int]:
		return "question"
	case *shutdown[int]:
		return "shutdown"
	case closing[int]:
		return "close"
	case wake[int]:
		return "wake"
	case tick[int]:
		return "tick"
	}
	return fmt.Sprintf("%T", msg.request)
}

// A lifetime is a context. It ends in a step of the actor that looks at it, because when
// it ended before makes no difference to any other.
type lifetime struct {
	endless bool
	err     error
	done    chan struct{} // nil when it is endless
}

// forever is the context of calls that have none.
var forever = &lifetime{endless: true}

// ends is the move in which one sees that it has ended.
func (l *lifetime) ends(label string) move {
	return move{label: label, outside: l.err == nil, never: l.endless, own: always}
}

func newLifetime(ends bool) *lifetime {
	if !ends {
		return forever
	}
	return &lifetime{done: make(chan struct{})}
}

func (l *lifetime) end() {
	if l.err == nil {
		l.err = context.Canceled
		close(l.done)
	}
}

func (l *lifetime) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *lifetime) Err() error                  { return l.err }
func (l *lifetime) Value(any) any               { return nil }
func (l *lifetime) Done() <-chan struct{}       { return l.done }
