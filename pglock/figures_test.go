package pglock_test

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

var figures = flag.Bool("figures", false, "take the README's figures, which needs a quiet machine and a minute")

// locker is what is measured: lock and unlock of a key by one of several processes.
type locker func(ctx context.Context, process int, key string) (unlock func() error, err error)

// TestFigures prints the figures of the README, each beside a session-level advisory lock, in turns.
//
//	go test -run TestFigures -v . -figures
func TestFigures(t *testing.T) {
	rounds, span := 1, 50*time.Millisecond
	if *figures {
		rounds, span = 35, 100*time.Millisecond // short, so that both find the machine in the same state
	}
	s := alone(t, "fsync=on", "synchronous_commit=on")
	advisory := advisoryLocker(t, s)
	ours := cohortLocker(t, database(t, s, "one"), 1)
	keeps := cohortLocker(t, database(t, s, "kept"), 1, cohort.WithKeep(time.Minute, 1))
	two := cohortLocker(t, database(t, s, "turns"), 2, cohort.WithMaxHandoffs(0))
	twoHand := cohortLocker(t, database(t, s, "two"), 2)

	floor := compare(t, rounds, func(l locker) float64 { return latency(t, l, span) }, advisory, updatesLocker(t, s))
	statements := compare(t, rounds, func(l locker) float64 { return latency(t, l, span) }, advisory, storeLocker(t, s, false))
	handed := compare(t, rounds, func(l locker) float64 { return latency(t, l, span) }, advisory, storeLocker(t, s, true))
	alone := compare(t, rounds, func(l locker) float64 { return latency(t, l, span) }, advisory, ours)
	kept := compare(t, rounds, func(l locker) float64 { return latency(t, l, span) }, advisory, keeps)
	hot := compare(t, rounds, func(l locker) float64 { return throughput(t, l, 64, 1, span) }, advisory, ours)
	turns := compare(t, rounds, func(l locker) float64 { return throughput(t, l, 2, 2, span) }, advisory, two)
	both := compare(t, rounds, func(l locker) float64 { return throughput(t, l, 64, 2, span) }, advisory, twoHand)
	least := compareTurns(t, rounds, span, advisory, database(t, s, "least"))
	t.Logf("two updates of a row, latency:             %.2f times the advisory lock's (%.2f ms)", floor.ratio, floor.ours*1000)
	t.Logf("pglock's statements alone:                 %.2f times the advisory lock's (%.2f ms)", statements.ratio, statements.ours*1000)
	t.Logf("the same, the first by another goroutine:  %.2f times the advisory lock's (%.2f ms)", handed.ratio, handed.ours*1000)
	t.Logf("lock and unlock alone, latency:            %.2f times the advisory lock's (%.2f ms)", alone.ratio, alone.ours*1000)
	t.Logf("the same, with cohort.WithKeep:            %.2f times the advisory lock's (%.4f ms)", kept.ratio, kept.ours*1000)
	t.Logf("hot key, 64 goroutines, throughput:        %.1f times (%.0f/s)", hot.ratio, hot.ours)
	t.Logf("two updates and a notification, in turns:  %.2f times (%.0f/s)", least.ratio, least.ours)
	t.Logf("two processes in turns, without handoff:   %.2f times (%.0f/s)", turns.ratio, turns.ours)
	t.Logf("two processes of 32 goroutines each:       %.1f times (%.0f/s)", both.ratio, both.ours)
}

// database makes a database for the processes of one case: a notification wakes all that listen in its database.
func database(t *testing.T, s *pgtest.Server, name string) *pgtest.Server {
	pgtest.Must(t, s.Connect(t), "CREATE DATABASE "+name)
	d := *s
	d.Database = name
	return migrate(t, &d)
}

type comparison struct{ ours, ratio float64 }

