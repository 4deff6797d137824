package keylock

import (
	"context"
	"errors"
	"math"
	"runtime"
	"runtime/trace"
	"sync"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Manager grants locks by key. Its methods may be called from any goroutine. Use
// [Start] to make one; the zero Manager is not usable.
type Manager[K comparable] struct {
	gate gate[message[K]]

	// Set by Start.
	mailbox chan message[K]
	done    chan struct{} // closed when the owner has exited
	tracks  bool          // an option wants every request tracked
	callers bool          // and the line of code that made it
	kept    *kept[K]      // nil unless it keeps grants
	limit   int32         // of WithSharedLimit; 0 without

	// Used by all callers at any time, and by the owner.
	long atomic.Int64               // requests that may take long, and are on their way or being served
	left atomic.Pointer[acquire[K]] // requests that were abandoned when the mailbox was full; a list
	pool requestPool                // of *acquire[K]; the manager's own, because channels must not leave a synctest bubble

	// Written by the owner.
	ended atomic.Bool // set before it reads the mailbox for the last time
	cause error       // why Shutdown could not finish; written before done is closed
}

// Start starts a manager, which runs until [Manager.Close], [Manager.Shutdown] or the
// end of ctx; the latter works like Close. A manager that is never stopped leaks its
// goroutine. Start panics when ctx or an option is nil.
func Start[K comparable](ctx context.Context, opts ...Option) *Manager[K] {
	if ctx == nil {
		panic("keylock: Start with a nil context")
	}
	options := defaults
	for _, set := range opts {
		if set == nil {
			panic("keylock: Start with a nil Option")
		}
		set(&options)
	}
	m, o := newManager[K](ctx.Done(), options, mailboxSize)
	woken := make(chan struct{})
	stop := context.AfterFunc(&captured{done: o.lifetime, from: ctx}, func() {
		defer close(woken)
		m.wake()
	})
	o.observe(options)
	if options.kept > 0 && !m.tracks {
		m.kept = newKept(o.table, o.lifetime, options.kept)
	}
	go func() {
		o.run()
		o.tracking.stop()
		if !stop() {
			<-woken
		}
		close(m.done)
	}()
	return m
}

// wake makes the owner look at its lifetime. It does not select on it, because one receive
// costs half of a select.
func (m *Manager[K]) wake() { m.send(message[K]{request: wake[K]{}}) }

// newManager returns a manager with its owner, which does not run yet.
func newManager[K comparable](lifetime <-chan struct{}, options options, mailboxSize int) (*Manager[K], *owner[K]) {
	m := &Manager[K]{
		mailbox: make(chan message[K], mailboxSize),
		done:    make(chan struct{}),
		limit:   int32(options.table.SharedLimit),
	}
	m.pool.New = func() any { return &acquire[K]{replied: make(chan bool, 2), predicted: true} }
	o := &owner[K]{m: m, lifetime: lifetime, table: table.New[K](options.table)}
	o.meter = newMeter(o.table.Worked)
	return m, o
}

// observe starts what the options ask to be observed.
func (o *owner[K]) observe(options options) {
	o.tracking = newTracking[K](options, func() { o.m.send(message[K]{request: tick[K]{}}) })
	o.m.tracks, o.m.callers = o.tracking != nil, options.callers
}

// mailboxSize is how many requests may wait for the owner before their senders do.
const mailboxSize = 128

// An owner is the goroutine that owns the lock table. Only run, and what it serves, touch
// its fields.
type owner[K comparable] struct {
	m         *Manager[K]
	lifetime  <-chan struct{} // the Done of Start's context
	table     *table.Table[K]
	meter     meter
	tracking  *tracking[K]   // nil unless an option needs it
	idle      *idle          // what WaitIdle calls wait for; nil while none does
	snapshots []*snapshot[K] // that are asked for, the first of which have begun
	looking   looking[K]     // of grants that are kept
	draining  bool           // Shutdown was called: new requests are refused
	ended     bool
}

// run receives one request after the other, until the end.
func (o *owner[K]) run() {
	o.serve()
	o.m.gate.before("sets ended")
	o.m.ended.Store(true)
	o.m.gate.before("empties the mailbox")
	o.m.refuseAll()
}

// serve receives and serves one request after the other.
func (o *owner[K]) serve() {
	for !o.stops() {
		if o.table.Postponed() && !o.goOn() {
			break
		}
		o.m.gate.receives()
		msg := <-o.m.mailbox
		o.meter.next(len(o.m.mailbox))
		if ended.Is(o.lifetime) {
			o.end(ErrClosed)
		} else if o.m.left.Load() != nil {
			o.serveLeft()
		}
		if o.ended {
			msg.refuse()
			break
		}
		msg.serve(o)
		if o.meter.timing {
			o.meter.served()
		}
	}
}

// goOn lets waiters go on that were too many for one request: one for each request that others
// make, or fewer while the mailbox is full, or as long as there is none, in parts, until no waiter
// is postponed any more. It is false when the manager has ended.
func (o *owner[K]) goOn() bool {
	for o.table.Postponed() {
		if len(o.m.mailbox) == cap(o.m.mailbox) && o.meter.requests%seldom != 0 {
			break // more than it has room for want to send, and those that are granted would, too
		}
		o.m.gate.before("lets postponed waiters go on")
		if ended.Is(o.lifetime) {
			o.end(ErrClosed)
			return false
		}
		n := math.MaxInt
		busy := len(o.m.mailbox) > 0
		if busy {
			n = 1 // or their requests would soon be very many before those of others
		}
		o.long(func() { o.deliver(o.table.GoOn(n)) })
		if busy {
			break
		}
		// Those that were granted are many. Another that is about to send a request may stand
		// behind them in the scheduler's queue.
		runtime.Gosched()
	}
	return true
}

// seldom is after how many requests a postponed waiter goes on while the mailbox is full.
const seldom = 8

// serveLeft serves the requests that were abandoned when the mailbox was full: all of them,
// because the goroutine that abandoned one sees that in what it asks next.
func (o *owner[K]) serveLeft() {
	for r := o.m.left.Swap(nil); r != nil && !o.ended; {
		if ended.Is(o.lifetime) { // they may be very many
			o.end(ErrClosed)
			return
		}
		next := r.nextLeft
		r.nextLeft = nil
		(*abandon[K])(r).serve(o)
		r = next
	}
}

// deliver replies to the waiters that were granted, and to those who hold no longer.
func (o *owner[K]) deliver(grants []table.Grant[K]) {
	o.endWatches()
	if o.tracking != nil {
		o.tracking.lead(o.table.Led())
	}
	if len(grants) == 0 {
		return
	}
	now := o.meter.now()
	for _, g := range grants {
		r := g.Tag.(*acquire[K])
		if g.Value != nil {
			o.receive(r, g)
		}
		o.waited(r, now, "granted")
		if r.tracked != nil {
			o.held(r, g.Token, now)
		}
		r.reply(g.Token, nil)
	}
}

// checkIdle does what is due after a grant has left the table.
func (o *owner[K]) checkIdle() {
	if !o.table.Idle() {
		return
	}
	if o.idle != nil {
		close(o.idle.over)
		o.idle = nil
	}
	if o.draining && o.table.Counts().Held == 0 { // a grant of no keys is one, too
		o.end(nil)
	}
}

// end stops the manager: every waiter gets ErrClosed, holders keep what they hold. The cause is what a Shutdown that is under way returns.
func (o *owner[K]) end(cause error) {
	o.ended = true
	o.m.cause = cause
	if k := o.m.kept; k != nil {
		k.callIn(k.cells)
	}
	o.endSnapshots()
	o.table.Unwatch()
	o.endWatches()
	for _, tag := range o.table.CancelAll() {
		r := tag.(*acquire[K])
		o.waited(r, o.meter.now(), "closed")
		r.reply(table.Token[K]{}, ErrClosed)
	}
	if o.idle != nil {
		o.idle.err = ErrClosed
		close(o.idle.over)
		o.idle = nil
	}
}

// send puts a request into the mailbox. It never blocks for long, because the owner waits
// for no caller. And every request that is sent is served or refused, also when the owner
// is about to exit, or gone: it sets ended before it empties the mailbox for the last
// time, so a sender that sees ended unset after its send was in time, and one that sees
// it set empties the mailbox itself.
func (m *Manager[K]) send(msg message[K]) { m.sendUntil(nil, msg) }

// sendUntil is send for a caller that stops trying when done is closed. It reports whether
// it has sent.
func (m *Manager[K]) sendUntil(done <-chan struct{}, msg message[K]) bool {
	m.gate.sends(done, msg)
	if done == nil {
		// Not the select below without its last case: 64 goroutines with keys of their own fill
		// the mailbox, and took a quarter longer with it.
		m.mailbox <- msg
	} else {
		select {
		case m.mailbox <- msg:
		default:
			select {
			case m.mailbox <- msg:
			case <-done:
				return false
			}
		}
	}
	m.gate.before("looks whether the manager has ended")
	if m.ended.Load() {
		m.refuseAll()
	}
	return true
}

// mustBeStarted panics, in the caller, for a Manager that Start did not make.
func (m *Manager[K]) mustBeStarted() {
	if m == nil || m.mailbox == nil {
		panic("keylock: a Manager must be made by Start")
	}
}

// refuseAll refuses what is in the mailbox. Any number may do so at once: each request
// is received by one of them.
func (m *Manager[K]) refuseAll() {
	for {
		select {
		case msg := <-m.mailbox:
			msg.refuse()
		default:
			return
		}
	}
}

// Acquire waits until key is free and every earlier request for it has ended, and returns
// the lock.
//
// It returns an error that wraps ctx.Err() when ctx ends first, also when key is free and
// ctx is already done; [ErrClosed] when the manager is or becomes closed, or is shutting
// down; [ErrQueueFull] when key has as many waiters as [WithMaxWaiters] allows; and
// [ErrInvalidKey] for a key that is not equal to itself. A key that cannot be compared
// panics. When it fails it returns the zero Lock.
func (m *Manager[K]) Acquire(ctx context.Context, key K) (Lock[K], error) {
	if m.keeps() {
		mustContext(ctx)
		if grant, from := m.takeKept(ctx.Err(), key); from != nil {
			return Lock[K]{m: m, token: grant, key: key, value: from}, nil
		}
	}
	return m.acquire(ctx, nil, table.Request[K]{Key: key}, false)
}

// AcquireShared is [Manager.Acquire] for a lock that is shared: any number of shared
// locks of a key, or as many as [WithSharedLimit] allows, are held together, and never
// with an exclusive one. There is one queue for both kinds: a shared request waits for
// every exclusive one that came before it, so neither kind starves.
func (m *Manager[K]) AcquireShared(ctx context.Context, key K) (Lock[K], error) {
	return m.acquire(ctx, nil, table.Request[K]{Key: key, Mode: table.Shared}, false)
}

// AcquireAll waits until all the keys are free for it at once, and returns their lock,
// which is exclusive. It enters every queue at one instant and is granted when it is
// first in all of them: all or nothing. Keys that are named twice count once; with no
// keys it is granted at once.
//
// It cannot deadlock, because requests are totally ordered by their arrival: the earliest
// one never waits for a later one. While it waits for its last key, no other request can
// take the keys that are free.
//
// It fails as [Manager.Acquire] does, and holds nothing then.
func (m *Manager[K]) AcquireAll(ctx context.Context, keys ...K) (Lock[K], error) {
	return m.acquire(ctx, nil, wantAll(keys), false)
}

// AcquireSet is [Manager.AcquireAll] for keys of which each is wanted exclusively or shared,
// and, where it is shared, with a limit of its own:
//
//	lock, err := m.AcquireSet(ctx,
//		keylock.Want[string]{Key: "/docs", Mode: keylock.Shared},
//		keylock.Want[string]{Key: "/docs/a.txt"})
//
// A request waits in the queue of a key only for those that it cannot share the key with.
// While it waits for another key, shared requests that come later and have no limit pass it
// where it wants to share and has no limit either; all others keep their order. Of a key that
// is named twice the stricter terms count. That of a single key is a lock like that of
// [Manager.Acquire] or [Manager.AcquireShared].
func (m *Manager[K]) AcquireSet(ctx context.Context, set ...Want[K]) (Lock[K], error) {
	return m.acquire(ctx, nil, m.wantSet(set), false)
}

// wantAll asks for all the keys, exclusively.
func wantAll[K comparable](keys []K) table.Request[K] {
	if keys == nil {
		keys = []K{}
	}
	return table.Request[K]{Keys: keys}
}

// acquire is behind all calls that ask and wait; unread is a lock whose value the caller
// has no use for. All that it asks of ctx while the request is under way is whether its
// channel is closed, because its methods may panic.
func (m *Manager[K]) acquire(ctx context.Context, s *sessionState[K], want table.Request[K], unread bool) (Lock[K], error) {
	mustContext(ctx)
	if ctx.Err() != nil {
		return Lock[K]{}, endOf(ctx, keysOf(want))
	}
	if err := checkKeys(&want); err != nil {
		return Lock[K]{}, err
	}
	done := ctx.Done()
	r := m.newAcquire(s, want)
	r.unread = unread
	r.early = done != nil && m.long.Load() == 0 && (r.predicted || trace.IsEnabled())
	if r.long {
		m.long.Add(1)
	}
	if !m.sendUntil(done, message[K]{request: r}) {
		if r.long {
			m.long.Add(-1)
		}
		m.recycle(r)
		return Lock[K]{}, endOf(ctx, keysOf(want))
	}
	return m.wait(ctx, done, r)
}

// wait returns the owner's reply, and abandons the request when ctx ends first.
//
// To receive costs a parked goroutine half of what it costs to select. So a request that
// is likely to be granted at once, when nothing that may take long is before it, is sent as
// an early one, whose caller does not listen to its context yet: the owner replies soon in
// any case. The prediction is that it goes like the last time; a wrong one costs one wake-up
// more.
func (m *Manager[K]) wait(ctx context.Context, done <-chan struct{}, r *acquire[K]) (Lock[K], error) {
	if (!r.early || !m.hear(r)) && !m.listen(ctx, done, r) {
		keys := keysOf(r.want)
		if m.abandonRequest(r) {
			m.leave(r)
			return Lock[K]{}, endOf(ctx, keys)
		}
	}
	m.gate.before("looks at its context")
	if ended.Is(done) {
		return m.tooLate(ctx, r)
	}
	return m.take(r)
}

// tooLate ends a request that has its reply, for a caller whose context has ended. A lock
// that comes with a value is not given back unseen, see Lock.Handoff.
func (m *Manager[K]) tooLate(ctx context.Context, r *acquire[K]) (Lock[K], error) {
	keys := keysOf(r.want)
	if r.err == nil && r.value == nil {
		r.replied <- true // for the owner, who takes the grant back
		m.leave(r)
		return Lock[K]{}, endOf(ctx, keys)
	}
	lock, err := m.take(r)
	if err != nil {
		err = endOf(ctx, keys)
	}
	return lock, err
}

// listen waits for the reply to a request and reports true, or false when done is closed
// first.
func (m *Manager[K]) listen(ctx context.Context, done <-chan struct{}, r *acquire[K]) bool {
	if trace.IsEnabled() && len(r.replied) == 0 {
		defer m.traceWait(ctx, r).End()
	}
	m.gate.selects(ctx, r.replied, r)
	select {
	case <-r.replied:
		return true
	case <-done:
		return false
	}
}

// traceWait begins a region. It asks the context for a value, which may panic: nothing must
// be held then.
func (m *Manager[K]) traceWait(ctx context.Context, r *acquire[K]) (region *trace.Region) {
	defer func() {
		if region == nil {
			m.discard(r)
		}
	}()
	return trace.StartRegion(ctx, "keylock wait")
}

// abandonRequest makes sure that a request is not handed a value any more, so that its caller
// may leave it to the owner. When it was handed one already it waits for the reply, which is
// on its way, and is false.
func (m *Manager[K]) abandonRequest(r *acquire[K]) bool {
	m.gate.before("abandons its request")
	if r.state.CompareAndSwap(pending, abandoned) {
		return true
	}
	m.hear(r)
	return false
}

// hear receives the reply to a request, or first that it has to wait: then it is false.
func (m *Manager[K]) hear(r *acquire[K]) bool {
	m.gate.hears(r.replied, r)
	return <-r.replied
}

// leave leaves a request that was abandoned to the owner, which takes it out of its queues, or
// takes back what it was granted meanwhile: the caller does not wait for that, which halves
// the time that a cancelled call takes to return. It never blocks: a deadline is not late
// because the owner has much to do.
func (m *Manager[K]) leave(r *acquire[K]) {
	if r.long {
		m.long.Add(1)
	}
	m.kept.sends()
	if m.trySend(message[K]{request: (*abandon[K])(r)}) {
		return
	}
	m.gate.before("lists its request")
	next := m.left.Load()
	for r.nextLeft = next; !m.left.CompareAndSwap(next, r); r.nextLeft = next {
		next = m.left.Load()
	}
	// The owner takes the whole list after each message that it receives. The request that was
	// the first of its list sees to it that there is one. The request itself is the owner's now.
	if next == nil {
		m.sendSoon(message[K]{request: wake[K]{}})
	}
}

// sendSoon sends a message, without waiting for room in the mailbox.
func (m *Manager[K]) sendSoon(msg message[K]) {
	if !m.trySend(msg) {
		m.gate.starts(func() { m.send(msg) })
	}
}

// trySend sends a message unless the mailbox is full, and reports whether it has.
func (m *Manager[K]) trySend(msg message[K]) bool {
	m.gate.tries(msg)
	select {
	case m.mailbox <- msg:
	default:
		return false
	}
	m.gate.before("looks whether the manager has ended")
	if m.ended.Load() {
		m.refuseAll()
	}
	return true
}

// discard ends a request whose reply its caller does not want.
func (m *Manager[K]) discard(r *acquire[K]) {
	if m.abandonRequest(r) {
		if r.long {
			m.long.Add(1)
		}
		m.kept.sends()
		m.send(message[K]{request: (*abandon[K])(r)})
		return
	}
	back := &giveBack[K]{r.token, r.value, r.parcel}
	m.recycle(r)
	m.send(message[K]{request: back})
}

// take reads the reply to a request, and ends the request. Here is the one place where every
// call that returns a lock looks whether its session was closed: then the grant has ended, or
// is about to, by Session.Close.
func (m *Manager[K]) take(r *acquire[K]) (lock Lock[K], err error) {
	switch {
	case r.err != nil:
		err = r.err
	case m.hasClosed(r.session) || r.parcel != nil && !r.parcel.take():
		err = ErrClosed
	default:
		lock = Lock[K]{m: m, token: r.token, key: r.want.Key, value: r.value}
		if keys := r.want.Keys; keys != nil {
			if lock.value = manyKeys(len(keys)); len(keys) > 0 {
				lock.key = keys[0]
			}
		}
	}
	m.recycle(r)
	return lock, err
}

// hasClosed reports whether Close of a session was called.
func (m *Manager[K]) hasClosed(s *sessionState[K]) bool {
	if s == nil {
		return false
	}
	m.gate.before("looks whether its session is closed")
	return s.closed.Load()
}

// TryAcquire returns the lock of key if it is free and has no waiter, without waiting. It
// is false when it is not, when the manager is closed or shutting down, and for a key that
// is not equal to itself. To tell these apart, call Acquire on a manager with
// [WithMaxWaiters] of 0. A key that cannot be compared panics.
func (m *Manager[K]) TryAcquire(key K) (Lock[K], bool) {
	if m.keeps() {
		if grant, from := m.takeKept(nil, key); from != nil {
			return Lock[K]{m: m, token: grant, key: key, value: from}, true
		}
	}
	return m.try(nil, table.Request[K]{Key: key})
}

// TryAcquireSet is [Manager.TryAcquire] for all that [Manager.AcquireSet] may ask for: it
// returns all the keys or none. With one shared key it is true when the key has no exclusive
// holder, its limit leaves room, and no request has to wait for it.
func (m *Manager[K]) TryAcquireSet(set ...Want[K]) (Lock[K], bool) {
	return m.try(nil, m.wantSet(set))
}

// try is behind all calls that ask without waiting.
func (m *Manager[K]) try(s *sessionState[K], want table.Request[K]) (Lock[K], bool) {
	if checkKeys(&want) != nil {
		return Lock[K]{}, false
	}
	want.Try = true
	r := m.newAcquire(s, want)
	if r.long {
		m.long.Add(1)
	}
	m.send(message[K]{request: r})
	m.hear(r)
	lock, err := m.take(r)
	return lock, err == nil
}

// Reserve enters the queue of key and returns at once. The order is fixed when Reserve
// returns: of two calls by one goroutine the earlier is granted first, in whichever order
// the reservations are waited for. This is how work that runs concurrently keeps its
// order; acquiring inside the goroutines would not, because goroutines do not start in
// order.
//
// Every reservation must be waited for or cancelled: once granted it holds the key.
// Reserve itself never fails; whatever [Manager.Acquire] would return, Wait returns. A
// key that cannot be compared panics.
func (m *Manager[K]) Reserve(key K) Reservation[K] {
	return m.reserve(nil, table.Request[K]{Key: key})
}

// ReserveSet is [Manager.Reserve] for all that [Manager.AcquireSet] may ask for: it enters the
// queue of each key, all at one instant.
func (m *Manager[K]) ReserveSet(set ...Want[K]) Reservation[K] {
	return m.reserve(nil, m.wantSet(set))
}

// reserve is behind all calls that ask now and wait later.
func (m *Manager[K]) reserve(s *sessionState[K], want table.Request[K]) Reservation[K] {
	err := checkKeys(&want)
	r := m.newAcquire(s, want)
	r.reserved = true
	reservation := Reservation[K]{m: m, r: r, generation: r.generation.Add(1)}
	if err != nil {
		r.replyUnsent(err)
	} else if !m.takeReserved(r) {
		if r.long {
			m.long.Add(1)
		}
		m.sendReservation(r)
	}
	return reservation
}

// sendReservation sends the request of a reservation, which is counted where grants are kept.
func (m *Manager[K]) sendReservation(r *acquire[K]) {
	if m.kept == nil {
		m.send(message[K]{request: r})
		return
	}
	m.kept.sends()
	m.send(message[K]{request: (*countedReservation[K])(r)})
}

// keeps reports whether a manager keeps grants.
func (m *Manager[K]) keeps() bool { return m != nil && m.kept != nil }

// takes reports whether a request may take what is kept of its key.
func (m *Manager[K]) takes(s *sessionState[K], want *table.Request[K]) bool {
	return m.keeps() && s == nil && want.Keys == nil && want.Mode == table.Exclusive
}

// takeKept takes what is kept of a key, unless ended is an error, the one of the caller's context.
// From is nil when it does not. Its callers make the lock where they return it: to return one from here,
// and copy it, was a tenth of the whole call.
func (m *Manager[K]) takeKept(ended error, key K) (grant table.Token[K], from *cellWord) {
	if ended != nil {
		return grant, nil
	}
	if grant, from = m.kept.take(key); from == nil && grant.Seq() > 0 {
		m.send(message[K]{release: grant})
	}
	return grant, from
}

// takeReserved takes what is kept of the key of a reservation, and replies to it.
func (m *Manager[K]) takeReserved(r *acquire[K]) bool {
	if !m.takes(r.session, &r.want) {
		return false
	}
	grant, from := m.takeKept(nil, r.want.Key)
	if from != nil {
		r.token = grant
		r.replyUnsent(nil)
	}
	return from != nil
}

// Do acquires key, calls fn with ctx, and releases key when fn returns, panics or calls
// runtime.Goexit. It returns the error of [Manager.Acquire], in which case fn was not
// called, or the error of fn as it is. A nil fn panics before anything is acquired.
func (m *Manager[K]) Do(ctx context.Context, key K, fn func(context.Context) error) error {
	return m.do(ctx, nil, table.Request[K]{Key: key}, fn)
}

// do is behind the Do of a manager and that of a session.
func (m *Manager[K]) do(ctx context.Context, s *sessionState[K], want table.Request[K], fn func(context.Context) error) error {
	if m.mustBeStarted(); fn == nil {
		panic("keylock: Do with a nil function")
	}
	if m.takes(s, &want) {
		mustContext(ctx)
		if grant, from := m.takeKept(ctx.Err(), want.Key); from != nil {
			defer Lock[K]{m: m, token: grant, key: want.Key, value: from}.Release()
			return fn(ctx)
		}
	}
	lock, err := m.acquire(ctx, s, want, true)
	if err != nil {
		return err
	}
	defer lock.Release()
	return fn(ctx)
}

// Locker returns the lock of key as a [sync.Locker], for code that wants one: a sync.Cond, or
// an interface with Lock and Unlock. Each Locker is one holder at a time: its Unlock ends what its
// own Lock has acquired, and an Unlock without a Lock panics, as that of a sync.Mutex does. A
// Locker that is locked by several goroutines gives the key to one after the other.
//
// Lock has neither a context nor an error. It panics with the error of [Manager.Acquire]:
// [ErrClosed] when the manager is or becomes closed, [ErrInvalidKey] for a key that is not equal
// to itself, and [ErrQueueFull] where [WithMaxWaiters] says so. Unlock does nothing after the end.
//
// End the goroutines that wait for a sync.Cond on a Locker before the manager: one that wakes up
// after Shutdown panics with ErrClosed in its Wait, and if it has deferred an Unlock, that ends what
// another goroutine may have acquired with the same Locker.
func (m *Manager[K]) Locker(key K) sync.Locker {
	m.mustBeStarted()
	return &locker[K]{m: m, key: key}
}

// A locker is behind Locker.
type locker[K comparable] struct {
	m    *Manager[K]
	key  K
	held atomic.Pointer[Lock[K]] // nil while it is not locked

	closed atomic.Bool // Lock has panicked with ErrClosed
}

func (l *locker[K]) Lock() {
	lock, err := l.m.Acquire(context.Background(), l.key)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			l.closed.Store(true)
		}
		panic(err)
	}
	l.held.Store(&lock)
}

