// Package lease makes a cohort.Engine of any store that offers five idempotent
// calls and a channel of notices. What all such engines have in common is here
// once: a session for the process, its renewal and its loss, the wait for a
// grant, retries, and cleaning up after calls that were abandoned.
//
//	engine, err := lease.New(store, lease.Config{Name: "mylock", TTL: 10 * time.Second})
//	locks := cohort.Start(ctx, engine)
//
// See [Store] for what to implement. Packages redislock and pglock do.
//
// # What the engine does
//
//   - One session per process, renewed four times per TTL, however many keys are
//     held or waited for. It is trusted until four fifths of the TTL after the
//     sending of the last renewal that was confirmed. A grant is checked against the clock
//     and not only by a timer, because a process that was paused wakes before its timers.
//   - An entry is unique, so that every call can be repeated, and a late one harms no
//     other. A request outlives the context of its caller, whose Acquire returns at
//     once; the entry is then removed in the background, after the reply to the
//     request, or with late set when there is none.
//   - A grant comes with a notice. Notices may be lost, so every waiting
//     entry asks again when the subscription was renewed, when the session of the
//     holder can have ended, and every quarter of the TTL.
//   - A release is repeated until the store confirms it or the session ends,
//     whatever the errors are. Nothing stays behind in a session that lives on.
//   - Renewals ask for up to 1,024 of the held keys whether they are still held, in turns.
//   - Every session that is lost or closed is ended at the store, so that no other process has to
//     wait for the end of its TTL.
//
// # What it does not promise
//
// Exclusion among paused processes: see package cohort. The clock is Go's
// monotonic clock; while a virtual machine is suspended it may stand still.
//
// # etcd
//
// Package etcdlock does not rest on this package. Its queue is the one of etcd's
// own concurrency package, so that users of concurrency.Mutex and of etcdlock
// exclude each other: an entry there is an etcd key named by the lease, at most one per key and
// session, and not unique per attempt; each waiter watches the entry ahead of it,
// because no entry can be told by the one that leaves. Neither fits [Store].
package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// Config says how an Engine works.
type Config struct {
	// Name begins the engine's errors, such as "redislock"; "" is "lease".
	Name string

	// TTL is how long the keys of a process stay locked that has died or is cut off.
	// It must be at least a millisecond.
	TTL time.Duration

	// Label says to people what the process is, see cohort.ThisProcess; "" for nothing.
	Label string
}

// Engine is a cohort.Engine on a Store. Use it through a cohort.Manager, or
// alone: goroutines that share it exclude each other.
type Engine struct {
	store Store
	Config
	process cohort.Process

	ctx      context.Context // ends when Close begins, and with it every session and every wait
	end      context.CancelFunc
	requests context.Context // ends with the context of the first Close: until then the store can be asked
	abort    context.CancelFunc

	asks     chan chan<- sessionReply // for the session, served by keepSession
	current  atomic.Pointer[session]  // the last one that was begun; it may be lost
	crew     *crew.Crew               // the engine's goroutines
	toEnd    atomic.Pointer[Session]  // what Close has to end at the store; nil for nothing
	attempts atomic.Uint64            // numbers the entries
	warner   Warner                   // the store, if it is one; else nil
	warnings atomic.Int32             // above 0 if some of the last grants needed their notices

	begun, lost, failed atomic.Uint64 // sessions, and requests that failed
	lastFailure         atomic.Pointer[failure]
}

type failure struct {
	err error
	at  time.Time
}

// New returns an engine on the store. It calls the store only when a key is
// first asked for. Close ends it. New returns an error for a nil store, for a TTL below a
// millisecond, and for a label that cohort.ThisProcess refuses.
func New(store Store, c Config) (*Engine, error) {
	c.Name = cmp.Or(c.Name, "lease")
	if store == nil {
		return nil, fmt.Errorf("%s: nil store", c.Name)
	}
	if c.TTL < time.Millisecond {
		return nil, fmt.Errorf("%s: a TTL of %v: want at least 1ms", c.Name, c.TTL)
	}
	process, err := cohort.ThisProcess(c.Label)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	e := &Engine{
		store:   store,
		Config:  c,
		process: process,
		asks:    make(chan chan<- sessionReply),
		crew:    crew.New(),
	}
	e.warner, _ = store.(Warner)
	e.ctx, e.end = context.WithCancel(context.Background())
	e.requests, e.abort = context.WithCancel(context.Background())
	e.crew.Start(e.keepSession)
	return e, nil
}

// Acquire implements cohort.Engine. While the store cannot be reached it keeps
// trying until ctx ends. The grant is a *Grant.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, false)
}

// TryAcquire implements cohort.Engine. The grant is a *Grant.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, true)
}

func (e *Engine) acquire(ctx context.Context, key string, try bool) (cohort.Grant, error) {
	type outcome struct {
		grant cohort.Grant
		err   error
	}
	ctx = ended.Sound(ctx)
	over := make(chan outcome, 1)
	c := &call{engine: e, ctx: ctx, key: key, try: try, tell: func(g cohort.Grant, err error) { over <- outcome{g, err} }}
	if e.crew.Start(c.run) {
		select {
		case o := <-over:
			return o.grant, o.err
		case <-ctx.Done():
		case <-e.ctx.Done():
		}
	}
	c.giveUp()
	o := <-over
	return o.grant, o.err
}

