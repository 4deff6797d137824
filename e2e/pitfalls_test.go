package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// The stock mutex lets two holders of one session in; goroutines that share an Engine
// take turns before they go to etcd.
func TestP1OneSessionTwoContendersOnOneKey(t *testing.T) {
	client := dial(t, startNode(t))

	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	require.NoError(t, err)
	defer session.Close()
	for range 2 {
		require.NoError(t, concurrency.NewMutex(session, "/stock/key").Lock(t.Context()), "this is the pitfall: if it is gone, rewrite what we say about it")
	}

	e := newEngine(t, client, 30*time.Second)
	first := acquire(t, e, "key")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = e.Acquire(ctx, "key")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = e.TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	require.NoError(t, first.Release(t.Context()))
	second := acquire(t, e, "key")
	assert.Greater(t, second.Epoch(), first.Epoch())
}

// The Txn that enters the queue is carried out, its reply is lost, and its caller
// has abandoned it: the key must not stay on a lease that lives on.
func TestP2ContextEndsWhileTheReplyIsInFlight(t *testing.T) {
	for _, lost := range []struct {
		how     string
		weather weather
	}{
		{"late", weather{Late: time.Second}},
		{"never", weather{NoReplies: true}},
	} {
		t.Run(lost.how, func(t *testing.T) {
			node := startNode(t)
			direct := dial(t, node)
			n := cohorttest.NewNetwork(t, node)
			e := newEngine(t, dial(t, n.Addr), 30*time.Second)
			kept := acquire(t, e, "kept") // so that there is a session, which the fault must not end

			var queue []string
			locktest.GiveUp(t, e, "key", n, lost.weather, func() { queue = awaitQueue(t, direct, e, "key", 1) })
			if lost.weather.Late == 0 {
				assert.Len(t, keysUnder(t, direct, queue[0]), 1, "the orphan that this test is about")
			}

			n.Set(weather{})
			awaitQueue(t, direct, e, "key", 0)
			other := newEngine(t, direct, 30*time.Second)
			require.NoError(t, acquire(t, other, "key").Release(t.Context()))
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
			require.NoError(t, kept.Release(t.Context()), "the session was kept")
		})
	}
}

// All replies are two seconds late, and then no requests arrive any more, while the replies to earlier ones
// still do. The holder must have stopped trusting its lease before another can have it.
func TestP3RepliesAreLate(t *testing.T) {
	t.Parallel() // it waits
	node := startNode(t)
	n := newNetwork()
	const ttl = 10 * time.Second
	patient, err := clientv3.New(clientv3.Config{Endpoints: []string{n.to(t, "n0", node)}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer patient.Close()
	direct := dial(t, node)
	held := acquire(t, newEngine(t, patient, ttl), "key")
	n.set(func(_, _ string) weather { return weather{Late: 2 * time.Second} })

	granted := waitInQueue(t, direct, newEngine(t, direct, ttl), "key", 2, held)
	select {
	case <-held.Lost():
		require.Fail(t, "the lease is kept while replies are only late")
	case <-time.After(ttl + ttl/5):
	}

	n.set(func(_, _ string) weather { return weather{NoRequests: true, Late: 2 * time.Second} })
	locktest.LostBy(t, held, time.Now().Add(ttl))
	receive(t, granted, "the next holder")
}

// Calls return with their contexts while nothing replies. The stock mutex does not.
func TestP4CancelledWhileUnreachable(t *testing.T) {
	node := startNode(t)
	n := newNetwork()
	direct := dial(t, node)
	e := newEngine(t, dial(t, n.to(t, "n0", node)), 30*time.Second)
	held := acquire(t, e, "held")
	blocker := acquire(t, newEngine(t, direct, 30*time.Second), "theirs")

	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() {
		_, err := e.Acquire(ctx, "theirs")
		returned <- err
	}()
	awaitQueue(t, direct, e, "theirs", 2)
	n.set(silence)
	cancel()
	began := time.Now()
	require.ErrorIs(t, receive(t, returned, "the waiter in the queue"), context.Canceled)

	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := e.Acquire(short, "fresh")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, held.Release(short), context.DeadlineExceeded)
	assert.Less(t, time.Since(began), patience/6)

	n.heal() // what was left behind is cleaned up, although no call waits for it
	require.NoError(t, blocker.Release(t.Context()))
	for _, key := range []string{"held", "theirs", "fresh"} {
		awaitQueue(t, direct, e, key, 0)
	}
}

// Whatever an unlock's request does on its way, it can only remove its own lock. The etcd key is the
// same for both, as they are of one session.
func TestP5LateUnlock(t *testing.T) {
	node := startNode(t)
	n := newNetwork()
	direct := dial(t, node)
	e := newEngine(t, dial(t, n.to(t, "n0", node)), 30*time.Second)
	old := acquire(t, e, "key")
	unlock := direct.Txn(t.Context()).If(old.IsOwner()).Then(clientv3.OpDelete(old.Key()))

	n.set(func(_, _ string) weather { return weather{NoReplies: true} })
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, old.Release(short), context.DeadlineExceeded)
	awaitQueue(t, direct, e, "key", 0) // it was carried out; the engine does not know, and repeats it
	n.heal()
	next := acquire(t, e, "key")
	require.Equal(t, old.Key(), next.Key())

	late, err := unlock.Commit()
	require.NoError(t, err)
	assert.False(t, late.Succeeded)
	require.NoError(t, old.Release(t.Context()))
	assert.Len(t, keysUnder(t, direct, next.Key()), 1, "the newer lock is untouched")
	require.NoError(t, next.Release(t.Context()))
}

