// Package ended tells what has ended.
package ended

import (
	"context"
	"errors"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Is reports whether a channel that is only ever closed is. It runs no code of the user's,
// which the Err of a context may do.
func Is(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Err returns the error of a context whose Done is closed. Some contexts close it a moment before they set
// Err; no error at all would mean that the call had succeeded.
func Err(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Canceled
}

// A Reason is why a context has ended. An error that embeds it wraps what the context says and, where that is
// something else, the cause.
type Reason struct {
	Err   error
	Cause error // nil when it is Err
}

// ReasonOf returns the reason of a context whose Done is closed.
func ReasonOf(ctx context.Context) Reason {
	r := Reason{Err: Err(ctx)}
	if cause := context.Cause(ctx); cause != r.Err {
		r.Cause = cause
	}
	return r
}

// Text is for the end of an error's text.
func (r Reason) Text() string {
	text := show.Message(r.Err.Error())
	if r.Cause != nil {
		text += ": " + show.Message(r.Cause.Error())
	}
	return text
}

// Is finds what Unwrap returns without an allocation for it.
func (r Reason) Is(target error) bool {
	return errors.Is(r.Err, target) || r.Cause != nil && errors.Is(r.Cause, target)
}

// Unwrap returns one error or both.
func (r Reason) Unwrap() []error {
	if r.Cause == nil {
		return []error{r.Err}
	}
	return []error{r.Err, r.Cause}
}

// Timeout makes the error one of a deadline for those who ask as package net does.
func (r Reason) Timeout() bool { return errors.Is(r.Err, context.DeadlineExceeded) }

// Sound returns a context that ends with ctx, and whose Err is not nil when its Done is closed. Package context panics
// when one that it derives ends without an error. A nil context panics, before it gets to another goroutine.
func Sound(ctx context.Context) context.Context {
	if ctx == nil {
		panic("keylock: nil context")
	}
	return sound{ctx}
}

type sound struct{ context.Context }

func (s sound) Err() error {
	if Is(s.Done()) {
		return Err(s.Context)
	}
	return s.Context.Err()
}
