package cohort

import (
	"fmt"
	"log/slog"
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
	slowLogger    *slog.Logger
	slowAfter     time.Duration
	keepIdle      time.Duration
	keepKeys      int
}

// WithMaxHandoffs bounds how many times one grant of the engine is handed off within the process, counted
// from when the engine has reported that another process wants the key, before the engine gets it back. If the engine cannot tell that, see
// [Recaller], all of its handoffs count. With 0 every holder asks the engine itself, and nothing is
// kept. The default is 64; a negative n panics.
func WithMaxHandoffs(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("cohort: WithMaxHandoffs(%d): want 0 or more", n))
	}
	return func(o *options) { o.maxHandoffs = n }
}

// WithMaxHold bounds for how long one grant of the engine is handed off within the process: from when the engine has
// reported that another process wants the key, which it is asked to do when the grant is first handed off or kept, or from the grant if it
// cannot tell. The first release after that time gives the key back. It cannot end a critical section. The default
// is 200 ms; a d that is not positive panics.
func WithMaxHold(d time.Duration) Option {
	mustBePositive("WithMaxHold", d)
	return func(o *options) { o.maxHold = d }
}

// WithKeep keeps a key that is released, so that the next caller of this process, one that waits already or one
// that comes, gets it without the engine. The key is given back when another process wants it, when
// it is lost, when it has not been used for idle, and when the manager shuts down. At most so many keys are kept at a
// time; when there are that many, those that are released are handed off or go back as without WithKeep. The engine has to tell when another process
// wants a key, see [Recaller]; the keys of an engine that cannot tell, or cannot for a while, are not kept.
//
// Where a process uses the same keys again and again and others seldom do, that saves both requests of
// a lock. Where processes take turns, the one that comes waits for the key to be recalled; a key
// that another process wants before more than three holders have had it is therefore not kept the next time, nor the next 3, 7 and so on
// up to 63 times, unless more than three have it then.
//
// What it costs: when the process crashes, others wait for the keys that it kept until its lease has run out,
// although no caller was using them. So nothing is kept by default. TryAcquire in
// another process finds a kept key held; that recalls it. A Release that keeps the key asks no engine: it
// returns ErrLost only for a loss that has been noticed by then.
//
// An idle or keys that is not positive panics.
func WithKeep(idle time.Duration, keys int) Option {
	mustBePositive("WithKeep", idle)
	if keys <= 0 {
		panic(fmt.Sprintf("cohort: WithKeep(%v, %d): want at least one key", idle, keys))
	}
	return func(o *options) { o.keepIdle, o.keepKeys = idle, keys }
}

// WithEngineTimeout bounds how long a Release, a Close and a Snapshot wait for an engine that
// cannot be reached. The default is 5 s; a d that is not positive panics.
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

// WithSlowLog logs each wait at the engine that exceeds after, while it is still in progress: at level Warn when
// it does, when it has lasted twice as long, four times and so on, and once more at level Info when it
// is over. A record has the key, how long the wait has lasted, and, where the engine is an [Inspector], who
// holds the key there and how many are ahead. The logger is called on a goroutine of
// its own; while a call of it lasts 64 records wait, and further ones are lost, which Stats.SlowLogLost counts. Waits in the
// queues of this process are logged by keylock.WithSlowLog, see [WithLocal]; to it, a wait at the engine is a hold.
//
// A nil logger panics, and so does an after that is not positive.
func WithSlowLog(logger *slog.Logger, after time.Duration) Option {
	if logger == nil {
		panic("cohort: WithSlowLog with a nil logger")
	}
	mustBePositive("WithSlowLog", after)
	return func(o *options) { o.slowLogger, o.slowAfter = logger, after }
}

func mustBePositive(option string, d time.Duration) {
	if d <= 0 {
		panic(fmt.Sprintf("cohort: %s(%v): want more than 0", option, d))
	}
}

var defaults = options{maxHandoffs: 64, maxHold: 200 * time.Millisecond, engineTimeout: 5 * time.Second}
