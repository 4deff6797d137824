package pglock_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// The numbers are those of the pitfalls in the README.

// entries counts what is in the queues, the holders included, whether or not their sessions live.
const entries = "SELECT coalesce(sum((entry IS NOT NULL)::int + cardinality(queue)), 0)::int FROM pglock_key"

// eventually waits until a query gives n.
func eventually(t testing.TB, conn *pgx.Conn, n int, sql string, args ...any) {
	t.Helper()
	require.Eventually(t, func() bool { return pgtest.Count(t, conn, sql, args...) == n }, pgtest.Patience, 10*time.Millisecond, sql)
}

func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(pgtest.Patience):
		require.Fail(t, "waited in vain for "+what)
	}
	return v
}

// blocked waits until a statement with such a text waits for the end of another's transaction.
func blocked(t testing.TB, conn *pgx.Conn, text string) {
	t.Helper()
	eventually(t, conn, 1, "SELECT least(1, count(*))::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query ~ $1", text)
}

// waits starts an Acquire and returns when the server has n entries in all.
func waits(t testing.TB, conn *pgx.Conn, e cohort.Engine, key string, n int) <-chan *pglock.Grant {
	t.Helper()
	granted := make(chan *pglock.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), key)
		if err == nil {
			granted <- g.(*pglock.Grant)
		} else if t.Context().Err() == nil {
			assert.NoError(t, err)
		}
	}()
	eventually(t, conn, n, entries)
	return granted
}

// The statement that enters the queue is carried out, its reply is late or never comes, and its caller has
// given up: the entry must not stay in a session that lives on.
func TestP1ContextEndsWhileTheReplyIsInFlight(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	for how, weather := range map[string]cohorttest.Weather{
		"late":  {Late: 300 * time.Millisecond},
		"never": {NoReplies: true},
	} {
		t.Run(how, func(t *testing.T) {
			n := cohorttest.NewNetwork(t, s.Addr())
			e := newEngine(t, s, n.Addr, pglock.WithTTL(20*time.Second))
			kept := acquire(t, e, "kept "+how)
			time.Sleep(1100 * time.Millisecond) // after a second, pgx would ask first whether the connection lives
			locktest.GiveUp(t, e, "key", n, weather, func() {
				eventually(t, conn, 1, "SELECT count(*) FROM pglock_key WHERE key = '\\x006b6579' AND entry IS NOT NULL")
			})
			n.Set(cohorttest.Weather{})
			eventually(t, conn, 0, "SELECT count(*) FROM pglock_key WHERE key = '\\x006b6579' AND entry IS NOT NULL")
			require.NoError(t, kept.Release(t.Context()), "the session was kept")
			closeEngine(e)
		})
	}
}

// twoEntries returns entries for one key of two sessions that it begins.
func twoEntries(t *testing.T, store lease.Store) (first, second lease.Entry) {
	t.Helper()
	a, b := lease.Session{ID: "A", TTL: time.Minute}, lease.Session{ID: "B", TTL: time.Minute}
	require.NoError(t, store.Begin(t.Context(), a))
	require.NoError(t, store.Begin(t.Context(), b))
	return lease.Entry{Session: a, Key: "k", Attempt: 1}, lease.Entry{Session: b, Key: "k", Attempt: 1}
}

