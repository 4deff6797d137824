package etcdlock

import (
	"context"
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
