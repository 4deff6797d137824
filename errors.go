package keylock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/show"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Use [errors.Is] to tell errors apart. A call whose context ends returns an error that
// wraps ctx.Err() and the cause, and none of these.
var (
	// ErrClosed means that the manager or the session has ended, or takes no new requests.
	// It is returned
	//   - after the manager has ended, and to calls that are waiting when it ends: by
	//     Acquire, AcquireShared, AcquireAll, AcquireSet, the Wait of a reservation, Do, Stats,
	//     Snapshot, Top, Inspect and WaitIdle;
	//   - after Shutdown was called: by new requests for locks;
	//   - after Session.Close: by the session's requests for locks, also those that wait;
	//   - by a Shutdown that Close, or the end of Start's context, cuts short.
	ErrClosed = errors.New("keylock: closed")

	// ErrInvalidKey means that a key is not equal to itself, as NaN is not: no map could
	// find it again. It is returned by Acquire, AcquireShared, AcquireAll, AcquireSet, Do and the Wait
	// of a reservation, of a manager or a session, and by Inspect.
	ErrInvalidKey = errors.New("keylock: key is not equal to itself")

	// ErrQueueFull means that as many requests wait for a key as WithMaxWaiters allows. It
	// is returned by Acquire, AcquireShared, AcquireAll, AcquireSet, Do and the Wait of a reservation,
	// of a manager or a session.
	ErrQueueFull = errors.New("keylock: queue is full")

	// ErrReservationDone means that a reservation was waited for or cancelled before, or
	// that Cancel ended this Wait. It is returned by the Wait of a reservation.
	ErrReservationDone = errors.New("keylock: reservation was used")

	// ErrDeadlock means that the session would have waited for itself. It is returned, as a
	// *DeadlockError, by a session's Acquire, AcquireShared, AcquireAll, AcquireSet and Do, and by the
	// Wait of its reservations.
	ErrDeadlock = errors.New("keylock: deadlock")
)

// Replies that never leave the package.
var (
	errBusy      = errors.New("keylock: busy")      // to a try that failed
	errAbandoned = errors.New("keylock: abandoned") // to a request whose context has ended
)

// A keyError is a sentinel with the key that it is about. Its text is made only when it is
// read.
type keyError[K comparable] struct {
	sentinel error
	key      K
}

func (e *keyError[K]) Error() string {
	return fmt.Sprintf("%v: key %s", e.sentinel, show.Quoted(&e.key))
}

func (e *keyError[K]) Unwrap() error { return e.sentinel }

// A DeadlockError is an [ErrDeadlock] with the cycle of waits that the request would have
// closed. The request holds nothing new, and no other request is affected. Release
// something, and try again.
type DeadlockError[K comparable] struct {
	// Cycle begins with the request that failed. The Blocker of each wait is the Waiter of
	// the next, and the Blocker of the last is the first Waiter.
	Cycle []WaitEdge[K]
}

// A WaitEdge is an edge of the wait-for graph: one session waits for a key that another
// one holds, or has requested before it. The sessions are named by their labels.
type WaitEdge[K comparable] struct {
	Waiter  string // the label of the session that waits
	Key     K
	Blocker string // the label of the session that it waits for
	Held    bool   // the blocker holds the key; else it is an earlier waiter
}

func newDeadlockError[K comparable](cycle []table.WaitEdge[K]) *DeadlockError[K] {
	e := &DeadlockError[K]{Cycle: make([]WaitEdge[K], len(cycle))}
	for i, edge := range cycle {
		e.Cycle[i] = WaitEdge[K](edge)
	}
	return e
}

// Error describes the cycle on one line. Of a long one it leaves out the middle.
func (e *DeadlockError[K]) Error() string {
	var b strings.Builder
	b.WriteString(ErrDeadlock.Error())
	last := len(e.Cycle) - 1
	for i, w := range e.Cycle {
		switch {
		case i == 0:
			b.WriteString(": " + w.String())
		case i < shownWaits || last == shownWaits:
			b.WriteString(", which " + w.waits())
		case i == last:
			fmt.Fprintf(&b, "; %d more waits; %v", last-shownWaits, w)
		}
	}
	return b.String()
}

// shownWaits is how many waits of a long cycle are shown, before the last one.
const shownWaits = 8

// Is makes errors.Is find ErrDeadlock.
func (e *DeadlockError[K]) Is(target error) bool { return target == ErrDeadlock }

// String describes the wait, as in: session "a" waits for key "k", held by session "b".
func (w WaitEdge[K]) String() string { return sessionText(w.Waiter) + " " + w.waits() }

// waits is String without the one that waits.
func (w *WaitEdge[K]) waits() string {
	relation := "requested earlier"
	if w.Held {
		relation = "held"
	}
	return fmt.Sprintf("waits for key %s, %s by %s", show.Quoted(&w.Key), relation, sessionText(w.Blocker))
}

func sessionText(label string) string {
	if label == "" {
		return "an unlabelled session"
	}
	return "session " + show.Quoted(&label)
}

// captured is the context that was given to Start, as far as the manager needs it, without
// running any of its methods after Start has returned: they may be the user's, and block,
// panic, or take a lock that the user holds while it waits for Close.
//
// Package context asks a parent for its Done, and by a key of its own for the
// standard context behind it. It asks again when the watch on the parent is stopped, and
// then gets what it got before.
type captured struct {
	done       <-chan struct{}
	from       context.Context
	asked      bool // only package context asks, within Start, before it shares captured with a goroutine
	key, value any
}

func (c *captured) Done() <-chan struct{} { return c.done }

func (c *captured) Err() error {
	if ended.Is(c.done) {
		return context.Canceled
	}
	return nil
}

func (c *captured) Value(key any) any {
	if !c.asked {
		c.asked, c.key, c.value = true, key, c.from.Value(key)
		c.from = nil
	}
	if key == c.key {
		return c.value
	}
	return nil
}

func (c *captured) Deadline() (time.Time, bool) { return time.Time{}, false }

// An endError says that the context of a call has ended.
type endError[K comparable] struct {
	keys named[K]
	ended.Reason
}

// named is what an error says of the keys that a call names.
type named[K comparable] struct {
	n     int
	first K
}

func keyOf[K comparable](key K) named[K] { return named[K]{1, key} }

func keysOf[K comparable](want table.Request[K]) named[K] {
	switch {
	case want.Keys == nil:
		return keyOf(want.Key)
	case len(want.Keys) > 0:
		return named[K]{len(want.Keys), want.Keys[0]}
	}
	return named[K]{}
}

// endOf returns the error of a call whose context has ended.
func endOf[K comparable](ctx context.Context, keys named[K]) error {
	return &endError[K]{keys, ended.ReasonOf(ctx)}
}

func (e *endError[K]) Error() string {
	if e.keys.n == 0 {
		return "keylock: " + e.Text()
	}
	return "keylock: " + show.First(&e.keys.first, e.keys.n) + ": " + e.Text()
}
