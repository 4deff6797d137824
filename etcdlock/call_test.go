package etcdlock

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
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