func (l *locker[K]) Unlock() {
	switch lock := l.held.Swap(nil); {
	case lock != nil:
		lock.Release()
	case l.closed.Load() || l.m.ended.Load(): // perhaps deferred by the caller of that Lock
	default:
		panic("keylock: Unlock of a Locker that is not locked")
	}
}

// WaitIdle waits for the first moment after the call at which no key is held or waited
// for, and returns nil; at once if that is now. By the time it returns a key may be held
// again. It returns an error that wraps ctx.Err() when ctx ends first, and [ErrClosed]
// when the manager is or becomes closed before that moment.
func (m *Manager[K]) WaitIdle(ctx context.Context) error {
	mustContext(ctx)
	done := ctx.Done()
	var w waitIdle[K]
	busy, err := askAll(ctx, m, w.wait)
	if err != nil {
		w.leave(m)
		return err
	}
	if busy == nil {
		return nil
	}
	m.gate.selects(ctx, busy.over, busy)
	select {
	case <-busy.over:
	case <-done:
	}
	m.gate.before("looks at its context")
	if ended.Is(done) {
		w.leave(m)
		return endOf(ctx, named[K]{})
	}
	return busy.err
}

// idle is one busy period, shared by all that wait for its end.
type idle struct {
	over chan struct{} // closed when the manager is idle, or closed
	err  error         // which of the two; written before over is closed
}

