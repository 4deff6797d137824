package keylock

import (
	"context"

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

// Release ends the grant, so that the next waiter gets the key; that of many keys at one
// instant. Only the first Release of a grant, by whichever copy, does anything; none after
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

// Value returns what the last holder handed off with the lock; nil when it just released, and
// of the lock of many keys.
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
	if err != nil && !isClosed(done) { // some contexts set Err a moment before they close Done
		ended := make(chan struct{})
		close(ended)
		done = ended
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
