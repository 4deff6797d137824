// Package share runs a function once for all callers that ask for the same key at the same
// time, and gives its result to each of them.
//
//	prices := share.New[string, Price](locks)
//	price, err := prices.Do(ctx, "EUR/USD", fetch)
//
// It differs from singleflight of x/sync in what it does with contexts. Each caller waits no
// longer than its own context lasts, and its leaving does not disturb the others. The
// function has a context that ends when the last caller has left, and only then. It runs
// while it holds the key in a [keylock.Manager]: a call that goes on after its callers have
// left never runs beside the next one, other users of the manager are kept out, and whatever
// shows the locks shows the call.
//
// A shared lock and Handoff give several callers one result in twenty lines, see the example
// Handoff. They do not know when the last caller has left, and so cannot cancel the work.
package share

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// ErrGoexit is returned by [Group.Do] when the function did not return because it called
// runtime.Goexit, as the FailNow of a test does.
var ErrGoexit = errors.New("share: the function called runtime.Goexit")

// A Group runs functions with results of type V for keys of type K. Its methods may be
// called from any goroutine. Use [New] to make one; the zero Group is not usable.
//
// It needs no closing: it has a goroutine for each call that is under way, and remembers no
// key for longer.
type Group[K comparable, V any] struct {
	manager *keylock.Manager[K]
	calls   chan map[K]*call[V] // a channel of one; who received the map may use it, and the callers of its calls
}

// New returns a group whose calls hold their keys in the manager. Groups that share a manager
// exclude each other: a key of one of them waits for the same key of the other. New panics when
// the manager is nil, or was not made by Start.
func New[K comparable, V any](manager *keylock.Manager[K]) *Group[K, V] {
	if manager == nil {
		panic("share: New with a nil manager")
	}
	manager.Done() // panics for one that was not started
	g := &Group[K, V]{manager: manager, calls: make(chan map[K]*call[V], 1)}
	g.calls <- make(map[K]*call[V])
	return g
}

// A call is a function that runs, or waits for its key.
type call[V any] struct {
	callers int                // that wait for it
	cancel  context.CancelFunc // ends the context of the function
	done    chan struct{}      // closed when the outcome is known, and the key released

	// The outcome, written before done is closed.
	value V
	err   error
	panic *PanicError
}

// Do returns the result of fn for the key. If a call for the key is under way, it waits for
// that one's result, and its own fn is not used. Otherwise it starts a call, which waits for the key
// and runs fn on a goroutine of its own. A call that has ended gives its result to no later
// caller. All callers get the same value: none may change what it points to.
//
// The context of fn has the values of the context of the caller that started the call. It has
// no deadline, and ends when the contexts of all callers have ended. The next caller then
// starts a call anew, which waits until this one's fn has returned.
//
// Do returns what fn returns; an error that wraps ctx.Err(), and its cause, when ctx ends first;
// [ErrGoexit] when fn called runtime.Goexit; and what Manager.Acquire returns for a bad key, a full queue
// and a closed manager. A result that is there is returned even if ctx has ended meanwhile. When fn
// panics, every caller panics with a [*PanicError]; when no caller is left, the process ends with it.
//
// fn must not call Do, or lock, for the same key: it would wait for itself. A nil context, a nil fn
// and a key that cannot be compared panic in the caller.
func (g *Group[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, error) {
	switch {
	case g == nil || g.manager == nil:
		panic("share: a Group must be made by New")
	case ctx == nil:
		panic("share: nil context")
	case fn == nil:
		panic("share: Do with a nil function")
	}
	if ctx.Err() != nil {
		return g.left(ctx, key)
	}
	if same := key; key != same { // panics for a key that cannot be compared
		var zero V
		return zero, fmt.Errorf("share: key %s: %w", show.Quoted(&key), keylock.ErrInvalidKey)
	}

	calls := <-g.calls
	c := calls[key]
	if c == nil {
		c = &call[V]{done: make(chan struct{})}
		calls[key] = c
		var work context.Context
		work, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go g.run(work, key, c, fn)
	}
	c.callers++
	g.calls <- calls

	select {
	case <-c.done:
	case <-ctx.Done():
		if g.leave(key, c) {
			return g.left(ctx, key)
		}
	}
	if c.panic != nil {
		panic(c.panic)
	}
	return c.value, c.err
}

// left is how Do returns when its context has ended.
func (g *Group[K, V]) left(ctx context.Context, key K) (V, error) {
	var zero V
	why := ended.ReasonOf(ctx)
	if why.Cause != nil {
		return zero, fmt.Errorf("share: key %s: %w: %w", show.Quoted(&key), why.Err, why.Cause)
	}
	return zero, fmt.Errorf("share: key %s: %w", show.Quoted(&key), why.Err)
}

// leave removes a caller whose context has ended, and with the last one the call. It is
// false when the outcome is there already.
func (g *Group[K, V]) leave(key K, c *call[V]) bool {
	calls := <-g.calls
	defer func() { g.calls <- calls }()
	select {
	case <-c.done:
		return false
	default:
	}
	c.callers--
	if c.callers == 0 {
		c.cancel()
		forget(calls, key, c)
	}
	return true
}

// forget makes later callers start a call of their own.
func forget[K comparable, V any](calls map[K]*call[V], key K, c *call[V]) {
	if calls[key] == c {
		delete(calls, key)
	}
}

// run runs a call.
func (g *Group[K, V]) run(ctx context.Context, key K, c *call[V], fn func(context.Context) (V, error)) {
	// Deferred, because after a Goexit nothing else runs. The key has been released by then, so
	// a caller that returns finds it free.
	defer func() {
		calls := <-g.calls
		forget(calls, key, c)
		close(c.done)
		heard := c.callers > 0
		g.calls <- calls
		c.cancel()
		if c.panic != nil && !heard {
			panic(c.panic)
		}
	}()
	err := g.manager.Do(ctx, key, func(ctx context.Context) error {
		defer func() {
			calls := <-g.calls
			forget(calls, key, c) // at once: a caller that comes now would get a result from before it came
			g.calls <- calls
		}()
		c.run(ctx, fn)
		return nil
	})
	if err != nil { // fn did not run
		c.err = err
	}
}

// run calls fn and keeps its outcome.
func (c *call[V]) run(ctx context.Context, fn func(context.Context) (V, error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if value := recover(); value != nil {
			c.panic = &PanicError{Value: value, Stack: debug.Stack()}
			return
		}
		c.err = ErrGoexit
	}()
	c.value, c.err = fn(ctx)
	returned = true
}

// A PanicError is what the callers of a function panic with that has panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // the stack of its goroutine
}

// Error has the value and the stack of the function.
func (p *PanicError) Error() string {
	return fmt.Sprintf("share: the function panicked: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the value if it is an error.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
