// Package inorder runs work concurrently, and the work of one key in order.
//
// A [Group] is like an errgroup whose work has keys. [Group.Go] adds work to the queue of its
// key and returns; work of different keys runs side by side, at most limit at a time, and work
// of one key runs one after another, in the order of the calls.
//
//	g := inorder.New[string](ctx, 64)
//	for event := range events {
//		err := g.Go(ctx, event.Customer, func(ctx context.Context) error {
//			return handle(ctx, event)
//		})
//		if err != nil {
//			break // Wait says why
//		}
//	}
//	return g.Wait()
//
// For a slice or an iterator, [Each] is all of that in one call.
//
// # What you may rely on
//
//  1. Order. The work of a key begins in the order of the calls of Go, each after the one
//     before it has ended.
//  2. Independence. Work waits for earlier work of its own key and for one of the limit's
//     slots, and for nothing else. A slot goes to the key that has waited longest for one,
//     and a key that has more work goes to the end of that queue: a hot key takes its turn.
//  3. Work that waits takes no goroutine and no slot, and 24 bytes besides its function. A key
//     that has work takes some hundred bytes more: 80 to 110 when it is a string.
//  4. The queue is bounded, see [WithQueue]: Go waits for room, until its context ends.
//  5. After a failure nothing more of its key begins. By default nothing more of the group
//     does; with [WithKeyFailures] the other keys go on.
//  6. What waits when the context of the group ends, at a [Group.Stop] or at a failure is
//     dropped. A function whose turn has come by then counts as running, also when it is
//     called a moment later; Wait waits for it.
//  7. A key takes memory only while it has work. A group has no goroutine but those that run
//     work. With New, New and Go start one when a slot is free; with Over there is one more
//     for each key that waits for a holder outside the group.
//  8. A panic in the work ends the process, as in any goroutine: nothing else of its key
//     begins, and Wait does not return meanwhile. A function that calls runtime.Goexit, as
//     t.FailNow does, has failed with [ErrGoexit].
//
// # Keys that have other users
//
// [New] has keys of its own. [Over] works under the locks of a [keylock.Manager] and keeps
// its guarantees for all who use it: while work of a key runs, the group holds the lock of
// the key, and between two works of a key it reserves the key again before it releases. So it
// never holds up another user of the key for longer than one work, and the manager's WaitIdle
// does not return in between. Inside the group the order is that
// of the calls. Towards others the group is one requester per key: its later work is not in
// the manager's queue yet.
//
// # Failure, retry, poison
//
// Work that wants another try returns [Again]: it stays the first of its key, and has no
// slot while it waits. What to do with work that never succeeds is for the function to
// decide: put it aside, as into a dead-letter topic, and return nil; or return the error.
//
// # Offsets
//
// A [Tracker] knows up to which offset of a log everything is done when work ends out of
// order. It is what a consumer of Kafka commits.
//
// # A mutex
//
// Package keylock has one goroutine that owns all state, and no mutex. A group has one mutex
// instead, which is never held while work runs or while a manager is asked: there is no
// wait here that a context could end except the one for room, so an owner would only cost.
package inorder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Unlimited is a limit, or a bound of [WithQueue], that is never reached.
const Unlimited = math.MaxInt

// defaultRoom is the bound of a queue for which [WithQueue] says nothing else.
const defaultRoom = 10_000

// An Option changes how a group works; pass it to [New] or [Over].
type Option func(*options)

type options struct {
	room        int
	keyFailures bool
}

// WithQueue bounds how much work may be accepted and not begun, of all keys together and with
// what [Group.Sub] returns; without this option, 10,000. Work that waits for another try has
// begun and does not count. The bound is at least 1, or WithQueue panics; [Unlimited] is none:
// then bound the source of the work.
func WithQueue(n int) Option {
	if n < 1 {
		panic(fmt.Sprintf("inorder: WithQueue(%d): want at least 1", n))
	}
	return func(o *options) { o.room = n }
}

