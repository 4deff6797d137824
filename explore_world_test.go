//go:build !race

package keylock

import (
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
// the owner sees after the step in any case, and claim a turn, which it looks at in
// the first access of a step.
type world struct {
	scenario scenario
	m        *Manager[int]
	o        *owner[int]
	ctx      *lifetime // Start's
	woken    bool      // by the end of ctx
	requests []*acquire[int]
	spare    []*acquire[int] // those that were put into the pool, the last one on top
	actors   []*actor
	broken   error // an actor panicked
}

// newWorld is [Start], and the callers' goroutines.
func newWorld(s scenario) *world {
	w := &world{scenario: s, ctx: &lifetime{}}
	w.m = &Manager[int]{mailbox: make(chan message[int], s.mailbox), done: make(chan struct{})}
	w.o = &owner[int]{m: w.m, ctx: w.ctx, table: table.New[int](s.config)}
	w.start("owner", func(a *actor) { w.run(a) })
	for i, p := range s.callers {
		c := &caller{w: w, ctx: &lifetime{endless: !p.cancels}}
		name := fmt.Sprintf("%c (%s)", 'A'+i, p.name)
		c.actor = w.start(name, func(*actor) { p.run(c) })
		c.actor.memory = c
		if p.partner != nil {
			// The partner is another goroutine, which uses what this one has made.
			partner := &caller{w: w, ctx: forever}
			partner.actor = w.start(name+"'s partner", func(*actor) { p.partner(partner, c) })
			partner.actor.memory = partner
		}
	}
	if s.contextEnds {
		w.start("Start's context", func(a *actor) { w.endContext(a) })
	}
	for _, a := range w.actors {
		a.resume() // up to its first step
	}
	return w
}

// newAcquire is the real one, on a pool that forgets nothing and returns what was put
// into it last, because that is the worst for whoever still has an old reservation.
func (w *world) newAcquire(want table.Request[int]) *acquire[int] {
	w.m.pool = sync.Pool{New: func() any {
		if last := len(w.spare) - 1; last >= 0 {
			r := w.spare[last]
			w.spare = w.spare[:last]
			return r
		}
		// With room for one more, a second answer is found instead of blocking.
		r := &acquire[int]{answered: make(chan bool, 3), lucky: true}
		w.requests = append(w.requests, r)
		return r
	}}
	return w.m.newAcquire(want)
}

// settle notes what the last step put into the pool: requests that ask for nothing.
func (w *world) settle() {
	for _, r := range w.requests {
		if r.want.Tag == nil && !slices.Contains(w.spare, r) {
			w.spare = append(w.spare, r)
		}
	}
}

// run is [owner.run] and what follows it in [Start].
func (w *world) run(a *actor) {
	o := w.o
	for !o.ended {
		// To receive, to look at the context and to serve are one step: nobody but
		// the owner and refuseAll, which comes later, receives; and if the context ends
		// after the look it might as well have ended after the step.
		a.step("serves", func() bool { return len(w.m.mailbox) > 0 })
		msg := <-w.m.mailbox
		a.did = "serves " + kind(msg)
		if o.ctx.Err() != nil {
			o.end(ErrClosed)
			msg.request.refuse()
			break
		}
		msg.request.serve(o, msg.token)
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
	ctx   *lifetime // of all its calls; it may end if the program says so
	calls int       // made so far

	want        table.Request[int] // of the last call that asked
	r           *acquire[int]      // of the running call
	out         message[int]       // on its way into the mailbox
	holds       []held             // acquired and not released
	passing     Lock[int]          // offered to the next waiter
	reservation Reservation[int]
	old         Reservation[int] // one that was used
	cancelled   Reservation[int] // the one of the running Cancel
	reserved    bool             // for the partner: the reservation can be used
	abandoned   bool             // by the partner
	session     *Session[int]
	robbed      bool // by the partner, who closes the session
	reply       *waitIdle[int]
	passes      *handOff[int]
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
func (c *caller) send(request request[int], token table.Token[int]) {
	m := c.w.m
	c.out = message[int]{request, token}
	c.step("sends "+kind(c.out), func() bool { return len(m.mailbox) < cap(m.mailbox) })
	m.mailbox <- c.out
	c.sent()
}

// sent is the second half of send.
func (c *caller) sent() {
	if c.w.scenario.unhurried {
		c.step("has sent "+kind(c.out), nil)
	}
	c.out = message[int]{}
	if c.w.m.ended.Load() {
		c.w.m.refuseAll()
	}
}

// ask makes a request and sends it. To look at the context, to take the request out of
// the pool and to send it are one step: a context may as well end after the step, or
// before; and a request that another puts into the pool between the second and the third
// can be taken, which is worse.
func (c *caller) ask(ctx *lifetime, want table.Request[int]) error {
	m := c.w.m
	c.want = want
	room := func() bool { return len(m.mailbox) < cap(m.mailbox) }
	if c.choose(move{label: "asks", ready: room}, ctx.ends("asks with a context that is done")) == 1 {
		ctx.end()
		return ctx.Err()
	}
	c.r = c.w.newAcquire(want)
	c.r.prompt = c.r.lucky && !ctx.endless
	c.out = message[int]{request: c.r}
	m.mailbox <- c.out
	c.sent()
	return nil
}

// acquire is [Manager.acquire].
func (c *caller) acquire(want table.Request[int]) (Lock[int], error) {
	c.calls++
	if err := c.ask(c.ctx, want); err != nil {
		return Lock[int]{}, err
	}
	return c.wait()
}

// wait is [Manager.wait], with [Manager.listen]. To receive the answer, to read it, to recycle the request and
// to look at the context are one step: nobody else uses the request, but for the turn,
// of which a Cancel learns nothing that it would not learn before.
func (c *caller) wait() (Lock[int], error) {
	r := c.r
	told := func() bool { return len(r.answered) > 0 }
	if !r.prompt || !c.hears(move{label: "hears whether it has to wait", ready: told}) {
		answered := move{label: "gets the answer", ready: told}
		switch c.choose(answered, c.ctx.ends("sees its context end"),
			c.ctx.ends("gets the answer, and its context ends").when(told)) {
		case 0:
			<-r.answered
		case 1:
			c.ctx.end()
			if c.withdraw(r) {
				return Lock[int]{}, c.ctx.Err()
			}
		case 2:
			c.ctx.end()
			<-r.answered
		}
	}
	c.r = nil
	lock, err := c.w.m.take(r)
	if err := c.ctx.Err(); err != nil && lock.value == nil {
		if lock.m != nil {
			c.send(release[int]{}, lock.token)
		}
		return Lock[int]{}, err
	}
	return c.got(lock, err)
}

// hears receives what its request is told, and its context may end then.
func (c *caller) hears(told move) bool {
	if c.choose(told, c.ctx.ends(told.label+", and its context ends").when(told.ready)) == 1 {
		c.ctx.end()
	}
	return <-c.r.answered
}

// withdraw is [Manager.withdraw].
func (c *caller) withdraw(r *acquire[int]) bool {
	c.r = r
	defer func() { c.r = nil }()
	if !r.fate.CompareAndSwap(undecided, left) {
		c.step("gets what was handed over", func() bool { return len(r.answered) > 0 })
		<-r.answered
		return false
	}
	c.send((*withdraw[int])(r), table.Token[int]{})
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
	return lock, err
}

// try is [Manager.try].
func (c *caller) try(want table.Request[int]) (Lock[int], bool) {
	c.calls++
	want.Try = true
	c.ask(forever, want)
	c.step("gets the answer", func() bool { return len(c.r.answered) > 0 })
	r := c.r
	c.r = nil
	<-r.answered
	lock, err := c.got(c.w.m.take(r))
	return lock, err == nil
}

// reserve is [Manager.reserve]. It is ask for the same reason: an old reservation of
// the same request fails whatever the turn has become.
func (c *caller) reserve(want table.Request[int]) {
	c.calls++
	m := c.w.m
	c.want = want
	c.step("reserves", func() bool { return len(m.mailbox) < cap(m.mailbox) })
	r := c.w.newAcquire(want)
	r.reserved = true
	c.reservation = Reservation[int]{m: m, r: r, turn: r.turn.Add(1)}
	c.out = message[int]{request: r}
	m.mailbox <- c.out
	c.sent()
	c.reserved = true
}

// Wait is [Reservation.Wait], of a reservation that no session has.
func (c *caller) Wait() (Lock[int], error) {
	c.calls++
	c.step("claims the reservation, to wait", nil)
	v := c.reservation
	if !v.claim() {
		if err := c.ctx.Err(); err != nil {
			return Lock[int]{}, err
		}
		return Lock[int]{}, ErrReservationDone
	}
	c.r = v.r
	return c.wait()
}

// Cancel is [Reservation.Cancel].
func (c *caller) Cancel(v Reservation[int]) {
	c.calls++
	c.cancelled = v
	c.step("claims the reservation, to cancel", nil)
	if v.claim() {
		if c.withdraw(v.r) {
			return
		}
		if lock, _ := c.w.m.take(v.r); !c.handOff(lock, lock.value) {
			c.send(release[int]{}, lock.token)
		}
		return
	}
	c.step("looks who has claimed it", nil)
	if v.r != nil && v.r.turn.Load() == claimed(v.turn) {
		c.send(&abandon[int]{v.r, v.turn}, table.Token[int]{})
	}
}

// Release is [Lock.Release].
func (c *caller) Release(lock Lock[int]) {
	c.calls++
	c.drop(lock)
	if lock.m != nil {
		c.send(release[int]{}, lock.token)
	}
}

// drop notes that a lock is held no longer, and returns it as it was.
func (c *caller) drop(lock Lock[int]) (dropped held) {
	c.holds = slices.DeleteFunc(slices.Clone(c.holds), func(h held) bool {
		if h.token == lock.token {
			dropped = h
		}
		return h.token == lock.token
	})
	return dropped
}

// HandOff is [Lock.HandOff].
func (c *caller) HandOff(lock Lock[int], value any) bool {
	c.calls++
	h := c.drop(lock) // the next one may have it before this one hears of it
	passed := c.handOff(lock, value)
	if !passed {
		c.holds = append(c.holds, h)
	}
	return passed
}

// handOff is HandOff for a lock that nobody may rely on.
func (c *caller) handOff(lock Lock[int], value any) bool {
	c.passing = lock
	c.passes = &handOff[int]{value: value, passed: make(chan bool, 1)}
	c.send(c.passes, lock.token)
	c.step("hears of the hand-off", func() bool { return len(c.passes.passed) > 0 })
	passed := <-c.passes.passed
	c.passes, c.passing = nil, Lock[int]{}
	return passed
}

// CloseSession is [Session.Close].
func (c *caller) CloseSession() {
	c.calls++
	c.holds = nil
	c.send(&closeSession[int]{c.session.s}, table.Token[int]{})
}

// WaitIdle is [Manager.WaitIdle], with the part of ask that it uses.
func (c *caller) WaitIdle() error {
	c.calls++
	if err := c.ctx.Err(); err != nil {
		return err
	}
	q := newQuestion[*idle]()
	c.reply = &waitIdle[int]{q}
	c.send(c.reply, table.Token[int]{})
	done := c.ctx.ends("sees its context end")
	if c.choose(move{label: "is told what to wait for", ready: func() bool { return len(q.replied) > 0 }}, done) == 1 {
		c.ctx.end()
		return c.ctx.Err()
	}
	a := <-q.replied
	c.reply, c.busy = nil, a.value
	if c.busy == nil || a.err != nil {
		return a.err
	}
	if c.choose(move{label: "sees the idle moment", ready: func() bool { return closed(c.busy.over) }}, done) == 1 {
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
	c.send(c.drains, table.Token[int]{})
	c.step("hears of the shutdown", func() bool { return len(c.drains.drains) > 0 })
	drains := <-c.drains.drains
	c.drains, c.draining = nil, drains
	end := move{label: "sees the end", ready: func() bool { return closed(m.done) }}
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
	c.send(closing[int]{}, table.Token[int]{})
	c.step("sees the end", func() bool { return closed(c.w.m.done) })
}

// An actor is one who takes steps.
type actor struct {
	name   string
	moves  []move // what it may do next
	over   bool
	memory any // what else it remembers

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
	outside bool        // it comes from outside: nobody may depend on its ever being made
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
	case *withdraw[int]:
		return "withdraw"
	case *abandon[int]:
		return "abandon"
	case release[int]:
		return "release"
	case *handOff[int]:
		return "hand-off"
	case *closeSession[int]:
		return "close of a session"
	case *waitIdle[int]:
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
	m := move{label: label, outside: l.err == nil}
	if l.endless {
		m.ready = func() bool { return false }
	}
	return m
}

func (l *lifetime) end() { l.err = context.Canceled }

func (l *lifetime) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *lifetime) Done() <-chan struct{}       { return nil } // the explorer asks Err
func (l *lifetime) Err() error                  { return l.err }
func (l *lifetime) Value(any) any               { return nil }
