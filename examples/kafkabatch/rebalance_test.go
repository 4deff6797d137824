package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock"
)

// A tally counts how many records a member has committed, by partition.
type tally struct {
	mu    sync.Mutex
	count map[int32]int
}

func tallyOf(c *consumer) *tally {
	y := &tally{count: make(map[int32]int)}
	c.committed = func(batch []*kgo.Record) {
		y.mu.Lock()
		defer y.mu.Unlock()
		for _, record := range batch {
			y.count[record.Partition]++
		}
	}
	return y
}

// partitions returns how many partitions the member has committed records of.
func (y *tally) partitions() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.count)
}

func (y *tally) reset() {
	y.mu.Lock()
	defer y.mu.Unlock()
	clear(y.count)
}

// One member works alone, a second one joins, both work, the first one leaves. The records go on
// coming meanwhile. Both are watched by one witness, so it sees when a key that changes hands is
// in two hands at once.
func TestMembersJoinAndLeave(t *testing.T) {
	const partitions = 4
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, partitions, 100, 50)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()

	var members, producer errgroup.Group
	produced := 100
	enough, endProducing := context.WithCancel(ctx)
	producer.Go(func() error {
		for enough.Err() == nil {
			if err := readings.produce(ctx, 500, 50); err != nil {
				return err
			}
			produced += 500
			extent, err := readings.extent(ctx)
			if err != nil {
				return err
			}
			if err := readings.drained(ctx, testGroup, extent); err != nil {
				return err
			}
		}
		return nil
	})
	start := func() (y *tally, leave func()) {
		c := join(t, cluster, 100, seen, work(100*time.Microsecond, nothing))
		ctx, leave := context.WithCancel(ctx)
		y = tallyOf(c)
		members.Go(func() error { return c.run(ctx) })
		return y, leave
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		require.Eventually(t, is, watchdog, 5*time.Millisecond, what)
	}

	first, firstLeaves := start()
	eventually("the first has all partitions", func() bool { return first.partitions() == partitions })

	second, secondLeaves := start()
	eventually("the second has some", func() bool { return second.partitions() > 0 })
	first.reset()
	eventually("the first has the others", func() bool { return first.partitions() > 0 })
	eventually("they share", func() bool { return first.partitions()+second.partitions() >= partitions })

	firstLeaves()
	eventually("the second has all", func() bool { return second.partitions() == partitions })

	endProducing()
	require.NoError(t, producer.Wait())
	secondLeaves()
	require.NoError(t, members.Wait())

	t.Logf("%d records", produced)
	assert.Equal(t, findings{handled: produced}, seen.found(), "nothing lost, nothing twice, nothing out of order")
	assert.Zero(t, lagNow(t, readings))
}

// The first member has a batch at hand when the second one joins. With this balancer a rebalance
// takes every partition from every member, and the next owner begins at its last commit: it must wait
// for the commit of that batch.
func TestNoPartitionMovesWhileABatchIsAtHand(t *testing.T) {
	const records = 200
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 2, records, 50)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	atHand, workBegan := context.WithCancel(ctx)
	wanted, goOn := context.WithCancel(ctx)
	eager := kgo.Balancers(kgo.RangeBalancer())
	blocked := kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { goOn() })

	first := join(t, cluster, records, seen, func(context.Context, *kgo.Record) error {
		workBegan()
		<-wanted.Done()
		return nil
	}, eager, blocked)
	running, stop := context.WithCancel(ctx)
	var members errgroup.Group
	members.Go(func() error { return first.run(running) })
	<-atHand.Done()
	second := join(t, cluster, records, seen, func(context.Context, *kgo.Record) error {
		goOn() // if nothing was blocked, it comes to this
		return nil
	}, eager)
	members.Go(func() error { return second.run(running) })

	drained := func() {
		extent, err := readings.extent(ctx)
		require.NoError(t, err)
		require.NoError(t, readings.drained(ctx, testGroup, extent))
	}
	drained()
	require.NoError(t, readings.produce(ctx, records, 50)) // a member that went back has to pass the old ones to get to these
	drained()
	stop()
	require.NoError(t, members.Wait())

	assert.Equal(t, findings{handled: 2 * records}, seen.found())
}

const (
	childBatch  = 100
	childWindow = 200
)

// childConsumer is a member of the test group in a process of its own. It handles what the test
// topic holds and writes a line for every record that it has handled.
func childConsumer(ctx context.Context, brokers []string) {
	c, err := newConsumer(brokers, testTopic, testGroup, quick...)
	if err != nil {
		log.Fatal(err)
	}
	keys := keylock.Start[string](ctx)
	c.batchSize = childBatch
	c.handle = func(ctx context.Context, batch []*kgo.Record) error { return inOrder(ctx, keys, batch, printRecord) }
	drainTestTopic(ctx, brokers, c)
}

