package redislock_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// disaster makes the server forget its newest data. What it returns is where clients find the server afterwards.
type disaster struct {
	name    string
	prepare func(t *testing.T, s *redistest.Server) (strike func() *redistest.Server)
}

var disasters = []disaster{
	{
		name: "failover to a replica that lags behind",
		prepare: func(t *testing.T, s *redistest.Server) func() *redistest.Server {
			replica := s.Replica(t)
			s.CutReplicas(t)
			return func() *redistest.Server {
				s.Kill()
				replica.Must(t, "REPLICAOF", "NO", "ONE")
				return replica
			}
		},
	},
	{
		name: "restart without the newest data",
		prepare: func(t *testing.T, s *redistest.Server) func() *redistest.Server {
			s.Must(t, "SAVE")
			return func() *redistest.Server {
				s.Kill()
				s.Restart(t)
				return s
			}
		},
	},
	{
		name: "FLUSHALL",
		prepare: func(t *testing.T, s *redistest.Server) func() *redistest.Server {
			return func() *redistest.Server {
				s.Must(t, "FLUSHALL")
				return s
			}
		},
	},
}

// strike lets one process hold a key whose grant the server then forgets, and has another ask
// for it. It returns whether the first holder believed when the disaster was over, and still when the second grant came.
func strike(t *testing.T, d disaster, ttl time.Duration, opts ...redislock.Option) (believed, doubled bool) {
	s := redistest.Start(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	opts = append([]redislock.Option{redislock.WithTTL(ttl)}, opts...)
	first := newEngine(t, dial(t, n.Addr), opts...)
	second := newEngine(t, dial(t, n.Addr), opts...)
	require.NoError(t, acquire(t, first, "key").Release(t.Context())) // so that the sessions are older than what is forgotten
	require.NoError(t, acquire(t, second, "key").Release(t.Context()))
	blow := d.prepare(t, s)
	held := acquire(t, first, "key")

	now := blow()
	struck := time.Now()
	believed = !ended.Is(held.Lost())
	n.Target(now.Addr())
	g := acquire(t, second, "key")
	after := time.Since(struck)
	doubled = !ended.Is(held.Lost())
	assert.Greater(t, g.Epoch(), held.Epoch(), "tokens grow through the disaster")
	t.Logf("%s: the second grant came %v after, doubled: %v", d.name, after.Round(time.Millisecond), doubled)
	return believed, doubled
}

// With the quarantine the first holder knows of its loss before the second is granted.
func TestNoTwoHoldersBelieveAfterTheServerForgot(t *testing.T) {
	t.Parallel()
	for _, d := range disasters {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			for ttl, believed := 4*time.Second, false; !believed; ttl *= 2 { // a lock that is lost before shows nothing
				var doubled bool
				believed, doubled = strike(t, d, ttl, redislock.WithQuarantine(ttl))
				assert.False(t, doubled)
			}
		})
	}
}

// This is what the quarantine is for: without it, two processes hold the key at once.
func TestWithoutQuarantineTwoHoldersBelieve(t *testing.T) {
	t.Parallel()
	for _, d := range disasters {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			doubled := false
			for range 3 { // a renewal may come just between, once in more than a minute
				if _, doubled = strike(t, d, 5*time.Minute); doubled {
					break
				}
			}
			assert.True(t, doubled, "this is the pitfall: if it is gone, rewrite what we say about it")
		})
	}
}

// What the server forgets can be a release too: the key must not stay locked by a process that lives on.
func TestForgottenReleaseLocksNothing(t *testing.T) {
	t.Parallel()
	for _, quarantine := range []time.Duration{0, time.Second} {
		s := redistest.Start(t)
		opts := []redislock.Option{redislock.WithTTL(20 * time.Minute), redislock.WithQuarantine(quarantine)}
		first, second := newEngine(t, dial(t, s.Addr()), opts...), newEngine(t, dial(t, s.Addr()), opts...)
		old := acquire(t, first, "key")
		s.Must(t, "SAVE")
		require.NoError(t, old.Release(t.Context()))
		s.Kill()
		s.Restart(t)
		restarted := time.Now()
		_, entries := s.Left(t)
		require.Equal(t, 1, entries, "the release is forgotten")
		g := acquire(t, second, "key")
		assert.Less(t, time.Since(restarted), redistest.Patience)
		assert.Greater(t, g.Epoch(), old.Epoch())
		require.NoError(t, g.Release(t.Context()))
	}
}

// Pitfall 11: the old master goes on answering its clients after a replica was promoted. Renewals
// that no replica acknowledges do not count, so its holder stops to believe; without WithReplicas it goes on.
func TestP11TheOldMasterGoesOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		replicas int
	}{{"no acknowledgement wanted", 0}, {"acknowledgement wanted", 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const ttl = 8 * time.Second
			master := redistest.Start(t)
			replica := master.Replica(t)
			opts := []redislock.Option{redislock.WithTTL(ttl), redislock.WithQuarantine(ttl), redislock.WithReplicas(c.replicas)}
			first := newEngine(t, dial(t, master.Addr()), opts...)
			held := acquire(t, first, "key")

			master.CutReplicas(t)
			replica.Must(t, "REPLICAOF", "NO", "ONE")
			second := newEngine(t, dial(t, replica.Addr()), append(opts, redislock.WithReplicas(0))...)
			g := acquire(t, second, "key")
			assert.Greater(t, g.Epoch(), held.Epoch())
			select {
			case <-held.Lost():
				assert.Equal(t, 1, c.replicas, "this is the pitfall: if it is gone, rewrite what we say about it")
			default:
				assert.Equal(t, 0, c.replicas, "two believe that they hold the key")
			}
		})
	}
}

