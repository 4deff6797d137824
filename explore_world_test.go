//go:build !race

package keylock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A world is a manager in slow motion: its owner and its callers are coroutines that stop
// before each step by which they can affect each other, and somebody else decides who
// goes on. A world in which the same ones go on is the same world.
//
// What a request does, what the table does, and what becomes of requests in the pool is
// the real code. What blocks a goroutine can not be: Start, run, send, wait and the calls
// around them are copied here, with the same names and in the same order, and a stop
// before each access to what others use at the same time, which are: the mailbox, the
// ended flag, the answer of a request, the turn of a reservation, the end of a context
// and the channels that are closed for all. TestExplorerCopiesTheProtocol fails when
// the original changes. Where two accesses are one step, the copy says why nothing can
// come between them that could not as well come before or after.
//
// The owner serves a request in one step. It sends several answers in it, and who gets
// the first may go on before the second is sent; but all that he can do is send, which
// the owner sees after the step in any case, and claim a generation, which it looks at in
// the first access of a step.
type world struct {
	scenario scenario
	m        *Manager[int]
	o        *owner[int]
	ctx      *lifetime // Start's
	woken    bool      // by the end of ctx
	requests []*acquire[int]
	taken    []*acquire[int] // those of them that are in use
	pool     pool            // of everybody who has none of his own
	actors   []*actor
	callers  [][][]*actor // those who do the same, each with his partner
	others   []*actor
	broken   error // an actor panicked
}

// A pool has the requests that were put into it, the last one on top.
type pool struct{ spare []*acquire[int] }