// busyPeriod returns what to wait for until the manager is idle; nil when it is.
func (o *owner[K]) busyPeriod() *idle {
	if o.idle == nil && !o.table.Idle() {
		o.idle = &idle{over: make(chan struct{})}
	}
	return o.idle
}

// Shutdown refuses new requests with [ErrClosed], serves everything that is queued,
// waits until every holder has released, and ends the manager. It then returns nil, as
// it does on a manager that has ended.
//
// When ctx ends first, also when it is done already, Shutdown returns an error that wraps
// ctx.Err(), and the manager goes on draining: Shutdown can be called again, or Close can
// follow. When Close or the end of Start's context ends the manager meanwhile, Shutdown
// returns [ErrClosed].
func (m *Manager[K]) Shutdown(ctx context.Context) error {
	mustContext(ctx)
	m.mustBeStarted()
	done := ctx.Done()
	r := &shutdown[K]{drains: make(chan bool, 1)}
	m.kept.sends()
	if !m.sendUntil(done, message[K]{request: r}) {
		m.sendSoon(message[K]{request: r}) // the manager drains in any case
		return endOf(ctx, named[K]{})
	}
	drains := false
	m.gate.selects(ctx, r.drains, r)
	select {
	case drains = <-r.drains:
	case <-done:
	}
	m.gate.selects(ctx, m.done, m)
	select {
	case <-m.done:
	case <-done:
	}
	m.gate.before("looks at its context")
	switch {
	case ended.Is(done) || ctx.Err() != nil:
		return endOf(ctx, named[K]{})
	case drains:
		return m.cause
	}
	return nil
}

