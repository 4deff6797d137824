// Package ended tells what has ended.
package ended

import "context"

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

// Sound returns a context that ends with ctx, and whose Err is not nil when its Done is closed. Package context panics
// when one that it derives ends without an error. That of a nil context is nil.
func Sound(ctx context.Context) context.Context {
	if ctx == nil {
		return nil
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
