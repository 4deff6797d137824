package keylock

import (
	"context"
	"time"
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