// Close ends the manager at once: waiters and later calls get [ErrClosed], holders keep
// what they hold. When it returns the owner has exited. It always returns nil and may
// be called again, and by many at once.
func (m *Manager[K]) Close() error {
	m.mustBeStarted()
	m.long.Add(1) // for good
	m.send(message[K]{request: closing[K]{}})
	m.gate.hears(m.done, m)
	<-m.done
	return nil
}

// Done returns a channel that is closed when the manager has ended and its goroutine
// has exited.
func (m *Manager[K]) Done() <-chan struct{} {
	m.mustBeStarted()
	return m.done
}

// mustContext panics, in the caller, for a nil context.
func mustContext(ctx context.Context) {
	if ctx == nil {
		panic("keylock: nil context")
	}
}

// checkKeys returns an error for a key that a map could not find again, and panics, here
// and not in the owner, for one that cannot be compared.
func checkKeys[K comparable](want *table.Request[K]) error {
	if !findable(want.Key) {
		return &keyError[K]{sentinel: ErrInvalidKey, key: want.Key}
	}
	for _, key := range want.Keys {
		if !findable(key) {
			return &keyError[K]{sentinel: ErrInvalidKey, key: key}
		}
	}
	return nil
}

// findable is false for NaN and whatever contains one.
func findable[K comparable](key K) bool {
	same := key
	return key == same
}
