package keylock

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/show"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A slowLog logs waits and holds that last long, while they do. The owner notices them when
// its timer makes it look, and passes records to a goroutine that calls the logger, for
// which nothing waits.
type slowLog[K comparable] struct {
	after  time.Duration
	logger *slog.Logger
	look   func() // makes the owner look
	now    func() time.Duration

	// Shared by the owner and the goroutines that call the logger.
	records chan slowRecord[K]
	lost    atomic.Uint64 // records that were not logged
	failed  atomic.Uint64 // those of them in which the logger failed, and of which no record says so yet
	current atomic.Uint64 // the number of the goroutine that takes the records
	calling atomic.Int64  // when its call of the logger began; notCalling while it is in none
	callers atomic.Int64  // goroutines, with those that are stuck in an earlier call

	// Owned by the owner.
	timer   *time.Timer          // nil while no request waits or holds, and while the owner looks
	looked  chan struct{}        // closed when the timer's function returns
	due     time.Duration        // when the timer goes off
	waiting map[K]*slowRecord[K] // of each key the wait that is logged
	period  time.Duration        // when the budget was renewed last
	spent   int                  // records since then
	missing uint64               // records lost since the last that was sent
}

const (
	slowRoom     = 64          // records that wait for the logger
	slowBudget   = 32          // records within after, but for those that say that something has ended
	slowBatch    = 1024        // requests to look at before others are served
	slowPatience = time.Second // how long a call of the logger may take before another goroutine takes its place
	slowCallers  = 4           // goroutines at most

	notCalling = -1
)

// A slowRecord is what is logged. It has the key itself: a text of it is made where the
// logger is called, and only for a record that is logged.
type slowRecord[K comparable] struct {
	wait    bool // or else a hold
	key     K
	keys    int // of its request
	lasted  time.Duration
	queue   int    // waiters of the key
	outcome string // how it ended; empty while it has not

	seq     uint64 // of a hold
	mode    Mode
	session string
	caller  Caller

	lost   uint64        // records before it that were not sent
	holder *Entry        // of a wait: who has the key; nil when it is not held yet
	held   time.Duration // and for how long
}

// newSlowLog returns a slow log whose records no goroutine takes yet. look makes the owner look
// at what has lasted long.
func newSlowLog[K comparable](logger *slog.Logger, after time.Duration, look func()) *slowLog[K] {
	started := time.Now()
	return &slowLog[K]{
		after:   after,
		logger:  logger,
		look:    look,
		now:     func() time.Duration { return time.Since(started) },
		records: make(chan slowRecord[K], slowRoom),
		waiting: make(map[K]*slowRecord[K]),
	}
}

// expect makes the owner look when d has passed, unless it will look before that anyway.
func (l *slowLog[K]) expect(now, d time.Duration) {
	switch {
	case l.timer == nil:
		looked := make(chan struct{})
		l.looked = looked
		l.timer = time.AfterFunc(d, func() {
			defer close(looked)
			l.look()
		})
	case l.due-now <= d || !l.timer.Stop():
		return
	default: // it waits for something that began long ago, and will not be due for long
		l.timer.Reset(d)
	}
	l.due = now + min(d, never-now)
}

// end stops the timer, and ends the logger's goroutine after the records that are left.
func (l *slowLog[K]) end() {
	if l.timer != nil && !l.timer.Stop() {
		<-l.looked
	}
	close(l.records)
}

// logSlow logs everything that has lasted long enough, the oldest first, and holds before
// waits, because they are what is waited for.
func (o *owner[K]) logSlow() {
	t := o.tracking
	t.slow.timer = nil
	now, left, next := o.meter.now(), slowBatch, never
	for s := range t.grants.due(now, t.slow.after, &left, &next) {
		o.recordHold(s, now)
	}
	for s := range t.waits.due(now, t.slow.after, &left, &next) {
		o.recordWait(s, now)
	}
	if next != never {
		t.slow.expect(now, next)
	}
}

