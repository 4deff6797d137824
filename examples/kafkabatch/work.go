package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

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