// The single calls keep what lease.Store says, in whatever order they arrive.
func TestP1CallsArriveAgainAndLate(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	store, ctx := newEngine(t, s, "").Store(), t.Context()
	first, second := twoEntries(t, store)
	a, b := first.Session, second.Session

	st, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	require.NotZero(t, st.Epoch)
	again, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.Equal(t, st, again, "to enter again changes nothing")
	w, err := store.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Equal(t, lease.Standing{Again: time.Millisecond}, w, "the holder is not told that it is wanted before that")
	w, err = store.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Zero(t, w.Epoch)
	assert.InDelta(t, time.Minute, w.Again, float64(30*time.Second), "it asks again when the holder's session can have ended")
	again, err = store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.Equal(t, lease.Standing{Epoch: st.Epoch, Wanted: true}, again)
	_, err = store.Enter(ctx, lease.Entry{Session: b, Key: "k", Attempt: 2}, true)
	require.ErrorIs(t, err, cohort.ErrHeld)

	found, err := store.Leave(ctx, first, true)
	require.NoError(t, err)
	assert.True(t, found)
	found, err = store.Leave(ctx, first, true)
	require.NoError(t, err)
	assert.False(t, found)
	next, err := store.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Greater(t, next.Epoch, st.Epoch)
	_, err = store.Enter(ctx, first, false)
	require.Error(t, err, "an Enter that comes late does nothing")
	found, err = store.Leave(ctx, lease.Entry{Session: a, Key: "never entered", Attempt: 9}, true)
	require.NoError(t, err)
	assert.False(t, found)
	_, err = store.Enter(ctx, lease.Entry{Session: a, Key: "never entered", Attempt: 9}, false)
	require.Error(t, err, "nor where there was no row")
	found, err = store.Leave(ctx, second, false)
	require.NoError(t, err)
	assert.True(t, found)
	require.Zero(t, pgtest.Count(t, conn, entries))

	for range 2 {
		require.NoError(t, store.End(ctx, a))
		require.NoError(t, store.End(ctx, b))
	}
	require.Zero(t, pgtest.Count(t, conn, "SELECT count(*) FROM pglock_session"))
	_, err = store.Leave(ctx, second, false)
	require.ErrorIs(t, err, lease.ErrSessionGone)
}

// A renewal must neither start a session nor revive one.
func TestP2RenewalCreatesNothing(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	store, ctx := newEngine(t, s, "").Store(), t.Context()
	a := lease.Session{ID: "A", TTL: time.Minute}
	_, err := store.Renew(ctx, a, nil)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	require.NoError(t, store.Begin(ctx, a))
	first := lease.Entry{Session: a, Key: "k", Attempt: 1}
	st, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	missing, err := store.Renew(ctx, a, []lease.Held{{Key: "k", Attempt: 1, Epoch: st.Epoch}, {Key: "k", Attempt: 1, Epoch: st.Epoch + 1}, {Key: "other", Attempt: 2, Epoch: 1}})
	require.NoError(t, err)
	assert.Equal(t, []lease.Held{{Key: "k", Attempt: 1, Epoch: st.Epoch + 1}, {Key: "other", Attempt: 2, Epoch: 1}}, missing)

	pgtest.Must(t, conn, "UPDATE pglock_session SET expires = clock_timestamp()")
	_, err = store.Renew(ctx, a, nil)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	_, err = store.Enter(ctx, first, false)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	_, err = store.Enter(ctx, lease.Entry{Session: a, Key: "free", Attempt: 2}, false)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	assert.Zero(t, pgtest.Count(t, conn, "SELECT count(*) FROM pglock_key WHERE key = $1", pglock.KeyOf("free")))
}

// A renewal looks at the clock before its session ends, and may be committed after that. Its process believes it then, so a
// call in between must not take the holder for dead. One that does so before leaves the renewal no session.
func TestP2RenewalUnderWayKeepsTheKey(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	one, other, watch := s.Connect(t), s.Connect(t), s.Connect(t)
	const (
		enter = "SELECT outcome FROM pglock_enter('key', $1, 1, $2, '0', false)"
		end   = "UPDATE pglock_session SET expires = clock_timestamp() WHERE id = 'holder'"
		renew = "UPDATE pglock_session SET expires = clock_timestamp() + interval '1 hour' WHERE id = 'holder'" // it has looked in time
	)
	outcome := func(conn *pgx.Conn, session string, try bool) (text string) {
		require.NoError(t, conn.QueryRow(t.Context(), enter, session, try).Scan(&text))
		return text
	}
	for _, session := range []string{"holder", "next"} {
		pgtest.Must(t, other, "SELECT pglock_begin($1, '1 hour', '0', false, '', '', 0)", session)
	}
	require.Equal(t, "granted", outcome(other, "holder", false))

	pgtest.Must(t, other, end)
	pgtest.Must(t, one, "BEGIN")
	pgtest.Must(t, one, renew)
	assert.Equal(t, "held", outcome(other, "next", true))
	assert.Equal(t, "waits", outcome(other, "next", false))
	pgtest.Must(t, one, "COMMIT")
	assert.Equal(t, "waits", outcome(other, "next", false))

	pgtest.Must(t, other, end)
	pgtest.Must(t, one, "BEGIN")
	assert.Equal(t, "granted", outcome(one, "next", false))
	renewed := make(chan int64, 1)
	go func() {
		tag, err := other.Exec(t.Context(), renew)
		assert.NoError(t, err)
		renewed <- tag.RowsAffected()
	}()
	blocked(t, watch, "^UPDATE pglock_session")
	pgtest.Must(t, one, "COMMIT")
	assert.Zero(t, receive(t, renewed, "the renewal"))
}