// newWorld is [Start], and the callers' goroutines.
func newWorld(s scenario) *world {
	w := &world{scenario: s, ctx: &lifetime{}}
	w.m = &Manager[int]{mailbox: make(chan message[int], s.mailbox), done: make(chan struct{})}
	w.o = &owner[int]{m: w.m, table: table.New[int](s.config)}
	w.others = append(w.others, w.start("owner", func(a *actor) { w.run(a) }))
	add := func(name string, c *caller, run func()) {
		c.w = w
		c.actor = w.start(name, func(*actor) { run() })
		c.actor.memory = c
	}
	for i, p := range s.callers {
		c := &caller{ctx: &lifetime{endless: !p.cancels}}
		name := fmt.Sprintf("%c (%s)", 'A'+i, p.name)
		add(name, c, func() { p.run(c) })
		if p.partner != nil {
			// The partner is another goroutine, which uses what this one has made.
			partner := &caller{ctx: forever, mate: c}
			c.mate = partner
			add(name+"'s partner", partner, func() { p.partner(partner, c) })
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
		w.others = append(w.others, w.start("Start's context", func(a *actor) { w.endContext(a) }))
	}
	for _, a := range w.actors {
		a.resume() // up to its first step
	}
	return w
}

// newAcquire is the real one, on a pool that forgets nothing and returns what was put
// into it last, because that is the worst for whoever still has an old reservation.
func (c *caller) newAcquire(want table.Request[int]) *acquire[int] {
	w := c.w
	w.m.pool = sync.Pool{New: func() any {
		var r *acquire[int]
		if last := len(c.pool.spare) - 1; last >= 0 {
			r, c.pool.spare = c.pool.spare[last], c.pool.spare[:last]
		} else {
			// With room for one more, a second answer is found instead of blocking.
			r = &acquire[int]{replied: make(chan bool, 3), predicted: true}
			w.requests = append(w.requests, r)
		}
		w.taken = append(w.taken, r)
		return r
	}}
	return w.m.newAcquire(want)
}

// settle notes what the last step put into the pool: requests that ask for nothing.
func (w *world) settle(a *actor) {
	w.taken = slices.DeleteFunc(w.taken, func(r *acquire[int]) bool {
		if r.want.Tag == nil && a.pool != nil {
			a.pool.spare = append(a.pool.spare, r)
		}
		return r.want.Tag == nil
	})
}

// run is [owner.run] and what follows it in [Start].
func (w *world) run(a *actor) {
	o := w.o
	for !o.ended {
		// To receive, to look at the context and to serve are one step: nobody but
		// the owner and refuseAll, which comes later, receives; and if the context ends
		// after the look it might as well have ended after the step.
		a.choose(move{label: "serves", ready: func() bool { return len(w.m.mailbox) > 0 }, own: w.servesUnseen})
		msg := <-w.m.mailbox
		a.did = "serves " + kind(msg)
		if w.ctx.err != nil {
			o.end(ErrClosed)
			msg.refuse()
			break
		}
		msg.serve(o)
	}
	a.step("sets ended", nil)
	w.m.ended.Store(true)
	// To receive and to refuse all that is there is one step, of whomever: a caller who
	// has not got his answer yet and one who has not looked at it yet are the same.
	a.step("empties the mailbox", nil)
	w.m.refuseAll()
	a.step("exits", func() bool { return w.ctx.err == nil || w.woken })
	close(w.m.done)
}

// servesUnseen reports whether it makes no difference to anybody, and to the owner
// neither, when it serves the first request of the mailbox. Whoever sends meanwhile puts
// his request behind it; whoever is answered by it may look later. What else the owner
// has in common with others is Start's context, the turn of a reservation, the fate of a
// waiter when a lock is handed over, and the pool.
func (w *world) servesUnseen() bool {
	if w.scenario.contextEnds && !w.woken {
		return false
	}
	mail := w.mail()
	if len(mail) == 0 {
		return false
	}
	switch r := mail[0].request.(type) {
	case *cancelReservation[int]:
		return false
	case *handoff[int]:
		return !slices.ContainsFunc(w.taken, func(r *acquire[int]) bool {
			return r.ticket != nil && r.state.Load() == pending // it may leave meanwhile
		})
	case *abandon[int]:
		return w.scenario.apart && !(r.reserved && w.looksAt((*acquire[int])(r)))
	}
	return true
}

// looksAt reports whether anybody may yet look at the turn of a request.
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

// endContext is the end of Start's context, and the function that [Start] runs then.
func (w *world) endContext(a *actor) {
	a.choose(move{label: "ends", outside: true})
	w.ctx.end()
	a.step("wakes the owner", nil)
	select {
	case w.m.mailbox <- message[int]{request: wake[int]{}}:
	default:
	}
	w.woken = true
}

// A caller is a goroutine that uses the manager. Its fields are what it remembers from one
// stop to the next.
type caller struct {
	*actor
	w     *world
	mate  *caller   // its partner, or whose partner it is
	ctx   *lifetime // of all its calls; it may end if the program says so
	calls int       // made so far
	told  []string  // what they returned, if the scenario wants it

	want        table.Request[int] // of the running call, or of the reservation
	r           *acquire[int]      // of the running call
	out         message[int]       // on its way into the mailbox
	holds       []held             // acquired and not released
	offers      held               // to the next waiter
	passing     Lock[int]          // the same, of the running call
	reservation Reservation[int]
	old         Reservation[int] // one that was used
	cancelled   Reservation[int] // the one of the running Cancel
	reserved    bool             // for the partner: the reservation can be used
	abandoned   bool             // by the partner
	session     *Session[int]
	robbed      bool // by one who closes the session
	tooLate     bool // the running Wait began when the session was closed
	asks        *question[int]
	passes      *handoff[int]
	drains      *shutdown[int]
	draining    bool // the running Shutdown has something to wait for
	busy        *idle
}

// A held is a lock that a caller may rely on, with what was asked for.
type held struct {
	Lock[int]
	want table.Request[int]
}

// send is [Manager.send].
func (c *caller) send(msg message[int]) {
	c.out = msg
	c.step("sends "+kind(c.out), c.room)
	c.post(msg)
}

// room reports whether there is room in the mailbox.
func (c *caller) room() bool { return len(c.w.m.mailbox) < cap(c.w.m.mailbox) }

// post is send without the stop before it.
func (c *caller) post(msg message[int]) {
	c.out = msg
	c.parts(c.out)
	c.w.m.mailbox <- c.out
	if c.w.scenario.unhurried {
		c.step("has sent "+kind(c.out), nil)
	}
	c.out = message[int]{}
	if c.w.m.ended.Load() {
		c.w.m.refuseAll()
	}
}

// parts notes what a caller relies on no longer when it sends a message.
func (c *caller) parts(msg message[int]) {
	switch r := msg.request.(type) {
	case nil:
		c.drop(msg.release)
	case *handoff[int]:
		c.drop(r.grant)
	case *closeSession[int]:
		c.holds = nil
		if c.mate != nil {
			c.mate.holds, c.mate.robbed = nil, true
		}
	}
}

// ask makes a request and sends it. To look at the context, to take the request out of
// the pool and to send it are one step: a context may as well end after the step, or
// before; and a request that another puts into the pool between the second and the third
// can be taken, which is worse.
func (c *caller) ask(ctx *lifetime, want table.Request[int]) error {
	if c.choose(move{label: "asks", ready: c.room}, ctx.ends("asks with a context that is done")) == 1 {
		ctx.end()
		return ctx.Err()
	}
	c.want = want
	c.r = c.newAcquire(want)
	c.r.early = c.r.predicted && !ctx.endless
	c.post(message[int]{request: c.r})
	return nil
}

// acquire is [Manager.acquire].
func (c *caller) acquire(want table.Request[int]) (Lock[int], error) {
	c.calls++
	if err := c.ask(c.ctx, want); err != nil {
		return c.got(Lock[int]{}, err)
	}
	return c.got(c.wait())
}

// wait is [Manager.wait], with [Manager.listen]. To receive the answer, to read it, to
// recycle the request and to look at the context are one step: nobody else uses the
// request, but for the generation, of which a Cancel learns nothing that it would not learn
// before.
func (c *caller) wait() (Lock[int], error) {
	r := c.r
	told := func() bool { return len(r.replied) > 0 }
	if !r.early || !c.hears(move{label: "hears whether it has to wait", ready: told, own: c.unseen}) {
		answered := move{label: "gets the answer", ready: told, own: c.unseen}
		late := c.ctx.ends("sees its context end")
		late.ready = func() bool { return c.stops() || c.room() }
		switch c.choose(answered, late, c.ctx.ends("gets the answer, and its context ends").when(told)) {
		case 0:
			<-r.replied
		case 1:
			c.ctx.end()
			if c.abandonRequest(r, c.stops()) {
				return Lock[int]{}, c.ctx.Err()
			}
		case 2:
			c.ctx.end()
			<-r.replied
		}
	}
	c.r = nil
	lock, err := c.w.m.take(r)
	if err := c.ctx.Err(); err != nil && lock.value == nil {
		if lock.m != nil {
			c.send(message[int]{release: lock.token})
		}
		return Lock[int]{}, err
	}
	return lock, err
}

// stops reports whether anything can come between the end of its context, which a caller
// who waits has seen, and its withdrawal. Nothing can, unless there is an answer which it
// might choose instead, or somebody hands over a lock and looks whether it has left: what
// it has seen it may as well see later.
func (c *caller) stops() bool { return len(c.r.replied) > 0 || c.w.scenario.passes() }

// unseen reports whether it makes no difference to anybody else when the caller takes up
// a request or ends one: nobody else uses its pool, looks at the turn of its reservation
// or changes it, or closes the session that it looks at.
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

// last reports whether nobody else will do anything with what the caller has.
func (c *caller) last() bool { return c.mate == nil || c.mate.over }

// hears receives what its request is told, and its context may end then.
func (c *caller) hears(told move) bool {
	if c.choose(told, c.ctx.ends(told.label+", and its context ends").when(told.ready)) == 1 {
		c.ctx.end()
	}
	return <-c.r.replied
}

// withdraw is [Manager.abandonRequest], with a stop before it sends or without. What comes
// before its look at the fate has been argued where it is.
func (c *caller) abandonRequest(r *acquire[int], stop bool) bool {
	c.r = r
	defer func() { c.r = nil }()
	if !r.state.CompareAndSwap(pending, abandoned) {
		c.choose(move{label: "gets what was handed over", ready: func() bool { return len(r.replied) > 0 }, own: c.unseen})
		<-r.replied
		return false
	}
	if msg := (message[int]{request: (*abandon[int])(r)}); stop {
		c.send(msg)
	} else {
		c.post(msg)
	}
	return true
}

// got notes what a call returns.
func (c *caller) got(lock Lock[int], err error) (Lock[int], error) {
	if (err == nil) != (lock.token.Seq() != 0) {
		panic(fmt.Sprintf("returns the lock %v with the error %v", lock.token, err))
	}
	if err == nil && !c.robbed {
		c.holds = append(c.holds, held{lock, c.want})
	}
	c.want = table.Request[int]{}
	c.tells(err)
	return lock, err
}

// tells notes what a call returns, if the scenario wants it.
func (c *caller) tells(what ...any) {
	if c.w.scenario.remembers {
		c.told = append(c.told, fmt.Sprint(what...))
	}
}

// try is [Manager.try].
func (c *caller) try(want table.Request[int]) (Lock[int], bool) {
	c.calls++
	want.Try = true
	c.ask(forever, want)
	r := c.r
	c.choose(move{label: "gets the answer", ready: func() bool { return len(r.replied) > 0 }, own: c.unseen})
	c.r = nil
	<-r.replied
	lock, err := c.got(c.w.m.take(r))
	return lock, err == nil
}

// reserve is [Manager.reserve]. It is ask for the same reason: an old reservation of
// the same request fails whatever the turn has become.
func (c *caller) reserve(want table.Request[int]) {
	c.calls++
	m := c.w.m
	c.step("reserves", c.room)
	c.want = want
	r := c.newAcquire(want)
	r.reserved = true
	c.reservation = Reservation[int]{m: m, r: r, generation: r.generation.Add(1), session: c.session}
	c.post(message[int]{request: r})
	c.reserved = true
}

// Wait is [Reservation.Wait]. To look whether the session is closed is one step with the
// end of wait: it may as well have been closed before.
func (c *caller) Wait() (Lock[int], error) {
	c.calls++
	c.choose(move{label: "claims the reservation, to wait", own: c.unseen})
	v := c.reservation
	tooLate := v.session != nil && v.session.closed.Load()
	if !v.claim() {
		if err := c.ctx.Err(); err != nil {
			return c.got(Lock[int]{}, err)
		}
		return c.got(Lock[int]{}, ErrReservationDone)
	}
	c.tooLate = tooLate
	c.r = v.r
	lock, err := c.wait()
	if err == nil && v.session != nil && v.session.closed.Load() {
		c.send(message[int]{release: lock.token})
		return c.got(Lock[int]{}, cmp.Or(c.ctx.Err(), ErrClosed))
	}
	if err == nil && c.tooLate {
		panic("a Wait that begins after its session was closed returns a lock")
	}
	return c.got(lock, err)
}

// Cancel is [Reservation.Cancel]. To claim the reservation and to look at the fate of its
// request are one step: who looks at the one has nothing to do with the other.
func (c *caller) Cancel(v Reservation[int]) {
	c.calls++
	c.cancelled = v
	c.choose(move{label: "claims the reservation, to cancel", own: c.unseen})
	if v.claim() {
		if c.abandonRequest(v.r, true) {
			return
		}
		if lock, _ := c.w.m.take(v.r); !c.handoff(lock, lock.value) {
			c.send(message[int]{release: lock.token})
		}
		return
	}
	c.choose(move{label: "looks who has claimed it", own: c.unseen})
	if v.r != nil && v.r.generation.Load() == claimed(v.generation) {
		c.send(message[int]{request: &cancelReservation[int]{v.r, v.generation}})
	}
}

// Release is [Lock.Release].
func (c *caller) Release(lock Lock[int]) {
	c.calls++
	if lock.m != nil {
		c.send(message[int]{release: lock.token})
	}
}

// drop notes that a lock is held no longer.
func (c *caller) drop(token table.Token[int]) {
	c.holds = slices.DeleteFunc(c.holds, func(h held) bool { return h.token == token })
}

// Handoff is [Lock.Handoff].
func (c *caller) Handoff(lock Lock[int], value any) bool {
	c.calls++
	i := slices.IndexFunc(c.holds, func(h held) bool { return h.token == lock.token })
	c.offers = c.holds[i] // which the next one may have before this one hears of it
	passed := c.handoff(lock, value)
	if !passed {
		c.holds = append(c.holds, c.offers)
	}
	c.offers = held{}
	c.tells("passed ", passed)
	return passed
}

// handoff is Handoff for a lock that nobody may rely on.
func (c *caller) handoff(lock Lock[int], value any) bool {
	c.passing = lock
	c.passes = &handoff[int]{grant: lock.token, value: value, passed: make(chan bool, 1)}
	c.send(message[int]{request: c.passes})
	c.choose(move{label: "hears of the hand-off", ready: func() bool { return len(c.passes.passed) > 0 }, own: always})
	passed := <-c.passes.passed
	c.passes, c.passing = nil, Lock[int]{}
	return passed
}

// CloseSession is [Session.Close].
func (c *caller) CloseSession() {
	c.calls++
	c.choose(move{label: "closes its session", own: c.last}) // a Wait may look at that
	c.session.closed.Store(true)
	c.send(message[int]{request: &closeSession[int]{c.session.s}})
}

// WaitIdle is [Manager.WaitIdle], with the part of ask that it uses.
func (c *caller) WaitIdle() error {
	c.calls++
	if err := c.ctx.Err(); err != nil {
		return err
	}
	q := &question[int]{func(o *owner[int]) { c.busy = o.busyPeriod() }, make(chan error, 1)}
	c.asks = q
	c.send(message[int]{request: q})
	done := c.ctx.ends("sees its context end")
	replied := func() bool { return len(q.replied) > 0 }
	if c.choose(move{label: "is told what to wait for", ready: replied, own: always}, done) == 1 {
		c.ctx.end()
		return c.ctx.Err()
	}
	err := <-q.replied
	c.asks = nil
	if c.busy == nil || err != nil {
		return err
	}
	over := func() bool { return closed(c.busy.over) }
	if c.choose(move{label: "sees the idle moment", ready: over, own: always}, done) == 1 {
		c.ctx.end()
		return c.ctx.Err()
	}
	return c.busy.err
}

// Shutdown is [Manager.Shutdown].
func (c *caller) Shutdown() error {
	c.calls++
	m := c.w.m
	c.drains = &shutdown[int]{drains: make(chan bool, 1)}
	c.send(message[int]{request: c.drains})
	c.choose(move{label: "hears of the shutdown", ready: func() bool { return len(c.drains.drains) > 0 }, own: always})
	drains := <-c.drains.drains
	c.drains, c.draining = nil, drains
	end := move{label: "sees the end", ready: func() bool { return closed(m.done) }, own: always}
	if c.choose(end, c.ctx.ends("sees its context end")) == 1 {
		c.ctx.end()
		return c.ctx.Err()
	}
	if !drains {
		return nil
	}
	return m.cause
}

// Close is [Manager.Close].
func (c *caller) Close() {
	c.calls++
	c.send(message[int]{request: closing[int]{}})
	c.choose(move{label: "sees the end", ready: func() bool { return closed(c.w.m.done) }, own: always})
}

// An actor is one who takes steps.
type actor struct {
	name   string
	moves  []move // what it may do next
	over   bool
	memory any // what else it remembers
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
	outside bool        // it comes from outside: nobody may depend on its ever being made
	// own reports whether the move has to do with nobody else: to make it now or later is
	// the same for all that others do meanwhile, and they can not prevent it. Never, when
	// it is nil.
	own func() bool
}

// always is for moves that are the actor's own whatever happens.
func always() bool { return true }

// possible reports whether the move can be made now.
func (m move) possible() bool { return !m.never && (m.ready == nil || m.ready()) }

// aside reports whether the next move of an actor is his own, whichever he chooses, and
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
	case len(w.actors) > 0: // what the owner puts back nobody else takes
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
		panic(errStopped)
	}
	return a.chosen
}

// step is choose for a single move.
func (a *actor) step(label string, ready func() bool) { a.choose(move{label: label, ready: ready}) }

// closed reports whether a channel that nobody sends to is closed.
func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
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
	case *handoff[int]:
		return "hand-off"
	case *closeSession[int]:
		return "close of a session"
	case *question[int]:
		return "wait for idle"
	case *shutdown[int]:
		return "shutdown"
	case closing[int]:
		return "close"
	case wake[int]:
		return "wake"
	}
	return fmt.Sprintf("%T", msg.request)
}

// A lifetime is a context. It ends in a step of the one who looks at it, because when
// it ended before makes no difference to anybody.
type lifetime struct {
	endless bool
	err     error
}

// forever is the context of calls that have none.
var forever = &lifetime{endless: true}

// ends is the move in which one sees that it has ended.
func (l *lifetime) ends(label string) move {
	return move{label: label, outside: l.err == nil, never: l.endless, own: always}
}

func (l *lifetime) end() { l.err = context.Canceled }

func (l *lifetime) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *lifetime) Done() <-chan struct{}       { return nil } // the explorer asks Err
func (l *lifetime) Err() error                  { return l.err }
func (l *lifetime) Value(any) any               { return nil }
