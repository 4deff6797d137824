package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var errBad = errors.New("bad record")

func succeed(context.Context, *kgo.Record) error { return nil }

func TestConsumerCommitsWhatItHandled(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 3000, 50)
	seen := newWitness()

	require.NoError(t, drain(t, join(t, cluster, 100, seen, succeed), readings))

	assert.Equal(t, findings{handled: 3000}, seen.found())
	assert.Zero(t, lagNow(t, readings))
}

func TestFailedBatchComesAgain(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 3000, 50)
	seen := newWitness()
	var calls atomic.Int64
	c := join(t, cluster, 100, seen, func(context.Context, *kgo.Record) error {
		if calls.Add(1)%700 == 0 {
			return errBad
		}
		return nil
	})
	came, tell := 0, c.rewound
	c.rewound = func(batch []*kgo.Record, because error) {
		came += len(batch)
		assert.ErrorIs(t, because, errBad)
		tell(batch, because)
	}

	require.NoError(t, drain(t, c, readings))

	found := seen.found()
	t.Logf("%d records came again, %d of them had been handled", came, found.again)
	assert.Positive(t, came)
	assert.Equal(t, findings{handled: 3000, again: found.again}, found, "nothing lost, nothing out of order")
	assert.LessOrEqual(t, found.again, came)
	assert.Zero(t, lagNow(t, readings))
}

func TestConsumerGivesUpOnABatchThatAlwaysFails(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 1000, 50)
	seen := newWitness()
	poison := int64(512)
	tries := 0
	c := join(t, cluster, 100, seen, func(_ context.Context, record *kgo.Record) error {
		if record.Offset == poison {
			tries++ // its key is held
			return errBad
		}
		return nil
	})

	err := drain(t, c, readings)

	require.ErrorIs(t, err, errBad)
	require.ErrorContains(t, err, "5 times in a row")
	assert.Equal(t, maxTries, tries)
	committed := 1000 - lagNow(t, readings)
	assert.Equal(t, poison/100*100, committed, "all batches before the bad one, and none of it")

	// The next consumer begins where the commits end.
	after := newWitness()
	require.NoError(t, drain(t, join(t, cluster, 100, after, succeed), readings))
	assert.Equal(t, findings{handled: 1000 - int(committed)}, after.found())
}

func TestBatchComesAgainWhenItsCommitFails(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 1000, 50)
	seen := newWitness()
	refused := cluster.Fault(kfake.Fault{
		Keys:  []kmsg.Key{kmsg.OffsetCommit},
		Err:   kerr.GroupAuthorizationFailed, // not one that the client retries by itself
		Count: 2,
	})

	require.NoError(t, drain(t, join(t, cluster, 100, seen, succeed), readings))

	found := seen.found()
	assert.Equal(t, 2, refused.Hits())
	assert.Positive(t, found.again, "the work of the batch is done a second time")
	assert.Equal(t, findings{handled: 1000, again: found.again}, found)
	assert.Zero(t, lagNow(t, readings))
}

// The member has a batch at hand when it hears that the cluster does not know it any more. The next
// poll tells it so; it joins again and goes on.
func TestMemberThatIsThrownOutJoinsAgain(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 1000, 50)
	seen := newWitness()
	thrownOut := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID})
	c := join(t, cluster, 100, seen, func(ctx context.Context, _ *kgo.Record) error {
		return thrownOut.Wait(ctx, 1)
	}, kgo.SessionTimeout(500*time.Millisecond))
	var because []error
	tell := c.rewound
	c.rewound = func(batch []*kgo.Record, err error) {
		because = append(because, err)
		tell(batch, err)
	}

	require.NoError(t, drain(t, c, readings))

	var told *kgo.ErrGroupSession
	assert.ErrorAs(t, errors.Join(because...), &told)
	found := seen.found()
	assert.Equal(t, findings{handled: 1000, again: found.again}, found)
	assert.Zero(t, lagNow(t, readings))
}

func TestConsumerFinishesTheBatchAtHand(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 1000, 50)
	seen := newWitness()
	ctx, stop := context.WithTimeout(t.Context(), watchdog)
	defer stop()
	c := join(t, cluster, 100, seen, func(ctx context.Context, record *kgo.Record) error {
		if record.Offset == 250 {
			stop()
		}
		return ctx.Err()
	})

	require.NoError(t, c.run(ctx))

	assert.Equal(t, findings{handled: 300}, seen.found())
	assert.EqualValues(t, 700, lagNow(t, readings))
}
