package keylock

import (
	"errors"
	"fmt"
)

// Errors are told apart with [errors.Is]. A wait that its context ended returns
// ctx.Err() instead of any of them.
var (
	// ErrClosed is returned by every call after the manager has ended, and to everybody
	// who waits when it ends: by Acquire, Reservation.Wait, Do, Stats, Contains,
	// Snapshot, WaitIdle, and by a Shutdown that Close cuts short. While the manager is
	// shutting down it is returned to new requests for locks.
	ErrClosed = errors.New("keylock: manager is closed")

	// ErrInvalidKey is returned by Acquire, Reservation.Wait, Do and Contains for a key
	// that is not equal to itself, as NaN is: no map could find it again.
	ErrInvalidKey = errors.New("keylock: key is not equal to itself")

	// ErrQueueFull is returned by Acquire, Reservation.Wait and Do when the key has as
	// many waiters as WithMaxWaiters allows.
	ErrQueueFull = errors.New("keylock: queue is full")

	// ErrReservationDone is returned by Reservation.Wait when the reservation was waited
	// for or cancelled before, or is cancelled meanwhile.
	ErrReservationDone = errors.New("keylock: reservation was used")
)

// errBusy answers a try that failed; it never leaves the package.
var errBusy = errors.New("keylock: busy")

// A keyError says to which key a sentinel happened. The text is made only when somebody
// reads it.
type keyError struct {
	sentinel error
	key      any
}

func (e *keyError) Error() string {
	key := fmt.Sprintf("%#v", e.key)
	if len(key) > maxKeyText {
		key = key[:maxKeyText] + "…"
	}
	return fmt.Sprintf("%v: key %s", e.sentinel, key)
}

// maxKeyText keeps a huge key from flooding a log.
const maxKeyText = 128

func (e *keyError) Unwrap() error { return e.sentinel }
