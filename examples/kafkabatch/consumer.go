package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxTries is how often in a row a batch may fail before its consumer gives up.
const maxTries = 5

// policy is what a consumer does about failures, in words for the person who runs it.
var policy = fmt.Sprintf("A batch is committed when every record of it was handled. When one fails, or the poll or the commit does,\n"+
	"nothing of the batch is committed and all of it comes again; after %d failures in a row the consumer stops.", maxTries)

// A consumer is one member of a consumer group. Its fields are set before run and not changed.
type consumer struct {
	client    *kgo.Client
	batchSize int                                        // how many records it polls at most
	handle    func(context.Context, []*kgo.Record) error // returns when no work on the batch is under way
	committed func(batch []*kgo.Record)                  // called after every commit
	rewound   func(batch []*kgo.Record, because error)   // called when a batch is going to come again
}

// newConsumer returns a consumer of what the topic holds since the group's last commit; of
// everything, if there was none. Options are added to those that make commits safe.
func newConsumer(brokers []string, topic, group string, options ...kgo.Opt) (*consumer, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), // nothing of a transaction that was aborted
		kgo.DisableAutoCommit(),                      // a batch is committed as soon as it was handled
		kgo.BlockRebalanceOnPoll(),                   // no partition changes hands between a poll and its commit
	}, options...)...)
	if err != nil {
		return nil, err
	}
	return &consumer{
		client:    client,
		committed: func([]*kgo.Record) {},
		rewound:   func([]*kgo.Record, error) {},
	}, nil
}

// run polls, handles and commits one batch after the other until ctx ends. The batch at hand is
// then finished and committed, the consumer leaves its group, and run returns nil. After maxTries
// failures in a row it returns the last error; what was polled then is not committed.
func (c *consumer) run(ctx context.Context) error {
	defer c.client.CloseAllowingRebalance()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 50 * time.Millisecond
	for failures := 0; ; {
		fetches := c.client.PollRecords(ctx, c.batchSize)
		if ctx.Err() != nil {
			return nil
		}
		batch := fetches.Records()
		err := fetches.Err()
		if err == nil {
			err = c.finish(context.WithoutCancel(ctx), batch)
		}
		if err == nil {
			failures = 0
			pause.Reset()
			c.client.AllowRebalance()
			continue
		}
		if failures++; failures == maxTries {
			return fmt.Errorf("failed %d times in a row, the batch stays uncommitted: %w", failures, err)
		}
		c.rewind(batch)
		c.rewound(batch, err)
		c.client.AllowRebalance()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// finish handles a batch and commits it.
func (c *consumer) finish(ctx context.Context, batch []*kgo.Record) error {
	if err := c.handle(ctx, batch); err != nil {
		return fmt.Errorf("handle: %w", err)
	}
	if err := c.client.CommitRecords(ctx, batch...); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	c.committed(batch)
	return nil
}

// rewind makes the next polls begin with the first records of the batch again. It needs the
// rebalance to be blocked still: a partition that went to another member must not be moved.
func (c *consumer) rewind(batch []*kgo.Record) {
	first := make(map[string]map[int32]kgo.EpochOffset)
	for _, record := range batch {
		partitions := first[record.Topic]
		if partitions == nil {
			partitions = make(map[int32]kgo.EpochOffset)
			first[record.Topic] = partitions
		}
		if _, known := partitions[record.Partition]; !known {
			partitions[record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset}
		}
	}
	c.client.SetOffsets(first)
}
