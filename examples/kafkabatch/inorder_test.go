package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

// makeBatch returns n records of one partition, of as many keys in turn.
func makeBatch(n, keys int) []*kgo.Record {
	batch := make([]*kgo.Record, n)
	for i := range batch {
		batch[i] = &kgo.Record{Key: fmt.Appendf(nil, "key-%d", i%keys), Offset: int64(i)}
	}
	return batch
}

func nothing() {}

func startKeys(t *testing.T) *keylock.Manager[string] {
	keys := keylock.Start[string](context.Background())
	t.Cleanup(func() { keys.Close(); <-keys.Done() })
	return keys
}

func TestInOrderTakesAsLongAsTheLongestKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newWitness()
		handle := seen.watch(work(time.Millisecond, nothing))
		began := time.Now()

		require.NoError(t, inOrder(t.Context(), startKeys(t), makeBatch(500, 50), handle))

		assert.Equal(t, 10*time.Millisecond, time.Since(began), "10 records of each key, 50 keys side by side")
		assert.Equal(t, findings{handled: 500}, seen.found())
	})
}

func TestOneByOneTakesAsLongAsAllRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newWitness()
		handle := seen.watch(work(time.Millisecond, nothing))
		began := time.Now()

		require.NoError(t, oneByOne(t.Context(), nil, makeBatch(500, 50), handle))

		assert.Equal(t, 500*time.Millisecond, time.Since(began))
		assert.Equal(t, findings{handled: 500}, seen.found())
	})
}

// Every key's third record fails. The next of that key waits already, and must not get its turn,
// although the release lets it.
func TestInOrderBeginsNothingAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad record")
		seen := newWitness()
		handle := seen.watch(func(ctx context.Context, record *kgo.Record) error {
			time.Sleep(time.Millisecond)
			if record.Offset/50 == 2 {
				return bad
			}
			return nil
		})
		batch := makeBatch(500, 50)

		err := inOrder(t.Context(), startKeys(t), batch, handle)

		require.ErrorIs(t, err, bad)
		assert.Equal(t, findings{handled: 100}, seen.found(), "the first two of each key, and none out of order")
	})
}

// The same in real time, where the second record of the key is already on its way when the first
// fails.
func TestNoRecordPassesAFailedOne(t *testing.T) {
	keys := startKeys(t)
	bad := errors.New("bad record")
	passed := 0
	for range 20_000 {
		err := inOrder(t.Context(), keys, makeBatch(4, 1), func(_ context.Context, record *kgo.Record) error {
			if record.Offset == 0 {
				return bad
			}
			passed++
			return nil
		})
		require.ErrorIs(t, err, bad)
	}
	assert.Zero(t, passed)
}

func TestInOrderReturnsWhenNoCallIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad record")
		var working atomic.Int64
		handle := func(_ context.Context, record *kgo.Record) error {
			working.Add(1)
			defer working.Add(-1)
			if record.Offset == 0 {
				return bad
			}
			time.Sleep(time.Hour) // does not hear of the failure
			return nil
		}

		require.ErrorIs(t, inOrder(t.Context(), startKeys(t), makeBatch(20, 10), handle), bad)

		assert.Zero(t, working.Load())
	})
}

func TestInOrderEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		seen := newWitness()
		handle := seen.watch(work(2*time.Millisecond, nothing))
		began := time.Now()

		err := inOrder(ctx, startKeys(t), makeBatch(500, 50), handle)

		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 5*time.Millisecond, time.Since(began))
		assert.Equal(t, findings{handled: 100}, seen.found())
	})
}

func TestHandlerThatDoesNotReturnIsAFailure(t *testing.T) {
	seen := newWitness()
	err := inOrder(t.Context(), startKeys(t), makeBatch(4, 1), seen.watch(func(_ context.Context, record *kgo.Record) error {
		if record.Offset == 1 {
			runtime.Goexit()
		}
		return nil
	}))
	require.ErrorIs(t, err, inorder.ErrGoexit)
	assert.Equal(t, 1, seen.found().handled, "nothing behind it")
}

func TestRecordsWithoutAKeyHaveNoOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batch := makeBatch(100, 1)
		for i, record := range batch {
			record.Key = nil
			if i%2 == 0 {
				record.Key = []byte{} // an empty key is one
			}
		}
		began := time.Now()
		require.NoError(t, inOrder(t.Context(), startKeys(t), batch, work(time.Millisecond, nothing)))
		assert.Equal(t, 50*time.Millisecond, time.Since(began))
	})
}
