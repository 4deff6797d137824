package keylock

import (
	"context"
	"fmt"
	"math"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/show"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Lock is one grant, of a key or of many. It is a small value that may be copied, and
// released from any goroutine. The zero Lock is released.
type Lock[K comparable] struct {
	m     *Manager[K]
	token table.Token[K]
	key   K   // the first one
	value any // that came with it; manyKeys when it is of many, and a *cellWord when it was taken from a cell
}

// manyKeys is how many keys a request has named that is not for one key. Such a lock comes
// with no value, so its Lock has it there.
type manyKeys int

// ofMany reports whether it is the lock of many keys, be they one or none.
func (l *Lock[K]) ofMany() bool {
	_, many := l.value.(manyKeys)
	return many
}

// Release ends the grant, so that the next waiter gets the key; of many keys it ends all at
// one instant. Only the first Release of a grant, by whichever copy, does anything; none after
// the manager has ended does, nor does that of the zero Lock. It does not wait until the
// next waiter runs.
func (l Lock[K]) Release() {
	switch m := l.m; {
	case m == nil:
	case l.ofMany():
		m.long.Add(1)
		m.send(message[K]{request: &releaseAll[K]{l.token}})
	case m.kept == nil || !m.kept.park(l.key, l.value, l.token):
		m.send(message[K]{release: l.token})
	}
}

// Key returns the key that was granted, of many keys the first that was named; the zero key
// for the zero Lock.
func (l Lock[K]) Key() K { return l.key }

// Seq returns the number of the grant: from 1, strictly increasing over the manager's
// life in the order in which it granted; 0 for the zero Lock. With [WithKeptGrants] it increases so
// for each key, and of two grants that have no key in common the later may have the lower number.
func (l Lock[K]) Seq() uint64 { return l.token.Seq() }

// Handoff passes the lock on, with a value, to the next waiter, in one transition: it
// ends this grant and returns true. The next holder finds the value in [Lock.Value]; shared
// waiters that are granted together all do. The order is that of a release, and if very many
// share they are granted in parts, as by a release: the first at once, and each with the value.
// A request that comes after the handoff finds none.
//
// It returns false, and the lock stays held, when there is no waiter; when the lock is of
// many keys; when the next waiter could not read the value, because it is a Do or requests
// many keys, or has to wait for other holders, or is one of very many that are granted beside
// this lock in any case; and when the grant, or the manager, has ended. A waiter whose caller
// has left is passed over, and its wait ends then, which may be before calls take effect that
// were made shortly before it left and do not wait for the owner: Release, Cancel and Reserve.
//
// A value other than nil is not lost when its receiver is cancelled at that moment: the call
// returns the lock with the value, and no error, even if its context has ended. When its
// session is closed, or the reservation cancelled, before the call has returned, the lock
// and the value go to the next waiter; when there is none, or it could not read the value,
// the value is dropped.
func (l Lock[K]) Handoff(value any) bool {
	if l.m == nil || l.ofMany() {
		return false
	}
	r := &handoff[K]{grant: l.token, value: value, passed: make(chan bool, 1)}
	l.m.send(message[K]{request: r})
	l.m.gate.hears(r.passed, r)
	return <-r.passed
}

// Value returns the value with which the last holder handed the lock off; nil when it called
// Release, and for a lock of many keys.
func (l Lock[K]) Value() any {
	switch l.value.(type) {
	case manyKeys, *cellWord:
		return nil
	}
	return l.value
}

// Wanted returns a channel that is closed when a request has to wait behind this grant, for a
// key of it, whatever the modes. A holder who can stop, or who keeps the lock only in case it
// needs it again, may release it then; nothing ends the grant for it. A request that is refused
// because it may not wait, such as a try, does not count, and neither does one that shares the
// key at once.
//
// The channel is closed already if a request waits when Wanted is called, and stays closed when
// that request is cancelled; call Wanted again to learn whether one still waits. It is closed
// as well when the grant ends, by whichever copy, and when the manager does, so a goroutine
// that waits for it does not wait forever. That of the zero Lock is closed.
//
// A grant for which Wanted is not called costs nothing more.
func (l Lock[K]) Wanted() <-chan struct{} {
	r := &watch[K]{grant: l.token, wanted: make(chan struct{}), replied: make(chan bool, 1)}
	if l.m == nil {
		close(r.wanted)
		return r.wanted
	}
	l.m.send(message[K]{request: r})
	l.m.gate.hears(r.replied, r)
	<-r.replied
	return r.wanted
}

// Downgrade makes an exclusive lock shared, all its keys at one instant, without a gap in which
// another request could have them exclusively. Shared requests that wait directly behind it are
// granted. It does nothing when the lock is shared, or released, or the manager has ended. Like
// Release it waits for no request. There is no way back, see "Shared locks, many keys, sessions".
func (l Lock[K]) Downgrade() {
	if l.m == nil {
		return
	}
	long := l.ofMany()
	if long {
		l.m.long.Add(1)
	}
	l.m.send(message[K]{request: &downgrade[K]{l.token, long}})
}

// A Reservation is a claim on a future grant, made by [Manager.Reserve] and its kin. It is used
// once, by a Wait or by a Cancel; it may be copied, but its copies are one reservation.
// The zero Reservation is used up: Wait returns [ErrReservationDone], Cancel does
// nothing.
type Reservation[K comparable] struct {
	m          *Manager[K]
	r          *acquire[K]
	generation uint64
}

// Wait waits until the reservation is granted and returns the lock.
//
// It returns an error that wraps ctx.Err() when ctx ends first, or is done already: the
// reservation is cancelled, or its grant given back. It returns [ErrReservationDone] when
// the reservation was used before, or when Cancel ends this Wait; and what [Manager.Acquire] returns for a bad key, a full
// queue and a closed manager. When it fails it returns the zero Lock.
func (v Reservation[K]) Wait(ctx context.Context) (Lock[K], error) {
	mustContext(ctx)
	done, err := ctx.Done(), ctx.Err()
	if !v.claim() {
		if err != nil {
			return Lock[K]{}, endOf(ctx, named[K]{})
		}
		return Lock[K]{}, ErrReservationDone
	}
	if err != nil && !ended.Is(done) { // some contexts set Err a moment before they close Done
		closed := make(chan struct{})
		close(closed)
		done = closed
	}
	return v.m.wait(ctx, done, v.r)
}

// Cancel leaves the queue, or gives the grant back if there was one already, and ends a
// Wait that is under way. After a successful Wait it does nothing, so it may be deferred.
func (v Reservation[K]) Cancel() {
	switch {
	case v.claim():
		v.m.discard(v.r)
	case v.claimed():
		v.m.send(message[K]{request: &cancelReservation[K]{v.r, v.generation}})
	}
}

// claim is true for one caller per reservation.
func (v Reservation[K]) claim() bool {
	if v.r == nil {
		return false
	}
	v.m.gate.before("claims its reservation")
	return v.r.generation.CompareAndSwap(v.generation, claimed(v.generation))
}

// claimed reports whether a Wait or a Cancel has claimed it and is not over.
func (v Reservation[K]) claimed() bool {
	if v.r == nil {
		return false
	}
	v.m.gate.before("looks who has claimed it")
	return v.r.generation.Load() == claimed(v.generation)
}

// A Session is one logical holder of locks: a transaction, a job, a request that is being
// handled. It has the calls of the [Manager], and one promise more: a session may wait
// while it holds, and cannot deadlock by it. A request that would make the session wait
// for itself, along any chain of holders and waiters, returns a [*DeadlockError] instead of
// waiting forever. So does asking again for a key that the session holds, because a lock is
// not re-entrant. Only a request can close such a chain, and a request that is refused
// changes nothing for others.
//
// The promise is about sessions: the manager cannot know what a goroutine that acquires
// without a session holds already.
//
// A session stands for one actor, but its methods may be called from any goroutine. All
// its requests count as waits of that one actor.
type Session[K comparable] struct {
	m     *Manager[K]
	state sessionState[K]
}

// Session returns a new session. The label names it to people, in errors and snapshots;
// it need not be unique. A session costs nothing while it neither holds nor waits, and then
// need not be closed.
func (m *Manager[K]) Session(label string) *Session[K] {
	m.mustBeStarted()
	return &Session[K]{m: m, state: sessionState[K]{entries: table.NewSession[K](label)}}
}

// manager returns the session's manager, and panics, in the caller, for a Session that
// Manager.Session did not make.
func (s *Session[K]) manager() *Manager[K] {
	if s == nil || s.m == nil {
		panic("keylock: a Session must be made by Manager.Session")
	}
	return s.m
}

// Acquire is [Manager.Acquire] for the session. It also returns a [*DeadlockError] when
// waiting would make the session wait for itself, and [ErrClosed] when the session is or
// becomes closed.
func (s *Session[K]) Acquire(ctx context.Context, key K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, table.Request[K]{Key: key}, false)
}

