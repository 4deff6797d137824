package pglock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// oblivion prepares what makes the server that engines reach forget its newest data. That returns where the server is then.
type oblivion func(t *testing.T, s *pgtest.Server) (forget func() *pgtest.Server)

var oblivions = map[string]oblivion{
	// The unlogged tables are empty after it.
	"crash": func(t *testing.T, s *pgtest.Server) func() *pgtest.Server {
		return func() *pgtest.Server {
			s.Crash(t)
			require.NoError(t, s.StartAgain())
			return s
		}
	},
	// One backend is killed, so that all restart and recover, under a postmaster that goes on.
	"killed backend": func(t *testing.T, s *pgtest.Server) func() *pgtest.Server {
		return func() *pgtest.Server {
			s.KillBackend(t)
			return s
		}
	},
	// The standby has nothing of the unlogged tables when it is promoted.
	"failover": func(t *testing.T, s *pgtest.Server) func() *pgtest.Server {
		b := s.Standby(t)
		return func() *pgtest.Server {
			s.Crash(t)
			require.NoError(t, b.Promote())
			return b
		}
	},
}

// forgets has a holder believe in its lock while its server forgets, and reach the server no more. It returns
// whether the holder still believes when a second process is granted the key, and both epochs. A lock that is lost before
// the server is back shows nothing: then it tries again, with twice the TTL.
func forgets(t *testing.T, o oblivion, ttl time.Duration, opts ...pglock.Option) (believed bool, first, second uint64) {
	s := alone(t)
	forget, all := o(t, s), append([]pglock.Option{pglock.WithTTL(ttl)}, opts...)
	mine, others := cohorttest.NewNetwork(t, s.Addr()), cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, mine.Addr, all...)
	g := acquire(t, e, "key")
	mine.Set(cohorttest.Weather{Silent: true}) // the holder's side of the network is cut
	s = forget()
	others.Target(s.Addr())
	_, inTime := believes(g)
	migrate(t, s) // a process that starts again may do so before any lock is asked for
	h := acquire(t, newEngine(t, s, others.Addr, all...), "key")
	_, believed = believes(g)
	require.NoError(t, h.Release(t.Context()))
	mine.Target(others.Addr)
	mine.Set(cohorttest.Weather{})
	closeEngine(e) // while there is a server: it ends its session there
	if !inTime {
		return forgets(t, o, 2*ttl, opts...)
	}
	return believed, g.Epoch(), h.Epoch()
}

func TestNoTwoHoldersBelieveAfterTheServerForgot(t *testing.T) {
	for name, forget := range oblivions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			believes, first, second := forgets(t, forget, 4*time.Second)
			assert.False(t, believes, "the loss was known when the second was let in")
			assert.Greater(t, second, first)
		})
	}
}

// What the quarantine is for. The tokens grow all the same.
func TestWithoutQuarantineTwoHoldersBelieve(t *testing.T) {
	for name, forget := range oblivions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			believes, first, second := forgets(t, forget, 20*time.Minute, pglock.WithQuarantine(0))
			assert.True(t, believes)
			assert.Greater(t, second, first)
		})
	}
}

// A server that stops and starts in good order forgets nothing: sessions go on, and so do grants.
func TestCleanRestartKeepsLocks(t *testing.T) {
	t.Parallel()
	s := alone(t)
	e := newEngine(t, s, "", pglock.WithTTL(4*time.Minute))
	g := acquire(t, e, "key")
	require.NoError(t, s.Stop())
	require.NoError(t, s.StartAgain())
	_, err := newEngine(t, s, "").TryAcquire(t.Context(), "key")
	require.ErrorContains(t, err, "held")
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, acquire(t, e, "key").Release(t.Context()))
}

// Durable locks survive a crash: their holders keep them, and nothing new is granted for a while.
func TestDurableLocksSurviveACrash(t *testing.T) {
	t.Parallel()
	s := alone(t, "fsync=on")
	conn := s.Connect(t)
	logTables(t, conn)
	const quarantine = 2 * time.Second
	opts := []pglock.Option{pglock.WithDurable(), pglock.WithTTL(4 * time.Minute), pglock.WithQuarantine(quarantine)}
	e := newEngine(t, s, "", opts...)
	g := acquire(t, e, "key")
	s.Crash(t)
	begun := time.Now() // the server may be in use before StartAgain returns
	require.NoError(t, s.StartAgain())
	free := acquire(t, newEngine(t, s, "", opts...), "free")
	assert.Greater(t, free.Epoch(), uint64(begun.Add(quarantine).UnixMicro()), "the quarantine")
	require.NoError(t, free.Release(t.Context()))
	require.NoError(t, g.Guard(t.Context(), begin(t, s)), "it is still held")
}

// An operator who breaks a lock after a crash, before any process has asked for something, has other settings than they: the
// other durable locks stay, and the quarantine is theirs.
func TestBreakAfterACrashLeavesTheRestToTheProcesses(t *testing.T) {
	t.Parallel()
	s := alone(t)
	conn := s.Connect(t)
	logTables(t, conn)
	e := newEngine(t, s, "", pglock.WithDurable(), pglock.WithTTL(20*time.Minute))
	hangs, kept := acquire(t, e, "hangs"), acquire(t, e, "kept")
	s.Crash(t)
	require.NoError(t, s.StartAgain())
	operator := newEngine(t, s, "", pglock.WithQuarantine(time.Second))
	broken, err := operator.Break(t.Context(), "hangs", hangs.Epoch())
	require.NoError(t, err)
	assert.True(t, broken)
	require.Error(t, hangs.Guard(t.Context(), begin(t, s)))
	require.NoError(t, kept.Guard(t.Context(), begin(t, s)), "it is still held")
	asked := time.Now()
	_, err = newEngine(t, s, "", pglock.WithDurable(), pglock.WithQuarantine(20*time.Minute)).TryAcquire(t.Context(), "hangs")
	require.ErrorIs(t, err, cohort.ErrHeld)
	var quiet time.Time
	require.NoError(t, s.Connect(t).QueryRow(t.Context(), "SELECT quiet FROM pglock_life").Scan(&quiet))
	assert.Greater(t, quiet, asked.Add(10*time.Minute))
}

