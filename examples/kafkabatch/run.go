package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// run is the command: it consumes the topic in every mode and reports, also when a mode fails or
// ctx ends; then it reports what there is so far, and returns the error.
func run(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	if s.loads > 0 {
		return runLoads(ctx, s.loads, stdout, stderr)
	}
	where := "on the cluster given"
	if s.brokers == nil {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return fmt.Errorf("start a cluster in process: %w", err)
		}
		defer cluster.Close()
		s.brokers, where = cluster.ListenAddrs(), "on a cluster in this process"
	}
	t, err := openTopic(s.brokers, s.topic)
	if err != nil {
		return err
	}
	defer t.close()
	if s.records > 0 {
		if err := t.create(ctx, s.partitions); err != nil {
			return err
		}
		if err := t.produce(ctx, s.records, s.keys); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "Topic %s %s, batches of up to %d, %v of work per record.\n", s.topic, where, s.batchSize, s.work)
	if slices.ContainsFunc(s.modes, func(m mode) bool { return !m.streams() }) {
		fmt.Fprintln(stdout, policy)
	}
	if slices.ContainsFunc(s.modes, mode.streams) {
		fmt.Fprintln(stdout, streamPolicy)
	}
	fmt.Fprintln(stdout)

	results, err := consumeAll(ctx, s, t, stderr)
	if len(results) > 0 {
		err = errors.Join(err, writeTable(stdout, results))
	}
	if len(results) > 0 && s.svg != "" {
		err = errors.Join(err, writePlot(s.svg, results))
	}
	return err
}

// consumeAll consumes the topic in one mode after the other, of those wanted, until one fails or does not keep what
// it promises, or ctx ends. It returns the results so far even then.
func consumeAll(ctx context.Context, s settings, t *topic, stderr io.Writer) (results []result, err error) {
	for _, m := range s.modes {
		r, err := consume(ctx, s, t, m, stderr)
		if err != nil {
			return results, fmt.Errorf("%s: %w", m.name, err)
		}
		results = append(results, r)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		if err := r.verify(); err != nil {
			return results, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return results, nil
}

// A result is what a mode did.
type result struct {
	mode mode
	wall time.Duration // from the first call to the last commit
	findings
	lag int64 // what the group has not committed of what the topic held at the beginning
}

// rate returns how many records were handled in a second.
func (r result) rate() float64 { return float64(r.handled+r.again) / r.wall.Seconds() }

// verify returns an error if records were left over, or if the mode did not keep what it promises.
func (r result) verify() error {
	switch {
	case r.lag > 0:
		return fmt.Errorf("%d records were not committed", r.lag)
	case r.mode.ordered && r.overlaps+r.violations > 0:
		return fmt.Errorf("%d overlaps and %d order violations within keys, where there must be none", r.overlaps, r.violations)
	}
	return nil
}

// consume handles, in one mode, what the topic holds now and the mode's group has not committed.
// When ctx ends it returns what is done.
func consume(ctx context.Context, s settings, t *topic, m mode, stderr io.Writer) (result, error) {
	group := m.group(s.group)
	extent, err := t.extent(ctx)
	if err != nil {
		return result{}, err
	}
	lag, err := t.lag(ctx, group, extent)
	if err != nil {
		return result{}, err
	}
	bar := report.NewProgress(stderr, m.name, int(lag))
	defer bar.Finish()

	r := &recorder{mode: m, seen: newWitness(), stderr: stderr}
	handle := r.watch(failing(s.failEvery, work(s.work, bar.Step)))
	var c member
	if m.streams() {
		c = streaming(s, group, r, handle)
	} else {
		keys := keylock.Start[string](context.WithoutCancel(ctx)) // the batch at hand is finished even so
		defer keys.Close()
		if c, err = batching(s, group, r, keys, handle); err != nil {
			return result{}, err
		}
	}
	if err := runUntilDrained(ctx, c, t, group, extent); err != nil {
		return result{}, err
	}
	lag, err = t.lag(context.WithoutCancel(ctx), group, extent)
	return result{mode: m, wall: r.wall(), findings: r.seen.found(), lag: lag}, err
}

// A recorder notes what a mode does.
type recorder struct {
	mode   mode
	seen   *witness
	stderr io.Writer

	mu           sync.Mutex
	began, ended time.Time // the first call, the last commit
}

// watch returns a handler that does what handle does, under the eyes of the recorder.
func (r *recorder) watch(handle handler) handler {
	handle = r.seen.watch(handle)
	return func(ctx context.Context, record *kgo.Record) error {
		r.mu.Lock()
		if r.began.IsZero() {
			r.began = time.Now()
		}
		r.mu.Unlock()
		return handle(ctx, record)
	}
}

func (r *recorder) committed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = time.Now()
}

func (r *recorder) wall() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, r.ended.Sub(r.began))
}

