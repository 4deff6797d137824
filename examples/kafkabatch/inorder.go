package main

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

// An orderKey is what records must share to be handled in order: the key, in one partition. Kafka
// keeps no order between partitions, and of a record without a key none is wanted: it has an
// orderKey of its own.
type orderKey struct {
	partition int32
	key       string
	alone     int64 // the offset, and 1 more, of a record without a key
}

func orderKeyOf(record *kgo.Record) orderKey {
	if record.Key == nil {
		return orderKey{partition: record.Partition, alone: record.Offset + 1}
	}
	return orderKey{partition: record.Partition, key: string(record.Key)}
}

// inOrder handles the records of a batch concurrently, but those of one key one after another, in
// the order of the batch. When it returns no call is under way: nil means that every record was
// handled. After an error no further record is begun, so that none is handled while an earlier one
// of its key is not, and the first error is returned. It needs no manager, because nothing else
// works on the keys.
func inOrder(ctx context.Context, _ *keylock.Manager[string], batch []*kgo.Record, handle handler) error {
	return inorder.Each(ctx, inorder.Unlimited, slices.Values(batch), orderKeyOf, handle)
}
