// Package keylock grants locks by key inside one process. A lock exists while
// somebody holds it or waits for it, and not a moment longer.
//
//	m := keylock.Start[string](ctx)
//	defer m.Close()
//
//	lock, err := m.Acquire(ctx, "order/42")
//	if err != nil {
//		return err
//	}
//	defer lock.Release()
//
// A [Manager] is one goroutine, its owner, that holds all state. Every call is a
// request sent to it over a channel, and the order in which it receives them is the
// history of the manager: whether a request is granted or cancelled, whether the
// manager is idle, whether it is closed, is decided in one place, once. There is no
// mutex, so there is nothing to lock around the locks.
//
// # Guarantees
//
//  1. Exclusion. At most one exclusive grant per key is live, and no shared one beside it.
//  2. Order. A key is granted in the order in which requests reached the owner. Calls
//     of one goroutine reach it in program order, so [Manager.Reserve] in a loop fixes
//     the order of work that then runs concurrently. Nobody overtakes: not TryAcquire,
//     not a release followed by an immediate acquisition.
//  3. Independence. A key never waits for the holder of another key.
//  4. Cancellation. A wait ends with ctx.Err() as soon as its context does, leaves the
//     queue at a cost that does not depend on its length, and changes nobody else's
//     order. A context that is done never acquires, even when the key is free.
//  5. Grant or cancel, never both, never neither. A grant that races with a
//     cancellation is given back and goes to the next waiter; no grant is lost. What
//     [Lock.Handoff] passes on goes to the next waiter in one transition, and is not lost.
//  6. Release is exact. It ends the one grant that it came from. Again, late, from
//     another goroutine, from a copy or after Close it does nothing, and it can never
//     free somebody else's grant. It never waits for a critical section.
//  7. Eviction is immediate. A key that is neither held nor waited for occupies
//     nothing, and the memory of a burst goes back.
//  8. Idle. [Manager.WaitIdle] returns nil at the first moment after the call when no
//     key is active, at once if none is. Any number of callers may wait; keys that are
//     acquired before that moment also count.
//  9. Shutdown. After [Manager.Close], or when Start's context ends, nothing is granted
//     any more: queued waiters and later calls get [ErrClosed]. [Manager.Shutdown]
//     refuses new requests, serves everything that is queued, waits for every holder,
//     then stops.
//  10. No leaks. One goroutine per manager. A waiting call starts none. After
//     [Manager.Done] is closed none is left, whatever was held or queued. (For a context
//     of a type that it does not know, package context watches Start's with one more. And
//     [WithSlowLog] has one for its logger, which ends when the logger returns.)
//  11. One history. [Manager.Stats], [Manager.Contains] and [Manager.Snapshot] each show
//     one point of it; a goroutine always sees its own earlier calls in them.
//  12. The owner never runs user code and never waits for a caller. A key that cannot be
//     a map key fails in its own call, on the caller's goroutine, and every other caller
//     goes on undisturbed.
//  13. Memory model. A release happens before the return of the next acquisition of
//     that key.
//  14. Bubbles. A manager started in a testing/synctest bubble is fully visible to it,
//     so users can test their own code in fake time.
//  15. Scope. [Manager.Do] releases when its function returns, panics or calls
//     runtime.Goexit, and returns the function's error as it is.
//
// # Where two of them meet
//
// A context that is done wins over everything: over a free key, over a reservation
// that was granted, over [ErrClosed]. Every call that takes a context keeps to that, but
// for a lock that was handed over with a value, see [Lock.Handoff]. A nil context panics
// in the caller, as in the standard library.
//
// # Shared locks, many keys, sessions
//
// A key has one line for exclusive and shared requests. Each is granted when it conflicts
// with no holder and with no earlier waiter, so neighbouring shared requests are granted
// together, and writers do not starve ([Manager.AcquireShared], [WithSharedLimit]). A
// request for many keys takes its place in all their lines at one instant and is granted
// when it stands first in all ([Manager.AcquireAll]). A [Session] may wait while it holds:
// the request that would close a cycle of waits fails with a [*DeadlockError].
//
// Declined are the upgrade of a shared lock in place, because two holders who both try wait
// for each other for ever; re-entrancy; and leases that expire under a live holder, because
// that lets two in.
//
// # When the manager ends
//
// Locks that are held when the manager ends stay with their holders: nobody else is
// ever let in, and their release does nothing.
package keylock

