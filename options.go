package keylock

import (
	"fmt"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// An Option changes how a manager works; pass it to [Start].
type Option func(*options)

// options are what a manager is configured with.
type options struct {
	table table.Config
}

// WithMaxWaiters bounds the waiters of each key: a request that would be one more gets
// [ErrQueueFull]. Waiters that were cancelled do not count. 0, the default, is no bound;
// a negative n panics.
func WithMaxWaiters(n int) Option {
	mustNotBeNegative("WithMaxWaiters", n)
	return func(o *options) { o.table.MaxWaiters = n }
}

// WithSharedLimit bounds the shared holders of each key, which makes every key a
// semaphore that n may pass: with 4, at most four requests per host run at a time. 0,
// the default, is no bound; a negative n panics.
func WithSharedLimit(n int) Option {
	mustNotBeNegative("WithSharedLimit", n)
	return func(o *options) { o.table.SharedLimit = n }
}

func mustNotBeNegative(option string, n int) {
	if n < 0 {
		panic(fmt.Sprintf("keylock: %s(%d): want 0 for no bound, or more", option, n))
	}
}
