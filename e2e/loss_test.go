package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// A wait goes on over a connection that breaks after etcd has forgotten the history since the wait began.
func TestWaitOutlastsCompactionAndReconnect(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	n := newNetwork()
	e := newEngine(t, dial(t, n.to(t, "n0", node)), 30*time.Second)
	session, err := concurrency.NewSession(direct, concurrency.WithTTL(30)) // which watches nothing
	require.NoError(t, err)
	defer session.Close()
	holder := concurrency.NewMutex(session, e.Name("key"))
	require.NoError(t, holder.Lock(t.Context()))
	granted := waitInQueue(t, direct, e, "key", 2)
	for range 3 {
		require.Eventually(t, func() bool { return watchers(t, node) >= 2 }, patience, 10*time.Millisecond, "its inbox and its queue")
		compact(t, direct)
		n.set(func(_, _ string) weather { return weather{Down: true} })
		require.Eventually(t, func() bool { return watchers(t, node) == 0 }, patience, 10*time.Millisecond)
		n.heal()
	}
	time.Sleep(500 * time.Millisecond)
	assert.Empty(t, granted, "the key is held")
	require.NoError(t, holder.Unlock(t.Context()))
	require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
}

// watchers returns how many watches the member has.
func watchers(t *testing.T, addr string) float64 {
	return metric(t, addr, "etcd_debugging_mvcc_watcher_total")
}

// compact makes etcd forget its history so far.
func compact(t testing.TB, client *clientv3.Client) {
	var revision int64
	for range 20 {
		resp, err := client.Put(t.Context(), "another key", "")
		require.NoError(t, err)
		revision = resp.Header.Revision
	}
	_, err := client.Compact(t.Context(), revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
}

// A person deletes everything under the prefix. The holder notices within a renewal, and its next waiter acquires anew.
func TestDeletedKeyIsNoticed(t *testing.T) {
	client := dial(t, startNode(t))
	const ttl = 8 * time.Second
	here, there := newManager(t, client, ttl), newManager(t, client, ttl)
	held, err := here.Acquire(t.Context(), "key")
	require.NoError(t, err)
	next := make(chan cohort.Lock, 1)
	go func() {
		if l, err := here.Acquire(t.Context(), "key"); assert.NoError(t, err) {
			next <- l
		}
	}()
	awaitWaiting(t, here, 1)
	_, err = client.Delete(t.Context(), "/locks/", clientv3.WithPrefix())
	require.NoError(t, err)
	deleted := time.Now()
	theirs, err := there.Acquire(t.Context(), "key")
	require.NoError(t, err)
	receive(t, held.Context().Done(), "the notice")
	t.Log("noticed after", time.Since(deleted))
	assert.Less(t, time.Since(deleted), ttl, "a renewal is due every quarter of the TTL")
	require.ErrorIs(t, context.Cause(held.Context()), cohort.ErrLost)
	require.ErrorIs(t, held.Release(), cohort.ErrLost)
	assert.Empty(t, next)
	require.NoError(t, theirs.Release())
	l := receive(t, next, "the lock")
	assert.Equal(t, 1, l.Token().Compare(theirs.Token()))
	require.NoError(t, l.Release())
}

// A waiter whose own key is deleted enters the queue anew.
func TestDeletedWaiterEntersTheQueueAnew(t *testing.T) {
	client := dial(t, startNode(t))
	holder := acquire(t, newEngine(t, client, 30*time.Second), "key")
	e := newEngine(t, client, 8*time.Second)
	granted := waitInQueue(t, client, e, "key", 2)
	waiter := keysUnder(t, client, e.Name("key")+"/")[1]
	_, err := client.Delete(t.Context(), waiter)
	require.NoError(t, err)
	awaitQueue(t, client, e, "key", 2)
	require.NoError(t, holder.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
}

// A person revokes the lease of a holder, which has a long TTL: the holder notices long before its next renewal.
func TestRevokedLeaseIsNoticedAtOnce(t *testing.T) {
	t.Parallel() // it waits
	client := dial(t, startNode(t))
	const ttl = 40 * time.Second
	held := acquire(t, newEngine(t, client, ttl), "key")
	time.Sleep(ttl/2 + time.Second) // it has held the key for more than two renewals, so it is watched
	_, err := client.Revoke(t.Context(), leaseOf(t, held.Key()))
	require.NoError(t, err)
	revoked := time.Now()
	receive(t, held.Lost(), "the notice")
	t.Log("noticed after", time.Since(revoked))
	assert.Less(t, time.Since(revoked), 8*time.Second, "the next renewal is due after nine")
	require.ErrorIs(t, held.Release(t.Context()), cohort.ErrLost)
}

// One key is stuck: its holder hangs. It is shown who that is, and the key is taken away from that holder alone.
func TestBreakOfOneKey(t *testing.T) {
	client := dial(t, startNode(t))
	name := func(name string) *etcdlock.Engine {
		e, err := etcdlock.New(client, etcdlock.WithTTL(20*time.Second), etcdlock.WithLabel(name))
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Close(context.Background()) })
		return e
	}
	hanging, waiting, operator := name("hanging"), name("waiting"), name("operator")
	stuck, other := acquire(t, hanging, "key"), acquire(t, hanging, "other")
	granted := waitInQueue(t, client, waiting, "key", 2)

	queue, err := operator.Inspect(t.Context(), "key")
	require.NoError(t, err)
	require.Len(t, queue, 2)
	assert.Equal(t, "hanging", queue[0].Process.Label)
	assert.Equal(t, stuck.Epoch(), queue[0].Epoch)
	assert.Equal(t, "waiting", queue[1].Process.Label)
	assert.WithinDuration(t, time.Now(), queue[1].Since, time.Minute)
	assert.False(t, queue[0].Own)
	_, err = operator.TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	var known *cohort.HeldError
	require.ErrorAs(t, err, &known, "a try that fails names the holder, too")
	assert.Equal(t, cohort.HeldError{Key: "key", Holder: queue[0]}, *known)
	queue, err = hanging.Inspect(t.Context(), "key")
	require.NoError(t, err)
	assert.True(t, queue[0].Own)
	assert.False(t, queue[1].Own)

	done, err := operator.Break(t.Context(), "key", stuck.Epoch())
	require.NoError(t, err)
	assert.True(t, done)
	next := receive(t, granted, "the lock")
	receive(t, stuck.Lost(), "the notice")
	require.ErrorIs(t, stuck.Release(t.Context()), cohort.ErrLost)
	done, err = operator.Break(t.Context(), "key", stuck.Epoch())
	require.NoError(t, err)
	assert.False(t, done, "again, it harms no later holder")
	require.NoError(t, next.Release(t.Context()))
	require.NoError(t, other.Release(t.Context()), "no other key was touched")
	queue, err = operator.Inspect(t.Context(), "key")
	require.NoError(t, err)
	assert.Empty(t, queue)
}

