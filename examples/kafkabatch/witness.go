package main

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A witness watches a handler and counts what goes wrong. Its methods may be called from any
// goroutine.
type witness struct {
	mu       sync.Mutex
	keys     map[orderKey]*seenOf
	handled  map[place]bool
	findings findings
}

// findings are the counts of a witness.
type findings struct {
	handled    int // records that were handled, each counted once
	again      int // successes on a record that had been handled before
	overlaps   int // calls begun while another one of the same key was under way
	violations int // calls begun after one for a later record of the same key, or after a failure of an earlier one
}

// seenOf is what a witness knows of the records of a key.
type seenOf struct {
	running int
	last    int64 // the highest offset begun
	failed  bool
}

// place is where a record stands in its topic.
type place struct {
	partition int32
	offset    int64
}

func newWitness() *witness {
	return &witness{keys: make(map[orderKey]*seenOf), handled: make(map[place]bool)}
}

// watch returns a handler that does what handle does, under the eyes of the witness.
func (w *witness) watch(handle handler) handler {
	return func(ctx context.Context, record *kgo.Record) error {
		if !w.begin(ctx, record) {
			return ctx.Err()
		}
		err := handle(ctx, record)
		w.end(record, err)
		return err
	}
}

// begin counts a call that begins. It is false for one whose context has ended, and then the call is not
// made, unless an earlier one of its key has failed: the partition may have been taken away between the
// decision to call and now, and its records may begin again, from an earlier one.
func (w *witness) begin(ctx context.Context, record *kgo.Record) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.keys[orderKeyOf(record)]
	if in == nil {
		in = &seenOf{last: -1}
		w.keys[orderKeyOf(record)] = in
	}
	if ctx.Err() != nil && !in.failed {
		return false
	}
	if in.running > 0 {
		w.findings.overlaps++
	}
	if in.failed || record.Offset <= in.last {
		w.findings.violations++
	}
	in.running++
	in.last = max(in.last, record.Offset)
	return true
}

func (w *witness) end(record *kgo.Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.keys[orderKeyOf(record)]
	in.running--
	at := place{record.Partition, record.Offset}
	switch {
	case err != nil:
		in.failed = true
	case w.handled[at]:
		w.findings.again++
	default:
		w.handled[at] = true
		w.findings.handled++
	}
}

// rewound tells the witness that the records of the batch come again, from the first on.
func (w *witness) rewound(batch []*kgo.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, record := range batch {
		if in := w.keys[orderKeyOf(record)]; in != nil {
			in.last, in.failed = -1, false
		}
	}
}

// found returns the counts so far.
func (w *witness) found() findings {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.findings
}

// retried tells the witness that the record failed and comes again as the first of its key.
func (w *witness) retried(record *kgo.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.keys[orderKeyOf(record)]
	in.last, in.failed = min(in.last, record.Offset-1), false
}

// released tells the witness that the records of a partition come again from an offset on.
func (w *witness) released(partition int32, from int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, in := range w.keys {
		if key.partition == partition {
			in.last, in.failed = min(in.last, from-1), false
		}
	}
}
