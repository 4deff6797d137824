package keylock

import (
	"fmt"
	"path"
	"reflect"
	"runtime"
	"strings"
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

// newTracking returns the tracking that the options ask for; nil when they ask for none. look
// makes the owner look at the slow log.
func newTracking[K comparable](options options, look func()) *tracking[K] {
	if !options.callers && !options.holdTimes {
		return nil
	}
	t := &tracking[K]{timed: options.holdTimes}
	if options.slowLog != nil {
		t.slow = newSlowLog[K](options.slowLog, options.slowAfter, look)
		t.slow.callAnew()
	}
	return t
}

// stop ends what the slow log has started.
func (t *tracking[K]) stop() {
	if t != nil && t.slow != nil {
		t.slow.end()
	}
}

// lost is how many records the slow log has lost.
func (t *tracking[K]) lost() uint64 {
	if t.slow == nil {
		return 0
	}
	return t.slow.lost.Load()
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

	tag any // that its grant's ticket would have without it

	told *slowRecord[K] // what the slow log told of it last; nil when nothing
}

// newTracked returns what the options say has to be noted of a call.
func newTracked[K comparable](callers bool) *tracked[K] {
	s := new(tracked[K])
	if callers {
		s.caller.capture()
	}
	return s
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

// lead notes which grants have become the first of their keys, because those before them
// have ended.
func (t *tracking[K]) lead(tickets []*table.Ticket[K]) {
	for _, k := range tickets {
		if s, ok := k.Tag().(*tracked[K]); ok { // or it has ended, too, or will be noted of when it is delivered
			t.firsts.push(s)
		}
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

// firsts are the grants that were the first of those by which a key is held now, so the
// oldest of them is of the key that has been held for longest, however many hold other keys
// together. It is a heap by grant number, in segments, because a copy of all would take long.
type firsts[K comparable] struct {
	segments [][]*tracked[K]
	size     int
}

const firstsSegment = 1024

func (f *firsts[K]) at(i int) *tracked[K] { return f.segments[i/firstsSegment][i%firstsSegment] }

func (f *firsts[K]) put(s *tracked[K], i int) {
	f.segments[i/firstsSegment][i%firstsSegment] = s
	s.first = i + 1
}

// push adds a grant, if it is not there.
func (f *firsts[K]) push(s *tracked[K]) {
	if s.first > 0 {
		return
	}
	if f.size == len(f.segments)*firstsSegment {
		f.segments = append(f.segments, make([]*tracked[K], firstsSegment))
	}
	f.put(s, f.size)
	f.size++
	f.up(s)
}

// remove takes a grant out, if it is there.
func (f *firsts[K]) remove(s *tracked[K]) {
	i := s.first - 1
	if i < 0 {
		return
	}
	s.first = 0
	f.size--
	last := f.at(f.size)
	f.segments[f.size/firstsSegment][f.size%firstsSegment] = nil
	if n := len(f.segments) - 2; n >= 0 && f.size <= n*firstsSegment { // one that is empty is kept
		f.segments[n+1] = nil
		f.segments = f.segments[:n+1]
	}
	if last != s {
		f.put(last, i)
		f.up(last)
		f.down(last)
	}
}

func (f *firsts[K]) up(s *tracked[K]) {
	for i := s.first - 1; i > 0; {
		above := (i - 1) / 2
		if f.at(above).seq < s.seq {
			return
		}
		f.put(f.at(above), i)
		f.put(s, above)
		i = above
	}
}

func (f *firsts[K]) down(s *tracked[K]) {
	for i := s.first - 1; ; {
		below := 2*i + 1
		if below+1 < f.size && f.at(below+1).seq < f.at(below).seq {
			below++
		}
		if below >= f.size || s.seq < f.at(below).seq {
			return
		}
		f.put(f.at(below), i)
		f.put(s, below)
		i = below
	}
}

// oldest yields the grants, the oldest first.
func (f *firsts[K]) oldest(yield func(*tracked[K]) bool) {
	var taken []*tracked[K]
	for f.size > 0 {
		s := f.at(0)
		f.remove(s)
		taken = append(taken, s)
		if !yield(s) {
			break
		}
	}
	for _, s := range taken {
		f.push(s)
	}
}

// A Caller is a call site: the place in the code that asked for a lock, and the calls that
// led there, innermost first. It is empty unless [WithCallers] is on. It holds program
// counters, and looks up names and lines only when its methods are called.
type Caller struct {
	pcs *[callerDepth]uintptr
}

// callerDepth is how many calls are kept. Up to six of them are this module's own, which
// leaves the line, and the caller of the helper that it is in.
const callerDepth = 8

// capture notes who called into this package.
func (c *Caller) capture() {
	c.pcs = new([callerDepth]uintptr)
	runtime.Callers(3, c.pcs[:]) // without itself, capture and newTracked
}

// Frames returns the calls, innermost first, beginning with the first outside this package
// and package cohort. It returns nil when the Caller is empty, and when there is no such
// call, because a go statement called the method itself.
func (c Caller) Frames() []runtime.Frame {
	var frames []runtime.Frame
	for frame := range c.outside {
		frames = append(frames, frame)
	}
	return frames
}

// outside yields the calls outside this module, innermost first.
func (c Caller) outside(yield func(runtime.Frame) bool) {
	if c.pcs == nil {
		return
	}
	n := 0
	for n < len(c.pcs) && c.pcs[n] != 0 {
		n++
	}
	own := true
	for frames, more := runtime.CallersFrames(c.pcs[:n]), n > 0; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		own = own && (strings.HasPrefix(frame.Function, ownPackage+".") || strings.HasPrefix(frame.Function, ownPackage+"/cohort."))
		if !own && frame.Function != "runtime.goexit" && !yield(frame) {
			return
		}
	}
}

// ownPackage is the path of this package, wherever it is vendored.
var ownPackage = reflect.TypeFor[Caller]().PkgPath()

// String returns the file with its folder, the line and the function, as in
// "billing/charge.go:42 billing.(*Server).charge"; "a go statement" when that called the
// method itself; and "" for the empty Caller.
func (c Caller) String() string {
	if c.pcs == nil {
		return ""
	}
	for frame := range c.outside {
		folder, file := path.Split(frame.File)
		return fmt.Sprintf("%s:%d %s", path.Join(path.Base(folder), file), frame.Line, path.Base(frame.Function))
	}
	return "a go statement"
}