// Ask implements cohort.Asker. The grant is a *Grant.
func (e *Engine) Ask(ctx context.Context, key string, try bool, reply func(cohort.Grant, error)) {
	ctx = ended.Sound(ctx)
	c := &call{engine: e, ctx: ctx, key: key, try: try, tell: reply}
	c.stop = context.AfterFunc(ctx, c.giveUp)
	if !e.crew.Start(c.run) {
		c.giveUp()
	}
}

// call is an Acquire or a TryAcquire that is under way.
type call struct {
	engine *Engine
	ctx    context.Context
	key    string
	try    bool
	stop   func() bool // has giveUp not be called when ctx ends; nil if it would not be

	tell    func(cohort.Grant, error) // is told the outcome, once
	over    atomic.Bool               // it has been told, or is about to be
	problem atomic.Pointer[error]     // of the last request, if it failed
}

// reply ends the call, and reports false if it had ended.
func (c *call) reply(g cohort.Grant, err error) bool {
	if !c.over.CompareAndSwap(false, true) {
		return false
	}
	if c.stop != nil {
		c.stop()
	}
	c.tell(g, err)
	return true
}

// giveUp ends the call because its context or the engine has ended, whatever run waits for.
func (c *call) giveUp() {
	if c.over.CompareAndSwap(false, true) {
		c.tell(nil, c.explain(c.ctx.Err()))
	}
}

// explain says why the call failed.
func (c *call) explain(err error) error {
	if problem := c.problem.Load(); problem != nil && err == c.ctx.Err() {
		err = *problem
	}
	return fmt.Errorf("%s: acquire %s: %w", c.engine.Name, brief(c.key), c.engine.explain(c.ctx, c.key, err))
}

// run makes attempts at the key until one succeeds or fails for good.
func (c *call) run() {
	e := c.engine
	for retry := (crew.Backoff{}); ; {
		err := c.ctx.Err()
		if err == nil {
			var s *session
			if s, err = e.session(c.ctx); err == nil {
				a := s.newAttempt(c)
				if err = a.wait(); err == nil || !a.decided.CompareAndSwap(false, true) {
					return
				}
				a.cleanUp()
			} else if c.ctx.Err() == nil {
				c.problem.Store(&err)
			}
		}
		if passes(err) && retry.Wait(c.ctx, e.ctx) == nil {
			continue
		}
		c.reply(nil, c.explain(err))
		return
	}
}

// explain says why an Acquire failed: the caller's context comes before the
// engine's end, and that before what went wrong at the store.
func (e *Engine) explain(ctx context.Context, key string, err error) error {
	var held *cohort.HeldError
	if errors.As(err, &held) {
		held.Key = key
	}
	switch {
	case ctx.Err() != nil:
		return endOf(ctx, err)
	case e.ctx.Err() != nil:
		return cohort.ErrClosed
	default:
		return err
	}
}

// Close implements cohort.Engine: it ends the session, which frees every key. If
// ctx ends before the store has confirmed that, Close returns an error, and the
// session ends by itself within its TTL; a later Close tries again. No goroutine of the engine is left,
// but for requests that the store's client does not abandon at once: those end when it does.
func (e *Engine) Close(ctx context.Context) error {
	ctx = ended.Sound(ctx)
	e.end()
	e.crew.Dismiss()
	stop := context.AfterFunc(ctx, e.abort)
	defer stop()
	select {
	case <-e.crew.Gone(): // soon: every task heeds e.ctx, or ends a session under e.requests
	case <-ctx.Done():
	}
	for retry := (crew.Backoff{}); ; {
		s := e.toEnd.Load()
		if s == nil {
			return nil
		}
		err := ctx.Err()
		if err == nil {
			if err = e.store.End(ctx, *s); err == nil {
				e.toEnd.CompareAndSwap(s, nil)
				return nil
			}
		}
		if retry.Wait(ctx, ctx) != nil {
			return fmt.Errorf("%s: close: session %s is left to run out: %w", e.Name, s.ID, endOf(ctx, err))
		}
	}
}

// endOf joins the end of ctx with what went wrong before it.
func endOf(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	return fmt.Errorf("%w; before that: %w", ctx.Err(), err)
}

// Report implements cohort.Reporter.
func (e *Engine) Report() cohort.EngineReport {
	r := cohort.EngineReport{Process: e.process, Sessions: e.begun.Load(), Lost: e.lost.Load(), Retries: e.failed.Load()}
	if s := e.current.Load(); s != nil && s.trusted() {
		r.Session, r.SessionBegan, r.SessionEnds = s.ID, s.epoch, time.Now().Add(s.left())
	}
	if f := e.lastFailure.Load(); f != nil {
		r.LastError, r.LastErrorAt = f.err, f.at
	}
	return r
}

// note counts a request that failed, unless it is a reply, or the engine itself ended the request.
func (e *Engine) note(err error) {
	if err == nil || errors.Is(err, ErrSessionGone) || errors.Is(err, cohort.ErrHeld) || e.ctx.Err() != nil {
		return
	}
	e.failed.Add(1)
	e.lastFailure.Store(&failure{err, time.Now()})
}

// newSession chooses a session's ID here, so that it can be ended although the reply to Begin was lost.
func (e *Engine) newSession() Session {
	return Session{ID: rand.Text(), TTL: e.TTL, Process: e.process}
}

// brief returns key quoted, cut when it is long.
func brief(key string) string {
	const most = 64
	if len(key) <= most {
		return strconv.Quote(key)
	}
	return strconv.Quote(strings.Clone(key[:most])) + "… of " + strconv.Itoa(len(key)) + " bytes"
}