// Nor is an entry that waits taken for one of the dead, or an entry that is to be refused forgotten.
func TestP2RenewalUnderWayKeepsThePlace(t *testing.T) {
	t.Parallel()
	for how, test := range map[string]struct {
		goes  string // how the holder goes
		try   bool   // whether the third, who has seen it, waits
		third string // what becomes of it
	}{
		"the holder leaves": {"SELECT pglock_leave('key', 'holder', 1, false, '0', false)", false, "waits"},
		"the holder dies":   {"DELETE FROM pglock_session WHERE id = 'holder'", true, "held"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := migrated(t)
			one, other := s.Connect(t), s.Connect(t)
			outcome := func(session string, attempt int, try bool) (text string) {
				const enter = "SELECT outcome FROM pglock_enter('key', $1, $2, $3, '0', false)"
				require.NoError(t, other.QueryRow(t.Context(), enter, session, attempt, try).Scan(&text))
				return text
			}
			for _, session := range []string{"holder", "next", "third"} {
				pgtest.Must(t, other, "SELECT pglock_begin($1, '1 hour', '0', false, '', '', 0)", session)
			}
			require.Equal(t, "granted", outcome("holder", 1, false))
			pgtest.Must(t, other, "SELECT pglock_leave('key', 'next', 1, true, '0', false)")
			require.Equal(t, "waits", outcome("next", 2, false))

			pgtest.Must(t, other, "UPDATE pglock_session SET expires = clock_timestamp() WHERE id = 'next'")
			pgtest.Must(t, one, "BEGIN")
			pgtest.Must(t, one, "UPDATE pglock_session SET expires = clock_timestamp() + interval '1 hour' WHERE id = 'next'") // it has looked in time
			if !test.try {
				require.Equal(t, "waits", outcome("third", 1, false))
			}
			pgtest.Must(t, other, test.goes)
			assert.Equal(t, test.third, outcome("third", 1, test.try))
			pgtest.Must(t, one, "COMMIT")
			assert.Equal(t, "granted", outcome("next", 2, false))
			assert.Equal(t, "left", outcome("next", 1, false))
		})
	}
}

// In a quarantine a try finds every key held, and who waits is not passed when it is over.
func TestQuarantineOfTriesAndWaiters(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	store, ctx := newEngine(t, s, "").Store(), t.Context()
	first, second := twoEntries(t, store)

	pgtest.Must(t, conn, "UPDATE pglock_life SET quiet = clock_timestamp() + interval '10 minutes'")
	_, err := store.Enter(ctx, first, true)
	require.ErrorIs(t, err, cohort.ErrHeld)
	assert.Zero(t, pgtest.Count(t, conn, entries))
	st, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.Zero(t, st.Epoch)
	assert.InDelta(t, 10*time.Minute, st.Again, float64(5*time.Minute))
	pgtest.Must(t, conn, "UPDATE pglock_life SET quiet = clock_timestamp()")

	other := newEngine(t, s, "").Store() // which does not know that others contend for the key
	st, err = other.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Zero(t, st.Epoch)
	st, err = store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.NotZero(t, st.Epoch)
	assert.True(t, st.Wanted)
}

// An unlock is carried out and its reply is lost: the repetition says that it was a success.
func TestP3UnlockWithoutAReply(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, n.Addr, pglock.WithTTL(20*time.Second))
	g := acquire(t, e, "key")
	n.Set(cohorttest.Weather{NoReplies: true})
	released := make(chan error, 1)
	go func() { released <- g.Release(t.Context()) }()
	eventually(t, s.Connect(t), 0, entries)
	n.Set(cohorttest.Weather{})
	require.NoError(t, receive(t, released, "Release"))
}