// A grant that too few replicas acknowledge is given back; one that enough acknowledge is kept by the promoted replica.
func TestP12ReplicasAcknowledgeGrants(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := master.Replica(t)
	e := newEngine(t, dial(t, master.Addr()), redislock.WithTTL(8*time.Second), redislock.WithReplicas(1))
	held := acquire(t, e, "key")
	hash, field, epoch := held.Guard()
	assert.Equal(t, epoch, replica.Must(t, "HGET", hash, field), "the replica has what it acknowledged")
	other := newEngine(t, dial(t, master.Addr()), redislock.WithTTL(8*time.Second), redislock.WithReplicas(1))
	granted := make(chan *redislock.Grant, 1)
	go func() {
		g, err := other.Acquire(t.Context(), "key")
		if assert.NoError(t, err) {
			granted <- g.(*redislock.Grant)
		}
	}()
	awaitEntries(t, master, 2)
	require.NoError(t, held.Release(t.Context()))
	handed := receive(t, granted, "the grant that a notice told")
	hash, field, epoch = handed.Guard()
	assert.Equal(t, epoch, replica.Must(t, "HGET", hash, field), "and what a notice told")
	require.NoError(t, handed.Release(t.Context()))

	master.CutReplicas(t)
	const why = "too few replicas acknowledged"
	assert.ErrorContains(t, abandoned(t, e, 1500*time.Millisecond, why), why)
	awaitEntries(t, master, 0)
}

// A process learns by a notice that it has the key. It uses the grant when a replica has acknowledged that, and not what was written before.
func TestP12ReplicasAcknowledgeHandoffs(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := master.Replica(t)
	e := newEngine(t, dial(t, master.Addr()), redislock.WithTTL(time.Second), redislock.WithReplicas(1))
	store, ctx := e.Store(), t.Context()
	var queue []lease.Entry
	for _, id := range []string{"A", "B"} {
		queue = append(queue, lease.Entry{Session: lease.Session{ID: id, TTL: 4 * redistest.Patience}, Key: "k", Attempt: 1})
		require.NoError(t, store.Begin(ctx, queue[len(queue)-1].Session))
	}
	notices := listen(t, store, queue[1].Session)
	enter := func(entry lease.Entry) (granted bool, err error) {
		standing, err := store.Enter(ctx, entry, false)
		return standing.Epoch != 0, err
	}
	redistest.Eventually(t, "a grant that is acknowledged", func() bool {
		granted, err := enter(queue[0])
		return granted && err == nil
	})
	_, err := enter(queue[1])
	require.NoError(t, err)
	replica.Signal(syscall.SIGSTOP)
	_, err = store.Leave(ctx, queue[0], false)
	require.NoError(t, err)
	require.Equal(t, lease.Notice{Kind: lease.Granted, Attempt: 1}, receive(t, notices, "the notice"), "without the epoch, so that it asks")
	master.Must(t, "CONFIG", "RESETSTAT")
	_, err = enter(queue[1])
	require.ErrorContains(t, err, "too few replicas acknowledged")
	assert.Contains(t, master.Must(t, "INFO", "commandstats"), "cmdstat_hset:", "WAIT is about what its own connection has written")
	replica.Signal(syscall.SIGCONT)
	redistest.Eventually(t, "the replica acknowledges", func() bool {
		granted, err := enter(queue[1])
		return granted && err == nil
	})
}

// A grant is not acknowledged. Whatever was sent to give it back and was late must not undo the grant of the repeated request.
func TestP12NothingLateUndoesAGrant(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e, err := redislock.New(&fewReplicas{Client: rueidisadapter.New(dial(t, s.Addr()))},
		redislock.WithQuarantine(0), redislock.WithTTL(20*time.Minute), redislock.WithReplicas(1))
	require.NoError(t, err)
	defer closeEngine(e)
	g := acquire(t, e, "key")
	hash, field, epoch := g.Guard()
	assert.Equal(t, epoch, s.Must(t, "HGET", hash, field), "another process could have the key now")
	require.NoError(t, g.Release(t.Context()))
}

// fewReplicas is a client of a server with a replica that does not acknowledge the first grant. What is sent after it fails, and
// arrives at the server just before the reply to the next.
type fewReplicas struct {
	redislock.Client
	grants int
	late   []func()
}

func (c *fewReplicas) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	grant := call.Replicas > 0 && !call.Aside
	acknowledged := call.Replicas
	call.Replicas = 0
	run := func() ([]string, int, error) {
		reply, _, err := c.Client.Run(ctx, call)
		return reply, acknowledged, err
	}
	switch {
	case call.Aside || c.grants != 1 && !grant:
		return run()
	case !grant:
		c.late = append(c.late, func() { _, _, _ = c.Client.Run(context.WithoutCancel(ctx), call) })
		return nil, 0, errors.New("the connection was lost")
	}
	reply, _, err := run()
	if c.grants++; c.grants == 1 {
		return reply, 0, err
	}
	for _, arrives := range c.late {
		arrives()
	}
	c.late = nil
	return reply, acknowledged, err
}

// awaitEntries waits until the server has n entries.
func awaitEntries(t testing.TB, s *redistest.Server, n int) {
	t.Helper()
	var last int
	redistest.Eventually(t, "entries", func() bool {
		_, last = s.Left(t)
		return last == n
	})
}
