package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// waitForTurn waits for a turn in the background. The channel receives it, or nil when ctx ended before.
func waitForTurn(ctx context.Context, ts *turns) <-chan *turn {
	took := make(chan *turn, 1)
	go func() {
		t, _ := ts.take(ctx, "key", false)
		took <- t
	}()
	synctest.Wait()
	return took
}

// has reports whether a value has come.
func has[T any](c <-chan T) bool {
	synctest.Wait()
	return len(c) > 0
}

func TestTurnsAreTakenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns()
		first, err := ts.take(t.Context(), "key", false)
		require.NoError(t, err)
		second, third := waitForTurn(t.Context(), ts), waitForTurn(t.Context(), ts)
		assert.False(t, has(second))
		other, err := ts.take(t.Context(), "other", false)
		require.NoError(t, err, "a key waits for no other")
		other.end()

		first.end()
		first.end() // once more does nothing
		require.True(t, has(second))
		assert.False(t, has(third))
		(<-second).end()
		require.True(t, has(third))
		(<-third).end()
		assert.Empty(t, ts.byKey)
	})
}

func TestTryNeverWaitsForATurn(t *testing.T) {
	ts := newTurns()
	first, err := ts.take(t.Context(), "key", true)
	require.NoError(t, err)
	_, err = ts.take(t.Context(), "key", true)
	require.ErrorIs(t, err, cohort.ErrHeld)
	first.end()
	_, err = ts.take(t.Context(), "key", true)
	require.NoError(t, err)
}

func TestEndedContextTakesNoTurn(t *testing.T) {
	ts := newTurns()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, try := range []bool{false, true} {
		_, err := ts.take(ctx, "key", try)
		require.ErrorIs(t, err, context.Canceled)
	}
	assert.Empty(t, ts.byKey)
}

func TestCancelledWaitForATurnLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns()
		first, err := ts.take(t.Context(), "key", false)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		second, third := waitForTurn(ctx, ts), waitForTurn(t.Context(), ts)
		cancel()
		require.True(t, has(second))
		assert.Nil(t, <-second)
		assert.False(t, has(third), "the first still has its turn")
		first.end()
		require.True(t, has(third))
		(<-third).end()
		assert.Empty(t, ts.byKey)
	})
}

// A turn that begins at the moment at which the context of its contender ends goes to the next one.
func TestTurnThatBeginsWhenTheContextEndsIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 { // select chooses at random
			ts := newTurns()
			first, err := ts.take(t.Context(), "key", false)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			second, third := waitForTurn(ctx, ts), waitForTurn(t.Context(), ts)
			cancel()
			first.end()
			if s := <-second; s != nil {
				s.end()
			}
			(<-third).end()
			assert.Empty(t, ts.byKey)
		}
	})
}

// A holder may keep its turn for as long as it likes. Those behind it do not wait for that when Close
// has given up.
func TestThoseThatWaitForATurnAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns()
		first, err := ts.take(t.Context(), "key", false)
		require.NoError(t, err)
		second := waitForTurn(t.Context(), ts)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, ts.close(ctx), context.Canceled)
		assert.False(t, has(second))
		ts.refuse()
		ts.refuse()
		assert.Nil(t, <-second)
		first.end()
		require.NoError(t, ts.close(t.Context()))
	})
}

func TestClosedTurnsAreOverWhenTheLastHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns()
		first, err := ts.take(t.Context(), "key", false)
		require.NoError(t, err)
		second := waitForTurn(t.Context(), ts)
		closed := make(chan error, 1)
		go func() { closed <- ts.close(t.Context()) }()
		assert.False(t, has(closed))
		_, err = ts.take(t.Context(), "other", false)
		require.ErrorIs(t, err, cohort.ErrClosed)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, ts.close(ctx), context.Canceled)
		first.end()
		assert.False(t, has(closed), "those that wait have their turns")
		(<-second).end()
		require.NoError(t, <-closed)
		require.NoError(t, ts.close(t.Context()), "again")
	})
}
