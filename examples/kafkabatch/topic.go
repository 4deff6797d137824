package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A topic is one topic of a cluster, as a producer and an administrator see it.
type topic struct {
	name   string
	client *kgo.Client
	admin  *kadm.Client
}

// openTopic returns a topic that may or may not exist yet. It is closed by its close.
func openTopic(brokers []string, name string) (*topic, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(name))
	if err != nil {
		return nil, err
	}
	return &topic{name: name, client: client, admin: kadm.NewClient(client)}, nil
}

func (t *topic) close() { t.client.Close() }

// create makes the topic, unless it exists.
func (t *topic) create(ctx context.Context, partitions int) error {
	const brokersDefault = -1
	_, err := t.admin.CreateTopic(ctx, int32(partitions), brokersDefault, nil, t.name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", t.name, err)
	}
	return nil
}

// produce appends n records, whose values are 0 to n-1, to as many keys in turn.
func (t *topic) produce(ctx context.Context, n, keys int) error {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{
			Key:   fmt.Appendf(nil, "key-%d", i%keys),
			Value: strconv.AppendInt(nil, int64(i), 10),
		}
	}
	if err := t.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce to %s: %w", t.name, err)
	}
	return nil
}

// A span is the offsets of a partition that hold records: from, inclusive, to end, exclusive.
type span struct{ from, end int64 }

// extent returns what the topic holds now, by partition.
func (t *topic) extent(ctx context.Context) (map[int32]span, error) {
	starts, err := t.admin.ListStartOffsets(ctx, t.name)
	if err = errors.Join(err, starts.Error()); err != nil {
		return nil, fmt.Errorf("list the start of topic %s: %w", t.name, err)
	}
	ends, err := t.admin.ListEndOffsets(ctx, t.name)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("list the end of topic %s: %w", t.name, err)
	}
	extent := make(map[int32]span)
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := ends.Lookup(t.name, start.Partition); ok {
			extent[start.Partition] = span{start.Offset, end.Offset}
		}
	})
	return extent, nil
}

// lag returns how many offsets of the extent a group has not committed.
func (t *topic) lag(ctx context.Context, group string, extent map[int32]span) (int64, error) {
	commits, err := t.admin.FetchOffsetsForTopics(ctx, group, t.name)
	if err = errors.Join(err, commits.Error()); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return 0, fmt.Errorf("fetch the commits of group %s: %w", group, err)
	}
	lag := int64(0)
	for partition, s := range extent {
		if commit, ok := commits.Lookup(t.name, partition); ok {
			s.from = max(s.from, commit.At) // -1 if there is none
		}
		lag += max(0, s.end-s.from)
	}
	return lag, nil
}

// drained returns when a group has committed the whole extent, whichever members did it.
func (t *topic) drained(ctx context.Context, group string, extent map[int32]span) error {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		lag, err := t.lag(ctx, group, extent)
		if err != nil || lag == 0 {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
