package inorder

import (
	"errors"
	"fmt"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Errors are told apart with [errors.Is].
var (
	// ErrStopped is returned by [Group.Go] when the group begins nothing more: after Stop,
	// after a failure or the end of the group's context, both of which it wraps too, and
	// after Wait. It is what Wait returns after Stop(nil).
	ErrStopped = errors.New("inorder: stopped")

	// ErrFull is returned by [Group.Go] to work of the same group that calls it while the
	// queue is full: if it waited for room, the whole group could wait for itself.
	ErrFull = errors.New("inorder: queue is full")

	// ErrGoexit is the failure of a function that did not return because it called
	// runtime.Goexit.
	ErrGoexit = errors.New("inorder: the function called runtime.Goexit")
)

// A KeyError is the failure of a key, see [WithKeyFailures].
type KeyError[K comparable] struct {
	Key     K
	Err     error // what the function returned
	Dropped int   // how much later work of the key was dropped because of it
}

// Error says which key failed, why, and how much work was dropped. A key is shown on one line and
// cut when it is long, and nothing behind a pointer in it is read.
func (e *KeyError[K]) Error() string {
	return fmt.Sprintf("inorder: key %s failed, %d dropped: %v", show.Quoted(&e.Key), e.Dropped, e.Err)
}

func (e *KeyError[K]) Unwrap() error { return e.Err }

// maxKeyErrors is how many failures of keys Wait returns one by one.
const maxKeyErrors = 16

// Again is for work to return when it wants another try after a pause. The work stays the
// first of its key, so that nothing of the key passes it; it gives its slot back meanwhile. A
// pause of 0 or less lets other keys run and no time pass. The pause ends, without another
// try, when the group stops.
//
// The error is for the reader of logs. It is kept nowhere: work that has had enough tries
// returns it without Again.
func Again(after time.Duration, err error) error { return &again{after, err} }

type again struct {
	after time.Duration
	err   error
}

func (e *again) Error() string { return fmt.Sprintf("inorder: again in %v: %v", e.after, e.err) }
func (e *again) Unwrap() error { return e.err }

// againIn returns what Again was told, if the error is one of its.
func againIn(err error) (after time.Duration, ok bool) {
	var e *again
	if err == nil || !errors.As(err, &e) {
		return 0, false
	}
	return max(0, e.after), true
}
