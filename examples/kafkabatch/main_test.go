package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/page"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// A test that needs a second process starts its own binary with childRole set.
const (
	childRole    = "KAFKABATCH_CHILD"
	commandRole  = "command"  // be the command, with the flags given
	consumerRole = "consumer" // be childConsumer, with its arguments
	streamerRole = "streamer" // be childStreamer, with its arguments
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case commandRole:
		main()
	case consumerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childConsumer(ctx, os.Args[1:])
	case streamerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childStreamer(ctx, os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}

func TestPagesShowThisPackage(t *testing.T) {
	page.Check(t, "../../docs/USE_CASES.md", "Kafka")
	page.Check(t, "../README.md", "kafkabatch")
}

// Small ones: what runWay verifies is that nothing is lost, doubled or out of order.
func TestLoadsAreHandledInEveryWay(t *testing.T) {
	cluster := startCluster(t)
	small := func(i int, _ *rand.Rand) (int, time.Duration) { return i % 5, time.Duration(i%3) * time.Millisecond }
	for _, l := range []load{{"there", 300, 0, -1, small}, {"coming", 300, 10, 0, small}} {
		var progress bytes.Buffer
		rows, err := runLoad(t.Context(), cluster, l, 1, &progress)
		require.NoError(t, err)
		for _, row := range rows {
			t.Log(row)
		}
		assert.NotEmpty(t, rows)
	}
}

// command runs the command in this process and returns what it writes to its standard output.
func command(t *testing.T, stderr io.Writer, args ...string) (stdout string, err error) {
	t.Helper()
	s, err := parse(args, stderr)
	require.NoError(t, err)
	var out strings.Builder
	err = run(t.Context(), s, &out, stderr)
	return out.String(), err
}

// The promise of the program: order and exclusion within a key like one by one, and many times
// faster: twenty to forty times in the runs of docs/USE_CASES.md, four at least on a very busy machine.
func TestInOrderAndManyTimesFaster(t *testing.T) {
	cluster := startCluster(t)
	s, err := parse([]string{"-work=2ms", "-partitions=1"}, t.Output())
	require.NoError(t, err)
	s.brokers, s.topic = cluster.ListenAddrs(), testTopic
	readings := fillTopic(t, cluster, s.partitions, 2000, s.keys)

	results := make(map[string]result)
	for _, m := range modes {
		r, err := consume(t.Context(), s, readings, m, t.Output())
		require.NoError(t, err)
		t.Logf("%-55s %8v %+v lag %d", m.name, r.wall, r.findings, r.lag)
		assert.Equal(t, 2000, r.handled, m.name)
		assert.Zero(t, r.lag, m.name)
		results[m.suffix] = r
	}

	assert.Equal(t, findings{handled: 2000}, results["one-by-one"].findings)
	assert.Positive(t, results["no-lock"].overlaps)
	assert.Zero(t, results["acquire"].overlaps)
	assert.Positive(t, results["acquire"].violations, "exclusion is not order")
	assert.Equal(t, findings{handled: 2000}, results["batch"].findings)
	assert.GreaterOrEqual(t, results["one-by-one"].wall, 4*results["batch"].wall)
	assert.Equal(t, findings{handled: 2000}, results["streaming"].findings)
	assert.GreaterOrEqual(t, results["one-by-one"].wall, 4*results["streaming"].wall)
}

func TestCommandNeedsNothingBesideIt(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "plot.svg")
	var stderr strings.Builder

	stdout, err := command(t, &stderr, "-records=1200", "-fail-every=1000", "-svg", svg)

	require.NoError(t, err)
	for _, m := range modes {
		assert.Equal(t, "1200", cell(t, stdout, m, handledColumn), m.name)
		assert.Equal(t, "0", lag(stdout, m), m.name)
	}
	assert.Contains(t, stdout, policy)
	assert.Contains(t, stdout, streamPolicy)
	assert.Contains(t, stderr.String(), "records come again")
	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(picture, new(struct{})))
}

