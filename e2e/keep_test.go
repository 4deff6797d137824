package e2e

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// A process has used keys and keeps them. Another one gets each of them: by waiting, by the second try, with
// concurrency.Mutex, and in the end, when the process was killed, after its TTL.
func TestKeptKeysOfAnotherProcess(t *testing.T) {
	t.Parallel() // it waits
	addr := startNode(t)
	client := dial(t, addr)
	keeper := startFigurer(t, addr, "keep")
	engine, err := etcdlock.New(client, etcdlock.WithPrefix("/keep"), etcdlock.WithTTL(10*time.Second))
	require.NoError(t, err)
	m := cohort.Start(context.Background(), engine)
	defer m.Close()
	before := len(keysUnder(t, client, "/keep/")) // of a key that the process has kept since it began
	keeper.measure(t, figureTask{Case: "each once", Keys: 10})
	require.Len(t, keysUnder(t, client, "/keep/"), before+10, "they are kept")

	for _, key := range []string{"0", "1", "2"} {
		began := time.Now()
		l, err := m.Acquire(t.Context(), key)
		require.NoError(t, err)
		t.Log("recalled in", time.Since(began))
		assert.Less(t, time.Since(began), 5*time.Second, "long before the keeper would give it back by itself")
		require.NoError(t, l.Release())
	}
	_, err = m.TryAcquire(t.Context(), "3")
	require.ErrorIs(t, err, cohort.ErrHeld)
	require.Eventually(t, func() bool { return len(keysUnder(t, client, engine.Name("3")+"/")) == 0 }, 5*time.Second, time.Millisecond)
	l, err := m.TryAcquire(t.Context(), "3")
	require.NoError(t, err)
	require.NoError(t, l.Release())

	session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	require.NoError(t, err)
	defer session.Close()
	stock := concurrency.NewMutex(session, engine.Name("4"))
	began := time.Now()
	require.NoError(t, stock.Lock(t.Context()))
	t.Log("concurrency.Mutex served in", time.Since(began))
	assert.Less(t, time.Since(began), 3*time.Second, "a second is promised, on a machine with nothing else to do")
	require.NoError(t, stock.Unlock(t.Context()))
	require.Eventually(t, func() bool { return len(keysUnder(t, client, "/keep/")) == before+5 }, patience, 10*time.Millisecond,
		"what is left is kept, and no note stays")

	keeper.measure(t, figureTask{Case: "each once", Keys: 10}) // it gets them back
	keeper.kill()
	l, err = m.Acquire(t.Context(), "9")
	require.NoError(t, err)
	require.NoError(t, l.Release())
	require.Eventually(t, func() bool { return len(keysUnder(t, client, "/keep/")) == 0 }, patience, 10*time.Millisecond)
}

// A claim that can no longer be recalled is given back, although no other process wants it.
func TestKeptKeysGoBackWhenTheInboxIsNotWatched(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	n := newNetwork()
	m := newManager(t, dial(t, n.to(t, "n0", node)), 30*time.Second, cohort.WithKeep(time.Hour, 8))
	use := func() {
		for _, key := range []string{"a", "b", "c"} {
			l, err := m.Acquire(t.Context(), key)
			require.NoError(t, err)
			require.NoError(t, l.Release())
		}
	}
	use()
	time.Sleep(700 * time.Millisecond) // the queues were looked at
	require.Len(t, keysUnder(t, direct, "/locks/"), 3)
	compact(t, direct)
	n.set(func(_, _ string) weather { return weather{Down: true} })
	time.Sleep(100 * time.Millisecond)
	n.heal()
	awaitNoKeys(t, direct, patience)
	require.Eventually(t, func() bool {
		use()
		return len(keysUnder(t, direct, "/locks/")) == 3
	}, patience, 10*time.Millisecond, "they are kept again")
	require.NoError(t, m.Close())
	assert.Empty(t, keysUnder(t, direct, "/locks/"))
}

// The end of a manager gives every kept key back with one request. While a caller still holds a lock, Shutdown gives them
// back before, dozens with each.
func TestKeptKeysGoBackAtTheEnd(t *testing.T) {
	node := startNode(t)
	client := dial(t, node)
	for _, end := range []struct {
		name     string
		holds    bool
		end      func(m *cohort.Manager) error
		messages float64 // at most, of the session's other requests too
	}{
		{"Close", false, (*cohort.Manager).Close, 30},
		{"Shutdown", false, func(m *cohort.Manager) error { return m.Shutdown(context.Background()) }, 30},
		{"Shutdown with a holder", true, func(m *cohort.Manager) error { return m.Shutdown(context.Background()) }, 150},
	} {
		t.Run(end.name, func(t *testing.T) {
			const keys = 1000
			m := newManager(t, dial(t, node), 10*time.Second, cohort.WithKeep(time.Hour, keys+1))
			for i := range keys {
				l, err := m.Acquire(t.Context(), strconv.Itoa(i))
				require.NoError(t, err)
				require.NoError(t, l.Release())
			}
			require.Len(t, keysUnder(t, client, "/locks/"), keys)
			left := 0
			var holder cohort.Lock
			if end.holds {
				var err error
				holder, err = m.Acquire(t.Context(), "held")
				require.NoError(t, err)
				left = 1
			}
			before, began := messages(t, node), time.Now()
			ended := make(chan error, 1)
			go func() { ended <- end.end(m) }()
			require.Eventually(t, func() bool {
				resp, err := client.Get(t.Context(), "/locks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
				require.NoError(t, err)
				before++
				return resp.Count == int64(left)
			}, patience, 5*time.Millisecond)
			n := messages(t, node) - before
			t.Log("given back after", time.Since(began), "with", n, "messages")
			assert.LessOrEqual(t, n, end.messages)
			require.NoError(t, holder.Release())
			require.NoError(t, receive(t, ended, "the end"))
		})
	}
}
