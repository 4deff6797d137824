package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Users of concurrency.Mutex and of an Engine wait in the same queue, in the order in which they came.
func TestStockMutexAndEngineExcludeEachOther(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 5*time.Second)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	require.NoError(t, err)
	defer session.Close()
	stock := concurrency.NewMutex(session, e.Name("hot/key"))

	t.Run("ours waits for theirs", func(t *testing.T) {
		require.NoError(t, stock.Lock(t.Context()))
		granted := waitInQueue(t, client, e, "hot/key", 2)
		assert.Empty(t, granted)
		require.NoError(t, stock.Unlock(t.Context()))
		require.NoError(t, receive(t, granted, "our lock").Release(t.Context()))
	})
	t.Run("theirs waits for ours", func(t *testing.T) {
		ours := acquire(t, e, "hot/key")
		require.ErrorIs(t, stock.TryLock(t.Context()), concurrency.ErrLocked)
		locked := make(chan error, 1)
		go func() { locked <- stock.Lock(t.Context()) }()
		awaitQueue(t, client, e, "hot/key", 2)
		assert.Empty(t, locked)
		require.NoError(t, ours.Release(t.Context()))
		require.NoError(t, receive(t, locked, "their lock"))
		require.NoError(t, stock.Unlock(t.Context()))
	})
	t.Run("both in a hurry", func(t *testing.T) {
		var inside, overlaps, shared int
		var all sync.WaitGroup
		work := func(lock, unlock func() error) {
			for range 40 {
				if !assert.NoError(t, lock()) {
					return
				}
				inside++
				if inside > 1 {
					overlaps++
				}
				shared++ // the race detector watches too
				inside--
				if !assert.NoError(t, unlock()) {
					return
				}
			}
		}
		for range 2 {
			engine := newEngine(t, client, 5*time.Second)
			all.Go(func() {
				var unlock func() error
				work(func() error {
					g, err := engine.Acquire(t.Context(), "hot/key")
					unlock = func() error { return g.Release(t.Context()) }
					return err
				}, func() error { return unlock() })
			})
			session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
			require.NoError(t, err)
			mutex := concurrency.NewMutex(session, engine.Name("hot/key"))
			all.Go(func() {
				defer session.Close()
				work(func() error { return mutex.Lock(t.Context()) }, func() error { return mutex.Unlock(t.Context()) })
			})
		}
		all.Wait()
		assert.Zero(t, overlaps)
		assert.Equal(t, 160, shared)
	})
}
