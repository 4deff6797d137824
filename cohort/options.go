package cohort

import (
	"fmt"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// Option changes how a Manager works; pass it to [Start].
type Option func(*options)

type options struct {
	maxHandoffs   int
	maxHold       time.Duration
	engineTimeout time.Duration
	localOptions  []keylock.Option
}

// WithMaxHandoffs bounds how many times one grant of the engine is handed off within
// the process before the engine gets it back, so that other processes get their turn.
// 0 means that every holder asks the engine itself. The default is 64; a negative n panics.
func WithMaxHandoffs(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("cohort: WithMaxHandoffs(%d)", n))
	}
	return func(o *options) { o.maxHandoffs = n }
}

// WithMaxHold bounds for how long one grant of the engine is handed off within the
// process: the first release after that time gives it back. It cannot end a critical
// section. The default is 200 ms; a d that is not positive panics.
func WithMaxHold(d time.Duration) Option {
	mustBePositive("WithMaxHold", d)
	return func(o *options) { o.maxHold = d }
}

// WithEngineTimeout bounds how long a Release and a Close wait for an engine that cannot be
// reached. The default is 5 s; a d that is not positive panics.
func WithEngineTimeout(d time.Duration) Option {
	mustBePositive("WithEngineTimeout", d)
	return func(o *options) { o.engineTimeout = d }
}

// WithLocal configures the queues of this process, as [keylock.Start] would:
// keylock.WithMaxWaiters bounds them, keylock.WithHoldTimes, keylock.WithCallers and
// keylock.WithSlowLog observe them. Locally, a process that waits at the engine holds the key.
func WithLocal(opts ...keylock.Option) Option {
	return func(o *options) { o.localOptions = append(o.localOptions, opts...) }
}

func mustBePositive(option string, d time.Duration) {
	if d <= 0 {
		panic(fmt.Sprintf("cohort: %s(%v)", option, d))
	}
}

var defaults = options{maxHandoffs: 64, maxHold: 200 * time.Millisecond, engineTimeout: 5 * time.Second}
