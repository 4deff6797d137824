package cohort

import (
	"fmt"
	"time"
)

// Option changes how a Manager works; pass it to [Start].
type Option func(*options)

type options struct {
	maxHandOvers  int
	maxHold       time.Duration
	engineTimeout time.Duration
}

// MaxHandOvers bounds how many times one grant of the engine is handed over within
// the process before the engine gets it back, so that other processes get their turn.
// 0 means that every holder asks the engine itself. The default is 64; a negative n panics.
func MaxHandOvers(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("cohort: MaxHandOvers(%d)", n))
	}
	return func(o *options) { o.maxHandOvers = n }
}

// MaxHold bounds for how long one grant of the engine is handed over within the
// process: the first release after that time gives it back. It cannot end a critical
// section. The default is 200 ms; a d that is not positive panics.
func MaxHold(d time.Duration) Option {
	mustBePositive("MaxHold", d)
	return func(o *options) { o.maxHold = d }
}

// EngineTimeout bounds how long a Release and a Close wait for an engine that cannot be
// reached. The default is 5 s; a d that is not positive panics.
func EngineTimeout(d time.Duration) Option {
	mustBePositive("EngineTimeout", d)
	return func(o *options) { o.engineTimeout = d }
}

func mustBePositive(option string, d time.Duration) {
	if d <= 0 {
		panic(fmt.Sprintf("cohort: %s(%v)", option, d))
	}
}

var defaults = options{maxHandOvers: 64, maxHold: 200 * time.Millisecond, engineTimeout: 5 * time.Second}