// never is later than anything.
const never time.Duration = math.MaxInt64

// due moves up what has reached the age of its level, and yields it, while any is left to
// look at. It lowers next to the time until there is more.
func (a *ages[K]) due(now, after time.Duration, left *int, next *time.Duration) func(func(*tracked[K]) bool) {
	return func(yield func(*tracked[K]) bool) {
		for level := a.top; level >= 0; level-- {
			for s := a.levels[level].head; s != nil; s = a.levels[level].head {
				age := now - s.since
				if wait := threshold(after, level) - age; wait > 0 {
					*next = min(*next, wait)
					break
				}
				if *left == 0 {
					*next = 0
					return
				}
				*left--
				a.remove(s)
				for threshold(after, s.level) <= age {
					s.level++
				}
				a.push(s)
				*next = min(*next, threshold(after, s.level)-age)
				yield(s)
			}
		}
	}
}

// threshold is the age at which a level is left.
func threshold(after time.Duration, level int) time.Duration {
	if d := after << level; d>>level == after {
		return d
	}
	return never
}

// recordHold logs a hold, with the longest queue behind it.
func (o *owner[K]) recordHold(s *tracked[K], now time.Duration) {
	p := s.ticket.Entry()
	record := &slowRecord[K]{
		keys: p.Keys, lasted: now - s.since, queue: -1,
		seq: p.Seq, mode: Mode(p.Mode), session: p.Label, caller: s.caller,
	}
	for v := range o.table.Of(s.ticket) {
		if v.Waiting > record.queue {
			record.key, record.queue = v.Key, v.Waiting
		}
	}
	record.queue = max(record.queue, 0) // there may be no key
	o.tracking.slow.begin(s, record, now)
}

// recordWait logs a wait, and what it waits for, unless another wait for that key is
// logged already.
func (o *owner[K]) recordWait(s *tracked[K], now time.Duration) {
	p := s.ticket.Entry()
	record := &slowRecord[K]{
		wait: true, keys: p.Keys, lasted: now - s.since,
		mode: Mode(p.Mode), session: p.Label, caller: s.caller,
	}
	for v := range o.table.Of(s.ticket) {
		first := o.first(v)
		if first.Tag == p.Tag {
			continue // it has this key as good as granted
		}
		record.key, record.queue = v.Key, v.Waiting
		if first.Seq != 0 {
			h := o.holder(first)
			record.holder, record.held = &h, now-first.Tag.(*tracked[K]).since
		}
		break
	}
	slow := o.tracking.slow
	if logged := slow.waiting[record.key]; logged == nil || logged == s.told {
		slow.begin(s, record, now)
	}
}

// first returns the first entry of a queue.
func (o *owner[K]) first(v table.View[K]) (first table.Entry) {
	for first = range v.Entries {
		break
	}
	return first
}

// begin sends a record of something that goes on, if there is budget.
func (l *slowLog[K]) begin(s *tracked[K], record *slowRecord[K], now time.Duration) {
	if now-l.period >= l.after {
		l.period, l.spent = now, 0
	}
	if l.spent == slowBudget {
		l.lose()
		return
	}
	if !l.send(*record) {
		return
	}
	l.spent++
	l.forget(s)
	s.told = record
	if record.wait {
		l.waiting[record.key] = record
	}
}

// over sends a record that what was logged has ended.
func (l *slowLog[K]) over(s *tracked[K], lasted time.Duration, outcome string) {
	record := *s.told
	record.lasted, record.outcome = lasted, outcome
	l.send(record)
	l.forget(s)
}

// forget forgets what was logged of a request.
func (l *slowLog[K]) forget(s *tracked[K]) {
	if s.told != nil && s.told.wait {
		delete(l.waiting, s.told.key)
	}
	s.told = nil
}