// compare measures one and the other in turns and returns the medians.
func compare(t *testing.T, rounds int, measure func(locker) float64, one, other locker) comparison {
	var values, ratios []float64
	for range rounds {
		a, b := measure(one), measure(other)
		require.Positive(t, a)
		values, ratios = append(values, b), append(ratios, b/a)
	}
	return comparison{median(values), median(ratios)}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// advisoryLocker takes session-level advisory locks, each over a connection of its own.
func advisoryLocker(t *testing.T, s *pgtest.Server) locker {
	config, err := pgxpool.ParseConfig("")
	require.NoError(t, err)
	config.ConnConfig = s.Config(t, "")
	config.MaxConns = 64
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return func(ctx context.Context, _ int, key string) (func() error, error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", key); err != nil {
			conn.Release()
			return nil, err
		}
		return func() error {
			defer conn.Release()
			_, err := conn.Exec(ctx, "SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)
			return err
		}, nil
	}
}

// updatesLocker is the least that a lock with a lease can cost here: one update of a row each by its primary key. It excludes no other.
func updatesLocker(t *testing.T, s *pgtest.Server) locker {
	conn := s.Connect(t)
	for _, sql := range []string{
		"CREATE UNLOGGED TABLE floor (key text PRIMARY KEY, entry text, epoch bigint) WITH (fillfactor = 30)",
		"INSERT INTO floor VALUES ('alone', '', 0)",
		"SET synchronous_commit = off",
		"SET plan_cache_mode = force_generic_plan",
	} {
		pgtest.Must(t, conn, sql)
	}
	return func(ctx context.Context, _ int, key string) (func() error, error) {
		if _, err := conn.Exec(ctx, "UPDATE floor SET entry = 'me', epoch = epoch + 1 WHERE key = $1", key); err != nil {
			return nil, err
		}
		return func() error {
			_, err := conn.Exec(ctx, "UPDATE floor SET entry = NULL WHERE key = $1", key)
			return err
		}, nil
	}
}

// storeLocker enters and leaves by the statements of pglock alone, the former on another goroutine if handed is true.
func storeLocker(t *testing.T, s *pgtest.Server, handed bool) locker {
	store := newEngine(t, s, "").Store()
	session := lease.Session{ID: rand.Text(), TTL: time.Hour}
	require.NoError(t, store.Begin(t.Context(), session))
	tasks := make(chan func())
	go func() {
		for task := range tasks {
			task()
		}
	}()
	t.Cleanup(func() { close(tasks) })
	var attempts atomic.Uint64
	return func(ctx context.Context, _ int, key string) (func() error, error) {
		e := lease.Entry{Session: session, Key: key, Attempt: attempts.Add(1)}
		leave := func() error {
			_, err := store.Leave(ctx, e, false)
			return err
		}
		if !handed {
			_, err := store.Enter(ctx, e, false)
			return leave, err
		}
		entered := make(chan error)
		tasks <- func() {
			_, err := store.Enter(ctx, e, false)
			entered <- err
		}
		return leave, <-entered
	}
}

// compareTurns compares the advisory lock in turns with the least that a lock without a connection for each waiter can
// cost here: a process updates a row, waits until it is notified, and updates the row again, which notifies the other.
func compareTurns(t *testing.T, rounds int, span time.Duration, advisory locker, s *pgtest.Server) comparison {
	setup := s.Connect(t)
	pgtest.Must(t, setup, "CREATE UNLOGGED TABLE floor (key int PRIMARY KEY, entry text, epoch bigint) WITH (fillfactor = 30)")
	pgtest.Must(t, setup, "INSERT INTO floor VALUES (1, '', 0)")
	var conns, listeners [2]*pgx.Conn
	for i := range conns {
		conns[i], listeners[i] = s.Connect(t), s.Connect(t)
		pgtest.Must(t, conns[i], "SET synchronous_commit = off")
		pgtest.Must(t, conns[i], "SET plan_cache_mode = force_generic_plan")
		pgtest.Must(t, listeners[i], fmt.Sprint("LISTEN floor", i))
	}
	var values, ratios []float64
	for range rounds {
		base := throughput(t, advisory, 2, 2, span)
		var done atomic.Int64
		var over atomic.Bool // set by the first, who then notifies once more
		var all sync.WaitGroup
		begun := time.Now()
		for i := range conns {
			all.Go(func() {
				for holds := i == 0; ; holds = false {
					var err error
					if !holds {
						_, err = conns[i].Exec(t.Context(), "UPDATE floor SET entry = 'me' WHERE key = 1")
						if err == nil {
							_, err = listeners[i].WaitForNotification(t.Context())
						}
					}
					if i == 1 && over.Load() {
						return
					}
					if i == 0 {
						over.Store(time.Since(begun) >= span)
					}
					if err == nil {
						_, err = conns[i].Exec(t.Context(), fmt.Sprint("UPDATE floor SET epoch = epoch + 1 WHERE key = 1 RETURNING pg_notify('floor", 1-i, "', '')::text"))
					}
					done.Add(1)
					if !assert.NoError(t, err) || i == 0 && over.Load() {
						return
					}
				}
			})
		}
		all.Wait()
		rate := float64(done.Load()) / time.Since(begun).Seconds()
		values, ratios = append(values, rate), append(ratios, rate/base)
	}
	return comparison{median(values), median(ratios)}
}

// cohortLocker is that of so many processes with an engine each.
func cohortLocker(t *testing.T, s *pgtest.Server, processes int, opts ...cohort.Option) locker {
	var managers []*cohort.Manager
	for range processes {
		m := cohort.Start(context.Background(), newEngine(t, s, ""), opts...)
		t.Cleanup(func() { _ = m.Close() })
		managers = append(managers, m)
	}
	return func(ctx context.Context, process int, key string) (func() error, error) {
		l, err := managers[process%processes].Acquire(ctx, key)
		return l.Release, err
	}
}

// latency is the median of a lock and unlock alone, in seconds.
func latency(t *testing.T, l locker, span time.Duration) float64 {
	var all []float64
	for end := time.Now().Add(span); len(all) == 0 || time.Now().Before(end); {
		begun := time.Now()
		unlock, err := l(t.Context(), 0, "alone")
		require.NoError(t, err)
		require.NoError(t, unlock())
		all = append(all, time.Since(begun).Seconds())
	}
	return median(all)
}

// throughput is locks per second of so many goroutines on one key.
func throughput(t *testing.T, l locker, goroutines, processes int, span time.Duration) float64 {
	var done atomic.Int64
	var all sync.WaitGroup
	begun := time.Now()
	for g := range goroutines {
		all.Go(func() {
			for first := true; first || time.Since(begun) < span; first = false {
				unlock, err := l(t.Context(), g%processes, "hot")
				if err == nil {
					err = unlock()
				}
				if err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(begun).Seconds()
}

// TestFiguresOfManyWaiters prints what 1,000 keys with ten waiters each cost a process and its server, and bounds it: waiters
// ask the server for nothing.
func TestFiguresOfManyWaiters(t *testing.T) {
	const keys, waiters = 1000, 10_000
	span := 500 * time.Millisecond
	if *figures {
		span = 20 * time.Second
	}
	s := alone(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	m := cohort.Start(context.Background(), newEngine(t, s, n.Addr))
	defer m.Close()
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc + stats.StackInuse
	}
	before := heap()
	conn := s.Connect(t)
	clients := func() int {
		return pgtest.Count(t, conn, "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'")
	}
	others := clients()
	asked, idle := time.Now(), serverCPU(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range keys {
		lock, err := m.Acquire(ctx, fmt.Sprint(i))
		require.NoError(t, err)
		for range waiters / keys {
			all.Go(func() {
				if l, err := m.Acquire(ctx, fmt.Sprint(i)); err == nil {
					_ = l.Release()
				}
			})
		}
		defer func() { _ = lock.Release() }()
	}
	require.Eventually(t, func() bool {
		stats, err := m.Stats(ctx)
		return err == nil && stats.Local.Waiting == waiters
	}, pgtest.Patience, 10*time.Millisecond)
	granted, grantCost := time.Since(asked), serverCPU(t, s)-idle
	memory := (heap() - before) >> 20

	transactions := func() int { return pgtest.Count(t, conn, "SELECT txid_current()::int") }
	begun, first, cpu := time.Now(), transactions(), serverCPU(t, s)
	time.Sleep(span)
	wrote, cost := transactions()-first-1, serverCPU(t, s)-cpu // one of them is the second look
	took := time.Since(begun)
	backends := clients() - others
	t.Logf("1,000 keys and 10,000 waiters: %d connections, %d server processes for them, %d MiB here", n.Connections(), backends, memory)
	t.Logf("to grant the keys: %.2f s, of which the server has used a processor for %.2f s", granted.Seconds(), grantCost.Seconds())
	t.Logf("in the %.1f s after: the server has written %d transactions, and used a processor for %.1f ms, %.2f %% of the time",
		took.Seconds(), wrote, cost.Seconds()*1000, 100*cost.Seconds()/took.Seconds())
	// One that was given up may be counted for a while, beside the one that was made instead.
	require.Eventually(t, func() bool { return n.Connections() <= 6 && clients()-others <= 6 }, pgtest.Patience, time.Millisecond)
	assert.Less(t, memory, uint64(256))
	assert.Less(t, wrote, 100+20*int(took.Seconds()), "renewals are four per TTL")
	cancel()
	all.Wait()
}

// serverCPU returns the time for which the processors have run the processes of a server that run now.
func serverCPU(t *testing.T, s *pgtest.Server) (sum time.Duration) {
	for _, pid := range s.Signal(t, 0) {
		times, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			continue // it has ended
		}
		var nanoseconds int64
		_, err = fmt.Sscan(string(times), &nanoseconds)
		require.NoError(t, err)
		sum += time.Duration(nanoseconds)
	}
	return sum
}