// AcquireShared is [Manager.AcquireShared] for the session; it fails as
// [Session.Acquire] does. A shared lock cannot be upgraded: asking for the exclusive
// lock of a key that the session holds shared is a deadlock.
func (s *Session[K]) AcquireShared(ctx context.Context, key K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, table.Request[K]{Key: key, Mode: table.Shared}, false)
}

// AcquireAll is [Manager.AcquireAll] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) AcquireAll(ctx context.Context, keys ...K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, wantAll(keys), false)
}

// AcquireSet is [Manager.AcquireSet] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) AcquireSet(ctx context.Context, set ...Want[K]) (Lock[K], error) {
	m := s.manager()
	return m.acquire(ctx, &s.state, m.wantSet(set), false)
}

// TryAcquire is [Manager.TryAcquire] for the session. It is false for a closed session.
func (s *Session[K]) TryAcquire(key K) (Lock[K], bool) {
	return s.manager().try(&s.state, table.Request[K]{Key: key})
}

// TryAcquireSet is [Manager.TryAcquireSet] for the session.
func (s *Session[K]) TryAcquireSet(set ...Want[K]) (Lock[K], bool) {
	m := s.manager()
	return m.try(&s.state, m.wantSet(set))
}

// Reserve is [Manager.Reserve] for the session; Wait fails as [Session.Acquire] does. The
// session waits from now on, not only from Wait on.
func (s *Session[K]) Reserve(key K) Reservation[K] {
	return s.manager().reserve(&s.state, table.Request[K]{Key: key})
}

