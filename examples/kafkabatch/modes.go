package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock"
)

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