// A waiter whose own lease is gone is not in the queue any more, and no event says so.
func TestP6TheWaitersSessionExpires(t *testing.T) {
	client := dial(t, startNode(t))
	holder := acquire(t, newEngine(t, client, 30*time.Second), "key")
	waiter := newEngine(t, client, 8*time.Second)
	granted := waitInQueue(t, client, waiter, "key", 2)
	before := keysUnder(t, client, waiter.Name("key")+"/")[1]

	_, err := client.Revoke(t.Context(), leaseOf(t, before))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		queue := keysUnder(t, client, waiter.Name("key")+"/")
		return len(queue) == 2 && queue[1] != before
	}, patience, 10*time.Millisecond, "the waiter did not enter the queue anew")
	require.NoError(t, holder.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
}

// There is one lease per process: with it goes everything. Every holder learns of the loss.
func TestP9OneLostLeaseDropsAllKeys(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 8*time.Second)
	a, b := acquire(t, e, "a"), acquire(t, e, "b")
	require.Equal(t, leaseOf(t, a.Key()), leaseOf(t, b.Key()))
	_, err := client.Revoke(t.Context(), leaseOf(t, a.Key()))
	require.NoError(t, err)
	receive(t, a.Lost(), "the loss of a")
	receive(t, b.Lost(), "the loss of b")
	require.ErrorIs(t, a.Release(t.Context()), cohort.ErrLost)
	again := acquire(t, e, "a")
	assert.NotEqual(t, leaseOf(t, a.Key()), leaseOf(t, again.Key()))
	assert.Greater(t, again.Epoch(), a.Epoch())
}

func TestP10ReleaseWithAnEndedContext(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 30*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	g, err := e.Acquire(ctx, "key")
	require.NoError(t, err)
	cancel()
	if err := g.Release(ctx); err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	awaitQueue(t, client, e, "key", 0)
}

// P11 is about PostgreSQL. Of its five points, four could be made of etcd: the same session's second
// lock succeeds (TestP1), a cancelled context ends other locks too, keys are mapped to
// something that collides, and a waiter occupies a connection.
func TestP11CancelledWaitsAndAlikeKeysHarmNoOtherLock(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	n := newNetwork()
	e := newEngine(t, dial(t, n.to(t, "n0", node)), 30*time.Second)
	held := acquire(t, e, "held")
	theirs := newEngine(t, direct, 30*time.Second)
	const waiters = 50
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, waiters)
	for i := range waiters {
		key := "theirs/" + string(rune('A'+i)) // alike, and each prefix-free only because the slash is escaped
		acquire(t, theirs, key)
		go func() {
			_, err := e.Acquire(ctx, key)
			returned <- err
		}()
	}
	acquire(t, e, "theirs") // the parent of all those keys is free
	for i := range waiters {
		awaitQueue(t, direct, e, "theirs/"+string(rune('A'+i)), 2)
	}
	require.Eventually(t, func() bool { return n.connections() == 1 }, patience, time.Millisecond, "waiters share one connection")
	cancel()
	for range waiters {
		require.ErrorIs(t, receive(t, returned, "a waiter"), context.Canceled)
	}
	require.NoError(t, held.Release(t.Context()), "their cancellation did not end this lock")
}
