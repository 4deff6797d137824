package inorder

import (
	"fmt"
	"sync"
	"time"
)

// A Tracker knows of a log, such as a partition of a Kafka topic, up to which offset every record
// is done, when records are done in any order. Offsets need not be dense: compaction, aborted
// transactions and markers leave holes. The zero Tracker is ready to use and must not be copied.
// Its methods may be called from any goroutine.
//
// A Tracker belongs to one assignment of the partition: make a new one when the partition is
// assigned again, so that marks of the old one that are done late move nothing.
//
// It keeps a record while it is open, that is, tracked and not done, and nothing of those that are
// done. Every method takes the same time, whatever is open.
type Tracker struct {
	mu     sync.Mutex
	oldest *open // the open records are a list in the order of the log
	newest *open
	count  int
	begun  time.Time // when the first one was tracked; zero before
	last   int64     // the offset tracked last
}

// open is a record that is not done.
type open struct {
	before, after *open
	offset        int64
	started       time.Duration // after Tracker.begun, and 1 more; 0 is not yet
}

// A Mark is a record that a Tracker tracks. It is a small value; its copies are the same record.
type Mark struct {
	tracker *Tracker
	record  *open
}

// Track begins to track the record at offset, which is open until its mark is done. Records are
// tracked in the order of the log: it is an error if the offset is not above the last one. Then
// the log was truncated or read again from further back, and what the Tracker knows is worthless:
// make a new one.
func (t *Tracker) Track(offset int64) (Mark, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.begun.IsZero():
		t.begun = time.Now()
	case offset <= t.last:
		return Mark{}, fmt.Errorf("inorder: offset %d after %d: the log went back", offset, t.last)
	}
	t.last = offset
	r := &open{before: t.newest, offset: offset}
	if t.newest == nil {
		t.oldest = r
	} else {
		t.newest.after = r
	}
	t.newest = r
	t.count++
	return Mark{t, r}, nil
}

// Start notes that work on the record begins, for [Tracker.Oldest]. Only the first Start does.
func (m Mark) Start() {
	m.tracker.mu.Lock()
	defer m.tracker.mu.Unlock()
	if m.record.started == 0 {
		m.record.started = time.Since(m.tracker.begun) + 1
	}
}

// Done ends the record: nothing is to be done for it any more. Only the first Done does anything.
func (m Mark) Done() {
	t, r := m.tracker, m.record
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case r.before != nil:
		r.before.after = r.after
	case t.oldest == r:
		t.oldest = r.after
	default:
		return // done before
	}
	if r.after != nil {
		r.after.before = r.before
	} else {
		t.newest = r.before
	}
	r.before, r.after = nil, nil
	t.count--
}

// DoneIf is Done if err is nil; else the record stays open. It returns err.
func (m Mark) DoneIf(err error) error {
	if err == nil {
		m.Done()
	}
	return err
}

// Next returns the offset to commit: the smallest that is open, or else the one after the last
// that was tracked. Every tracked record below it is done. It is false while nothing has been tracked.
// It never goes down.
func (t *Tracker) Next() (offset int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next(), !t.begun.IsZero()
}

func (t *Tracker) next() int64 {
	if t.oldest != nil {
		return t.oldest.offset
	}
	return t.last + 1
}

// Open returns how many records are open.
func (t *Tracker) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// Span returns how many offsets there are from Next to the last that was tracked, and with it: at
// most so many records are handled again when the process ends now. It is 0 when nothing is open.
func (t *Tracker) Span() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.oldest == nil {
		return 0
	}
	return t.last - t.oldest.offset + 1
}

// Oldest returns the record that [Tracker.Next] waits for, and when work on it began, which is the
// zero time when it has not, or when Start was not called. It is false when nothing is open.
func (t *Tracker) Oldest() (offset int64, started time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.oldest == nil {
		return 0, time.Time{}, false
	}
	if t.oldest.started > 0 {
		started = t.begun.Add(t.oldest.started - 1)
	}
	return t.oldest.offset, started, true
}