// Two services share a cluster, and the prefix of one begins with that of the other.
func TestPrefixBelowAnother(t *testing.T) {
	client := dial(t, startNode(t))
	open := func(prefix string) *etcdlock.Engine {
		e, err := etcdlock.New(client, etcdlock.WithTTL(30*time.Second), etcdlock.WithPrefix(prefix))
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Close(context.Background()) })
		return e
	}
	acquire(t, open("/locks/billing"), "invoice-7")
	free, err := open("/locks").TryAcquire(t.Context(), "billing")
	require.NoError(t, err)
	require.NoError(t, free.Release(t.Context()))
}

func TestKeyThatEtcdWouldRefuseMakesAShortError(t *testing.T) {
	e := newEngine(t, dial(t, startNode(t)), 5*time.Second)
	_, err := e.Acquire(t.Context(), strings.Repeat("k", 3<<20))
	require.ErrorContains(t, err, "too long")
	require.Less(t, len(err.Error()), 1000)
	g := acquire(t, e, strings.Repeat("k", 1<<17))
	require.NoError(t, g.Release(t.Context()))
}

// The leader is killed: that costs a second, and no lock.
func TestLeaderIsKilled(t *testing.T) {
	c := startCluster(t)
	client := dial(t, c.endpoints()...)
	const ttl = 30 * time.Second
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
	const ttl = 5 * time.Second
	minority := newManager(t, dial(t, c.configs[leader].Client), ttl)
	held, err := minority.Acquire(t.Context(), "key")
	require.NoError(t, err)
	theirs := acquire(t, newEngine(t, majority, 2*time.Minute), "theirs")
	waiting := make(chan cohort.Lock, 1)
	go func() {
		if l, err := minority.Acquire(t.Context(), "theirs"); assert.NoError(t, err) {
			waiting <- l
		}
	}()
	engine := newEngine(t, majority, ttl)
	awaitQueue(t, majority, engine, "theirs", 2)
	next := waitInQueue(t, majority, engine, "key", 2, held.Grant())
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
	g := receive(t, next, "the lock, which the majority can give")
	assert.Greater(t, g.Epoch(), held.Token().Epoch)

	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = minority.Acquire(short, "other")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), patience)

	require.NoError(t, theirs.Release(t.Context()))
	c.peers.heal()
	require.NoError(t, receive(t, waiting, "the lock, in a new session").Release())
	require.ErrorIs(t, held.Release(), cohort.ErrLost)
	require.NoError(t, g.Release(t.Context()))
}
