package keylock

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// An Option changes how a manager works; pass it to [Start].
type Option func(*options)

// options are what a manager is configured with.
type options struct {
	table     table.Config
	callers   bool
	holdTimes bool
	slowLog   *slog.Logger
	slowAfter time.Duration
	kept      int // cells
}

// defaults are what managers are configured with before their options: with the build tag kept,
// with which tests are run, they keep grants.
var defaults options

// WithMaxWaiters bounds the waiters of each key: a request that would be one more gets
// [ErrQueueFull]. Waiters that were cancelled do not count. With 0 no request waits: one
// that is not granted at once is refused. Without the option there is no bound. A negative
// n panics.
func WithMaxWaiters(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("keylock: WithMaxWaiters(%d): want 0 or more", n))
	}
	if n == 0 {
		n = table.NoWaiters
	}
	return func(o *options) { o.table.MaxWaiters = n }
}

// WithSharedLimit bounds the shared holders of each key, which makes every key a
// semaphore that n may pass: with 4, at most four requests per host run at a time.
// Without the option there is no bound. An n below 1 panics.
func WithSharedLimit(n int) Option {
	if n < 1 {
		panic(fmt.Sprintf("keylock: WithSharedLimit(%d): want 1 or more", n))
	}
	return func(o *options) { o.table.SharedLimit = min(n, math.MaxInt32) } // which the table counts to
}

// WithKeptGrants keeps up to n keys granted after their release, as long as no other request
// comes to the owner for them. Acquire, TryAcquire, Do and Reserve take such a key, and Release
// keeps it again, without a message to the owner, which has given the grant and can call it in.
// It pays where keys are locked again and again and are seldom wanted by two at a time; a key
// that others wait for costs as much as without it.
//
// It weakens three guarantees. Up to n free keys stay in memory until the owner calls them in.
// Because the order counts from when the owner has received a request, a call that takes a kept
// grant may overtake one that is on its way. And the numbers of grants, see [Lock.Seq], follow the
// order of grants of each key, but not over keys, because the owner reserves some thousand numbers
// for a key that it keeps. The calls of one goroutine keep their order, and all else stays exact:
// no two grants have one number.
//
// The owner calls a grant in when another request comes to it for the key, when another key
// needs its cell, and with all others for [Manager.Stats], Top, Snapshot, WaitIdle and Shutdown,
// which then cost the owner 0.1 to 0.4 µs for each, some at a time. Shared requests, those for
// many keys and those of sessions go to the owner always. Nothing is kept while a WaitIdle
// waits, after Shutdown, and with [WithCallers], [WithHoldTimes] or [WithSlowLog], which note
// each request.
//
// There are n cells, and each key has one of them, by its hash: let n be several times the number
// of keys in use. A cell takes about 100 bytes and the size of K, at once; a key in it about 200
// bytes more, as each that is held. An n below 1, or above 16,777,216, panics.
func WithKeptGrants(n int) Option {
	if n < 1 || n > mostKept {
		panic(fmt.Sprintf("keylock: WithKeptGrants(%d): want 1 to %d", n, mostKept))
	}
	return func(o *options) { o.kept = n }
}

// mostKept is for how many grants there may be a cell: they take two gigabytes.
const mostKept = 1 << 24

// WithCallers makes every request for a lock note its call site: see [Caller] and [Entry]. It
// costs each of them the walk up a few frames of its stack, and memory for them until the grant
// ends.
func WithCallers() Option { return func(o *options) { o.callers = true } }

// WithHoldTimes makes the manager note when each grant began: see Entry.Since,
// Stats.Holds, Stats.OldestHold and Stats.OldestWait. It costs two readings of the clock
// for each grant.
func WithHoldTimes() Option { return func(o *options) { o.holdTimes = true } }

// WithSlowLog logs each wait and each hold that lasts longer than after, while it lasts: its
// key, its session, how many requests wait, and, for a wait, who holds the key; with
// [WithCallers] also the lines of code that asked. It logs again after twice that time, four
// times, and so on, at level Warn, and once more, at level Info, when the wait or the hold
// has ended. It implies [WithHoldTimes].
//
// Of the waits for one key it logs one at a time, because the record says how many wait. In
// each period as long as after it begins at most 32 records, and loses the others. The logger is called on a goroutine of
// its own, so it never delays a lock. When a call takes longer than a second, another
// goroutine goes on with the next record, up to four in all; then 64 records wait, and
// further ones are lost. A record in which the logger panics, or ends its goroutine, is lost,
// too. Stats.SlowLogLost counts what is lost, and the next record says how much it is.
//
// After the manager has ended, the records that are left are logged, and the goroutine ends;
// Close and Done do not wait for that.
//
// A nil logger panics, and so does an after that is not positive.
func WithSlowLog(logger *slog.Logger, after time.Duration) Option {
	if logger == nil {
		panic("keylock: WithSlowLog with a nil logger")
	}
	if after <= 0 {
		panic(fmt.Sprintf("keylock: WithSlowLog(%v): want more than 0", after))
	}
	return func(o *options) { o.slowLog, o.slowAfter, o.holdTimes = logger, after, true }
}
