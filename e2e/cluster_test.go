package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// The leader is killed: that costs a second, and no lock.
func TestLeaderIsKilled(t *testing.T) {
	c := startCluster(t)
	client := dial(t, c.endpoints()...)
	const ttl = 10 * time.Second
	held := acquire(t, newEngine(t, dial(t, c.endpoints()...), ttl), "key")
	waiter := newEngine(t, dial(t, c.endpoints()...), ttl)
	granted := waitInQueue(t, client, waiter, "key", 2)

	c.nodes[c.leader(t)].kill()
	fresh := acquire(t, waiter, "another key") // as soon as there is another leader
	assert.Empty(t, granted)
	select {
	case <-held.Lost():
		require.Fail(t, "the lock is lost")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, held.Release(ctx))
	require.NoError(t, receive(t, granted, "the lock").Release(ctx))
	require.NoError(t, fresh.Release(ctx))
}

// The leader is cut off from the other members, with those of its clients that know no
// other. They learn that their locks are lost before the majority gives them to others, and their waits
// end with their contexts, or go on when the partition heals.
func TestLeaderIsCutOffWithItsClients(t *testing.T) {
	c := startCluster(t)
	leader := c.leader(t)
	cutOff := c.configs[leader].Name
	var others []string
	for i, endpoint := range c.endpoints() {
		if i != leader {
			others = append(others, endpoint)
		}
	}
	majority := dial(t, others...)
	const ttl = 3 * time.Second
	minority := newManager(t, dial(t, c.configs[leader].Client), ttl)
	held, err := minority.Acquire(t.Context(), "key")
	require.NoError(t, err)
	theirs := acquire(t, newEngine(t, majority, 30*time.Second), "theirs")
	waiting := make(chan cohort.Lock, 1)
	go func() {
		if l, err := minority.Acquire(t.Context(), "theirs"); assert.NoError(t, err) {
			waiting <- l
		}
	}()
	engine := newEngine(t, majority, ttl)
	awaitQueue(t, majority, engine, "theirs", 2)
	next := waitInQueue(t, majority, engine, "key", 2)
	unwanted := acquire(t, newEngine(t, dial(t, c.configs[leader].Client), 40*time.Second), "unwanted")
	wanted := whenWanted(unwanted)

	c.peers.isolate(cutOff)
	receive(t, held.Context().Done(), "the notice")
	require.ErrorIs(t, context.Cause(held.Context()), cohort.ErrLost)
	receive(t, wanted, "that no process could say that it wants the key")
	select {
	case <-unwanted.Lost():
		assert.Fail(t, "its lease is a long one")
	default:
	}
	assert.Empty(t, next, "two believe that they hold the key")
	g := receive(t, next, "the lock, which the majority can give")
	assert.Greater(t, g.Epoch(), held.Token().Epoch)

	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = minority.Acquire(short, "other")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), 2*time.Second)

	require.NoError(t, theirs.Release(t.Context()))
	c.peers.heal()
	require.NoError(t, receive(t, waiting, "the lock, in a new session").Release())
	require.ErrorIs(t, held.Release(), cohort.ErrLost)
	require.NoError(t, g.Release(t.Context()))
}