// Epochs grow through whatever happens to the counters in the rows, and to the clock.
func TestP4P15P22EpochsGrow(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	e := newEngine(t, s, "")
	g := acquire(t, e, "key")
	last := g.Epoch()
	require.NoError(t, g.Release(t.Context()))
	pgtest.Must(t, conn, "TRUNCATE pglock_key")
	g = acquire(t, e, "key")
	assert.Greater(t, g.Epoch(), last, "the row was lost")
	require.NoError(t, g.Release(t.Context()))

	ahead := uint64(time.Now().Add(24 * time.Hour).UnixMicro()) // as if the clock had jumped back since
	pgtest.Must(t, conn, "UPDATE pglock_key SET epoch = $1", int64(ahead))
	g = acquire(t, e, "key")
	assert.Equal(t, ahead+1, g.Epoch())
	assert.Less(t, g.Epoch(), uint64(math.MaxInt64))
	require.NoError(t, g.Release(t.Context()))
	pgtest.Must(t, conn, "UPDATE pglock_key SET used = clock_timestamp() - interval '2 hours'")
	pgtest.Must(t, conn, "SELECT pglock_sweep()")
	assert.Equal(t, ahead+2, acquire(t, e, "key").Epoch(), "idle for an hour since")
}

// The holder's process is gone without a word, and others wait: the next one gets the key when the session
// has expired, and the one behind it is not stranded.
func TestP8DeadHeads(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	dead := newEngine(t, s, "", pglock.WithTTL(500*time.Millisecond)).Store()
	a := lease.Session{ID: "DEAD", TTL: 4 * time.Second}
	require.NoError(t, dead.Begin(t.Context(), a))
	living, dies := context.WithCancel(t.Context())
	var lives sync.WaitGroup
	lives.Go(func() {
		for living.Err() == nil {
			_, err := dead.Renew(t.Context(), a, nil)
			assert.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
	})
	for attempt := range uint64(2) {
		_, err := dead.Enter(t.Context(), lease.Entry{Session: a, Key: "key", Attempt: attempt + 1}, false)
		require.NoError(t, err)
	}
	first := newEngine(t, s, "", pglock.WithTTL(20*time.Second))
	second := newEngine(t, s, "", pglock.WithTTL(20*time.Second))
	one := waits(t, conn, first, "key", 3)
	two := waits(t, conn, second, "key", 4)
	dies()
	lives.Wait()
	g := receive(t, one, "the living waiter")
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, receive(t, two, "the one behind it").Release(t.Context()))
	eventually(t, conn, 0, entries)
}

// Rows that were not used for an hour go, those in use stay.
func TestP8LeftoversAreSwept(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	e := newEngine(t, s, "")
	held := acquire(t, e, "held")
	require.NoError(t, acquire(t, e, "free").Release(t.Context()))
	store := e.Store()
	a := lease.Session{ID: "A", TTL: time.Minute}
	require.NoError(t, store.Begin(t.Context(), a))
	_, err := store.Enter(t.Context(), lease.Entry{Session: a, Key: "of the dead", Attempt: 1}, false)
	require.NoError(t, err)
	pgtest.Must(t, conn, "UPDATE pglock_session SET expires = clock_timestamp() - interval '2 hours' WHERE id = 'A'")
	pgtest.Must(t, conn, "UPDATE pglock_key SET used = clock_timestamp() - interval '2 hours'")
	assert.Equal(t, 2, pgtest.Count(t, conn, "SELECT pglock_sweep()"))
	assert.Equal(t, 1, pgtest.Count(t, conn, "SELECT count(*) FROM pglock_key"))
	assert.Zero(t, pgtest.Count(t, conn, "SELECT count(*) FROM pglock_session WHERE id = 'A'"))
	require.NoError(t, held.Release(t.Context()))
}

// However many rows there are, they go: a service that locks a new key for each order makes more than a thousand in ten minutes.
func TestP8SweepGoesOn(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	store := newEngine(t, s, "").Store()
	pgtest.Must(t, conn, `INSERT INTO pglock_key (key, used)
		SELECT convert_to(i::text, 'UTF8'), clock_timestamp() - interval '2 hours' FROM generate_series(1, 3000) AS i`)
	a := lease.Session{ID: "A", TTL: time.Minute}
	require.NoError(t, store.Begin(t.Context(), a))
	for range 2 { // each removes another thousand at least
		_, err := store.Renew(t.Context(), a, nil)
		require.NoError(t, err)
	}
	assert.Zero(t, pgtest.Count(t, conn, "SELECT count(*) FROM pglock_key"))
}

// hears waits until notices arrive: before that, each grant counts as wanted.
func hears(t *testing.T, e cohort.Engine) {
	t.Helper()
	require.Eventually(t, func() bool {
		g := acquire(t, e, "which no other process wants")
		defer func() { assert.NoError(t, g.Release(t.Context())) }()
		return !ended.Is(g.Wanted())
	}, pgtest.Patience, 10*time.Millisecond)
}