// send passes a record to the goroutine that calls the logger, if there is room. Where
// that goroutine has been in one call for too long, another takes its place.
func (l *slowLog[K]) send(record slowRecord[K]) bool {
	if began := l.calling.Load(); began != notCalling && l.now()-time.Duration(began) > slowPatience && l.callers.Load() < slowCallers {
		l.callAnew()
	}
	record.lost = l.missing
	select {
	case l.records <- record:
		l.missing = 0
		return true
	default:
		l.lose()
		return false
	}
}

// lose counts a record that is not sent.
func (l *slowLog[K]) lose() {
	l.missing++
	l.lost.Add(1)
}

// callAnew starts a goroutine that calls the logger, in place of the one before it.
func (l *slowLog[K]) callAnew() {
	l.calling.Store(notCalling)
	l.callers.Add(1)
	go l.call(l.current.Add(1))
}

// call calls the logger until the manager has ended, or another goroutine has taken its
// place.
func (l *slowLog[K]) call(number uint64) {
	returned := false
	defer func() {
		if returned {
			l.callers.Add(-1)
		} else {
			go l.call(number) // the logger has ended this goroutine
		}
	}()
	for record := range l.records {
		l.write(record)
		if l.current.Load() != number {
			break
		}
	}
	returned = true
}

// write logs a record. It is lost when the logger panics or ends the goroutine.
func (l *slowLog[K]) write(record slowRecord[K]) {
	record.lost += l.failed.Swap(0)
	began := int64(l.now())
	l.calling.Store(began)
	written := false
	defer func() {
		l.calling.CompareAndSwap(began, notCalling) // unless another goroutine calls by now
		if !written {
			l.lost.Add(1)
			l.failed.Add(record.lost + 1)
			_ = recover()
		}
	}()
	level, attrs := record.attrs()
	l.logger.LogAttrs(context.Background(), level, record.message(), attrs...)
	written = true
}

func (r *slowRecord[K]) message() string {
	message := "keylock: slow hold"
	if r.wait {
		message = "keylock: slow wait"
	}
	if r.outcome != "" {
		message += " ended"
	}
	return message
}

// attrs returns the level and the attributes of a record.
func (r *slowRecord[K]) attrs() (slog.Level, []slog.Attr) {
	level, lasted := slog.LevelWarn, "held"
	if r.outcome != "" {
		level = slog.LevelInfo
	}
	if r.wait {
		lasted = "waited"
	}
	var attrs []slog.Attr
	if r.keys > 0 {
		attrs = append(attrs, slog.String("key", show.Bare(&r.key)))
	}
	if r.keys != 1 {
		attrs = append(attrs, slog.Int("keys", r.keys))
	}
	attrs = append(attrs, slog.Duration(lasted, r.lasted))
	if r.outcome != "" {
		attrs = append(attrs, slog.String("outcome", r.outcome))
	} else {
		attrs = append(attrs, slog.Int("queue", r.queue))
	}
	attrs = append(attrs, entryAttrs(r.seq, r.mode, r.session, r.caller)...)
	if h := r.holder; h != nil && r.outcome == "" {
		holder := append(entryAttrs(h.Seq, h.Mode, h.Session, h.Caller), slog.Duration("held", r.held))
		attrs = append(attrs, slog.GroupAttrs("holder", holder...))
	}
	if r.lost > 0 {
		attrs = append(attrs, slog.Uint64("lost", r.lost))
	}
	return level, attrs
}

// entryAttrs returns what is known of a waiter or a holder.
func entryAttrs(seq uint64, mode Mode, session string, caller Caller) []slog.Attr {
	var attrs []slog.Attr
	if seq != 0 {
		attrs = append(attrs, slog.Uint64("grant", seq))
	}
	attrs = append(attrs, slog.String("mode", mode.String()))
	if session != "" {
		attrs = append(attrs, slog.String("session", show.Bare(&session)))
	}
	if at := caller.String(); at != "" {
		attrs = append(attrs, slog.String("caller", at))
	}
	return attrs
}
