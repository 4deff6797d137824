package keylock

import (
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A watch is what the owner knows of time: how long waits took and, where an option asks
// for it, who has been waiting and holding for how long. Only the owner touches it.
type meter[K comparable] struct {
	started  time.Time // the zero of the owner's clock
	waits    Histogram
	tracking *tracking[K] // nil unless an option needs them

	reading time.Duration // the last of the clock; unread when it is not good any more
	readAt  uint64        // the request at which it was
	paused  bool          // the owner may have to wait for the next request

	// How busy the owner is. Now and then it takes the time that one request takes, and
	// counts all since the last such one as if each had taken as long.
	requests uint64        // received
	serving  time.Duration // the time that they took
	counted  uint64        // the request up to which serving goes
	sample   uint64        // the request from which on the next is to be timed
	sampling time.Duration // when the one that is being timed began; unread when none is
}

// next notes that the owner has received a request, and how many more are there. It costs
// a few additions and comparisons, and the length of a channel whose memory has just been
// touched.
func (w *meter[K]) next(more int) {
	w.requests++
	if w.paused {
		w.reading = unread
	}
	w.paused = more == 0
	if w.requests >= w.sample {
		w.time()
	}
}

// time begins to take the time of a request, or ends it when the next one was received:
// only of one after which more are there, because the owner would have to wait otherwise.
func (w *meter[K]) time() {
	switch {
	case w.sampling != unread:
		took := time.Since(w.started) - w.sampling
		w.serving += took * time.Duration(w.requests-w.counted)
		w.counted, w.sample, w.sampling = w.requests, w.requests+64, unread
	case !w.paused:
		w.sampling = time.Since(w.started)
	}
}

// now reads the owner's clock: when a request has to queue and when its wait is over,
// never for a request that is served at once, unless an option asks for it. An owner who
// has had no pause since looks again only at the 16th request, because on a key that
// everybody wants, to read the clock twice per grant would be a quarter of its work.
func (w *meter[K]) now() time.Duration {
	if w.reading == unread || w.requests-w.readAt >= 16 {
		w.reading, w.readAt = time.Since(w.started), w.requests
	}
	return w.reading
}

// at is the date of a reading; zero when there was none.
func (w *meter[K]) at(reading time.Duration) time.Time {
	if reading == unread {
		return time.Time{}
	}
	return w.started.Add(reading)
}

// unread stands for a clock that nobody read.
const unread time.Duration = -1

// stays are all stays at this moment.
type tracking[K comparable] struct {
	timed         bool // WithHoldTimes: the clock is read for grants too
	times         Histogram
	waits, grants ages[K]
	slow          *slowLog[K] // nil unless WithSlowLog
}

// observe starts what the options ask for.
func (o *owner[K]) observe(options options) {
	o.meter.started, o.meter.reading, o.meter.sampling = time.Now(), unread, unread
	if !options.callers && !options.holdTimes {
		return
	}
	o.m.watched, o.m.callers = true, options.callers
	o.meter.tracking = &tracking[K]{timed: options.holdTimes}
	if options.slowLog == nil {
		return
	}
	slow := &slowLog[K]{
		after:   options.slowAfter,
		lines:   make(chan slowRecord[K], slowRoom),
		look:    func() { o.m.send(tick[K]{}, table.Token[K]{}) },
		waiting: make(map[K]*slowRecord[K]),
	}
	o.meter.tracking.slow = slow
	go slow.run(options.slowLog)
}

// end ends what observe started.
func (w *meter[K]) end() {
	if w.tracking != nil && w.tracking.slow != nil {
		w.tracking.slow.end()
	}
}

// A stay follows one request from its arrival to the end of its grant.
type tracked[K comparable] struct {
	caller Caller // written before the request is sent

	// The rest belongs to the owner.
	ticket *table.Ticket[K]
	since  time.Duration // when the wait began, or the grant
	list   *ages[K]      // where it is; nil while nowhere
	level  int           // and on which level
	prev   *tracked[K]
	next   *tracked[K]

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
		o.meter.tracking.begin(s, &o.meter.tracking.waits)
	}
}

// waited notes that the wait of a request has ended.
func (o *owner[K]) waited(r *acquire[K], now time.Duration, outcome string) {
	o.meter.waits.observe(now - r.since)
	if r.tracked != nil {
		o.meter.tracking.end(r.tracked, now, outcome)
	}
}

// held notes that a request is about to be answered with its grant, if anything is noted
// of it.
func (o *owner[K]) held(r *acquire[K], token table.Token[K], now time.Duration) {
	s := r.tracked
	r.tracked = nil
	if now == unread && o.meter.tracking.timed {
		now = o.meter.now()
	}
	s.ticket, s.since = token.Ticket(), now
	s.ticket.SetTag(s)
	o.meter.tracking.begin(s, &o.meter.tracking.grants)
}

// stay returns what is noted of a live grant; nil when nothing is.
func (o *owner[K]) tracked(token table.Token[K]) *tracked[K] {
	s, _ := token.Ticket().Tag().(*tracked[K])
	return s
}

// released notes that a grant has ended, if anything is noted of it.
func (o *owner[K]) released(s *tracked[K]) {
	if s == nil {
		return
	}
	tracking, now := o.meter.tracking, unread
	if tracking.timed {
		now = o.meter.now()
		tracking.times.observe(now - s.since)
	}
	tracking.end(s, now, "released")
}

// begin lets a stay begin to wait, or to hold.
func (t *tracking[K]) begin(s *tracked[K], list *ages[K]) {
	s.level = 0
	list.push(s)
	if t.slow != nil {
		t.slow.expect(t.slow.after)
	}
}

// end ends a wait, or a hold.
func (t *tracking[K]) end(s *tracked[K], now time.Duration, outcome string) {
	s.list.remove(s)
	if s.told != nil {
		t.slow.over(s, now-s.since, outcome)
	}
}

// ages keeps stays in the order of their age. They begin on level 0, and the slow log
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

// oldest yields the stays, the oldest first.
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