// While the connection that listens is down, the key is granted and the notice lost.
func TestP9NoticeIsLostWhileListeningAgain(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	listener := s.Config(t, n.Addr)
	ttl := pglock.WithTTL(20 * time.Minute) // so that asking every quarter of it repairs nothing
	waiter := newEngine(t, s, "", ttl, pglock.WithListener(listener))
	holder := newEngine(t, s, "", ttl)
	g := acquire(t, holder, "key")
	granted := waits(t, conn, waiter, "key", 2)
	hears(t, waiter)
	n.Set(cohorttest.Weather{Down: true})
	require.NoError(t, g.Release(t.Context()))
	n.Set(cohorttest.Weather{})
	require.NoError(t, receive(t, granted, "the grant").Release(t.Context()))
}

// A connection that listens is idle for long, and a router may forget it without a word to either end. A key that is held counts as
// wanted when that is noticed.
func TestP9ListenerIsCutWithoutAWord(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	ttl := pglock.WithTTL(8 * time.Second)
	e := newEngine(t, s, "", ttl, pglock.WithListener(s.Config(t, n.Addr)))
	hears(t, e)
	g := acquire(t, e, "key")
	n.Set(cohorttest.Weather{Silent: true})
	granted := waits(t, s.Connect(t), newEngine(t, s, "", ttl), "key", 2)
	receive(t, g.Wanted(), "the notice that others wait")
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the key").Release(t.Context()))
	n.Set(cohorttest.Weather{})
}

// Connections that the pool believes in were closed a moment ago.
func TestP13ConnectionsWereJustClosed(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, n.Addr)
	g := acquire(t, e, "key")
	n.Set(cohorttest.Weather{Down: true})
	n.Set(cohorttest.Weather{})
	require.NoError(t, g.Release(t.Context()))
	g = acquire(t, e, "key")
	n.Set(cohorttest.Weather{Down: true})
	n.Set(cohorttest.Weather{})
	ctx, cancel := context.WithTimeout(t.Context(), pgtest.Patience)
	defer cancel()
	require.NoError(t, e.Close(ctx))
	require.Zero(t, pgtest.Count(t, s.Connect(t), entries))
	_ = g
}

var hotLocks = flag.Int("hot", 5000, "how often TestP14HotKeyWithoutVacuum locks its key; 100,000 take a minute")

// A hot key leaves a dead row behind for each change. The row is updated in place, so that it stays as fast
// without a vacuum as one that is new, with which it is locked in turns, since the machine may be busier at the end.
func TestP14HotKeyWithoutVacuum(t *testing.T) {
	t.Parallel()
	s := alone(t, "autovacuum=off")
	e := newEngine(t, s, "")
	const n = 500
	rounds := *hotLocks / n
	require.Greater(t, rounds, 2)
	lock := func(key string) time.Duration {
		begun := time.Now()
		require.NoError(t, acquire(t, e, key).Release(t.Context()))
		return time.Since(begun)
	}
	var ratios []float64
	for round := range rounds {
		var hot, fresh [n]float64
		for i := range n {
			hot[i] = lock("hot").Seconds()
			fresh[i] = lock(fmt.Sprint("fresh ", round)).Seconds()
		}
		ratios = append(ratios, median(hot[:])/median(fresh[:])) // which a pause of the machine does not change
	}
	conn := s.Connect(t)
	pages := pgtest.Count(t, conn, "SELECT (pg_relation_size('pglock_key') / 8192)::int")
	last := median(ratios[rounds*2/3:])
	t.Logf("%d locks without a vacuum: %.2f times the latency of a new key in the first %d, %.2f times in the last third; %d pages",
		*hotLocks, ratios[0], n, last, pages)
	assert.Less(t, last, 2.0)
	assert.LessOrEqual(t, pages, 4+rounds, "the rows are updated in place") // a new key may find the pages of others full
}