// A member of a consumer group runs until its context ends.
type member interface{ run(context.Context) error }

// batching returns a member that handles batches in the recorder's mode.
func batching(s settings, group string, r *recorder, keys *keylock.Manager[string], handle handler) (*consumer, error) {
	c, err := newConsumer(s.brokers, s.topic, group)
	if err != nil {
		return nil, err
	}
	c.batchSize = s.batchSize
	c.handle = func(ctx context.Context, batch []*kgo.Record) error {
		return r.mode.handle(ctx, keys, batch, handle)
	}
	c.committed = func([]*kgo.Record) { r.committed() }
	c.rewound = func(batch []*kgo.Record, because error) {
		r.seen.rewound(batch)
		fmt.Fprintf(r.stderr, "%s: %d records come again: %v\n", r.mode.name, len(batch), because)
	}
	return c, nil
}

// streaming returns a member that handles records as they come.
func streaming(s settings, group string, r *recorder, handle handler) *streamer {
	c := newStreamer(s.brokers, s.topic, group)
	c.poll, c.limit, c.handle = s.batchSize, s.limit, handle
	c.window.records, c.window.span = s.window, 10*min(int64(s.window), math.MaxInt64/10)
	c.committed = func(int32, int64) { r.committed() }
	c.retried = func(record *kgo.Record, because error) {
		r.seen.retried(record)
		fmt.Fprintf(r.stderr, "%s: offset %d of partition %d comes again: %v\n", r.mode.name, record.Offset, record.Partition, because)
	}
	c.released = r.seen.released
	c.stuck = func(partition int32, at int64, age time.Duration) {
		fmt.Fprintf(r.stderr, "%s: partition %d waits for offset %d, which is being handled for %v\n", r.mode.name, partition, at, report.Short(age))
	}
	return c
}

// runUntilDrained runs the consumer until its group has committed the whole extent, or ctx ends.
func runUntilDrained(ctx context.Context, c member, t *topic, group string, extent map[int32]span) error {
	ctx, stop := context.WithCancel(ctx)
	var both errgroup.Group
	both.Go(func() error {
		defer stop()
		return c.run(ctx)
	})
	both.Go(func() error {
		defer stop()
		if err := t.drained(ctx, group, extent); ctx.Err() == nil {
			return err
		}
		return nil
	})
	return both.Wait()
}

// A handler does the work of one record. It returns soon after its context has ended.
type handler func(context.Context, *kgo.Record) error

// A mode is a way to handle the records of a batch. Its handle calls the handler for every record
// and returns when no call is under way any more: nil if all succeeded, else the first error, after
// which the context of the other calls has ended.
type mode struct {
	name    string
	suffix  string // of the consumer group's name; the mode's name on the command line and in a plot
	ordered bool   // promises that the records of a key are handled one at a time, in order
	handle  func(context.Context, *keylock.Manager[string], []*kgo.Record, handler) error
}

// group returns the name of the mode's consumer group; every mode reads the topic in its own.
func (m mode) group(prefix string) string { return prefix + "-" + m.suffix }

// streams is true for the mode that has no batches: see streamer.
func (m mode) streams() bool { return m.handle == nil }

// modes are all of them, the ones to use last.
var modes = []mode{
	{"one by one", "one-by-one", true, oneByOne},
	{"no lock", "no-lock", false, unlocked},
	{"lock in goroutine", "acquire", false, acquired},
	{"batch, in order", "batch", true, inOrder},
	{"stream, in order", "streaming", true, nil},
}

