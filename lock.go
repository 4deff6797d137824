package keylock

import (
	"context"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Lock is one grant of a key. It is a small value that may be copied, and released
// from any goroutine. The zero Lock is released.
type Lock[K comparable] struct {
	m     *Manager[K]
	token table.Token[K]
	key   K
}

// Release ends the grant, so that the next waiter gets the key. Only the first Release
// of a grant, by whichever copy, does anything; none after the manager has ended does,
// nor does that of the zero Lock. It does not wait until the next waiter runs.
func (l Lock[K]) Release() {
	if l.m != nil {
		l.m.send(release[K]{}, l.token)
	}
}

// Key returns the key that was granted; the zero key for the zero Lock.
func (l Lock[K]) Key() K { return l.key }

// Seq returns the number of the grant: from 1, strictly increasing over the manager's
// life in the order in which it granted; 0 for the zero Lock.
func (l Lock[K]) Seq() uint64 { return l.token.Seq() }

// A Reservation is a place in the line for a key, taken by [Manager.Reserve]. It is used
// once, by a Wait or by a Cancel; it may be copied, but its copies are one reservation.
// The zero Reservation is used up: Wait returns [ErrReservationDone], Cancel does
// nothing.
type Reservation[K comparable] struct {
	m    *Manager[K]
	r    *acquire[K]
	turn uint64
}

// Wait waits until the reservation is granted and returns the lock.
//
// It returns ctx.Err() when ctx ends first, or is done already: the place, or the grant,
// is given up. It returns [ErrReservationDone] when the reservation was used before, or
// when Cancel ends this Wait; and what [Manager.Acquire] returns for a bad key, a full
// queue and a closed manager. When it fails it returns the zero Lock.
func (v Reservation[K]) Wait(ctx context.Context) (Lock[K], error) {
	mustContext(ctx)
	if !v.claim() {
		if err := ctx.Err(); err != nil {
			return Lock[K]{}, err
		}
		return Lock[K]{}, ErrReservationDone
	}
	return v.m.wait(ctx, v.r)
}

// Cancel gives up the place, or the grant if there was one already, and ends a Wait that
// is under way. After a successful Wait it does nothing, so it may be deferred.
func (v Reservation[K]) Cancel() {
	switch {
	case v.claim():
		v.m.send((*withdraw[K])(v.r), table.Token[K]{})
	case v.r != nil && v.r.turn.Load() == claimed(v.turn):
		v.m.send(&abandon[K]{v.r, v.turn}, table.Token[K]{})
	}
}

// claim is true for one caller per reservation.
func (v Reservation[K]) claim() bool {
	return v.r != nil && v.r.turn.CompareAndSwap(v.turn, claimed(v.turn))
}

// claimed is what becomes of a reservation's turn when somebody claims it.
func claimed(turn uint64) uint64 { return turn + 1 }