// A caller's context that ends must not close a connection that others use.
func TestP16CancelledCallersKeepConnections(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	holder := newEngine(t, s, "")
	g := acquire(t, holder, "key")
	e := newEngine(t, s, n.Addr)
	require.NoError(t, acquire(t, e, "other").Release(t.Context()))
	require.Eventually(t, func() bool { return n.Connections() >= 2 }, pgtest.Patience, 10*time.Millisecond, "it listens")
	before := n.Connections()
	conn := s.Connect(t)
	var processes []int32 // of the server, one for each connection
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()").Scan(&processes))
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*time.Millisecond)
		_, err := e.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
	}
	require.Eventually(t, func() bool { return n.Connections() <= max(before, 6) }, pgtest.Patience, time.Millisecond)
	assert.Equal(t, len(processes), pgtest.Count(t, conn, "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1)", processes))
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, acquire(t, e, "key").Release(t.Context()))
}

// A notice has at most 8,000 bytes and a channel's name 63, an entry of an index 2,704.
func TestP17LongKeys(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	one, two := newEngine(t, s, ""), newEngine(t, s, "")
	long := strings.Repeat("long ", 600_000)
	for _, key := range []string{"", "\x00", "\xff\xfe", "'; DROP TABLE pglock_key; --", strings.Repeat("k", 1024), strings.Repeat("k", 1025), long} {
		g := acquire(t, one, key)
		granted := waits(t, conn, two, key, 2)
		_, err := one.TryAcquire(t.Context(), key)
		require.ErrorIs(t, err, cohort.ErrHeld)
		assert.Less(t, len(err.Error()), 300)
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, receive(t, granted, "the next").Release(t.Context()))
		eventually(t, conn, 0, entries)
	}
	assert.NotEqual(t, pglock.KeyOf(long+"a"), pglock.KeyOf(long+"b"))
	assert.NotEqual(t, pglock.KeyOf(string(pglock.KeyOf(long))), pglock.KeyOf(long), "no short key stands for a long one")
}

// Through a pooler in transaction mode LISTEN hears nothing.
func TestP18TransactionPooler(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	b := s.Bouncer(t)
	for how, opts := range map[string][]pglock.Option{
		"polls":   nil,
		"listens": {pglock.WithListener(s.Config(t, ""))},
	} {
		t.Run(how, func(t *testing.T) {
			opts := append([]pglock.Option{pglock.WithTTL(6 * time.Second)}, opts...)
			one, two := newEngine(t, s, b.Addr(), opts...), newEngine(t, s, b.Addr(), opts...)
			for range 3 {
				g := acquire(t, one, "key")
				granted := waits(t, conn, two, "key", 2)
				require.NoError(t, g.Release(t.Context()))
				require.NoError(t, receive(t, granted, "the next").Release(t.Context()))
			}
			closeEngine(one)
			closeEngine(two)
			eventually(t, conn, 0, entries)
		})
	}
}

// The whole suite through the pooler.
func TestConformanceThroughAPooler(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	b := s.Bouncer(t)
	conform(t, s, b.Addr(), pglock.WithListener(s.Config(t, "")))
}

// With another default isolation, conflicts would fail.
func TestP19DatabaseDefaultsToSerializable(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	pgtest.Must(t, conn, "ALTER DATABASE "+s.Database+" SET default_transaction_isolation = 'serializable'")
	pgtest.Must(t, conn, "ALTER DATABASE "+s.Database+" SET default_transaction_read_only = on")
	hammer(t, s)
}

// Migrate does not depend on these defaults either: the second of two processes sees what the first has made.
func TestP19MigrationsAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	watch := s.Connect(t)
	pgtest.Must(t, watch, "ALTER DATABASE "+s.Database+" SET default_transaction_isolation = 'serializable'")
	pgtest.Must(t, watch, "ALTER DATABASE "+s.Database+" SET default_transaction_read_only = on")
	first, second := s.Connect(t), s.Connect(t)
	pgtest.Must(t, first, "BEGIN READ WRITE")
	pgtest.Must(t, first, "SELECT pg_advisory_xact_lock(hashtext('pglock'))")
	migrated := make(chan error, 1)
	go func() { migrated <- pglock.Migrate(t.Context(), second) }()
	blocked(t, watch, "pg_advisory_xact_lock")
	pgtest.Must(t, first, pglock.Schema)
	pgtest.Must(t, first, "COMMIT")
	require.NoError(t, receive(t, migrated, "Migrate"))
	hammer(t, s)
}