// A standby that streams, and applies what it got an hour later, delays no lock. An engine that is led to it finds
// that it is no primary, and goes on trying, over new connections.
func TestLaggingStandbyDelaysNothing(t *testing.T) {
	t.Parallel()
	s := alone(t)
	b := s.Standby(t, "recovery_min_apply_delay='1h'")
	conn := s.Connect(t)
	eventually(t, conn, 1, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, n.Addr, pglock.WithTTL(time.Minute))
	for range 100 {
		require.NoError(t, acquire(t, e, "key").Release(t.Context()))
	}

	way := cohorttest.NewNetwork(t, b.Addr())
	wrong := newEngine(t, b, way.Addr)
	patience := time.Second
	require.Eventually(t, func() bool { // on a busy machine it may not have been refused by then
		short, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		patience *= 2
		_, err := wrong.Acquire(short, "key")
		return assert.ErrorIs(t, err, context.DeadlineExceeded) && strings.Contains(err.Error(), "during recovery")
	}, pgtest.Patience, time.Millisecond, "it is told that this is a standby")
	require.NoError(t, acquire(t, e, "key").Release(t.Context()))
	way.Target(s.Addr()) // as when the name of the primary has another address
	require.NoError(t, acquire(t, wrong, "key").Release(t.Context()), "it connects anew, although its connections are whole")
}

// Processes contend while the primary dies and a standby is promoted that has missed the newest grants. The
// tables are logged and commits asynchronous, so that the standby has old rows and sessions, and not none: tokens
// grow all the same, and no two believe at once.
func TestPromotionUnderLoad(t *testing.T) {
	t.Parallel()
	s := alone(t)
	conn := s.Connect(t)
	logTables(t, conn)
	stream := cohorttest.NewNetwork(t, s.Addr())
	b := s.Standby(t, fmt.Sprintf("primary_conninfo='host=127.0.0.1 port=%s user=keylock'", stream.Addr[strings.LastIndex(stream.Addr, ":")+1:]))
	eventually(t, conn, 1, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")

	n := cohorttest.NewNetwork(t, s.Addr())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		mu      sync.Mutex
		beliefs []belief
		newest  uint64
		all     sync.WaitGroup
	)
	for range 4 {
		e := newEngine(t, s, n.Addr, pglock.WithTTL(2*time.Second))
		defer func() { closeEngine(e) }()
		all.Go(func() {
			for ctx.Err() == nil {
				g, err := e.Acquire(ctx, "key")
				if err != nil {
					continue
				}
				until := time.Now().Add(rand.N(2 * time.Millisecond))
				if rand.N(100) == 0 {
					until = until.Add(rand.N(3 * time.Second))
				}
				at, believed := believes(g)
				for first, last := at, at; believed; {
					if at, believed = believes(g); believed && ctx.Err() == nil {
						last, believed = at, at.Before(until)
						runtime.Gosched()
					} else {
						believed = false
					}
					if !believed {
						mu.Lock()
						beliefs = append(beliefs, belief{"key", fmt.Sprintf("%016x", g.(*pglock.Grant).Epoch()), first.UnixNano(), last.UnixNano()})
						newest = max(newest, g.(*pglock.Grant).Epoch())
						mu.Unlock()
					}
				}
				_ = g.Release(t.Context())
			}
		})
	}
	grants := func(since uint64) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return newest > since && len(beliefs) > 20
		}
	}
	require.Eventually(t, grants(0), pgtest.Patience, time.Millisecond)
	standby := b.Connect(t)
	eventually(t, standby, 1, "SELECT count(*) FROM pglock_key")
	require.NotZero(t, stream.Connections(), "the standby streams past the proxy")
	stream.Set(cohorttest.Weather{Silent: true}) // from now on the standby misses everything
	cut := uint64(pgtest.Count(t, conn, "SELECT pglock_us()"))
	require.Eventually(t, grants(cut), pgtest.Patience, time.Millisecond)
	var written string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&written))
	pgtest.Must(t, conn, "CREATE TABLE flushed ()") // with what was written before, which no statement of ours waits for
	eventually(t, conn, 1, "SELECT count(*) FROM pg_stat_replication WHERE sent_lsn >= $1::pg_lsn", written)
	pgtest.Must(t, standby, "SELECT 1 / (pg_last_wal_receive_lsn() < $1::pg_lsn)::int", written) // it is cut off
	s.Crash(t)
	mu.Lock()
	last := newest
	mu.Unlock()
	require.NoError(t, b.Promote())
	known := uint64(pgtest.Count(t, b.Connect(t), "SELECT epoch FROM pglock_key"))
	require.NotZero(t, known)
	require.Less(t, known, last, "the standby has missed a grant")
	n.Target(b.Addr())
	require.Eventually(t, grants(last), pgtest.Patience, time.Millisecond, "locks are granted again")
	stop()
	all.Wait()
	noOverlap(t, beliefs)
}
