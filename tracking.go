package keylock

import (
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// tracking is what the options ask to be noted of every request that waits or holds.
// Only the owner touches it.
type tracking[K comparable] struct {
	timed         bool // WithHoldTimes: the clock is read for grants too
	times         histogram
	waits, grants ages[K]
	firsts        firsts[K]
	slow          *slowLog[K] // nil unless WithSlowLog
}

// observe starts what the options ask for.
func (o *owner[K]) observe(options options) {
	if !options.callers && !options.holdTimes {
		return
	}
	o.m.tracks, o.m.callers = true, options.callers
	o.tracking = &tracking[K]{timed: options.holdTimes}
	if options.slowLog != nil {
		o.tracking.slow = o.startSlowLog(options.slowLog, options.slowAfter)
	}
}

// stopObserving ends what observe started.
func (o *owner[K]) stopObserving() {
	if o.tracking != nil && o.tracking.slow != nil {
		o.tracking.slow.end()
	}
}

// A tracked follows one request from its arrival to the end of its grant.
type tracked[K comparable] struct {
	// Written by the caller, before the request is sent.
	caller Caller

	// Owned by the owner.
	ticket *table.Ticket[K]
	since  time.Duration // when the wait began, or the grant
	seq    uint64        // of the grant
	first  int           // where it is in firsts, counted from 1; 0 while nowhere
	list   *ages[K]      // where it is; nil while nowhere
	level  int           // and on which level
	prev   *tracked[K]
	next   *tracked[K]

	parcel *parcel // what its grant came with, of a session

	told *slowRecord[K] // what the slow log told of it last; nil when nothing
}

// newTracked returns what the options say has to be noted of a call.
func (m *Manager[K]) newTracked() *tracked[K] {
	s := new(tracked[K])
	if m.callers {
		s.caller.capture()
	}
	return s
}

// wait notes that a request has to wait.
func (o *owner[K]) wait(r *acquire[K]) {
	r.since = o.meter.now()
	if s := r.tracked; s != nil {
		s.ticket, s.since = r.ticket, r.since
		o.tracking.begin(s, &o.tracking.waits)
	}
}

// waited notes that the wait of a request has ended.
func (o *owner[K]) waited(r *acquire[K], now time.Duration, outcome string) {
	o.meter.waits.observe(now - r.since)
	if r.tracked != nil {
		o.tracking.end(r.tracked, now, outcome)
	}
}

// held notes that a request is about to be answered with its grant, if anything is noted
// of it.
func (o *owner[K]) held(r *acquire[K], token table.Token[K], now time.Duration) {
	s := r.tracked
	r.tracked = nil
	if now == unread && o.tracking.timed {
		now = o.meter.now()
	}
	s.ticket, s.since = token.Ticket(), now
	s.seq = token.Seq()
	s.ticket.SetTag(s)
	if s.ticket.First() {
		o.tracking.firsts.push(s)
	}
	o.tracking.begin(s, &o.tracking.grants)
}

// tracked returns what is noted of a live grant; nil when nothing is.
func (o *owner[K]) tracked(token table.Token[K]) *tracked[K] {
	s, _ := token.Ticket().Tag().(*tracked[K])
	return s
}

// released notes that a grant has ended, if anything is noted of it.
func (o *owner[K]) released(s *tracked[K]) {
	if s == nil {
		return
	}
	tracking, now := o.tracking, unread
	if tracking.timed {
		now = o.meter.now()
		tracking.times.observe(now - s.since)
	}
	tracking.end(s, now, "released")
}

// begin lets a request begin to wait, or to hold.
func (t *tracking[K]) begin(s *tracked[K], list *ages[K]) {
	s.level = 0
	list.push(s)
	if t.slow != nil {
		t.slow.expect(s.since, t.slow.after)
	}
}

// end ends a wait, or a hold.
func (t *tracking[K]) end(s *tracked[K], now time.Duration, outcome string) {
	s.list.remove(s)
	t.firsts.remove(s)
	if s.told != nil {
		t.slow.over(s, now-s.since, outcome)
	}
}

// ages keeps what is tracked in the order of their age. They begin on level 0, and the slow log
// moves them up one level each time that they reach the age of its next line. Since all
// of a level move up at the same age, each level is a queue, and those on a higher one
// are older.
type ages[K comparable] struct {
	levels [levels]struct{ head, tail *tracked[K] }
	top    int // no level above it is in use
}

// levels are so many that the age of the last cannot be reached.
const levels = 64

func (a *ages[K]) push(s *tracked[K]) {
	l := &a.levels[s.level]
	a.top = max(a.top, s.level)
	s.list, s.prev = a, l.tail
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail = s
}

func (a *ages[K]) remove(s *tracked[K]) {
	l := &a.levels[s.level]
	if s.prev == nil {
		l.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		l.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.list, s.prev, s.next = nil, nil, nil
	for a.top > 0 && a.levels[a.top].head == nil {
		a.top--
	}
}

// oldest yields what it keeps, the oldest first.
func (a *ages[K]) oldest(yield func(*tracked[K]) bool) {
	for level := a.top; level >= 0; level-- {
		for s := a.levels[level].head; s != nil; s = s.next {
			if !yield(s) {
				return
			}
		}
	}
}

// age is how old the oldest is.
func (a *ages[K]) age(now time.Duration) time.Duration {
	for s := range a.oldest {
		if s.since != unread {
			return now - s.since
		}
	}
	return 0
}