// WithKeyFailures makes an error stop its key and not the group. Work of a key that has failed
// is dropped, whether it waits already or comes later, until [Group.Reopen]. [Group.Wait] and
// [Group.WaitIdle] return what failed, as a [*KeyError] for each key.
func WithKeyFailures() Option { return func(o *options) { o.keyFailures = true } }

// New returns a group with keys of its own, of which at most limit functions run at a time.
//
// The end of ctx stops the group, as [Group.Stop] does with ctx's cause, and ends the context
// of the functions that run. Call Wait when there is no more work, or let ctx end: a group
// that is left to itself stays known to ctx, as a context that is not cancelled does.
//
// New panics when ctx or an option is nil, or limit is less than 1; [Unlimited] is no limit.
func New[K comparable](ctx context.Context, limit int, opts ...Option) *Group[K] {
	return newGroup[K](ctx, nil, limit, opts)
}

// Over returns a group that holds the manager's lock of a key while it runs work of the key. It is for
// keys that have other users: see the package's documentation for what they may rely on.
//
// A key that the manager has granted keeps its lock while its work waits for a slot, so a group
// that is always at its limit holds up others for longer than its work takes. A function must
// not acquire the key it runs under. What the manager refuses, because it is closed or a queue is
// full, is the failure of the work that it refused. Wait for the group before you shut the
// manager down.
//
// Over panics when ctx, m or an option is nil, when m was not made by Start, and when limit is less than 1.
func Over[K comparable](ctx context.Context, m *keylock.Manager[K], limit int, opts ...Option) *Group[K] {
	if m == nil {
		panic("inorder: Over with a nil manager")
	}
	m.Done() // panics for one that was not started
	return newGroup(ctx, m, limit, opts)
}

func newGroup[K comparable](ctx context.Context, locks *keylock.Manager[K], limit int, opts []Option) *Group[K] {
	mustContext(ctx)
	if limit < 1 {
		panic(fmt.Sprintf("inorder: limit %d: want at least 1", limit))
	}
	o := options{room: defaultRoom}
	for _, set := range opts {
		if set == nil {
			panic("inorder: nil Option")
		}
		set(&o)
	}
	s := &scheduler[K]{
		locks:       locks,
		limit:       limit,
		room:        o.room,
		keyFailures: o.keyFailures,
	}
	s.lock()
	defer s.unlock()
	s.root = s.newGroup(ctx, nil)
	return s.root
}

// Each calls fn for every value of seq, concurrently for different keys, at most limit at a
// time, and for the values of one key one after another, in their order. It returns when no
// call is under way: nil if every value was handled, else the first error, of fn or the cause
// of ctx. After an error no further call begins, and the context of the others ends.
//
// It takes no more values from seq while 10,000 wait.
func Each[K comparable, V any](ctx context.Context, limit int, seq iter.Seq[V], key func(V) K, fn func(context.Context, V) error) error {
	if seq == nil || key == nil || fn == nil {
		panic("inorder: nil function")
	}
	g := New[K](ctx, limit)
	over := false
	defer func() {
		if !over { // seq or key panics
			g.fail(ErrGoexit)
			g.Wait()
		}
	}()
	for v := range seq {
		if err := g.Go(ctx, key(v), func(ctx context.Context) error { return fn(ctx, v) }); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			g.fail(err)
			break
		}
	}
	over = true
	return g.Wait()
}

func mustContext(ctx context.Context) {
	if ctx == nil {
		panic("inorder: nil context")
	}
}

// Use [errors.Is] to tell errors apart.
var (
	// ErrStopped is returned by Group.Go when the group begins nothing more: after Stop,
	// after a failure or the end of the group's context, both of which it wraps too, and
	// after Wait. It is what Wait returns after Stop(nil).
	ErrStopped = errors.New("inorder: stopped")

	// ErrFull is returned by Group.Go to work of the same group that calls it while the
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

// Unwrap returns Err.
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
