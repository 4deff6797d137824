package cohort

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// registry gives those who look the claims of a process. One goroutine owns them; it decides nothing about locks,
// and a lock does not wake it: what happens to claims is put on a stack, until it is asked, or there is much of it.
type registry struct {
	pending atomic.Pointer[action] // what it has yet to carry out, latest first
	pushed  atomic.Uint64          // how many actions there were
	eager   bool                   // each action wakes it
	wake    chan struct{}
	done    chan struct{} // closed when the goroutine has ended
}

// action is what the goroutine shall carry out.
type action struct {
	do   func(*claims)
	next *action
}

// mostPending is after how many actions the goroutine is woken.
const mostPending = 256

// claims are owned by the registry's goroutine.
type claims struct {
	byKey   map[string]*claim
	waiting int
	slow    *slowLog // nil if there is none

	granted, refused, lost uint64
	waits, releases        keylock.Histogram
}

// newRegistry starts the goroutine, which ends when ended is closed.
func newRegistry(ended <-chan struct{}, slow *slowLog) *registry {
	r := &registry{eager: slow != nil, wake: make(chan struct{}, 1), done: make(chan struct{})}
	cs := &claims{byKey: make(map[string]*claim), slow: slow}
	go func() {
		defer close(r.done)
		var tick <-chan time.Time // nil, which is never ready, without a slow log
		if slow != nil {
			defer close(slow.records)
			ticker := time.NewTicker(slow.after)
			defer ticker.Stop()
			tick = ticker.C
		}
		for {
			select {
			case <-r.wake:
				r.carryOut(cs)
			case <-tick:
				r.carryOut(cs)
				cs.reportSlow()
			case <-ended:
				r.carryOut(cs)
				cs.slow.end()
				return
			}
		}
	}()
	return r
}

// do has the registry's goroutine carry out f before it is asked the next time, and nothing when it has ended.
func (r *registry) do(f func(*claims)) {
	if r.push(f)%mostPending == 0 || r.eager {
		r.nudge()
	}
}

// push puts an action on the stack, and returns how many there were.
func (r *registry) push(f func(*claims)) uint64 {
	a := &action{do: f}
	for {
		a.next = r.pending.Load()
		if r.pending.CompareAndSwap(a.next, a) {
			return r.pushed.Add(1)
		}
	}
}

func (r *registry) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// carryOut carries out what is on the stack, in order.
func (r *registry) carryOut(cs *claims) {
	var first *action
	for a := r.pending.Swap(nil); a != nil; {
		a.next, first, a = first, a, a.next
	}
	for ; first != nil; first = first.next {
		first.do(cs)
	}
}

