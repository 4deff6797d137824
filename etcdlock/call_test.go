package etcdlock

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// A caller that is told that it has failed finds the key as free within its process as it was before.
func TestTurnEndsBeforeTheReply(t *testing.T) {
	e := unreachableEngine(t, WithTTL(time.Second))
	for _, try := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		replied := make(chan error, 1)
		e.Ask(ctx, "key", try, func(_ cohort.Grant, err error) {
			turn, takeErr := e.turns.take(t.Context(), "key", true)
			if assert.NoError(t, takeErr, "try: %v", try) {
				turn.end()
			}
			replied <- err
		})
		require.ErrorIs(t, <-replied, context.DeadlineExceeded)
	}
}

// Close returns when all calls have been replied to, also when its context has ended.
func TestCloseLeavesNoCallBehind(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		e := unreachableEngine(t, WithTTL(time.Second))
		var replied atomic.Int64
		for i := range 20 {
			e.Ask(t.Context(), strconv.Itoa(i%5), false, func(_ cohort.Grant, err error) {
				assert.ErrorIs(t, err, cohort.ErrClosed)
				replied.Add(1)
			})
		}
		_ = e.Close(ended) // which may find nothing to wait for
		require.EqualValues(t, 20, replied.Load())
		e.Ask(t.Context(), "key", false, func(_ cohort.Grant, err error) {
			assert.ErrorIs(t, err, cohort.ErrClosed)
			replied.Add(1)
		})
		require.EqualValues(t, 21, replied.Load())
	}
}

// Some contexts close Done before they set Err. A call that waited for its turn took the one for its end and the missing
// other for its turn, and what package context derives from such a context panics.
func TestContextThatEndsWithoutAnErrorEndsTheCall(t *testing.T) {
	e := unreachableEngine(t, WithTTL(time.Second))
	holder, err := e.turns.take(t.Context(), "key", true)
	require.NoError(t, err)
	ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
	returned := make(chan error, 2)
	for _, key := range []string{"key", "other"} {
		go func() {
			_, err := e.Acquire(ctx, key)
			returned <- err
		}()
	}
	for waits := false; !waits; runtime.Gosched() { // one for its turn, and one for a session
		e.turns.mu.Lock()
		waits = e.turns.byKey["key"].Len() == 2 && e.turns.byKey["other"] != nil
		e.turns.mu.Unlock()
	}
	close(ctx.Ended)
	require.ErrorIs(t, <-returned, context.Canceled)
	require.ErrorIs(t, <-returned, context.Canceled)
	_, err = e.TryAcquire(ctx, "key")
	require.ErrorIs(t, err, context.Canceled)
	holder.end()
	_ = e.Close(ctx) // which may find nothing to wait for
}
