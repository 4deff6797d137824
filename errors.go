package keylock

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Errors are told apart with [errors.Is]. A wait that its context ended returns
// ctx.Err() instead of any of them.
var (
	// ErrClosed is returned by every call after the manager has ended, and to everybody
	// who waits when it ends: by Acquire, AcquireShared, AcquireAll, the Wait of a
	// reservation, Do, Stats, Contains, Snapshot, WaitIdle, and by a Shutdown that Close
	// cuts short. While the manager is shutting down it is returned to new requests for
	// locks, and after Session.Close to those of the session.
	ErrClosed = errors.New("keylock: closed")

	// ErrInvalidKey is returned by Contains and by every call that asks for a lock, for a
	// key that is not equal to itself, as NaN is: no map could find it again.
	ErrInvalidKey = errors.New("keylock: key is not equal to itself")

	// ErrQueueFull is returned by every call that may wait for a lock, when a key has as
	// many waiters as WithMaxWaiters allows.
	ErrQueueFull = errors.New("keylock: queue is full")

	// ErrReservationDone is returned by the Wait of a reservation that was waited for or
	// cancelled before, or is cancelled meanwhile.
	ErrReservationDone = errors.New("keylock: reservation was used")

	// ErrDeadlock is returned by the calls of a Session that may wait, as a
	// *DeadlockError, when the session would have waited for itself.
	ErrDeadlock = errors.New("keylock: deadlock")
)

// Answers that never leave the package.
var (
	errBusy      = errors.New("keylock: busy")      // to a try that failed
	errAbandoned = errors.New("keylock: withdrawn") // to a request whose context has ended
)

// A keyError says to which key a sentinel happened. The text is made only when somebody
// reads it.
type keyError struct {
	sentinel error
	key      any
}

func (e *keyError) Error() string {
	return fmt.Sprintf("%v: key %s", e.sentinel, keyText(e.key))
}

// keyText shows a key for people: on one line, and cut where it is huge, so that it does
// not flood a log.
func keyText(key any) string {
	text, cut := cutText(fmt.Sprintf("%+v", key))
	if reflect.ValueOf(key).Kind() == reflect.String || strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		text = strconv.Quote(text)
	}
	if cut {
		text += "…"
	}
	return text
}

// cutText returns at most the first maxKeyText bytes, and whether there are more.
func cutText(text string) (string, bool) {
	if len(text) > maxKeyText {
		return text[:lastRuneStart(text, maxKeyText)], true
	}
	return text, false
}

const maxKeyText = 128 // bytes

// lastRuneStart returns where text can be cut, at i or before, without cutting a letter.
func lastRuneStart(text string, i int) int {
	for n := i; n > i-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return i // it is not UTF-8
}

func (e *keyError) Unwrap() error { return e.sentinel }

// A DeadlockError tells in which cycle a session would have waited for itself. It is
// an [ErrDeadlock]. The request that gets it holds nothing new, and nobody else is
// disturbed: release something, and try again.
type DeadlockError[K comparable] struct {
	// Cycle begins with the request that failed; each wait's Owner is the Waiter of the
	// next, and the last one's is the first Waiter.
	Cycle []WaitEdge[K]
}

// A WaitEdge is an edge of the wait-for graph: somebody waits for a key that belongs to
// somebody else. Both are named by the labels of their sessions; a request for many keys
// that has no session has no label.
type WaitEdge[K comparable] struct {
	Waiter  string
	Key     K
	Blocker string
	Held    bool // by Owner; or else claimed, by an earlier place in the line
}

func newDeadlockError[K comparable](cycle []table.WaitEdge[K]) *DeadlockError[K] {
	e := &DeadlockError[K]{Cycle: make([]WaitEdge[K], len(cycle))}
	for i, edge := range cycle {
		e.Cycle[i] = WaitEdge[K](edge)
	}
	return e
}

// Error tells the whole cycle, in one line.
func (e *DeadlockError[K]) Error() string {
	var b strings.Builder
	b.WriteString(ErrDeadlock.Error())
	for i, w := range e.Cycle {
		relation := "claimed"
		if w.Held {
			relation = "held"
		}
		if i == 0 {
			fmt.Fprintf(&b, ": %s", who(w.Waiter))
		} else {
			b.WriteString(", who")
		}
		fmt.Fprintf(&b, " waits for %s, %s by %s", keyText(w.Key), relation, who(w.Blocker))
	}
	return b.String()
}

// Is makes errors.Is find ErrDeadlock.
func (e *DeadlockError[K]) Is(target error) bool { return target == ErrDeadlock }

func who(label string) string {
	if label == "" {
		return "a request of no session"
	}
	return fmt.Sprintf("%q", label)
}