// hammer has four processes contend for two keys.
func hammer(t *testing.T, s *pgtest.Server, opts ...pglock.Option) {
	var held [2]int // plain: the locks are what protects them
	done := make(chan error, 4)
	for range 4 {
		e := newEngine(t, s, "", opts...)
		go func() {
			var errs error
			for i := range 25 {
				g, err := e.Acquire(t.Context(), strconv.Itoa(i%2))
				if err != nil {
					errs = errors.Join(errs, err)
					break
				}
				held[i%2]++
				errs = errors.Join(errs, g.Release(t.Context()))
			}
			done <- errs
		}()
	}
	for range 4 {
		require.NoError(t, receive(t, done, "a process"))
	}
	assert.Equal(t, 100, held[0]+held[1])
}

// In a transaction that has begun long ago, now() is long ago.
func TestP20TimeIsThatOfTheStatement(t *testing.T) {
	assert.NotRegexp(t, `(?i)\bnow\(\)|current_timestamp`, pglock.Schema)
}

// The guard excludes the next holder until its transaction has ended, though the lease has gone.
func TestP21GuardExcludes(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	old := newEngine(t, s, "", pglock.WithTTL(20*time.Second))
	g := acquire(t, old, "key")
	next := newEngine(t, s, "", pglock.WithTTL(8*time.Second))

	tx, err := s.Connect(t).Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, g.Guard(t.Context(), tx))

	// The process is paused: its session expires, and the next one asks.
	granted := make(chan time.Time, 1)
	var grant *pglock.Grant
	go func() {
		g, err := next.Acquire(t.Context(), "key")
		if assert.NoError(t, err) {
			grant = g.(*pglock.Grant)
		}
		granted <- time.Now()
	}()
	pgtest.Must(t, conn, "UPDATE pglock_session SET expires = clock_timestamp() WHERE id = $1", g.Entry().Session.ID)
	blocked(t, conn, "INSERT INTO pglock_key")
	select {
	case <-granted:
		require.Fail(t, "the next holder is let in while the guarded transaction is open")
	case <-time.After(500 * time.Millisecond):
	}
	require.NoError(t, tx.Commit(t.Context()))
	receive(t, granted, "the next holder")
	tx = begin(t, s)
	require.NoError(t, grant.Guard(t.Context(), tx))
	require.NoError(t, tx.Rollback(t.Context()))
	err = g.Guard(t.Context(), begin(t, s))
	require.ErrorIs(t, err, cohort.ErrLost)
	require.NoError(t, grant.Release(t.Context()))
}

// Nor is the next holder let in when the lock is released while the transaction is open.
func TestP21GuardExcludesAfterTheRelease(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	conn := s.Connect(t)
	g := acquire(t, newEngine(t, s, ""), "key")
	tx := begin(t, s)
	require.NoError(t, g.Guard(t.Context(), tx))
	released := make(chan error, 1)
	go func() { released <- g.Release(t.Context()) }()
	blocked(t, conn, "^UPDATE pglock_key|pglock_leave")
	granted := make(chan *pglock.Grant, 1)
	next := newEngine(t, s, "")
	go func() {
		g, err := next.Acquire(t.Context(), "key")
		if assert.NoError(t, err) {
			granted <- g.(*pglock.Grant)
		}
	}()
	blocked(t, conn, "INSERT INTO pglock_key")
	select {
	case <-granted:
		require.Fail(t, "the next holder is let in while the guarded transaction is open")
	case <-time.After(500 * time.Millisecond):
	}
	assert.Empty(t, released)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, receive(t, released, "the release"))
	require.NoError(t, receive(t, granted, "the next holder").Release(t.Context()))
}

