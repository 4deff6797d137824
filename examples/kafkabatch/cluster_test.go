package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	testTopic = "readings"
	testGroup = "readers"

	// watchdog ends what should have ended long ago.
	watchdog = time.Minute
)

// quick makes a group notice at once who joined, and within seconds who was killed, and not take a
// member for dead that only had to wait for a processor.
var quick = []kgo.Opt{
	kgo.HeartbeatInterval(50 * time.Millisecond),
	kgo.SessionTimeout(5 * time.Second),
}

// startCluster starts a cluster that allows quick, for the length of the test.
func startCluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

// fillTopic makes the test topic and produces n records of as many keys into it.
func fillTopic(t *testing.T, cluster *kfake.Cluster, partitions, n, keys int) *topic {
	t.Helper()
	readings, err := openTopic(cluster.ListenAddrs(), testTopic)
	require.NoError(t, err)
	t.Cleanup(readings.close)
	require.NoError(t, readings.create(t.Context(), partitions))
	require.NoError(t, readings.produce(t.Context(), n, keys))
	return readings
}

// join returns a member of the test group that handles in order, seen by the witness.
func join(t *testing.T, cluster *kfake.Cluster, batchSize int, seen *witness, handle handler, options ...kgo.Opt) *consumer {
	t.Helper()
	c, err := newConsumer(cluster.ListenAddrs(), testTopic, testGroup, append(slices.Clone(quick), options...)...)
	require.NoError(t, err)
	keys := startKeys(t)
	c.batchSize = batchSize
	c.handle = func(ctx context.Context, batch []*kgo.Record) error {
		return inOrder(ctx, keys, batch, seen.watch(handle))
	}
	c.rewound = func(batch []*kgo.Record, because error) {
		t.Logf("%d records come again: %v", len(batch), because)
		seen.rewound(batch)
	}
	return c
}

// drain runs the consumer until its group has committed all that is in the topic now.
func drain(t *testing.T, c member, readings *topic) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	extent, err := readings.extent(ctx)
	require.NoError(t, err)
	err = runUntilDrained(ctx, c, readings, testGroup, extent)
	require.NoError(t, ctx.Err(), "the watchdog bit")
	return err
}

// lagNow returns how many records of the topic the test group has not committed.
func lagNow(t *testing.T, readings *topic) int64 {
	t.Helper()
	extent, err := readings.extent(t.Context())
	require.NoError(t, err)
	lag, err := readings.lag(t.Context(), testGroup, extent)
	require.NoError(t, err)
	return lag
}
