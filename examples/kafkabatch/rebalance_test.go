package main

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
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
