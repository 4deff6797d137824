package keylock

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A slowLog tells a logger of waits and holds that last long, while they do. The owner
// notices them when its timer tells it to look, and passes lines to the one goroutine
// that calls the logger, for whom nobody waits.
type slowLog[K comparable] struct {
	after time.Duration
	lines chan slowRecord[K]
	lost  atomic.Uint64 // lines that were not logged

	// The rest belongs to the owner.
	look    func()               // makes the owner look
	timer   *time.Timer          // nil while nobody waits or holds, and while the owner looks
	looked  chan struct{}        // closed when the timer's function returns
	waiting map[K]*slowRecord[K] // of each key the wait that is told of
	period  time.Duration        // when the budget was renewed last
	spent   int                  // lines since then
	missing uint64               // lines lost since the last that was not
}

const (
	slowRoom   = 64   // lines that wait for the logger
	slowBudget = 32   // lines within after, but for those that say that something is over
	slowBatch  = 1024 // stays to look at before others are served
)

// A slowRecord is what the logger is told. It has the key itself, because to make a text
// of a key may run code of the user's.
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

	lost   uint64        // lines before it that are missing
	holder *Holder       // of a wait: who has the key; nil when nobody has it yet
	held   time.Duration // and for how long
}

// startSlowLog starts the goroutine that calls the logger.
func (o *owner[K]) startSlowLog(logger *slog.Logger, after time.Duration) *slowLog[K] {
	l := &slowLog[K]{
		after:   after,
		lines:   make(chan slowRecord[K], slowRoom),
		look:    func() { o.m.send(message[K]{request: tick[K]{}}) },
		waiting: make(map[K]*slowRecord[K]),
	}
	go l.run(logger)
	return l
}

// expect makes the owner look when d has passed, unless it will look anyway.
func (l *slowLog[K]) expect(d time.Duration) {
	if l.timer != nil {
		return
	}
	looked := make(chan struct{})
	l.looked = looked
	l.timer = time.AfterFunc(d, func() {
		defer close(looked)
		l.look()
	})
}

// end stops the timer and lets the logger's goroutine end.
func (l *slowLog[K]) end() {
	if l.timer != nil && !l.timer.Stop() {
		<-l.looked
	}
	close(l.lines)
}

// tick is the request of the slow log's timer.
type tick[K comparable] struct{}

func (tick[K]) refuse() {}

// serve tells of everything that has lasted long enough, the oldest first, and holds
// before waits, because they are what is waited for.
func (tick[K]) serve(o *owner[K]) {
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
		t.slow.expect(next)
	}
}

// never is later than anything.
const never time.Duration = math.MaxInt64

// due moves the stays up that have reached the age of their level, and yields them, while
// any is left to look at. It lowers next to the time until there are more.
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

// threshold is the age at which a stay leaves a level.
func threshold(after time.Duration, level int) time.Duration {
	if d := after << level; d>>level == after {
		return d
	}
	return never
}

// recordHold tells that somebody holds, and how many wait for it in the longest queue.
func (o *owner[K]) recordHold(s *tracked[K], now time.Duration) {
	p := s.ticket.Entry()
	line := &slowRecord[K]{
		keys: p.Keys, lasted: now - s.since, queue: -1,
		seq: p.Seq, mode: Mode(p.Mode), session: p.Label, caller: s.caller,
	}
	for v := range o.table.Of(s.ticket) {
		if v.Waiting > line.queue {
			line.key, line.queue = v.Key, v.Waiting
		}
	}
	line.queue = max(line.queue, 0) // there may be no key
	o.tracking.slow.tell(s, line, now)
}

// recordWait tells that somebody waits, and for whom, unless it tells of another wait for
// that key already.
func (o *owner[K]) recordWait(s *tracked[K], now time.Duration) {
	p := s.ticket.Entry()
	line := &slowRecord[K]{
		wait: true, keys: p.Keys, lasted: now - s.since,
		mode: Mode(p.Mode), session: p.Label, caller: s.caller,
	}
	for v := range o.table.Of(s.ticket) {
		first := o.first(v)
		if first.Tag == p.Tag {
			continue // it has this key as good as granted
		}
		line.key, line.queue = v.Key, v.Waiting
		if first.Seq != 0 {
			h := o.holder(first)
			line.holder, line.held = &h, now-first.Tag.(*tracked[K]).since
		}
		break
	}
	slow := o.tracking.slow
	if told := slow.waiting[line.key]; told == nil || told == s.told {
		slow.tell(s, line, now)
	}
}

