package keylock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/show"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

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
	if isClosed(c.done) {
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

// isClosed reports whether a channel that is only ever closed is. It runs no code of the
// user's, which the Err of a context may do.
func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// An endError says that the context of a call has ended. It wraps what the context says
// and, where that is something else, the cause.
type endError[K comparable] struct {
	keys   named[K]
	reason error
	cause  error // nil when it is the reason
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

// endOf returns the error of a call whose context has ended. Some contexts close Done a
// moment before they set Err; no error at all would mean that the call had succeeded.
func endOf[K comparable](ctx context.Context, keys named[K]) error {
	e := &endError[K]{keys: keys, reason: ctx.Err()}
	if e.reason == nil {
		e.reason = context.Canceled
	}
	if cause := context.Cause(ctx); cause != e.reason {
		e.cause = cause
	}
	return e
}

func (e *endError[K]) Error() string {
	var b strings.Builder
	b.WriteString("keylock: ")
	switch {
	case e.keys.n == 1:
		fmt.Fprintf(&b, "key %s: ", show.Quoted(&e.keys.first))
	case e.keys.n > 1:
		fmt.Fprintf(&b, "key %s and %d more: ", show.Quoted(&e.keys.first), e.keys.n-1)
	}
	b.WriteString(show.Message(e.reason.Error()))
	if e.cause != nil {
		b.WriteString(": " + show.Message(e.cause.Error()))
	}
	return b.String()
}

// Is finds what Unwrap returns without an allocation for it.
func (e *endError[K]) Is(target error) bool {
	return errors.Is(e.reason, target) || e.cause != nil && errors.Is(e.cause, target)
}

func (e *endError[K]) Unwrap() []error {
	if e.cause == nil {
		return []error{e.reason}
	}
	return []error{e.reason, e.cause}
}

// Timeout makes the error one of a deadline for those who ask as package net does.
func (e *endError[K]) Timeout() bool { return errors.Is(e.reason, context.DeadlineExceeded) }
