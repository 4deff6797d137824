package etcdlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// pausedGrant returns a grant whose deadline has passed, in a session that no timer has ended yet: what a
// process finds that was paused for longer than its lease.
func pausedGrant(t *testing.T) *Grant {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop()})
	require.NoError(t, err)
	e, err := New(client)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, e.Close(context.Background()))
		assert.NoError(t, client.Close())
	})
	s := e.newSession(1, time.Now().Add(-9*time.Second), 10)
	local, ok := e.local.TryAcquire("key")
	require.True(t, ok)
	p := e.newEntry(s, "key")
	close(p.entered)
	return newGrant(p, local)
}

func TestDeadlineThatHasPassedIsNoticedByTheNextCall(t *testing.T) {
	g := pausedGrant(t)
	require.NoError(t, g.entry.session.ctx.Err(), "no timer has run")
	select {
	case <-g.Lost():
	default:
		require.Fail(t, "Lost is open, and the claim would be handed off")
	}
}

func TestReleaseAfterTheDeadlineReportsTheLoss(t *testing.T) {
	g := pausedGrant(t)
	require.NoError(t, g.entry.session.ctx.Err(), "no timer has run")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.ErrorIs(t, g.Release(ctx), cohort.ErrLost)
	require.ErrorIs(t, g.Release(ctx), cohort.ErrLost)
}

// The deadline is counted from when the request was sent, and never moves back.
func TestDeadlineIsCountedFromTheSending(t *testing.T) {
	g := pausedGrant(t)
	s := g.entry.session
	now := time.Now()
	s.trust(now.Add(-time.Second), 10)
	assert.InDelta(t, 7*time.Second, s.left(), float64(time.Second))
	s.trust(now.Add(-5*time.Second), 10)
	assert.InDelta(t, 7*time.Second, s.left(), float64(time.Second))
}