// oneByOne keeps exclusion and order by doing nothing at the same time.
func oneByOne(ctx context.Context, _ *keylock.Manager[string], batch []*kgo.Record, handle handler) error {
	for _, record := range batch {
		if err := handle(ctx, record); err != nil {
			return err
		}
	}
	return nil
}

// unlocked keeps neither exclusion nor order.
func unlocked(ctx context.Context, _ *keylock.Manager[string], batch []*kgo.Record, handle handler) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, record := range batch {
		g.Go(func() error {
			return handle(ctx, record)
		})
	}
	return g.Wait()
}

// acquired keeps exclusion but not order: goroutines ask for their keys in the order in which they
// happen to start.
func acquired(ctx context.Context, keys *keylock.Manager[string], batch []*kgo.Record, handle handler) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, record := range batch {
		g.Go(func() error {
			return keys.Do(ctx, string(record.Key), func(ctx context.Context) error {
				return handle(ctx, record)
			})
		})
	}
	return g.Wait()
}

// work returns a handler that stands for a call of another service: it waits, then calls done.
func work(wait time.Duration, done func()) handler {
	return func(ctx context.Context, _ *kgo.Record) error {
		select {
		case <-time.After(wait):
			done()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failing returns a handler that fails at every nth call and else does what handle does; it never
// fails by itself if every is 0.
func failing(every int, handle handler) handler {
	if every == 0 {
		return handle
	}
	var calls atomic.Int64
	return func(ctx context.Context, record *kgo.Record) error {
		if calls.Add(1)%int64(every) == 0 {
			return fmt.Errorf("the work on offset %d of partition %d failed", record.Offset, record.Partition)
		}
		return handle(ctx, record)
	}
}

// writeTable writes a line for every mode, what it broke first, and then what was seen. Its speed
// is given in multiples of the first one's.
func writeTable(w io.Writer, results []result) error {
	header := []string{"mode", "out of order", "overlaps", "handled", "again", "wall", "speed"}
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{
			r.mode.name,
			strconv.Itoa(r.violations),
			strconv.Itoa(r.overlaps),
			strconv.Itoa(r.handled),
			strconv.Itoa(r.again),
			report.Short(r.wall).String(),
			speed(r, results[0]),
		})
	}
	if err := report.Table(w, header, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, lags(results), conclusion(results))
	return err
}

// lags names the modes that have left records behind.
func lags(results []result) (text string) {
	for _, r := range results {
		if r.lag > 0 {
			text += fmt.Sprintf("%s: %d records are not committed.\n", r.mode.name, r.lag)
		}
	}
	return text
}

// conclusion says in one sentence what was seen; nothing unless there is something to compare.
func conclusion(results []result) string {
	broken, kept, fastest := 0, false, ""
	for _, r := range results {
		switch {
		case !r.mode.ordered:
			broken += r.violations
		case r.mode.suffix != "one-by-one" && r.overlaps+r.violations == 0 && r.handled > 0:
			kept = true
			fastest = speed(r, results[0])
		}
	}
	if broken == 0 || !kept || results[0].mode.suffix != "one-by-one" {
		return ""
	}
	return fmt.Sprintf("Concurrent handling put %d records out of order;\nin order per key it put none, at %s the speed of one by one.\n", broken, fastest)
}

// speed returns how many times as fast as the other a result was, unless one of them did nothing.
func speed(r, other result) string {
	if r.handled == 0 || other.handled == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f×", r.rate()/other.rate())
}

// writePlot draws the results into an SVG file.
func writePlot(name string, results []result) error {
	var groups []string
	var walls, overlaps, violations []float64
	for _, r := range results {
		groups = append(groups, r.mode.suffix)
		walls = append(walls, float64(r.wall.Milliseconds()))
		overlaps = append(overlaps, float64(r.overlaps))
		violations = append(violations, float64(r.violations))
	}
	took, err := report.BarPlot("How long it took", "milliseconds", groups, report.Bars{Values: walls})
	if err != nil {
		return err
	}
	broke, err := report.BarPlot("What went wrong within a key", "records", groups,
		report.Bars{Name: "overlaps", Values: overlaps}, report.Bars{Name: "order violations", Values: violations})
	if err != nil {
		return err
	}
	return report.SaveSVG(name, took, broke)
}
