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
	"github.com/twmb/franz-go/pkg/kmsg"
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
	const atOnce = 10_000
	for done := 0; done < n; {
		records := make([]*kgo.Record, min(n-done, atOnce))
		for i := range records {
			records[i] = &kgo.Record{
				Key:   fmt.Appendf(nil, "key-%d", (done+i)%keys),
				Value: strconv.AppendInt(nil, int64(done+i), 10),
			}
		}
		if err := t.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return fmt.Errorf("produce to %s: %w", t.name, err)
		}
		done += len(records)
	}
	return nil
}

// A span is the offsets of a partition that hold records: from, inclusive, to end, exclusive.
type span struct{ from, end int64 }

// extent returns what can be read of the topic now, by partition. Markers of transactions, records
// of those that were aborted or are open, and what compaction left of others take offsets too, and
// are not read: a group that has handled everything stops committing at the last record before them.
func (t *topic) extent(ctx context.Context) (map[int32]span, error) {
	starts, err := t.admin.ListStartOffsets(ctx, t.name)
	if err = errors.Join(err, starts.Error()); err != nil {
		return nil, fmt.Errorf("list the start of topic %s: %w", t.name, err)
	}
	ends, err := t.admin.ListCommittedOffsets(ctx, t.name)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("list the end of topic %s: %w", t.name, err)
	}
	topics, err := t.admin.ListTopics(ctx, t.name)
	if err = errors.Join(err, topics.Error()); err != nil {
		return nil, fmt.Errorf("describe topic %s: %w", t.name, err)
	}
	extent := make(map[int32]span)
	for partition, start := range starts[t.name] {
		s := span{start.Offset, start.Offset}
		// Mostly the last offset holds a record; else the look goes back, each time twice as far.
		for end, step := ends[t.name][partition].Offset, int64(1); end > s.from && s.end == s.from; end, step = end-step, 2*step {
			s.end, err = t.lastIn(ctx, topics[t.name], partition, span{max(s.from, end-step), end})
			if err != nil {
				return nil, fmt.Errorf("read the end of partition %d of %s: %w", partition, t.name, err)
			}
			s.end = max(s.from, s.end)
		}
		extent[partition] = s
	}
	return extent, nil
}

// lastIn returns the offset after the last record that can be read in a part of a partition; 0 if
// there is none.
func (t *topic) lastIn(ctx context.Context, detail kadm.TopicDetail, partition int32, part span) (end int64, err error) {
	for part.from < part.end {
		want := kmsg.NewFetchRequestTopicPartition()
		want.Partition, want.FetchOffset, want.PartitionMaxBytes = partition, part.from, 1<<20
		of := kmsg.NewFetchRequestTopic()
		of.Topic, of.TopicID, of.Partitions = t.name, detail.ID, []kmsg.FetchRequestTopicPartition{want}
		request := kmsg.NewPtrFetchRequest()
		request.IsolationLevel, request.MinBytes, request.MaxWaitMillis = 1, 0, 0
		request.Topics = []kmsg.FetchRequestTopic{of}
		response, err := t.client.Broker(int(detail.Partitions[partition].Leader)).Request(ctx, request)
		if err != nil {
			return 0, err
		}
		fetched := response.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
			return 0, err
		}
		if len(fetched.Topics) == 0 || len(fetched.Topics[0].Partitions) == 0 {
			return end, nil // there is nothing behind from
		}
		records, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Topic: t.name, Partition: partition, Offset: part.from, IsolationLevel: kgo.ReadCommitted(),
		}, &fetched.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
		if records.Err != nil {
			return 0, records.Err
		}
		for _, record := range records.Records {
			if record.Offset < part.end {
				end = record.Offset + 1
			}
		}
		if next <= part.from {
			return end, nil
		}
		part.from = next
	}
	return end, nil
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
