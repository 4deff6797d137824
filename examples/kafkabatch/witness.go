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
	lines    map[line]*lineState
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

// A line is the records of one key in one partition, which Kafka keeps in order.
type line struct {
	partition int32
	key       string
}

// lineState is what a witness knows of a line.
type lineState struct {
	running int
	last    int64 // the highest offset begun
	failed  bool
}

// place is where a record stands in its topic.
type place struct {
	partition int32
	offset    int64
}

func lineOf(record *kgo.Record) line { return line{record.Partition, string(record.Key)} }

func newWitness() *witness {
	return &witness{lines: make(map[line]*lineState), handled: make(map[place]bool)}
}

// watch returns a handler that does what handle does, under the eyes of the witness.
func (w *witness) watch(handle handler) handler {
	return func(ctx context.Context, record *kgo.Record) error {
		w.begin(record)
		err := handle(ctx, record)
		w.end(record, err)
		return err
	}
}

func (w *witness) begin(record *kgo.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.lines[lineOf(record)]
	if in == nil {
		in = &lineState{last: -1}
		w.lines[lineOf(record)] = in
	}
	if in.running > 0 {
		w.findings.overlaps++
	}
	if in.failed || record.Offset <= in.last {
		w.findings.violations++
	}
	in.running++
	in.last = max(in.last, record.Offset)
}

func (w *witness) end(record *kgo.Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.lines[lineOf(record)]
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
		if in := w.lines[lineOf(record)]; in != nil {
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
