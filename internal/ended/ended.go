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