// ReserveSet is [Manager.ReserveSet] for the session, see [Session.Reserve].
func (s *Session[K]) ReserveSet(set ...Want[K]) Reservation[K] {
	m := s.manager()
	return m.reserve(&s.state, m.wantSet(set))
}

// Do is [Manager.Do] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) Do(ctx context.Context, key K, fn func(context.Context) error) error {
	return s.manager().do(ctx, &s.state, table.Request[K]{Key: key}, fn)
}

// Close releases all that the session holds and ends all its waits, with [ErrClosed],
// at one instant. Later calls of the session get ErrClosed; the release of its locks
// does nothing any more. It always returns nil and may be called again.
func (s *Session[K]) Close() error {
	m := s.manager()
	m.gate.before("closes its session")
	s.state.closed.Store(true)
	m.long.Add(1)
	m.kept.sends()
	m.send(message[K]{request: &closeSession[K]{&s.state}})
	return nil
}

// A Want is one key that a request asks for, and on what terms.
type Want[K comparable] struct {
	Key  K
	Mode Mode // one that is neither Exclusive nor Shared panics in the call

	// Limit is for a shared one: it is granted while fewer than so many hold the key. 0 is the
	// limit of WithSharedLimit, if there is one. Requests for one key may have different limits,
	// or none. An exclusive one has no use for it. A negative Limit panics in the call.
	Limit int
}

// wantSet asks for all that is wanted, at once.
func (m *Manager[K]) wantSet(wants []Want[K]) table.Request[K] {
	if len(wants) == 1 {
		return wantOne(wants[0].Key, wants[0].terms())
	}
	set := table.Request[K]{Keys: make([]K, 0, len(wants)), Each: make([]table.Terms, 0, len(wants))}
	seen := make(map[K]int, len(wants))
	for _, w := range wants {
		is := w.terms()
		if i, twice := seen[w.Key]; twice {
			m.mustBeStarted()
			set.Each[i] = stricter(m.limited(set.Each[i]), m.limited(is))
			continue
		}
		seen[w.Key] = len(set.Keys)
		set.Keys, set.Each = append(set.Keys, w.Key), append(set.Each, is)
	}
	if len(set.Keys) == 1 {
		return wantOne(set.Keys[0], set.Each[0])
	}
	return set
}

// wantOne asks for one key.
func wantOne[K comparable](key K, is table.Terms) table.Request[K] {
	return table.Request[K]{Key: key, Mode: is.Mode, Limit: is.Limit}
}

// terms are what the table knows of it.
func (w *Want[K]) terms() table.Terms {
	switch {
	case w.Limit < 0:
		panic(fmt.Sprintf("keylock: Want with the Limit %d: want 0 or more", w.Limit))
	case w.Mode > Shared:
		panic(fmt.Sprintf("keylock: Want with the Mode %d: want Exclusive or Shared", w.Mode))
	case w.Mode != Shared:
		return table.Terms{}
	}
	return table.Terms{Mode: table.Shared, Limit: int32(min(w.Limit, math.MaxInt32))}
}

// limited returns terms with the limit of the manager where they have none.
func (m *Manager[K]) limited(is table.Terms) table.Terms {
	if is.Limit == 0 {
		is.Limit = m.limit
	}
	return is
}

// stricter returns the terms that fulfil both.
func stricter(a, b table.Terms) table.Terms {
	switch {
	case a.Mode == table.Exclusive || b.Mode == table.Exclusive:
		return table.Terms{}
	case a.Limit == 0 || b.Limit > 0 && b.Limit < a.Limit:
		a.Limit = b.Limit
	}
	return a
}

// The handles have texts of their own, because package fmt would print their fields, and
// read what other goroutines write.

// String returns the type of the keys, and whether the manager has ended.
func (m *Manager[K]) String() string {
	if m == nil || m.mailbox == nil {
		return "no manager"
	}
	state := "running"
	if m.ended.Load() {
		state = "ended"
	}
	return fmt.Sprintf("manager of keys of type %s, %s", show.Type[K](), state)
}

// String names the session by its label.
func (s *Session[K]) String() string {
	if s == nil || s.state.entries == nil {
		return "no session"
	}
	return sessionText(s.state.entries.Label())
}

// String returns the key, or the first and how many more were named, and the number of the
// grant.
func (l Lock[K]) String() string {
	if l.m == nil {
		return "no lock"
	}
	n, many := l.value.(manyKeys)
	if many && n == 0 {
		return fmt.Sprintf("lock of no key, grant %d", l.Seq())
	}
	return fmt.Sprintf("lock of %s, grant %d", show.First(&l.key, max(1, int(n))), l.Seq())
}

// String says whether the reservation was used.
func (v Reservation[K]) String() string {
	if v.r == nil || v.r.generation.Load() != v.generation {
		return "reservation, used"
	}
	return "reservation, not used yet"
}