const handledColumn = 3

// lag is how many records the output says that the mode has not committed.
func lag(output string, m mode) string {
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(m.name) + `: (\d+) records are not committed\.$`).FindStringSubmatch(output)
	if line == nil {
		return "0"
	}
	return line[1]
}

// cell returns a column's text, counted from 0, in the line that a table has for the mode.
func cell(t *testing.T, table string, m mode, column int) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^│ ` + regexp.QuoteMeta(m.name) + ` .*$`).FindString(table)
	cells := strings.Split(strings.Trim(line, "│"), "│")
	require.Greater(t, len(cells), column, table)
	return strings.TrimSpace(cells[column])
}

func TestResultIsVerified(t *testing.T) {
	oneByOne, unlocked := modes[0], modes[1]
	assert.NoError(t, result{mode: oneByOne}.verify())
	assert.NoError(t, result{mode: unlocked, findings: findings{overlaps: 1, violations: 1}}.verify(), "it promises nothing")
	assert.ErrorContains(t, result{mode: oneByOne, findings: findings{overlaps: 1}}.verify(), "1 overlaps")
	assert.ErrorContains(t, result{mode: oneByOne, findings: findings{violations: 1}}.verify(), "1 order violations")
	assert.ErrorContains(t, result{mode: unlocked, lag: 3}.verify(), "3 records")
}

func TestCommandWithNothingToDo(t *testing.T) {
	cluster := startCluster(t)
	fillTopic(t, cluster, 2, 0, 1)

	stdout, err := command(t, t.Output(), "-brokers", cluster.ListenAddrs()[0], "-topic", testTopic)

	require.NoError(t, err)
	assert.Equal(t, "0", cell(t, stdout, modes[0], handledColumn))
}

// Ctrl-C ends the production of any number of records, which are never in memory all at once.
func TestProductionEndsWithItsContext(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 2, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	assert.ErrorIs(t, readings.produce(ctx, math.MaxInt, 50), context.Canceled)
}

func TestCommandTellsThatThereIsNoTopic(t *testing.T) {
	cluster := startCluster(t)

	stdout, err := command(t, t.Output(), "-brokers", cluster.ListenAddrs()[0], "-topic", testTopic)

	require.ErrorContains(t, err, testTopic)
	assert.NotContains(t, stdout, modes[0].name)
}

func TestInterruptedCommandCommitsWhatItHandled(t *testing.T) {
	output, committed := interrupt(t, modes[0], "-work=1ms", "-batch=100")
	assert.Equal(t, fmt.Sprint(committed), cell(t, output, modes[0], handledColumn), "handled is committed")
	assert.Equal(t, fmt.Sprint(5000-committed), lag(output, modes[0]))
	assert.NotContains(t, output, modes[1].name)
}

// interrupt runs the command on 5,000 records, interrupts it after its first commit in this mode, and
// returns what it has printed and committed.
func interrupt(t *testing.T, m mode, args ...string) (output string, n int64) {
	t.Helper()
	cluster := startCluster(t)
	args = append([]string{"-brokers", cluster.ListenAddrs()[0], "-records=5000"}, args...)
	child, stdout := startChild(t, commandRole, args...)
	group := m.group("kafkabatch")
	_, err := cluster.WaitGroupInfo(t.Context(), group, func(g *kfake.GroupInfo) bool { return committed(g) > 0 })
	require.NoError(t, err)

	require.NoError(t, child.Process.Signal(os.Interrupt))

	var exit *exec.ExitError
	require.ErrorAs(t, child.Wait(), &exit)
	assert.Equal(t, 130, exit.ExitCode())
	info := cluster.GroupInfo(group)
	assert.Empty(t, info.Members, "it has left the group")
	n = committed(info)
	assert.Less(t, n, int64(5000))
	return stdout.String(), n
}

// committed returns how many records a group has committed, of a topic that begins at offset 0.
func committed(g *kfake.GroupInfo) (n int64) {
	if g == nil {
		return 0
	}
	for _, partitions := range g.Commits {
		for _, commit := range partitions {
			n += commit.Offset
		}
	}
	return n
}

func TestSettings(t *testing.T) {
	for _, test := range []struct {
		args    string
		brokers []string
		records int
	}{
		{"", nil, 6000},
		{"-records 10", nil, 10},
		{"-brokers a:1,b:2", []string{"a:1", "b:2"}, 0},
		{"-brokers a:1 -records 10", []string{"a:1"}, 10},
	} {
		s, err := parse(strings.Fields(test.args), t.Output())
		require.NoError(t, err, test.args)
		assert.Equal(t, test.brokers, s.brokers, test.args)
		assert.Equal(t, test.records, s.records, test.args)
	}
	for _, bad := range []string{"-keys 0", "-partitions 0", "-partitions 2147483648", "-batch 0", "-records -2", "-work -1s", "-fail-every -1", "-mode x", "-limit 0", "-window 0", "-what", "extra"} {
		_, err := parse(strings.Fields(bad), t.Output())
		assert.Error(t, err, bad)
	}
}

const (
	testTopic = "readings"
	testGroup = "readers"

	// watchdog ends what should have ended long ago.
	watchdog = 5 * time.Minute
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

// kcat runs the client of that name, which shares no code with this program: it is librdkafka. It
// returns the lines that kcat prints.
func kcat(t *testing.T, stdin string, args ...string) []string {
	t.Helper()
	path := locktest.Tool(t, "kcat", "kcat")
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	var stdout, stderr bytes.Buffer
	client := exec.CommandContext(ctx, path, args...)
	client.Stdin, client.Stdout, client.Stderr = strings.NewReader(stdin), &stdout, &stderr
	require.NoError(t, client.Run(), "%s", &stderr)
	return strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
}

func TestIndependentClient(t *testing.T) {
	const records, keys = 2000, 50
	cluster := startCluster(t)
	brokers := cluster.ListenAddrs()[0]
	_, err := command(t, t.Output(), "-brokers", brokers, "-topic", testTopic, "-group", testGroup,
		"-records", fmt.Sprint(records), "-keys", fmt.Sprint(keys), "-work", "0s")
	require.NoError(t, err)

	// It reads what the command wrote: every key's values in the order in which they were produced.
	next := make(map[string]int)
	lines := kcat(t, "", "-b", brokers, "-C", "-t", testTopic, "-o", "beginning", "-e", "-q", "-f", "%k %s\n")
	for _, line := range lines {
		var key, value int
		_, err := fmt.Sscanf(line, "key-%d %d", &key, &value)
		require.NoError(t, err, line)
		name := fmt.Sprint(key)
		require.Equal(t, key+next[name]*keys, value)
		next[name]++
	}
	assert.Len(t, lines, records)
	assert.Len(t, next, keys)

	// It understands the commits: as a member of the group it finds nothing left, then what is new.
	group := modes[len(modes)-1].group(testGroup)
	const unseen = 100
	var fresh strings.Builder
	for i := range unseen {
		fmt.Fprintf(&fresh, "key-%d:fresh-%d\n", i%keys, i)
	}
	kcat(t, fresh.String(), "-b", brokers, "-P", "-t", testTopic, "-K", ":")
	lines = kcat(t, "", "-b", brokers, "-C", "-G", group, "-e", "-q", "-f", "%s\n", testTopic)
	assert.Len(t, lines, unseen)
	for _, line := range lines {
		assert.Contains(t, line, "fresh-")
	}

	// And the command reads what it wrote.
	stdout, err := command(t, t.Output(), "-brokers", brokers, "-topic", testTopic, "-group", testGroup, "-work", "0s")
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(unseen), cell(t, stdout, modes[0], handledColumn))
}

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