import (
	"context"
	"runtime/trace"
	"sync"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Manager grants locks by key. Its methods may be called from any goroutine. Use
// [Start] to make one; the zero Manager is not usable.
type Manager[K comparable] struct {
	mailbox chan message[K]
	pool    sync.Pool     // of *acquire[K]; the manager's own, because channels must not leave a synctest bubble
	ended   atomic.Bool   // set by the owner before it reads the mailbox for the last time
	cause   error         // why Shutdown could not finish; written before done is closed
	done    chan struct{} // closed when the owner has exited
	watched bool          // a stay is noted of every request
	callers bool          // and in it who asked
}

// Start starts a manager, which runs until [Manager.Close], [Manager.Shutdown] or the
// end of ctx; the latter works like Close. A manager that nobody ends keeps its
// goroutine for ever. Start panics when ctx is nil.
func Start[K comparable](ctx context.Context, opts ...Option) *Manager[K] {
	if ctx == nil {
		panic("keylock: Start with a nil context")
	}
	var options options
	for _, set := range opts {
		set(&options)
	}
	m := &Manager[K]{
		mailbox: make(chan message[K], mailboxSize),
		done:    make(chan struct{}),
	}
	m.pool.New = func() any { return &acquire[K]{replied: make(chan bool, 2), predicted: true} }

	o := &owner[K]{m: m, table: table.New[K](options.table)}
	o.observe(options)
	// The owner asks its context at every request, so it gets one whose methods are not
	// user code, whatever the caller passed.
	var cancel context.CancelFunc
	o.ctx, cancel = context.WithCancel(ctx)
	// It does not select on the context, because one receive costs half of a select:
	// somebody wakes it up instead. When the mailbox is full it is awake.
	woken := make(chan struct{})
	stop := context.AfterFunc(o.ctx, func() {
		defer close(woken)
		select {
		case m.mailbox <- message[K]{request: wake[K]{}}:
		default:
		}
	})
	go func() {
		o.run()
		o.meter.end()
		if !stop() {
			<-woken
		}
		cancel()
		close(m.done)
	}()
	return m
}

// mailboxSize is how many requests may wait for the owner before their senders do.
const mailboxSize = 128

// An owner is the goroutine that owns the lock table. Only run and the serve methods
// of the requests touch its fields.
type owner[K comparable] struct {
	m        *Manager[K]
	ctx      context.Context
	table    *table.Table[K]
	meter    meter[K]
	idle     *idle // what WaitIdle calls wait for; nil while nobody does
	draining bool  // Shutdown was called: nobody new is let in
	ended    bool
}

// run receives one request after the other, until the end.
func (o *owner[K]) run() {
	for !o.ended {
		msg := <-o.m.mailbox
		o.meter.next(len(o.m.mailbox))
		if o.ctx.Err() != nil {
			o.end(ErrClosed)
			msg.request.refuse()
			break
		}
		msg.request.serve(o, msg.token)
	}
	o.m.ended.Store(true)
	o.m.refuseAll()
}

// tell hands grants to those who waited for them.
func (o *owner[K]) deliver(grants []table.Grant[K]) {
	if len(grants) == 0 {
		return
	}
	now := o.meter.now()
	for _, g := range grants {
		r := g.Tag.(*acquire[K])
		o.waited(r, now, "granted")
		if r.tracked != nil {
			o.held(r, g.Token, now)
		}
		r.reply(g.Token, nil)
	}
}

// left does what is due after somebody left the table.
func (o *owner[K]) checkIdle() {
	if !o.table.Idle() {
		return
	}
	if o.idle != nil {
		close(o.idle.over)
		o.idle = nil
	}
	if o.draining {
		o.end(nil)
	}
}

// end stops the manager: everybody who waits gets ErrClosed, holders keep what they
// hold. The cause is what a Shutdown that is under way returns.
func (o *owner[K]) end(cause error) {
	o.ended = true
	o.m.cause = cause
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

// send puts a request into the mailbox. It never blocks for long: the owner waits for
// nobody. And every request that is sent is served or refused, also when the owner is
// about to exit, or gone: it sets ended before it empties the mailbox for the last
// time, so a sender who sees ended unset after its send was in time, and one who sees
// it set empties the mailbox itself.
func (m *Manager[K]) send(request request[K], token table.Token[K]) {
	m.mailbox <- message[K]{request, token}
	if m.ended.Load() {
		m.refuseAll()
	}
}

// refuseAll refuses what is in the mailbox. Any number may do so at once: each request
// is received by one of them.
func (m *Manager[K]) refuseAll() {
	for {
		select {
		case msg := <-m.mailbox:
			msg.request.refuse()
		default:
			return
		}
	}
}

// Acquire waits until key is free and everybody who asked for it earlier has had it,
// and returns the lock.
//
// It returns ctx.Err() when ctx ends first, also when key is free and ctx is already
// done; [ErrClosed] when the manager is or becomes closed, or is shutting down;
// [ErrQueueFull] when key has as many waiters as [WithMaxWaiters] allows; and
// [ErrInvalidKey] for a key that is not equal to itself. A key that cannot be compared
// panics. When it fails it returns the zero Lock.
func (m *Manager[K]) Acquire(ctx context.Context, key K) (Lock[K], error) {
	return m.acquire(ctx, table.Request[K]{Key: key})
}

// AcquireShared is [Manager.Acquire] for a lock that is shared: any number of shared
// locks of a key, or as many as [WithSharedLimit] allows, are held together, and never
// with an exclusive one. The line is one: a shared request waits for every exclusive
// one that came before it, so neither kind starves.
func (m *Manager[K]) AcquireShared(ctx context.Context, key K) (Lock[K], error) {
	return m.acquire(ctx, table.Request[K]{Key: key, Mode: table.Shared})
}

// AcquireAll waits until all the keys are free for it at once, and returns the locks,
// which are exclusive. It takes its place in every line at one instant and is granted
// when it stands first in all of them: all or nothing. Keys that are named twice count
// once; with no keys it is granted at once.
//
// It cannot deadlock, because requests are totally ordered by their arrival: the
// earliest one never waits for a later one. The price is that its place in the line of
// a key that is already free blocks those behind it until the other keys are free too.
//
// It fails as [Manager.Acquire] does, and holds nothing then.
func (m *Manager[K]) AcquireAll(ctx context.Context, keys ...K) (Locks[K], error) {
	lock, err := m.acquire(ctx, wantAll(nil, keys))
	return Locks[K]{lock}, err
}

// wantAll asks for all the keys, exclusively.
func wantAll[K comparable](s *table.Session[K], keys []K) table.Request[K] {
	if keys == nil {
		keys = []K{}
	}
	return table.Request[K]{Keys: keys, Session: s}
}

// acquire is behind all calls that ask and wait.
func (m *Manager[K]) acquire(ctx context.Context, want table.Request[K]) (Lock[K], error) {
	mustContext(ctx)
	if err := ctx.Err(); err != nil {
		return Lock[K]{}, err
	}
	if err := checkKeys(want); err != nil {
		return Lock[K]{}, err
	}
	r := m.newAcquire(want)
	r.early = ctx.Done() != nil && (r.predicted || trace.IsEnabled())
	m.send(r, table.Token[K]{})
	return m.wait(ctx, r)
}

// wait returns what the owner answers, and withdraws the request when ctx ends first.
//
// To receive costs a parked goroutine half of what it costs to select, so a request that
// is likely to be granted at once is sent as a prompt one, whose caller need not listen
// to its context yet: the owner will tell in any case. The guess is that it goes like
// the last time; a wrong one costs one wake-up more.
func (m *Manager[K]) wait(ctx context.Context, r *acquire[K]) (Lock[K], error) {
	if (!r.early || !<-r.replied) && !m.listen(ctx, r) {
		return Lock[K]{}, ctx.Err()
	}
	lock, err := m.take(r)
	// A lock that comes with a value is not given back unseen, see Lock.Handoff.
	if ctxErr := ctx.Err(); ctxErr != nil && lock.value == nil {
		lock.Release()
		return Lock[K]{}, ctxErr
	}
	return lock, err
}

// listen waits until the request is answered and returns true; or withdraws it when ctx
// ends first, and returns false.
func (m *Manager[K]) listen(ctx context.Context, r *acquire[K]) bool {
	if trace.IsEnabled() && len(r.replied) == 0 {
		defer trace.StartRegion(ctx, "keylock wait").End()
	}
	select {
	case <-r.replied:
		return true
	case <-ctx.Done():
		return !m.abandonRequest(r)
	}
}

// withdraw leaves a request to the owner, who takes it out of its lines, or gives back
// what it was granted meanwhile: nobody waits for that, which halves the time that a
// cancelled call takes to return. It is false when the request must not be left, because
// a value was handed over to it: then it is answered.
func (m *Manager[K]) abandonRequest(r *acquire[K]) bool {
	if !r.state.CompareAndSwap(pending, abandoned) {
		<-r.replied
		return false
	}
	m.send((*abandon[K])(r), table.Token[K]{})
	return true
}

// take reads the answer to a request, and ends the request.
func (m *Manager[K]) take(r *acquire[K]) (lock Lock[K], err error) {
	if err = r.err; err == nil {
		lock = Lock[K]{m: m, token: r.token, key: r.want.Key, value: r.value}
	}
	m.recycle(r)
	return lock, err
}

// TryAcquire returns the lock of key if it is free and nobody waits for it, without
// waiting. It is false when it is not, when the manager is closed or shutting down, and
// for a key that is not equal to itself. A key that cannot be compared panics.
func (m *Manager[K]) TryAcquire(key K) (Lock[K], bool) {
	return m.try(table.Request[K]{Key: key})
}

// TryAcquireShared is [Manager.TryAcquire] for a shared lock: it is true when key has no
// exclusive holder, nobody waits for it, and [WithSharedLimit] leaves room.
func (m *Manager[K]) TryAcquireShared(key K) (Lock[K], bool) {
	return m.try(table.Request[K]{Key: key, Mode: table.Shared})
}

// TryAcquireAll is [Manager.TryAcquire] for many keys: all of them or none.
func (m *Manager[K]) TryAcquireAll(keys ...K) (Locks[K], bool) {
	lock, ok := m.try(wantAll(nil, keys))
	return Locks[K]{lock}, ok
}

// try is behind all calls that ask without waiting.
func (m *Manager[K]) try(want table.Request[K]) (Lock[K], bool) {
	if checkKeys(want) != nil {
		return Lock[K]{}, false
	}
	want.Try = true
	r := m.newAcquire(want)
	m.send(r, table.Token[K]{})
	<-r.replied
	lock, err := m.take(r)
	return lock, err == nil
}

// Reserve takes the next place in the line for key and returns at once. The place is
// fixed when Reserve returns: of two calls by one goroutine the earlier is granted
// first, in whichever order the reservations are waited for. This is how work that runs
// concurrently keeps its order; acquiring inside the goroutines would not, because
// goroutines do not start in order.
//
// Every reservation must be waited for or cancelled: once granted it holds the key.
// Reserve itself never fails; whatever [Manager.Acquire] would return, Wait returns. A
// key that cannot be compared panics.
func (m *Manager[K]) Reserve(key K) Reservation[K] {
	return m.reserve(table.Request[K]{Key: key})
}

// ReserveShared is [Manager.Reserve] for a shared lock, see [Manager.AcquireShared].
func (m *Manager[K]) ReserveShared(key K) Reservation[K] {
	return m.reserve(table.Request[K]{Key: key, Mode: table.Shared})
}

// ReserveAll is [Manager.Reserve] for many keys: it takes the next place in the line of
// each of them, all at one instant, see [Manager.AcquireAll].
func (m *Manager[K]) ReserveAll(keys ...K) Reservations[K] {
	return Reservations[K]{m.reserve(wantAll(nil, keys))}
}

// reserve is behind all calls that ask now and wait later.
func (m *Manager[K]) reserve(want table.Request[K]) Reservation[K] {
	err := checkKeys(want)
	r := m.newAcquire(want)
	r.reserved = true
	reservation := Reservation[K]{m: m, r: r, generation: r.generation.Add(1)}
	if err != nil {
		r.replyUnsent(err)
	} else {
		m.send(r, table.Token[K]{})
	}
	return reservation
}

// Do acquires key, calls fn with ctx, and releases key when fn returns, panics or calls
// runtime.Goexit. It returns the error of [Manager.Acquire], in which case fn was not
// called, or the error of fn as it is.
func (m *Manager[K]) Do(ctx context.Context, key K, fn func(context.Context) error) error {
	return m.do(ctx, table.Request[K]{Key: key}, fn)
}

// do is behind the Do of a manager and that of a session.
func (m *Manager[K]) do(ctx context.Context, want table.Request[K], fn func(context.Context) error) error {
	lock, err := m.acquire(ctx, want)
	if err != nil {
		return err
	}
	defer lock.Release()
	return fn(ctx)
}

// Contains reports whether key is held or waited for. It returns ctx.Err() when ctx is
// done, [ErrClosed] after the end, and [ErrInvalidKey] for a key that is not equal to
// itself. A key that cannot be compared panics.
func (m *Manager[K]) Contains(ctx context.Context, key K) (bool, error) {
	mustContext(ctx)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := checkKeys(table.Request[K]{Key: key}); err != nil {
		return false, err
	}
	q := newQuestion[bool]()
	return ask(ctx, m, &contains[K]{q, key}, q)
}

// WaitIdle waits for the first moment after the call at which no key is held or waited
// for, and returns nil; at once if that is now. By the time it returns somebody may
// have acquired again. It returns ctx.Err() when ctx ends first, and [ErrClosed] when
// the manager is or becomes closed before that moment.
func (m *Manager[K]) WaitIdle(ctx context.Context) error {
	mustContext(ctx)
	q := newQuestion[*idle]()
	busy, err := ask(ctx, m, &waitIdle[K]{q}, q)
	if busy == nil || err != nil {
		return err
	}
	select {
	case <-busy.over:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return busy.err
}

// Shutdown refuses new requests with [ErrClosed], serves everything that is queued,
// waits until every holder has released, and ends the manager. It then returns nil, as
// it does on a manager that has ended.
//
// When ctx ends first, also when it is done already, Shutdown returns ctx.Err() and the
// manager goes on draining: Shutdown can be called again, or Close can follow. When
// Close or the end of Start's context ends the manager meanwhile, Shutdown returns
// [ErrClosed].
func (m *Manager[K]) Shutdown(ctx context.Context) error {
	mustContext(ctx)
	r := &shutdown[K]{drains: make(chan bool, 1)}
	m.send(r, table.Token[K]{})
	drains := <-r.drains
	select {
	case <-m.done:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !drains {
		return nil
	}
	return m.cause
}

// Close ends the manager at once: waiters and later calls get [ErrClosed], holders keep
// what they hold. When it returns the owner has exited. It always returns nil and may
// be called again, and by many at once.
func (m *Manager[K]) Close() error {
	m.send(closing[K]{}, table.Token[K]{})
	<-m.done
	return nil
}

// Done returns a channel that is closed when the manager has ended and its goroutine
// has exited.
func (m *Manager[K]) Done() <-chan struct{} { return m.done }

// ask sends a request whose question the owner answers at once, and returns the answer.
func ask[K comparable, V any](ctx context.Context, m *Manager[K], r request[K], q question[V]) (V, error) {
	var none V
	if err := ctx.Err(); err != nil {
		return none, err
	}
	m.send(r, table.Token[K]{})
	select {
	case a := <-q.replied:
		if err := ctx.Err(); err != nil {
			return none, err
		}
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// mustContext panics, in the caller, for a nil context.
func mustContext(ctx context.Context) {
	if ctx == nil {
		panic("keylock: nil context")
	}
}

// checkKeys returns an error for a key that a map could not find again, and panics, here
// and not in the owner, for one that cannot be compared.
func checkKeys[K comparable](want table.Request[K]) error {
	if !findable(want.Key) {
		return &keyError{sentinel: ErrInvalidKey, key: want.Key}
	}
	for _, key := range want.Keys {
		if !findable(key) {
			return &keyError{sentinel: ErrInvalidKey, key: key}
		}
	}
	return nil
}

// findable is false for NaN and whatever contains one.
func findable[K comparable](key K) bool {
	same := key
	return key == same
}