func begin(t testing.TB, s *pgtest.Server) pgx.Tx {
	conn := s.Connect(t)
	tx, err := conn.Begin(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// A guard that is held for long must not use up the connections of others: other keys go on.
func TestGuardStopsNoOtherKey(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	g := acquire(t, newEngine(t, s, ""), "key")
	require.NoError(t, g.Guard(t.Context(), begin(t, s)))
	e := newEngine(t, s, "", pglock.WithTTL(20*time.Second))
	for range 10 {
		go func() { _, _ = e.Acquire(t.Context(), "key") }()
	}
	for i := range 10 {
		require.NoError(t, acquire(t, e, fmt.Sprint("other ", i)).Release(t.Context()))
	}
}

func TestErrorsAreJudgedByWhatTheyMean(t *testing.T) {
	for code, final := range map[string]bool{
		"08006": false, // connection failure
		"57P01": false, // shutdown by an operator
		"57P03": false, // starting up
		"53300": false, // too many connections
		"53100": false, // disk full
		"40001": false, // serialization failure
		"40P01": false, // deadlock
		"55P03": false, // lock not available
		"25006": false, // a standby
		"0A000": false, // a standby, of unlogged tables
		"57014": false, // cancelled by a timeout
		"58030": false, // I/O error
		"XX000": false, // internal error
		"42P01": true,  // no such table
		"42883": true,  // no such function
		"42501": true,  // no privilege
		"28P01": true,  // wrong password
		"28000": true,  // not in pg_hba.conf
		"3D000": true,  // no such database
		"22P02": true,  // a value that cannot be
	} {
		assert.Equal(t, final, lease.IsRefused(pglock.Judge(&pgconn.PgError{Code: code})), code)
	}
	assert.False(t, lease.IsRefused(pglock.Judge(errors.New("connection reset by peer"))))
	assert.NoError(t, pglock.Judge(nil))
}

func TestWithoutTablesAnAcquireEnds(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	_, err := newEngine(t, s, "").Acquire(t.Context(), "key")
	require.ErrorContains(t, err, "has Migrate been run")
	require.NoError(t, pglock.Migrate(t.Context(), s.Connect(t)))
	require.NoError(t, pglock.Migrate(t.Context(), s.Connect(t)), "again")
	require.NoError(t, acquire(t, newEngine(t, s, ""), "key").Release(t.Context()))
}

func TestAProcessUsesAtMostSixConnections(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	least := math.MaxInt
	for range 5 { // on a busy machine a connection may be given up, and counted for a while beside the one that is made instead
		n := cohorttest.NewNetwork(t, s.Addr())
		e := newEngine(t, s, n.Addr)
		most := 0
		done := make(chan error, 100)
		for i := range 100 {
			go func() {
				g, err := e.Acquire(t.Context(), fmt.Sprint(i%10))
				if err == nil {
					err = g.Release(t.Context())
				}
				done <- err
			}()
		}
		for range 100 {
			require.NoError(t, receive(t, done, "a lock"))
			most = max(most, n.Connections())
		}
		require.NotZero(t, most)
		if least = min(least, most); least <= 6 {
			break
		}
	}
	assert.LessOrEqual(t, least, 6)
}

// Calls after Close connect no more: nothing would end the connections.
func TestClosedEngineDoesNotConnect(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, n.Addr)
	_, err := e.Inspect(t.Context(), "key")
	require.NoError(t, err)
	require.NotZero(t, n.Connections())
	require.NoError(t, e.Close(t.Context()))
	_, err = e.Inspect(t.Context(), "key")
	assert.ErrorIs(t, err, cohort.ErrClosed)
	assert.ErrorIs(t, e.List(t.Context(), func(string, cohort.Contender) bool { return true }), cohort.ErrClosed)
	_, err = e.Break(t.Context(), "key", 1)
	assert.ErrorIs(t, err, cohort.ErrClosed)
	require.NoError(t, e.Close(t.Context()), "again")
	require.Eventually(t, func() bool { return n.Connections() == 0 }, pgtest.Patience, time.Millisecond)
}

// More locks are asked for at once than the server replies to in a TTL. What the process holds it keeps meanwhile.
func TestBurstOfLocksDelaysNoRenewal(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, s, n.Addr, pglock.WithTTL(8*time.Second))
	held := acquire(t, e, "held")
	locktest.OutlastBurst(t, e, held, n, 10*time.Second)
	require.NoError(t, held.Release(t.Context()))
}

func TestOptionsAreChecked(t *testing.T) {
	config, err := pgx.ParseConfig("")
	require.NoError(t, err)
	for _, opts := range [][]pglock.Option{{pglock.WithTTL(time.Millisecond)}, {pglock.WithQuarantine(-1)}} {
		_, err := pglock.New(config, opts...)
		assert.ErrorContains(t, err, "pglock: ")
	}
	_, err = pglock.New(nil)
	assert.EqualError(t, err, "pglock: nil config")
	_, err = pglock.New(config, nil)
	assert.EqualError(t, err, "pglock: nil Option")
	unparsed := new(pgx.ConnConfig)
	for _, c := range [][2]*pgx.ConnConfig{{unparsed, config}, {config, unparsed}} { // pgx would panic, on a goroutine of its own
		_, err = pglock.New(c[0], pglock.WithListener(c[1]))
		assert.EqualError(t, err, "pglock: a config that pgx.ParseConfig did not make")
	}
}