// first returns who stands first in a line.
func (o *owner[K]) first(v table.View[K]) (first table.Entry) {
	for first = range v.Entries {
		break
	}
	return first
}

// tell passes a line on, if there is budget.
func (l *slowLog[K]) tell(s *tracked[K], line *slowRecord[K], now time.Duration) {
	if now-l.period >= l.after {
		l.period, l.spent = now, 0
	}
	if l.spent == slowBudget {
		l.lose()
		return
	}
	if !l.send(*line) {
		return
	}
	l.spent++
	l.forget(s)
	s.told = line
	if line.wait {
		l.waiting[line.key] = line
	}
}

// over tells that what it told of has ended.
func (l *slowLog[K]) over(s *tracked[K], lasted time.Duration, outcome string) {
	line := *s.told
	line.lasted, line.outcome = lasted, outcome
	l.send(line)
	l.forget(s)
}

// forget forgets what was told of a stay.
func (l *slowLog[K]) forget(s *tracked[K]) {
	if s.told != nil && s.told.wait {
		delete(l.waiting, s.told.key)
	}
	s.told = nil
}

// send passes a line to the logger's goroutine, if there is room.
func (l *slowLog[K]) send(line slowRecord[K]) bool {
	line.lost = l.missing
	select {
	case l.lines <- line:
		l.missing = 0
		return true
	default:
		l.lose()
		return false
	}
}

// lose counts a line that is not sent.
func (l *slowLog[K]) lose() {
	l.missing++
	l.lost.Add(1)
}

// run calls the logger until the manager has ended.
func (l *slowLog[K]) run(logger *slog.Logger) {
	for line := range l.lines {
		l.write(logger, line)
	}
}

// write logs a line. It is lost when the logger panics, which harms nobody else.
func (l *slowLog[K]) write(logger *slog.Logger, line slowRecord[K]) {
	written := false
	defer func() {
		if !written {
			l.lost.Add(1)
			_ = recover()
		}
	}()
	level, attrs := line.record()
	logger.LogAttrs(context.Background(), level, line.message(), attrs...)
	written = true
}

func (l *slowRecord[K]) message() string {
	message := "keylock: slow hold"
	if l.wait {
		message = "keylock: slow wait"
	}
	if l.outcome != "" {
		message += " is over"
	}
	return message
}

// record makes a log record of a line.
func (l *slowRecord[K]) record() (slog.Level, []slog.Attr) {
	level, lasted := slog.LevelWarn, "held"
	if l.outcome != "" {
		level = slog.LevelInfo
	}
	if l.wait {
		lasted = "waited"
	}
	attrs := []slog.Attr{slog.String("key", logText(fmt.Sprintf("%+v", l.key)))}
	if l.keys > 1 {
		attrs = append(attrs, slog.Int("keys", l.keys))
	}
	attrs = append(attrs, slog.Duration(lasted, l.lasted))
	if l.outcome != "" {
		attrs = append(attrs, slog.String("outcome", l.outcome))
	} else {
		attrs = append(attrs, slog.Int("queue", l.queue))
	}
	attrs = append(attrs, whoAttrs(l.seq, l.mode, l.session, l.caller)...)
	if h := l.holder; h != nil && l.outcome == "" {
		holder := append(whoAttrs(h.Seq, h.Mode, h.Session, h.Caller), slog.Duration("held", l.held))
		attrs = append(attrs, slog.GroupAttrs("holder", holder...))
	}
	if l.lost > 0 {
		attrs = append(attrs, slog.Uint64("lost", l.lost))
	}
	return level, attrs
}

// whoAttrs tells who waits or holds, as far as it is known.
func whoAttrs(seq uint64, mode Mode, session string, caller Caller) []slog.Attr {
	var attrs []slog.Attr
	if seq != 0 {
		attrs = append(attrs, slog.Uint64("grant", seq))
	}
	attrs = append(attrs, slog.String("mode", mode.String()))
	if session != "" {
		attrs = append(attrs, slog.String("session", logText(session)))
	}
	if at := caller.String(); at != "" {
		attrs = append(attrs, slog.String("caller", at))
	}
	return attrs
}

// logText makes any text fit for one line of a log, where it is quoted.
func logText(text string) string {
	text, cut := cutText(text)
	text = strings.ToValidUTF8(text, "\uFFFD")
	if cut {
		text += "…"
	}
	return text
}
