package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	fmt.Fprintf(stdout, "Topic %s %s, batches of up to %d, %v of work per record.\n%s\n\n", s.topic, where, s.batchSize, s.work, policy)

	results, err := consumeAll(ctx, s, t, stderr)
	if len(results) > 0 {
		err = errors.Join(err, writeTable(stdout, results))
	}
	if len(results) > 0 && s.svg != "" {
		err = errors.Join(err, writePlot(s.svg, results))
	}
	return err
}

// consumeAll consumes the topic in one mode after the other, until one fails or does not keep what
// it promises, or ctx ends. It returns the results so far even then.
func consumeAll(ctx context.Context, s settings, t *topic, stderr io.Writer) (results []result, err error) {
	for _, m := range modes {
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
	wall time.Duration // from the first batch to the last commit
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
	keys := keylock.Start[string](context.WithoutCancel(ctx)) // the batch at hand is finished even so
	defer keys.Close()
	bar := report.NewProgress(stderr, m.name, int(lag))
	defer bar.Finish()

	seen := newWitness()
	handle := seen.watch(failing(s.failEvery, work(s.work, bar.Step)))
	var began time.Time
	var wall time.Duration
	c, err := newConsumer(s.brokers, s.topic, group)
	if err != nil {
		return result{}, err
	}
	c.batchSize = s.batchSize
	c.handle = func(ctx context.Context, batch []*kgo.Record) error {
		if began.IsZero() {
			began = time.Now()
		}
		return m.handle(ctx, keys, batch, handle)
	}
	c.committed = func([]*kgo.Record) { wall = time.Since(began) }
	c.rewound = func(batch []*kgo.Record, because error) {
		seen.rewound(batch)
		fmt.Fprintf(stderr, "%s: %d records come again: %v\n", m.name, len(batch), because)
	}
	if err := runUntilDrained(ctx, c, t, group, extent); err != nil {
		return result{}, err
	}
	lag, err = t.lag(context.WithoutCancel(ctx), group, extent)
	return result{mode: m, wall: wall, findings: seen.found(), lag: lag}, err
}

// runUntilDrained runs the consumer until its group has committed the whole extent, or ctx ends.
func runUntilDrained(ctx context.Context, c *consumer, t *topic, group string, extent map[int32]span) error {
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
