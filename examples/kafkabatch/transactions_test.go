package main

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// transact produces the records in one transaction, and ends it; or leaves it open.
func transact(t *testing.T, cluster *kfake.Cluster, id string, end *kgo.TransactionEndTry, records ...*kgo.Record) {
	t.Helper()
	writer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(testTopic),
		kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(writer.Close)
	require.NoError(t, writer.BeginTransaction())
	require.NoError(t, writer.ProduceSync(t.Context(), records...).FirstErr())
	if end != nil {
		require.NoError(t, writer.EndTransaction(t.Context(), *end))
	}
}

var (
	commitIt = kgo.TryCommit
	abortIt  = kgo.TryAbort
)

func recordOf(key, value string, partition int32) *kgo.Record {
	return &kgo.Record{Key: []byte(key), Value: []byte(value), Partition: partition}
}

// What a partition ends with differs: a record, the marker of a transaction, aborted records, those of
// an open transaction, what compaction or deletion has left. Every mode handles what is to be read,
// nothing else, and ends.
func TestEveryModeEndsWhereTheTopicDoes(t *testing.T) {
	for name, test := range map[string]struct {
		handled int
		fill    func(t *testing.T, cluster *kfake.Cluster, readings *topic)
	}{
		"a committed transaction": {11, func(t *testing.T, cluster *kfake.Cluster, _ *topic) {
			transact(t, cluster, "a", &commitIt, recordOf("k", "x", 0))
		}},
		"aborted transactions": {10, func(t *testing.T, cluster *kfake.Cluster, _ *topic) {
			for i := range 20 {
				transact(t, cluster, "a"+strconv.Itoa(i), &abortIt, recordOf("k", "x", 0), recordOf("k", "y", 1))
			}
		}},
		"an open transaction": {10, func(t *testing.T, cluster *kfake.Cluster, _ *topic) {
			transact(t, cluster, "a", nil, recordOf("k", "x", 0), recordOf("k", "x", 1))
			behind, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(testTopic),
				kgo.RecordPartitioner(kgo.ManualPartitioner()))
			require.NoError(t, err)
			defer behind.Close()
			require.NoError(t, behind.ProduceSync(t.Context(), recordOf("k", "y", 0), recordOf("k", "y", 1)).FirstErr())
		}},
		"nothing but markers": {10, func(t *testing.T, cluster *kfake.Cluster, _ *topic) {
			transact(t, cluster, "a", &abortIt, recordOf("k", "x", 2))
		}},
		"a compacted end": {1, func(t *testing.T, cluster *kfake.Cluster, readings *topic) {
			for i := range 20 {
				transact(t, cluster, "a"+strconv.Itoa(i), &commitIt, recordOf("k", strconv.Itoa(i), 3))
			}
			compact(t, cluster, readings)
		}},
		"deleted records": {0, func(t *testing.T, _ *kfake.Cluster, readings *topic) {
			ends, err := readings.admin.ListEndOffsets(t.Context(), testTopic)
			require.NoError(t, err)
			_, err = readings.admin.DeleteRecords(t.Context(), ends.Offsets())
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := startCluster(t)
			fill := 10
			readings := fillTopic(t, cluster, 4, 0, 3)
			if name == "a compacted end" {
				fill = 0
			}
			require.NoError(t, readings.produce(t.Context(), fill, 3))
			test.fill(t, cluster, readings)

			stdout, err := command(t, t.Output(), "-brokers", cluster.ListenAddrs()[0], "-topic", testTopic, "-work", "0s")

			require.NoError(t, err)
			for _, m := range modes {
				assert.Equal(t, strconv.Itoa(test.handled), cell(t, stdout, m, handledColumn), m.name)
				assert.Equal(t, "0", lag(stdout, m), m.name)
			}
		})
	}
}

// compact compacts the test topic now.
func compact(t *testing.T, cluster *kfake.Cluster, readings *topic) {
	t.Helper()
	policy := "compact"
	_, err := readings.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, testTopic)
	require.NoError(t, err)
	cluster.Compact()
}