// ask has it carry out f, and waits for that.
func (r *registry) ask(ctx context.Context, f func(*claims)) error {
	carriedOut := make(chan struct{})
	r.push(func(cs *claims) { f(cs); close(carriedOut) })
	r.nudge()
	select {
	case <-carriedOut:
		return nil
	case <-r.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (cs *claims) begin(c *claim) {
	cs.byKey[c.key] = c
	cs.waiting++
}

// replied follows the engine's reply. The fields of c that it reads have been written.
func (cs *claims) replied(c *claim) {
	cs.waiting--
	cs.slow.over(c)
	if c.err != nil {
		cs.refused++
		cs.forget(c)
		return
	}
	cs.granted++
	observe(&cs.waits, c.at.Sub(c.asked))
}

// end follows a release, whatever came of it.
func (cs *claims) end(c *claim, took time.Duration, lost bool) {
	if lost {
		cs.lost++
	}
	observe(&cs.releases, took)
	cs.forget(c)
}

func (cs *claims) forget(c *claim) {
	if cs.byKey[c.key] == c { // the local lock passes on before this is carried out
		delete(cs.byKey, c.key)
	}
}

// info returns what is to be seen of the claim to key; the zero Claim if there is none.
func (cs *claims) info(key string) Claim {
	c := cs.byKey[key]
	if c == nil {
		return Claim{}
	}
	info := Claim{State: ClaimWaiting, Since: c.asked}
	select {
	case <-c.replied:
		if c.err != nil {
			return Claim{}
		}
		info = Claim{State: ClaimHeld, Since: c.at, Token: Token{c.grant.Epoch(), c.seq.Load()}, Lost: c.isLost()}
		if s := c.state.Load(); s == kept || s == recalled {
			info.State = ClaimKept
		}
	default:
	}
	return info
}

// observe counts a duration.
func observe(h *keylock.Histogram, d time.Duration) {
	d = max(d, 0)
	h.Count++
	h.Sum += d.Seconds()
	h.Max = max(h.Max, d)
	for i := range h.Buckets {
		if d < h.Bound(i) || i == len(h.Buckets)-1 {
			h.Buckets[i]++
			return
		}
	}
}

// reportSlow looks for claims that have waited for too long.
func (cs *claims) reportSlow() {
	now := time.Now()
	for _, c := range cs.byKey {
		select {
		case <-c.replied:
		default:
			cs.slow.check(c, now)
		}
	}
}

// slowLog logs waits at the engine that last for too long.
type slowLog struct {
	logger *slog.Logger
	after  time.Duration
	engine Inspector // nil if the engine cannot tell who is ahead

	records chan slowRecord
	next    map[*claim]time.Duration // how long a claim that was reported has to wait to be reported again; owned by the registry's goroutine
	lost    uint64                   // records that were not logged; owned by the registry's goroutine
}

// slowRecord is what is logged of one wait.
type slowRecord struct {
	key    string
	waited time.Duration
	over   bool
	err    error // with which it was over
}

// check reports the claim when it has waited for long enough.
func (l *slowLog) check(c *claim, now time.Time) {
	next, reported := l.next[c]
	if !reported {
		next = l.after
	}
	if waited := now.Sub(c.asked); waited >= next {
		l.next[c] = 2 * next
		l.send(slowRecord{key: c.key, waited: waited})
	}
}

// over reports the end of a wait that was reported.
func (l *slowLog) over(c *claim) {
	if l == nil {
		return
	}
	if _, reported := l.next[c]; reported {
		delete(l.next, c)
		l.send(slowRecord{key: c.key, waited: c.at.Sub(c.asked), over: true, err: c.err})
	}
}

// end reports the end of every wait that is left when the manager has ended.
func (l *slowLog) end() {
	if l == nil {
		return
	}
	for c := range l.next {
		l.send(slowRecord{key: c.key, waited: time.Since(c.asked), over: true, err: ErrClosed})
	}
}

func (l *slowLog) send(r slowRecord) {
	select {
	case l.records <- r:
	default: // the logger is slower than the waits
		l.lost++
	}
}

// run logs the records until there are no more. A logger may panic, or end its goroutine: that costs one record.
func (l *slowLog) run() {
	ended := false
	defer func() {
		if !ended {
			_ = recover()
			go l.run()
		}
	}()
	for r := range l.records {
		l.log(r)
	}
	ended = true
}

func (l *slowLog) log(r slowRecord) {
	attrs := []slog.Attr{slog.String("key", show.Bare(&r.key)), slog.Duration("waited", r.waited)}
	level, message := slog.LevelWarn, "cohort: a slow wait at the engine"
	switch {
	case r.over && r.err != nil:
		level, message = slog.LevelInfo, "cohort: a slow wait at the engine has ended without the lock"
		attrs = append(attrs, slog.Any("error", r.err))
	case r.over:
		level, message = slog.LevelInfo, "cohort: a slow wait at the engine was granted"
	case l.engine != nil:
		attrs = append(attrs, l.ahead(r.key)...)
	}
	l.logger.LogAttrs(context.Background(), level, message, attrs...)
}

// ahead asks the engine who is before this process in the queue of key.
func (l *slowLog) ahead(key string) []slog.Attr {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	queue, err := l.engine.Inspect(ctx, key)
	if err != nil {
		return []slog.Attr{slog.Any("queue_unknown", err)}
	}
	var attrs []slog.Attr
	for i, c := range queue {
		if c.Own {
			return append(attrs, slog.Int("ahead", i))
		}
		if i == 0 {
			attrs = append(attrs, slog.String("holder", textOr(c.Process.String(), "unknown")), slog.Uint64("holder_epoch", c.Epoch))
			if !c.Since.IsZero() {
				attrs = append(attrs, slog.Time("holder_since", c.Since))
			}
		}
	}
	return attrs
}

func textOr(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return show.Bare(&text)
}
