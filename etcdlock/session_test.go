package etcdlock

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// unreachableEngine returns an engine whose etcd is not there.
func unreachableEngine(t *testing.T, opts ...Option) *Engine {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop()})
	require.NoError(t, err)
	e, err := New(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, e.Close(context.Background()))
		assert.NoError(t, client.Close())
	})
	return e
}

// pausedGrant returns a grant whose deadline has passed, in a session that no timer has ended yet: what a
// process finds that was paused for longer than its lease.
func pausedGrant(t *testing.T) *Grant {
	e := unreachableEngine(t)
	s := e.newSession(1, time.Now().Add(-9*time.Second), 10)
	turn, err := e.turns.take(t.Context(), "key", true)
	require.NoError(t, err)
	p := e.newEntry(s, "key")
	close(p.entered)
	return newGrant(p, turn)
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

// The deadline of a TTL of 73 years overflowed: the session was lost as it began.
func TestLongestTTLHasADeadline(t *testing.T) {
	e := unreachableEngine(t, WithTTL(longestTTL))
	s := e.newSession(1, time.Now(), int64(e.ttl/time.Second))
	assert.Greater(t, s.left(), 25*365*24*time.Hour)
	assert.Positive(t, cleanUpTTLs*e.ttl)
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
	until := int64(now.Add(7 * time.Second).Sub(s.engine.start))
	s.trust(now.Add(-time.Second), 10)
	assert.Equal(t, until, s.deadline.Load())
	s.trust(now.Add(-5*time.Second), 10)
	assert.Equal(t, until, s.deadline.Load())
	assert.LessOrEqual(t, s.left(), 7*time.Second)
}

// A request that etcd does not answer ends after the TTL, so that it can be repeated, and not much sooner.
func TestRequestWithoutAReplyEndsAfterTheTTL(t *testing.T) {
	s := pausedGrant(t).entry.session
	request := s.request()
	for range 4 { // a request of the end of the first quarter has had three, and one of its beginning four
		s.beginPeriod()
		require.NoError(t, request.Err())
	}
	s.beginPeriod()
	require.Equal(t, context.DeadlineExceeded, request.Err())
	require.NoError(t, s.request().Err())
	require.True(t, passes(request.Err()))
}

func TestRequestWithinAContextEndsWithEither(t *testing.T) {
	s := pausedGrant(t).entry.session
	caller, cancelCaller := context.WithCancel(t.Context())
	cancelled, done := s.within(caller)
	defer done()
	late, done := s.within(t.Context())
	defer done()
	lost, done := s.within(t.Context())
	defer done()
	require.NoError(t, errors.Join(cancelled.Err(), late.Err(), lost.Err()))
	cancelCaller()
	<-cancelled.Done()
	require.Equal(t, context.Canceled, cancelled.Err())
	for range mostPeriods {
		s.beginPeriod()
	}
	require.Equal(t, context.DeadlineExceeded, late.Err())
	lost, done = s.within(t.Context())
	defer done()
	s.lose()
	require.Equal(t, context.Canceled, lost.Err())
}

// An entry whose request got no reply may be in the queue all the same.
func TestEntryWithoutAReplyMayBeInTheQueue(t *testing.T) {
	g := pausedGrant(t)
	s := g.entry.session
	s.trust(time.Now(), 10)
	p := s.engine.newEntry(s, "another key")
	c := &call{engine: s.engine, ctx: t.Context(), key: "another key"}
	failed := make(chan error, 1)
	go func() { failed <- c.enterQueue(p) }()
	for len(failed) == 0 {
		s.beginPeriod()
		runtime.Gosched()
	}
	require.ErrorIs(t, <-failed, context.DeadlineExceeded)
	require.False(t, p.neverEntered())
	require.False(t, p.isLost())
}
