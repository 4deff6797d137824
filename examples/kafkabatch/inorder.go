package main

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-46f81e6d/keylock"
)

// inOrder handles the records of a batch concurrently, but those of one key one after another, in
// the order of the batch. When it returns nobody works on the batch any more: nil means that every
// record was handled. After an error no further record is begun, so that none is handled while an
// earlier one of its key is not, and the first error is returned. The keys must be used by this
// caller alone, because it waits until all are idle.
func inOrder(ctx context.Context, keys *keylock.Manager[string], batch []*kgo.Record, handle handler) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, record := range batch {
		turn := keys.Reserve(string(record.Key)) // here: goroutines do not start in order
		go func() {
			lock, err := turn.Wait(ctx)
			defer lock.Release()
			if err == nil {
				err = handle(ctx, record)
			}
			if err != nil {
				fail(err) // before the release, so that the next of this key is not let in
			}
		}()
	}
	return errors.Join(keys.WaitIdle(context.WithoutCancel(ctx)), context.Cause(ctx))
}
