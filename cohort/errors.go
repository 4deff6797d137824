package cohort

import (
	"errors"

	"github.com/seed-46f81e6d/keylock"
)

var (
	// ErrLost means that the engine's lock was lost while it was held. It is
	// the cause with which a Lock's Context is cancelled, and what Lock.Release
	// and Grant.Release then return.
	ErrLost = errors.New("cohort: lock lost")

	// ErrHeld means that Manager.TryAcquire or Engine.TryAcquire found the key held or waited for. Where it is known who
	// holds it, the error is a *HeldError.
	ErrHeld = errors.New("cohort: key held")

	// ErrClosed is returned by every call on a Manager or an Engine that is
	// closed or shutting down. It is keylock.ErrClosed.
	ErrClosed = keylock.ErrClosed
)