// childStreamer is childConsumer for a streamer, of up to three partitions.
func childStreamer(ctx context.Context, brokers []string) {
	s := newStreamer(brokers, testTopic, testGroup, quick...)
	s.poll, s.every, s.window.records, s.window.span = childBatch, time.Millisecond, childWindow, childWindow
	// However slow the cluster is, there are commits on the way: after one, no more is handled than what is
	// above the first record that is not done, and a little.
	const atOnce = 700
	var mu sync.Mutex
	more := sync.NewCond(&mu)
	handled, limit := 0, atOnce
	s.committed = func(int32, int64) {
		mu.Lock()
		defer mu.Unlock()
		limit = handled + atOnce
		more.Broadcast()
	}
	s.handle = func(ctx context.Context, record *kgo.Record) error {
		mu.Lock()
		for handled == limit {
			more.Wait()
		}
		handled++
		mu.Unlock()
		return printRecord(ctx, record)
	}
	drainTestTopic(ctx, brokers, s)
}

// drainTestTopic runs a member of the test group until what the test topic holds is committed.
func drainTestTopic(ctx context.Context, brokers []string, m member) {
	readings, err := openTopic(brokers, testTopic)
	if err != nil {
		log.Fatal(err)
	}
	extent, err := readings.extent(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := runUntilDrained(ctx, m, readings, testGroup, extent); err != nil {
		log.Fatal(err)
	}
}

func printRecord(_ context.Context, record *kgo.Record) error {
	_, err := fmt.Printf("%d %d %s\n", record.Partition, record.Offset, record.Key)
	return err
}

// startChild starts this test binary as something else. It is killed if the test ends first.
func startChild(t *testing.T, role string, args ...string) (child *exec.Cmd, stdout *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	t.Cleanup(cancel)
	stdout = new(bytes.Buffer)
	child = exec.CommandContext(ctx, self, args...)
	child.Env = append(os.Environ(), childRole+"="+role)
	child.Stdout, child.Stderr = stdout, os.Stderr
	require.NoError(t, child.Start())
	return child, stdout
}

// handledBy reads the lines of a childConsumer and checks that each key's records are in order.
func handledBy(t *testing.T, output *bytes.Buffer) map[place]bool {
	t.Helper()
	handled := make(map[place]bool)
	latest := make(map[string]int64)
	for line := range strings.Lines(output.String()) {
		var at place
		var key string
		_, err := fmt.Sscanf(line, "%d %d %s\n", &at.partition, &at.offset, &key)
		require.NoError(t, err, line)
		require.False(t, handled[at], "twice in one process: %s", line)
		if last, known := latest[key]; known {
			require.Greater(t, at.offset, last, "key %s", key)
		}
		handled[at], latest[key] = true, at.offset
	}
	return handled
}

// killAtCommit starts a child, kills it at the moment when so many commits have reached the cluster, of
// which it does not store the last, and returns what the child handled.
func killAtCommit(t *testing.T, cluster *kfake.Cluster, role string, at int) map[place]bool {
	t.Helper()
	ready := make(chan struct{}) // child is set
	var child *exec.Cmd
	commits := 0
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		<-ready
		cluster.KeepControl()
		if commits++; commits != at {
			return nil, nil, false
		}
		if err := child.Process.Kill(); err != nil {
			t.Errorf("kill: %v", err)
		}
		return nil, errors.New("the commit is lost"), true
	})
	child, output := startChild(t, role, cluster.ListenAddrs()...)
	close(ready)
	var killed *exec.ExitError
	require.ErrorAs(t, child.Wait(), &killed)
	require.Equal(t, syscall.SIGKILL, killed.Sys().(syscall.WaitStatus).Signal())
	return handledBy(t, output)
}

// goOn lets a second child handle what is left. It returns that, and how much of it the first had handled.
func goOn(t *testing.T, cluster *kfake.Cluster, role string, first map[place]bool) (second map[place]bool, again int) {
	t.Helper()
	child, output := startChild(t, role, cluster.ListenAddrs()...)
	require.NoError(t, child.Wait())
	second = handledBy(t, output)
	for at := range second {
		if first[at] {
			again++
		}
	}
	t.Logf("%d handled before the kill, %d after it, %d of them for the second time", len(first), len(second), again)
	return second, again
}

// The first process is killed at the moment when its third commit has reached the cluster, which
// has not stored it: all the batch's work is done, and the group does not know. The second process does what
// is left, and that batch again.
func TestKilledBetweenWorkAndCommit(t *testing.T) {
	const records, partitions = 2000, 3
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, partitions, records, 50)
	first := killAtCommit(t, cluster, consumerRole, 3)
	lag := lagNow(t, readings)
	require.EqualValues(t, 2*childBatch, records-lag, "two batches were committed")
	require.Len(t, first, 3*childBatch, "the work of three was done")

	second, again := goOn(t, cluster, consumerRole, first)
	assert.Equal(t, childBatch, again, "the batch that was killed comes again")
	assert.Len(t, second, int(lag))
	assert.Equal(t, records, len(first)+len(second)-again, "nothing is lost")
	assert.Zero(t, lagNow(t, readings))
}
