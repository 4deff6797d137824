package inorder

import (
	"fmt"
	"math"
	"math/bits"
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
// Its memory follows what is open, and not how far the log has come: 18 bytes for an open record
// whose neighbours are open too, and 560 for one whose neighbours are all done. No method does more
// when more is open.
type Tracker struct {
	mu     sync.Mutex
	oldest *stretch // those that are kept are a list in the order of the log
	newest *stretch
	count  int       // of open records
	begun  time.Time // when the first record was tracked; zero before
	last   int64     // the offset tracked last
}

// A stretch is up to stretchLen records that were tracked one after another. It is kept while one
// of them is open or may be added. So the records share their links, and a record that is done
// touches one of the stretches, which are small and near one another, whatever is open. It is never
// used again: a mark that is done twice ends no other record.
type stretch struct {
	tracker       *Tracker
	before, after *stretch
	records       *[stretchLen]record
	open          uint32 // a bit for each record, the first one's the lowest
	length        uint8
}

const stretchLen = 32

type record struct {
	offset  int64
	started time.Duration // after Tracker.begun, and 1 more; 0 is not yet
}

// A Mark is a record that a Tracker tracks. It is a small value; its copies are the same record. The
// methods of the zero Mark do nothing.
type Mark struct {
	of *stretch
	at uint8 // in of.records
}

// Track begins to track the record at offset, which is open until its mark is done. Records are
// tracked in the order of the log: it is an error if the offset is not above the last one. Then
// the log was truncated or read again from further back, and what the Tracker knows is worthless:
// make a new one. An offset below 0, and the largest there is, which has none after it, are errors, too.
func (t *Tracker) Track(offset int64) (Mark, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case offset < 0 || offset == math.MaxInt64:
		return Mark{}, fmt.Errorf("inorder: offset %d: want 0 to %d", offset, int64(math.MaxInt64-1))
	case t.begun.IsZero():
		t.begun = time.Now()
	case offset <= t.last:
		return Mark{}, fmt.Errorf("inorder: offset %d after %d: the log went back", offset, t.last)
	}
	t.last = offset
	s := t.newest
	if s == nil || s.length == stretchLen {
		s = t.extend()
	}
	at := s.length
	s.records[at].offset = offset
	s.open |= 1 << at
	s.length++
	t.count++
	return Mark{s, at}, nil
}

// extend appends a stretch to the list.
func (t *Tracker) extend() *stretch {
	s := &stretch{tracker: t, before: t.newest, records: new([stretchLen]record)}
	if t.newest == nil {
		t.oldest = s
	} else {
		t.newest.after = s
	}
	t.newest = s
	return s
}

// Start notes that work on the record begins, for [Tracker.Oldest]. Only the first Start does.
func (m Mark) Start() {
	if m.of == nil {
		return
	}
	t, r := m.of.tracker, &m.of.records[m.at]
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.started == 0 {
		r.started = time.Since(t.begun) + 1
	}
}

// Done ends the record: nothing is to be done for it any more. Only the first Done does anything.
func (m Mark) Done() {
	if m.of == nil {
		return
	}
	t, bit := m.of.tracker, uint32(1)<<m.at
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.of.open&bit == 0 {
		return // done before
	}
	m.of.open &^= bit
	t.count--
	if m.of.open == 0 && m.of.length == stretchLen {
		t.remove(m.of)
	}
}

// remove takes a stretch out of the list: all its records are done, and no more will be added.
func (t *Tracker) remove(s *stretch) {
	if s.before != nil {
		s.before.after = s.after
	} else {
		t.oldest = s.after
	}
	if s.after != nil {
		s.after.before = s.before
	} else {
		t.newest = s.before
	}
	s.before, s.after = nil, nil
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
	if r := t.first(); r != nil {
		return r.offset
	}
	return t.last + 1
}

// first returns the first open record; nil when there is none. Only the newest stretch may be
// without one, so the oldest has one if any has.
func (t *Tracker) first() *record {
	if t.count == 0 {
		return nil
	}
	return &t.oldest.records[bits.TrailingZeros32(t.oldest.open)]
}

// Open returns how many records are open.
func (t *Tracker) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// Span returns how many offsets there are from Next to the last that was tracked, and with it: if
// Next is committed, at most so many records are handled again when the process ends now. It is 0
// when nothing is open.
func (t *Tracker) Span() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.first(); r != nil {
		return t.last - r.offset + 1
	}
	return 0
}

// Oldest returns the record that [Tracker.Next] waits for, and when work on it began, which is the
// zero time when it has not, or when Start was not called. It is false when nothing is open.
func (t *Tracker) Oldest() (offset int64, started time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.first()
	if r == nil {
		return 0, time.Time{}, false
	}
	if r.started > 0 {
		started = t.begun.Add(r.started - 1)
	}
	return r.offset, started, true
}
