package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// The numbers are those of the pitfalls in the README.

// waitFor starts an Acquire and returns when the server has n entries in all.
func waitFor(t testing.TB, s *redistest.Server, e cohort.Engine, key string, n int) <-chan *redislock.Grant {
	t.Helper()
	granted := make(chan *redislock.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), key)
		if err == nil {
			granted <- g.(*redislock.Grant)
		} else if t.Context().Err() == nil {
			assert.NoError(t, err)
		}
	}()
	awaitEntries(t, s, n)
	return granted
}

// The script that enters the queue is carried out, its reply is late or never comes, and its caller has given
// up: the entry must not stay in a session that lives on.
func TestP1ContextEndsWhileTheReplyIsInFlight(t *testing.T) {
	t.Parallel()
	for how, weather := range map[string]cohorttest.Weather{
		"late":  {Late: 300 * time.Millisecond},
		"never": {NoReplies: true},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			n := cohorttest.NewNetwork(t, s.Addr())
			e := newEngine(t, dialOnce(t, n.Addr), redislock.WithTTL(20*time.Second))
			kept := acquire(t, e, "kept")
			require.NoError(t, acquire(t, e, "key").Release(t.Context())) // its bucket is in use
			locktest.GiveUp(t, e, "key", n, weather, func() { awaitEntries(t, s, 2) })
			n.Set(cohorttest.Weather{})
			redistest.Eventually(t, "the orphan is removed", func() bool {
				return !strings.Contains(s.Must(t, "HGETALL", hashOf(e, "key")), "q:key")
			})
			other := newEngine(t, dial(t, s.Addr()))
			require.NoError(t, acquire(t, other, "key").Release(t.Context()))
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
			require.NoError(t, kept.Release(t.Context()), "the session was kept")
		})
	}
}

func hashOf(e *redislock.Engine, key string) string {
	hash, _ := e.BucketNames(key)
	return hash
}

// The server is stopped while callers give up, and carries out afterwards what they had sent.
func TestP1ServerStopsWhileCallersGiveUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := newClient(t, rueidis.ClientOption{InitAddress: []string{s.Addr()}, ConnWriteTimeout: time.Second})
	e := newEngine(t, client, redislock.WithTTL(20*time.Second))
	for i := range 20 {
		require.NoError(t, acquire(t, e, strconv.Itoa(i)).Release(t.Context()))
	}
	epochs := func() (newest []string) {
		for i := range 20 {
			newest = append(newest, s.Must(t, "HGET", hashOf(e, strconv.Itoa(i)), "fence"))
		}
		return newest
	}
	for before, patience := epochs(), 200*time.Millisecond; slices.Equal(before, epochs()); patience *= 2 { // until some were sent
		require.Less(t, patience, redistest.Patience)
		s.Signal(syscall.SIGSTOP)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		failed := make(chan error, 20)
		for i := range 20 {
			go func() {
				_, err := e.Acquire(ctx, strconv.Itoa(i))
				failed <- err
			}()
		}
		for range 20 {
			require.ErrorIs(t, receive(t, failed, "a call to a server that is stopped"), context.DeadlineExceeded)
		}
		time.Sleep(1500 * time.Millisecond) // until the client has given its connection up, so that clean-ups use another
		s.Signal(syscall.SIGCONT)
		redistest.Eventually(t, "no entry is left", func() bool {
			for i := range 20 {
				if strings.Contains(s.Must(t, "HGETALL", hashOf(e, strconv.Itoa(i))), "q:"+strconv.Itoa(i)+"\n") {
					return false
				}
			}
			return true
		})
	}
	other := newEngine(t, dial(t, s.Addr()))
	for i := range 20 {
		require.NoError(t, acquire(t, other, strconv.Itoa(i)).Release(t.Context()))
	}
}

// The single calls keep what lease.Store says, in whatever order they arrive.
func TestP1CallsArriveAgainAndLate(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	a := lease.Session{ID: "A", TTL: time.Minute}
	b := lease.Session{ID: "B", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, a))
	require.NoError(t, store.Begin(ctx, b))
	first, second := lease.Entry{Session: a, Key: "k", Attempt: 1}, lease.Entry{Session: b, Key: "k", Attempt: 1}

	st, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	require.NotZero(t, st.Epoch)
	again, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.Equal(t, st, again, "to enter again changes nothing")
	waits, err := store.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Zero(t, waits.Epoch)
	assert.InDelta(t, time.Minute, waits.Again, float64(30*time.Second), "it asks again when the holder's session can have ended")
	again, err = store.Enter(ctx, first, false)
	require.NoError(t, err)
	assert.Equal(t, lease.Standing{Epoch: st.Epoch, Wanted: true}, again)
	_, err = store.Enter(ctx, lease.Entry{Session: b, Key: "k", Attempt: 2}, true)
	require.ErrorIs(t, err, cohort.ErrHeld)

	found, err := store.Leave(ctx, first, true)
	require.NoError(t, err)
	assert.True(t, found)
	_, err = store.Enter(ctx, first, false)
	require.Error(t, err, "an Enter that comes late does nothing")
	found, err = store.Leave(ctx, first, true)
	require.NoError(t, err)
	assert.False(t, found)
	next, err := store.Enter(ctx, second, false)
	require.NoError(t, err)
	assert.Greater(t, next.Epoch, st.Epoch)
	missing, err := store.Renew(ctx, a, []lease.Held{{Key: "k", Attempt: 1, Epoch: st.Epoch}})
	require.NoError(t, err)
	assert.Equal(t, []lease.Held{{Key: "k", Attempt: 1, Epoch: st.Epoch}}, missing, "another holds it")
	found, err = store.Leave(ctx, second, false)
	require.NoError(t, err)
	assert.True(t, found)
	_, entries := s.Left(t)
	assert.Equal(t, 1, entries, "the note that keeps the late Enter out")

	require.NoError(t, store.End(ctx, a))
	require.NoError(t, store.End(ctx, a))
	require.NoError(t, store.End(ctx, b))
	sessions, entries := s.Left(t)
	assert.Zero(t, sessions)
	assert.Zero(t, entries)
}

// A request about the first entry of a session does not meet the twelfth, whose name begins like that of the first.
func TestP1EntriesThatBeginAlike(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	session := lease.Session{ID: "A", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, session))
	entry := func(attempt uint64) lease.Entry { return lease.Entry{Session: session, Key: "k", Attempt: attempt} }
	enter := func(attempt uint64) {
		_, err := store.Enter(ctx, entry(attempt), false)
		require.NoError(t, err)
	}
	enter(12)
	enter(3)
	found, err := store.Leave(ctx, entry(1), false)
	require.NoError(t, err)
	assert.False(t, found)
	enter(1) // at once, because a living entry holds the key
	assert.Equal(t, "A:12 A:3 A:1", s.Must(t, "HGET", hashOf(e, "k"), "q:k"))
	for _, attempt := range []uint64{1, 3} {
		_, err = store.Leave(ctx, entry(attempt), false)
		require.NoError(t, err)
	}
	s.Must(t, "HDEL", hashOf(e, "k"), "g:k")
	enter(1) // not at once, because the holder has yet to be granted the key
	assert.Equal(t, "A:12 A:1", s.Must(t, "HGET", hashOf(e, "k"), "q:k"))
}

// A renewal must neither start a session nor revive one.
func TestP2RenewalCreatesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	a := lease.Session{ID: "A", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, a))
	first := lease.Entry{Session: a, Key: "k", Attempt: 1}
	_, err := store.Enter(ctx, first, false)
	require.NoError(t, err)
	_, sessions := e.BucketNames("k")
	s.Must(t, "ZADD", sessions, "XX", "1", a.ID) // its deadline was in 1970
	_, err = store.Renew(ctx, a, nil)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	_, err = store.Enter(ctx, first, false)
	require.ErrorIs(t, err, lease.ErrSessionGone)

	s.Must(t, "HDEL", hashOf(e, "k"), "q:k", "g:k")
	_, err = store.Enter(ctx, first, false)
	require.ErrorIs(t, err, lease.ErrSessionGone, "though the key is free")

	s.Must(t, "DEL", sessions)
	_, err = store.Renew(ctx, a, nil)
	require.ErrorIs(t, err, lease.ErrSessionGone)
	assert.Equal(t, "0", s.Must(t, "EXISTS", sessions))
}

// An unlock is carried out and its reply is lost: it was a success, and the repetition says so.
func TestP3UnlockWithoutAReply(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, dialOnce(t, n.Addr), redislock.WithTTL(20*time.Second))
	require.NoError(t, acquire(t, e, "key").Release(t.Context())) // so that the server knows the scripts
	held := acquire(t, e, "key")
	n.Set(cohorttest.Weather{NoReplies: true})
	released := make(chan error, 1)
	go func() { released <- held.Release(t.Context()) }()
	awaitEntries(t, s, 0)
	other := newEngine(t, dial(t, s.Addr()))
	theirs := acquire(t, other, "key") // the repetition must not take it away
	n.Set(cohorttest.Weather{})
	require.NoError(t, receive(t, released, "the release"))
	hash, field, epoch := theirs.Guard()
	assert.Equal(t, epoch, s.Must(t, "HGET", hash, field))
	require.NoError(t, theirs.Release(t.Context()))
}

// A renewal is carried out and its reply is lost: the session may live on at the server, but is not trusted.
func TestP3RenewalWithoutAReply(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const ttl = 4 * time.Second
	n := cohorttest.NewNetwork(t, s.Addr())
	e := newEngine(t, dialOnce(t, n.Addr), redislock.WithTTL(ttl))
	held := acquire(t, e, "key")
	_, sessions := e.BucketNames("key")
	deadline := func() string { return s.Must(t, "ZSCORE", sessions, held.Entry().Session.ID) }
	first := deadline()
	redistest.Eventually(t, "a renewal", func() bool { return deadline() != first }) // so that there is a connection for renewals
	n.Set(cohorttest.Weather{NoReplies: true})
	began, before := time.Now(), deadline()
	redistest.Eventually(t, "a renewal is carried out", func() bool { return deadline() != before })
	locktest.LostBy(t, held, began.Add(ttl))
	require.ErrorIs(t, held.Release(t.Context()), cohort.ErrLost)
}

// A session is begun in a bucket and the reply is lost: the next entry begins it again, and the end finds it without that.
func TestP3BeginningWithoutAReply(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e, err := redislock.New(losesBeginnings{rueidisadapter.New(dial(t, s.Addr())), make(map[string]bool)}, redislock.WithQuarantine(0))
	require.NoError(t, err)
	defer closeEngine(e)
	store, ctx := e.Store(), t.Context()
	for i := range 2 {
		session := lease.Session{ID: strconv.Itoa(i), TTL: time.Minute}
		require.NoError(t, store.Begin(ctx, session))
		entry := lease.Entry{Session: session, Key: "k", Attempt: 1}
		_, err := store.Enter(ctx, entry, false)
		require.ErrorContains(t, err, "the connection was lost")
		for range i {
			standing, err := store.Enter(ctx, entry, false)
			require.NoError(t, err)
			assert.NotZero(t, standing.Epoch)
		}
		require.NoError(t, store.End(ctx, session))
		sessions, entries := s.Left(t)
		assert.Zero(t, sessions+entries)
	}
}

// losesBeginnings is a client that loses the reply when a session begins to use a bucket, once for each session.
type losesBeginnings struct {
	redislock.Client
	lost map[string]bool
}

func (c losesBeginnings) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	reply, acknowledged, err := c.Client.Run(ctx, call)
	begins := len(call.Args) == 3 && call.Args[1] != "0" // and does not only open a bucket
	if session := call.Args[0]; begins && !c.lost[session] {
		c.lost[session] = true
		return nil, 0, errors.New("the connection was lost")
	}
	return reply, acknowledged, err
}

// With noeviction and volatile policies nothing of ours is removed; with the others the engine refuses to work.
func TestP5EvictionIsRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "100mb")
	for policy, want := range map[string]error{"allkeys-lru": redislock.ErrEvicts, "allkeys-random": redislock.ErrEvicts, "volatile-lru": nil, "noeviction": nil} {
		s.Must(t, "CONFIG", "SET", "maxmemory-policy", policy)
		g, err := newEngine(t, dial(t, s.Addr())).Acquire(t.Context(), "key")
		require.ErrorIs(t, err, want, policy)
		if err == nil {
			require.NoError(t, g.Release(t.Context()))
		}
	}
	s.Must(t, "CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "allkeys-lru")
	require.NoError(t, acquire(t, newEngine(t, dial(t, s.Addr())), "key").Release(t.Context()), "without a bound nothing is removed")
}

// With noeviction a server whose memory is full refuses what may need more: no new locks are to be had, but those that are
// held are kept, released and passed on.
func TestP5FullMemoryLosesNoLock(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory-policy", "noeviction")
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	a, b := lease.Session{ID: "A", TTL: time.Minute}, lease.Session{ID: "B", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, a))
	require.NoError(t, store.Begin(ctx, b))
	var queue []lease.Entry
	for i := range uint64(5) {
		for _, session := range []lease.Session{a, b} {
			queue = append(queue, lease.Entry{Session: session, Key: "k", Attempt: i + 1})
			_, err := store.Enter(ctx, queue[len(queue)-1], false)
			require.NoError(t, err)
		}
	}
	s.Must(t, "CONFIG", "SET", "maxmemory", "1")
	_, err := store.Enter(ctx, lease.Entry{Session: a, Key: "k", Attempt: 9}, false)
	require.ErrorContains(t, err, "OOM")
	for i := range 8 {
		if i == 6 { // B takes what A held, and what it waited for is gone too
			require.NoError(t, store.End(ctx, a))
		}
		if i >= 6 && queue[i].Session == a {
			continue
		}
		standing, err := store.Enter(ctx, queue[i], false)
		require.NoError(t, err)
		require.NotZero(t, standing.Epoch, "entry %d has the key", i)
		missing, err := store.Renew(ctx, queue[i].Session, []lease.Held{{Key: "k", Attempt: queue[i].Attempt, Epoch: standing.Epoch}})
		require.NoError(t, err)
		assert.Empty(t, missing)
		if i == 2 {
			broken, err := e.Break(ctx, "k", standing.Epoch)
			require.NoError(t, err)
			assert.True(t, broken)
			continue
		}
		found, err := store.Leave(ctx, queue[i], i%2 == 1)
		require.NoError(t, err)
		assert.True(t, found)
	}
	require.NoError(t, store.End(ctx, b))
	sessions, entries := s.Left(t)
	assert.Zero(t, sessions+entries)
}

// Epochs are exact beyond what %g prints, and go on by one when the server's clock is behind the last (pitfall 22), whether
// the key was free, is handed off, or is found without a living holder.
func TestP6AndP22EpochsAheadOfTheClock(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	session := lease.Session{ID: "A", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, session))
	s.Must(t, "HSET", hashOf(e, "key"), "fence", "9007199254740000") // the year 2255, in microseconds
	var queue []lease.Entry
	for i := range uint64(6) {
		queue = append(queue, lease.Entry{Session: session, Key: "key", Attempt: i + 1})
		_, err := store.Enter(ctx, queue[i], false)
		require.NoError(t, err)
	}
	for i := range uint64(6) {
		standing, err := store.Enter(ctx, queue[i], false)
		require.NoError(t, err)
		assert.Equal(t, 9007199254740001+i, standing.Epoch)
		_, err = store.Leave(ctx, queue[i], i%2 == 1) // every second in the long way
		require.NoError(t, err)
	}
}

// The server forgets scripts, becomes a replica for a while, or is loading: all of that passes.
func TestP7ErrorsThatPass(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(20*time.Second))
	held := acquire(t, e, "key")
	s.Must(t, "SCRIPT", "FLUSH")
	require.NoError(t, held.Release(t.Context()))
	held = acquire(t, e, "key")

	master := redistest.Start(t)
	s.Must(t, "CONFIG", "SET", "replica-serve-stale-data", "yes")
	s.Must(t, "CONFIG", "SET", "masterauth", "so that it never syncs", "masteruser", "unknown")
	s.Must(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(master.Port))
	released := make(chan error, 1)
	go func() { released <- held.Release(t.Context()) }()
	assert.ErrorContains(t, abandoned(t, e, 200*time.Millisecond, "READONLY"), "READONLY")
	s.Must(t, "REPLICAOF", "NO", "ONE")
	require.NoError(t, receive(t, released, "the release"))
	awaitEntries(t, s, 0)
}

// abandoned returns the error of an Acquire whose context ends, and which says why it has not succeeded until then. A server
// on a busy machine may not have said that by then: it gets more time, again and again.
func abandoned(t *testing.T, e cohort.Engine, patience time.Duration, why string) error {
	t.Helper()
	for ; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := e.Acquire(ctx, "other")
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if strings.Contains(err.Error(), why) || patience > redistest.Patience {
			return err
		}
	}
}

// What waiting does not mend comes back as the server said it, for an Acquire; a release goes on.
func TestP7RefusalsEndAnAcquireAndNoRelease(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(20*time.Minute)) // so that nothing is renewed meanwhile
	held := acquire(t, e, "key")
	s.Must(t, "ACL", "SETUSER", "default", "-evalsha", "-eval")
	_, err := e.Acquire(t.Context(), "other")
	require.ErrorContains(t, err, "NOPERM")
	_, err = e.TryAcquire(t.Context(), "other")
	require.ErrorContains(t, err, "NOPERM")
	require.NotErrorIs(t, err, cohort.ErrHeld)
	refused := func() string {
		return regexp.MustCompile(`cmdstat_evalsha:.*rejected_calls=\d+`).FindString(s.Must(t, "INFO", "commandstats"))
	}
	before := refused()
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan error, 1)
	go func() { released <- held.Release(ctx) }()
	redistest.Eventually(t, "the release is refused", func() bool { return refused() != before })
	cancel()
	require.ErrorIs(t, receive(t, released, "the release"), context.Canceled)
	s.Must(t, "ACL", "SETUSER", "default", "+@all")
	awaitEntries(t, s, 0)
	require.NoError(t, held.Release(t.Context()))
}

// What ends an Acquire is known by how the text of the server begins, after an ERR that some clients leave out.
func TestP7RefusalsAreKnownByTheirText(t *testing.T) {
	for text, refused := range map[string]bool{
		"NOPERM this user has no permissions":                          true,
		"NOAUTH Authentication required.":                              true,
		"WRONGPASS invalid username-password pair":                     true,
		"WRONGTYPE Operation against a key":                            true,
		"unknown command 'EVALSHA'":                                    true,
		"ERR unknown command 'EVALSHA'":                                true,
		"ERR The user executing the script can't run this command":     true,
		"LOADING Redis is loading the dataset in memory":               false,
		"READONLY You can't write against a read only replica.":        false,
		"ERR max number of clients reached":                            false,
		"OOM command not allowed when used memory > 'maxmemory'.":      false,
		"CLUSTERDOWN The cluster is down":                              false,
		"the connection was lost: NOPERM stands in the middle of this": false,
	} {
		synctest.Test(t, func(t *testing.T) {
			e, err := redislock.New(fails{text: text})
			require.NoError(t, err)
			defer func() { require.NoError(t, e.Close(context.Background())) }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err = e.Acquire(ctx, "key")
			require.ErrorContains(t, err, text)
			assert.Equal(t, !refused, errors.Is(err, context.DeadlineExceeded), text)
		})
	}
}

// fails is a client of a server that replies to each call with an error.
type fails struct {
	unused
	text string
}

func (c fails) Run(context.Context, redislock.Call) ([]string, int, error) {
	return nil, 0, errors.New(c.text)
}

// A holder that is cut off cannot say so; the waiter has the key when the holder's session has ended.
func TestP8DeadHeads(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const ttl = 5 * time.Second
	n := cohorttest.NewNetwork(t, s.Addr())
	dead := newEngine(t, dial(t, n.Addr), redislock.WithTTL(ttl))
	dead2 := newEngine(t, dial(t, n.Addr), redislock.WithTTL(ttl))
	acquire(t, dead, "key")
	waitFor(t, s, dead2, "key", 2)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(10*time.Minute)) // whose renewals come too late to sweep
	granted := waitFor(t, s, e, "key", 3)
	n.Set(cohorttest.Weather{Silent: true})
	began := time.Now()
	g := receive(t, granted, "the key of the dead")
	assert.Less(t, time.Since(began), 8*ttl)
	require.NoError(t, g.Release(t.Context()))
}

// Each call that meets entries of a session that has ended passes them: the next that lives has the key at once.
func TestP8CallsPassTheDead(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	hash, sessions := e.BucketNames("k")
	living, dead := lease.Session{ID: "living", TTL: time.Minute}, lease.Session{ID: "dead", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, living))
	require.NoError(t, store.Begin(ctx, dead))
	var attempts uint64
	enter := func(session lease.Session) lease.Entry {
		attempts++
		entry := lease.Entry{Session: session, Key: "k", Attempt: attempts}
		_, err := store.Enter(ctx, entry, false)
		require.NoError(t, err)
		return entry
	}
	lives := func(deadline string) { s.Must(t, "ZADD", sessions, deadline, dead.ID) }
	holds := func(entry lease.Entry) {
		t.Helper()
		assert.Equal(t, entry.ID(), s.Must(t, "HGET", hash, "q:k"))
		assert.Equal(t, "1", s.Must(t, "HEXISTS", hash, "g:k"))
		_, err := store.Leave(ctx, entry, false)
		require.NoError(t, err)
	}
	for _, late := range []bool{false, true} {
		lives("9000000000000")
		first := enter(living)
		enter(dead)
		next := enter(living)
		lives("1") // until 1970
		_, err := store.Leave(ctx, first, late)
		require.NoError(t, err)
		holds(next)
	}
	lives("9000000000000")
	enter(dead)
	lives("1")
	queue, err := e.Inspect(ctx, "k")
	require.NoError(t, err)
	assert.Empty(t, queue)
	holds(enter(living))
	lives("9000000000000")
	enter(dead)
	next := enter(living)
	lives("1")
	queue, err = e.Inspect(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, []cohort.Contender{{}}, queue, "who waits behind the dead has yet to ask")
	require.NoError(t, e.List(ctx, func(key string, first cohort.Contender) bool {
		return assert.Equal(t, "k", key) && assert.Zero(t, first)
	}))
	_, err = store.Renew(ctx, living, nil) // which sweeps
	require.NoError(t, err)
	holds(next)
}

// What dead processes left behind is removed by the renewals of those that live.
func TestP8LeftoversAreSwept(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	dead := newEngine(t, dial(t, n.Addr), redislock.WithTTL(6*time.Second))
	living := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(6*time.Second))
	var kept []*redislock.Grant
	for i := range 300 {
		acquire(t, dead, "dead/"+strconv.Itoa(i))
		kept = append(kept, acquire(t, living, "living/"+strconv.Itoa(i)))
	}
	awaitEntries(t, s, 600)
	n.Set(cohorttest.Weather{Silent: true})
	awaitEntries(t, s, 300)
	for _, g := range kept {
		require.NoError(t, g.Release(t.Context()))
	}
}

// The connection that hears notices is lost just when the key is released.
func TestP9NoticeIsLostWhileSubscribingAgain(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const ttl = 20 * time.Minute // no one looks before five minutes have passed
	n := cohorttest.NewNetwork(t, s.Addr())
	holder := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(ttl))
	e := newEngine(t, dial(t, n.Addr), redislock.WithTTL(ttl))
	held := acquire(t, holder, "key")
	granted := waitFor(t, s, e, "key", 2)
	s.AwaitSubscribers(t, 2)
	n.Set(cohorttest.Weather{Down: true})
	require.NoError(t, held.Release(t.Context()))
	n.Set(cohorttest.Weather{})
	began := time.Now()
	g := receive(t, granted, "the grant whose notice was lost")
	assert.Less(t, time.Since(began), ttl/8)
	require.NoError(t, g.Release(t.Context()))
}

// Whenever a subscription has begun, and not only for the first time, something may have been missed. Of a grant that replicas are to
// acknowledge the notice says only that it is there.
func TestP9EachSubscriptionIsALook(t *testing.T) {
	for replicas, epoch := range []uint64{7, 0} {
		e, err := redislock.New(subscribesTwice{}, redislock.WithReplicas(replicas))
		require.NoError(t, err)
		var notices []lease.Notice
		err = e.Store().Listen(t.Context(), lease.Session{ID: "A"}, func(n lease.Notice) { notices = append(notices, n) })
		require.ErrorContains(t, err, "the connection was lost")
		assert.Equal(t, []lease.Notice{
			{Kind: lease.Look}, {Kind: lease.Look}, {Kind: lease.Wanted, Attempt: 3}, {Kind: lease.Granted, Attempt: 3, Epoch: epoch},
		}, notices)
		require.NoError(t, e.Close(t.Context()))
	}
}

// subscribesTwice is a client whose subscription begins, and begins again, before it hears of a grant that others wait for.
type subscribesTwice struct{ unused }

func (subscribesTwice) Subscribe(_ context.Context, _ string, subscribed func(), message func(string)) error {
	subscribed()
	subscribed()
	message("granted 7 3 1")
	return errors.New("the connection was lost")
}

// A session that is gone in one bucket is lost as a whole.
func TestP10RenewalReachesSomeBucketsOnly(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(8*time.Second))
	a, b := acquire(t, e, "a"), acquire(t, e, "b")
	require.NotEqual(t, hashOf(e, "a"), hashOf(e, "b"))
	_, sessions := e.BucketNames("a")
	s.Must(t, "DEL", sessions)
	receive(t, a.Lost(), "the loss of a")
	receive(t, b.Lost(), "the loss of b")
	again := acquire(t, e, "b")
	assert.Greater(t, again.Epoch(), b.Epoch())
}

// Close and Release survive connections that were just closed.
func TestP13ConnectionsWereJustClosed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for range 5 {
		e, err := redislock.New(rueidisadapter.New(dial(t, s.Addr())), redislock.WithQuarantine(0))
		require.NoError(t, err)
		held := acquire(t, e, "key")
		acquire(t, e, "another")
		require.NotEqual(t, "0", s.Must(t, "CLIENT", "KILL", "TYPE", "normal"))
		require.NoError(t, held.Release(t.Context()))
		require.NotEqual(t, "0", s.Must(t, "CLIENT", "KILL", "TYPE", "normal"))
		ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
		require.NoError(t, e.Close(ctx))
		cancel()
		sessions, entries := s.Left(t)
		assert.Zero(t, sessions)
		assert.Zero(t, entries)
	}
}

// A server that is far away is asked about many buckets at once: two after the other would take longer than a session lives.
func TestP10RenewalIsInTimeForAServerThatIsFarAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		e, err := redislock.New(far{trip: ttl / 16}, redislock.WithTTL(ttl), redislock.WithQuarantine(0))
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close(context.Background())) }()
		var held []*redislock.Grant
		used := make(map[string]bool)
		for i := 0; len(used) < 64; i++ {
			if key := strconv.Itoa(i); !used[hashOf(e, key)] {
				used[hashOf(e, key)] = true
				ctx, cancel := context.WithTimeout(t.Context(), 10*ttl)
				g, err := e.Acquire(ctx, key)
				cancel()
				require.NoError(t, err)
				held = append(held, g.(*redislock.Grant))
			}
		}
		time.Sleep(10 * ttl)
		for _, g := range held {
			require.NoError(t, g.Release(t.Context()))
		}
		assert.EqualValues(t, 1, e.Report().Sessions)
	})
}

// A part of a cluster does not answer. What is in the others can be locked all the same, also by a process that has just begun.
func TestShardThatIsDownStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		client := far{trip: time.Millisecond, down: make(map[string]bool)}
		e, err := redislock.New(client, redislock.WithTTL(ttl), redislock.WithQuarantine(0))
		require.NoError(t, err)
		defer closeEngine(e)
		var key string // the last that is down
		for i := 0; len(client.down) < 22; i++ {
			if name := hashOf(e, strconv.Itoa(i)); name != hashOf(e, "up") {
				key, client.down[name] = strconv.Itoa(i), true
			}
		}
		g := acquire(t, e, "up")
		ctx, cancel := context.WithTimeout(t.Context(), ttl)
		defer cancel()
		_, err = e.Acquire(ctx, key)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(10 * ttl)
		require.NoError(t, g.Release(t.Context()))
		assert.EqualValues(t, 1, e.Report().Sessions)
	})
}

// far is a client of a server that grants each key that it is asked for, and is so far away. Some buckets may be on one
// that does not answer.
type far struct {
	trip time.Duration
	down map[string]bool // by the names of their hashes
}

func (c far) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	arrives := time.After(c.trip)
	if c.down[call.Keys[0]] {
		arrives = nil
	}
	select {
	case <-arrives:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	switch entry := len(call.Args) > 1 && strings.Contains(call.Args[1], ":"); {
	case entry && len(call.Args) == 5:
		return []string{"granted", "1", "0"}, 0, nil
	case entry:
		return []string{"ok", "1"}, 0, nil // it has left
	case len(call.Args) == 3:
		return []string{"ok", "0"}, 0, nil // a bucket is open
	default:
		return []string{"ok"}, 0, nil // nothing is missing, and no more is to be ended
	}
}

func (c far) Subscribe(ctx context.Context, _ string, subscribed func(), _ func(string)) error {
	subscribed()
	<-ctx.Done()
	return ctx.Err()
}

// Keys may be of any content, and as long as each Redis takes: notices do not carry them, and errors cut them. With a longer one
// the server closed the connection, which others use too, and did so again for each request to take the key back.
func TestP17LongKeys(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--proto-max-bulk-len", "1mb")
	holder, e := newPatientEngine(t, s), newPatientEngine(t, s) // with time for megabytes
	key := strings.Repeat("k\x00", 1<<19)
	ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
	defer cancel()
	for name, call := range map[string]func(key string) error{
		"Acquire":    func(key string) error { _, err := e.Acquire(ctx, key); return err },
		"TryAcquire": func(key string) error { _, err := e.TryAcquire(ctx, key); return err },
		"Ask": func(key string) error {
			replied := make(chan error, 1)
			e.Ask(ctx, key, false, func(_ cohort.Grant, err error) { replied <- err })
			return receive(t, replied, "the reply")
		},
		"Inspect": func(key string) error { _, err := e.Inspect(ctx, key); return err },
		"Break":   func(key string) error { _, err := e.Break(ctx, key, 1); return err },
	} {
		assert.EqualError(t, call(key+"k"), "redislock: a key of 1048577 bytes: want at most 1048576", name)
	}
	held := acquire(t, holder, key)
	_, err := e.TryAcquire(t.Context(), key)
	require.ErrorIs(t, err, cohort.ErrHeld)
	assert.Less(t, len(err.Error()), 500)
	granted := waitFor(t, s, e, key, 2)
	require.NoError(t, held.Release(t.Context()))
	g := receive(t, granted, "the key")
	require.NoError(t, g.Release(t.Context()))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = e.Acquire(ended, key)
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, len(err.Error()), 500)
}

// An operator removes a lock: its holder learns of it at the next renewals, without asking.
func TestRemovedLockIsNoticed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(8*time.Second))
	gone, kept := acquire(t, e, "gone"), acquire(t, e, "kept")
	s.Must(t, "HDEL", hashOf(e, "gone"), "q:gone", "g:gone", "w:gone")
	receive(t, gone.Lost(), "the loss")
	other := newEngine(t, dial(t, s.Addr()))
	theirs := acquire(t, other, "gone")
	require.ErrorIs(t, gone.Release(t.Context()), cohort.ErrLost)
	hash, field, epoch := theirs.Guard()
	assert.Equal(t, epoch, s.Must(t, "HGET", hash, field), "the new holder keeps it")
	select {
	case <-kept.Lost():
		assert.Fail(t, "another lock of the session is lost too")
	default:
	}
	require.NoError(t, kept.Release(t.Context()))
}

// An operator who breaks a lock after a restart, before any process has renewed its session, has another TTL than they: it does
// not shorten the quarantine that they count on.
func TestBreakBeginsNoQuarantine(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(20*time.Minute))
	held := acquire(t, e, "key")
	s.Must(t, "SAVE")
	s.Kill()
	s.Restart(t)
	operator := newEngine(t, dial(t, s.Addr()), redislock.WithQuarantine(time.Second))
	broken, err := operator.Break(t.Context(), "key", held.Epoch())
	require.NoError(t, err)
	assert.False(t, broken, "the restart has ended it")
	restarted := time.Now()
	_, err = newEngine(t, dial(t, s.Addr()), redislock.WithQuarantine(20*time.Minute)).TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	quiet, err := strconv.ParseInt(s.Must(t, "HGET", hashOf(e, "key"), "quiet"), 10, 64)
	require.NoError(t, err)
	assert.Greater(t, time.UnixMilli(quiet), restarted.Add(10*time.Minute))
}

// A process that asks about many locks at once, here whether another process wants them, does not make a connection for each.
func TestConnectionsDoNotGrowWithTheLocks(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(20*time.Minute))
	var held []*redislock.Grant
	for i := range 500 {
		held = append(held, acquire(t, e, strconv.Itoa(i)))
	}
	for _, g := range held {
		g.OnWanted(func() {})
	}
	redistest.Eventually(t, "all are told", func() bool {
		_, entries := s.Left(t)
		return entries == 2*len(held) // each with its note
	})
	assert.Less(t, strings.Count(s.Must(t, "CLIENT", "LIST"), "id="), 20)
	for _, g := range held {
		require.NoError(t, g.Release(t.Context()))
	}
}

// A holder is told that another process waits, however the waiter came, and a waiter that it has the key, long
// before any of them would ask.
func TestNoticesOfGrantsAndOfWaiters(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	began := time.Now()
	defer func() { assert.Less(t, time.Since(began), 4*time.Minute, "they would ask after five") }()
	ttl := redislock.WithTTL(20 * time.Minute)
	e, other := newEngine(t, dial(t, s.Addr()), ttl), newEngine(t, dial(t, s.Addr()), ttl)
	held := acquire(t, e, "key")
	for deaf := true; deaf; { // a grant counts as wanted until the engine is known to hear
		select {
		case <-held.Wanted():
			require.Less(t, time.Since(began), redistest.Patience, "no other process wants the key")
			require.NoError(t, held.Release(t.Context()))
			held = acquire(t, e, "key")
		case <-time.After(20 * time.Millisecond):
			deaf = false
		}
	}
	granted := waitFor(t, s, other, "key", 2)
	receive(t, held.Wanted(), "the notice that another waits")
	third := waitFor(t, s, newEngine(t, dial(t, s.Addr()), ttl), "key", 3)
	require.NoError(t, held.Release(t.Context()))
	next := receive(t, granted, "the key")
	receive(t, next.Wanted(), "the notice for a grant that was wanted from the start")
	require.NoError(t, next.Release(t.Context()))
	last := receive(t, third, "the key")
	require.NoError(t, last.Release(t.Context()))
}

// A holder is sent a notice of the first waiter only when it has asked for it. Nothing of that stays.
func TestHolderIsWarnedWhenItHasAsked(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()))
	store, ctx := e.Store(), t.Context()
	warner := store.(lease.Warner)
	a, b := lease.Session{ID: "A", TTL: time.Minute}, lease.Session{ID: "B", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, a))
	require.NoError(t, store.Begin(ctx, b))
	notices := listen(t, store, a)
	holdAndWait := func(holds, waits lease.Entry, asks bool) {
		_, err := store.Enter(ctx, holds, false)
		require.NoError(t, err)
		if asks {
			wanted, err := warner.Warn(ctx, holds)
			require.NoError(t, err)
			assert.False(t, wanted)
		}
		_, err = store.Enter(ctx, waits, false)
		require.NoError(t, err)
	}
	leave := func(entries ...lease.Entry) {
		for _, entry := range entries {
			found, err := store.Leave(ctx, entry, false)
			require.NoError(t, err)
			assert.True(t, found)
		}
	}
	entry := func(s lease.Session, attempt uint64) lease.Entry {
		return lease.Entry{Session: s, Key: "k", Attempt: attempt}
	}

	expects := entry(a, 4)
	expects.Warn = true
	holdAndWait(entry(a, 1), entry(b, 1), false)
	wanted, err := warner.Warn(ctx, entry(a, 1))
	require.NoError(t, err)
	assert.True(t, wanted, "another waits already")
	leave(entry(a, 1), entry(b, 1))
	holdAndWait(entry(a, 2), entry(b, 2), true)
	require.Equal(t, lease.Notice{Kind: lease.Wanted, Attempt: 2}, receive(t, notices, "the notice"), "the only one so far")
	leave(entry(a, 2), entry(b, 2))
	assert.NotContains(t, s.Must(t, "HKEYS", hashOf(e, "k")), "w:k", "the key is free")
	holdAndWait(entry(a, 3), entry(b, 3), true) // the queue becomes empty in another way
	require.Equal(t, lease.Notice{Kind: lease.Wanted, Attempt: 3}, receive(t, notices, "the notice"))
	wanted, err = warner.Warn(ctx, entry(b, 3))
	require.NoError(t, err)
	assert.True(t, wanted, "it does not hold the key")
	_, err = store.Enter(ctx, expects, false)
	require.NoError(t, err)
	leave(entry(a, 3), entry(b, 3))
	require.Equal(t, lease.NoticeKind(lease.Granted), receive(t, notices, "the notice").Kind)
	_, err = store.Enter(ctx, entry(b, 4), false)
	require.NoError(t, err)
	require.Equal(t, lease.Notice{Kind: lease.Wanted, Attempt: 4}, receive(t, notices, "the notice of what it was entered with"))
	leave(expects)
	holdAndWait(entry(a, 5), entry(b, 5), false)
	require.NoError(t, store.End(ctx, b))
	require.NoError(t, store.End(ctx, a))
	assert.NotContains(t, s.Must(t, "HKEYS", hashOf(e, "k")), "w:k")
}

// What a holder that lost its lock writes is kept out by the guard, whatever it believes.
func TestGuardFencesExactly(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e, other := newEngine(t, dial(t, s.Addr())), newEngine(t, dial(t, s.Addr()))
	write := func(g *redislock.Grant, value string) error {
		hash, field, epoch := g.Guard()
		_, err := s.Do("EVAL", `
			if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
				return redis.error_reply('FENCED')
			end
			return redis.call('SET', KEYS[2], ARGV[3])`, "2", hash, e.Tag("key")+":data", field, epoch, value)
		return err
	}
	old := acquire(t, e, "key")
	require.NoError(t, write(old, "1"))
	revoke(t, s, e)
	g := acquire(t, other, "key")
	require.NoError(t, write(g, "2"))
	require.ErrorContains(t, write(old, "3"), "FENCED")
	assert.Equal(t, "2", s.Must(t, "GET", e.Tag("key")+":data"))
	require.NoError(t, g.Release(t.Context()))
	require.ErrorContains(t, write(g, "4"), "FENCED", "nor after a release")
}

// Each process shows who it is, also to a try that fails.
func TestInspect(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithLabel("the first {one}"))
	other := newEngine(t, dial(t, s.Addr()))
	var _ cohort.Inspector = e
	var _ cohort.Reporter = e
	none, err := e.Inspect(t.Context(), "key")
	require.NoError(t, err)
	assert.Empty(t, none)
	held := acquire(t, e, "key")
	holder := cohort.Contender{Process: e.Report().Process, Since: time.UnixMicro(int64(held.Epoch())), Epoch: held.Epoch(), Own: true}
	assert.WithinDuration(t, time.Now(), holder.Since, redistest.Patience)
	assert.Equal(t, "the first {one}", holder.Process.Label)
	assert.Equal(t, os.Getpid(), holder.Process.PID)
	granted := waitFor(t, s, other, "key", 2)
	queue, err := e.Inspect(t.Context(), "key")
	require.NoError(t, err)
	assert.Equal(t, []cohort.Contender{holder, {Process: other.Report().Process}}, queue)

	_, err = other.TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	var known *cohort.HeldError
	require.ErrorAs(t, err, &known)
	holder.Own = false
	assert.Equal(t, cohort.HeldError{Key: "key", Holder: holder}, *known)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = e.Inspect(ended, "key")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, held.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the key").Release(t.Context()))
	assert.Contains(t, s.Must(t, "HGETALL", hashOf(e, "key")), "p:"+e.Report().Session)
	closeEngine(e)
	closeEngine(other)
	assert.NotContains(t, s.Must(t, "HGETALL", hashOf(e, "key")), "p:", "it goes with the session")
}

// The permissions that the README names are enough, and without INFO there is no quarantine.
func TestPermissions(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, list, found := strings.Cut(string(readme), "- The user needs `")
	require.True(t, found)
	list, _, _ = strings.Cut(list, "`")
	user := func(name string, more ...string) rueidis.Client {
		permissions := append([]string{"ACL", "SETUSER", name, "on", ">secret", "~{kl*}:*", "&kl:*", "&{kl*}:*", "+@connection"}, strings.Fields(list)...)
		s.Must(t, append(permissions, more...)...)
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, Username: name, Password: "secret", DisableCache: true, ForceSingleClient: true})
		require.NoError(t, err)
		t.Cleanup(client.Close)
		return client
	}
	quarantine := redislock.WithQuarantine(time.Millisecond)
	e, other := newEngine(t, user("locks"), quarantine), newEngine(t, user("locks"), quarantine)
	for range 3 {
		held := acquire(t, e, "key")
		granted := waitFor(t, s, other, "key", 2)
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, receive(t, granted, "the key").Release(t.Context()))
	}
	closeEngine(e)
	closeEngine(other)
	sessions, entries := s.Left(t)
	assert.Zero(t, sessions+entries)

	blind := user("blind", "-info")
	_, err = newEngine(t, blind, quarantine).Acquire(t.Context(), "key")
	require.ErrorContains(t, err, "can't run this command")
	require.NoError(t, acquire(t, newEngine(t, blind), "key").Release(t.Context()))
}

func TestOptionsAreChecked(t *testing.T) {
	for _, bad := range []redislock.Option{
		redislock.WithTTL(0), redislock.WithTTL(99 * time.Millisecond), redislock.WithPrefix(""), redislock.WithPrefix("a{b"),
		redislock.WithPrefix("kl1"), // its bucket 7 would be the 17th of "kl"
		redislock.WithReplicas(-1), redislock.WithQuarantine(-1),
	} {
		_, err := redislock.New(unused{}, bad)
		assert.Error(t, err)
	}
	_, err := redislock.New(nil)
	assert.EqualError(t, err, "redislock: nil client")
	_, err = redislock.New(unused{}, nil)
	assert.EqualError(t, err, "redislock: nil Option")
	assert.Panics(t, func() { rueidisadapter.New(nil) })
}

// A prefix may be any text that is not refused, though it stands in the scripts: notices arrive.
func TestPrefixIsQuotedInTheScripts(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const prefix = "it's\\ [[\"\n\x00é]]"
	e := newEngine(t, dial(t, s.Addr()), redislock.WithPrefix(prefix))
	store, ctx := e.Store(), t.Context()
	var queue []lease.Entry
	for _, id := range []string{"A", "B"} {
		queue = append(queue, lease.Entry{Session: lease.Session{ID: id, TTL: time.Minute}, Key: "k", Attempt: 1})
		require.NoError(t, store.Begin(ctx, queue[len(queue)-1].Session))
	}
	notices := listen(t, store, queue[1].Session)
	for _, entry := range queue {
		_, err := store.Enter(ctx, entry, false)
		require.NoError(t, err)
	}
	_, err := store.Leave(ctx, queue[0], false)
	require.NoError(t, err)
	require.Equal(t, lease.NoticeKind(lease.Granted), receive(t, notices, "the notice").Kind)
	assert.Contains(t, s.Must(t, "KEYS", "*"), "{"+prefix)
}

// unused is a client that is never called.
type unused struct{ redislock.Client }

func TestClosedBeforeUse(t *testing.T) {
	e, err := redislock.New(unused{})
	require.NoError(t, err)
	require.NoError(t, e.Close(t.Context()))
	require.NoError(t, e.Close(t.Context()))
	_, err = e.Acquire(t.Context(), "k")
	require.ErrorIs(t, err, cohort.ErrClosed)
	_, err = e.TryAcquire(t.Context(), "k")
	require.ErrorIs(t, err, cohort.ErrClosed)
}

// No call grants a key at a server that was started or promoted since the key was locked, nor in a quarantine.
func TestNothingIsGrantedInAQuarantine(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	e := newEngine(t, dial(t, s.Addr()), redislock.WithQuarantine(20*time.Minute))
	store, ctx, hash := e.Store(), t.Context(), hashOf(e, "k")
	entry := func(session lease.Session) lease.Entry { return lease.Entry{Session: session, Key: "k", Attempt: 1} }
	for name, call := range map[string]func(a, b lease.Session) error{
		"enter": func(_, b lease.Session) error { _, err := store.Enter(ctx, entry(b), false); return err },
		"leave": func(a, _ lease.Session) error { _, err := store.Leave(ctx, entry(a), false); return err },
		"late":  func(a, _ lease.Session) error { _, err := store.Leave(ctx, entry(a), true); return err },
		"renew": func(_, b lease.Session) error { _, err := store.Renew(ctx, b, nil); return err },
		"end":   func(a, _ lease.Session) error { return store.End(ctx, a) },
	} {
		for _, restarted := range []bool{false, true} {
			a, b := lease.Session{ID: name + "A", TTL: time.Minute}, lease.Session{ID: name + "B", TTL: time.Minute}
			if restarted {
				a.ID, b.ID = a.ID+"2", b.ID+"2"
			}
			for _, session := range []lease.Session{a, b} {
				require.NoError(t, store.Begin(ctx, session))
				if restarted {
					s.Must(t, "HSET", hash, "quiet", "0")
				}
				_, err := store.Enter(ctx, entry(session), false)
				require.NoError(t, err)
			}
			require.Equal(t, a.ID+":1 "+b.ID+":1", s.Must(t, "HGET", hash, "q:k"), "in the order of asking")
			if restarted {
				require.Equal(t, "1", s.Must(t, "HEXISTS", hash, "g:k"))
				s.Must(t, "HSET", hash, "life", "0123456789abcdef") // the run ID of another
			}
			err := call(a, b)
			assert.Equal(t, "0", s.Must(t, "HEXISTS", hash, "g:k"), "%s, restarted: %v", name, restarted)
			if restarted && name != "end" {
				require.ErrorIs(t, err, lease.ErrSessionGone, name)
			} else {
				require.NoError(t, err, name)
			}
			require.NoError(t, store.End(ctx, a))
			require.NoError(t, store.End(ctx, b))
		}
	}
	s.Must(t, "FLUSHALL")
	session := lease.Session{ID: "C", TTL: time.Minute}
	require.NoError(t, store.Begin(ctx, session))
	standing, err := store.Enter(ctx, entry(session), false)
	require.NoError(t, err)
	assert.Zero(t, standing.Epoch, "what is gone has been locked, for all that is known")
}

// On a new server the first grant comes when the quarantine is over, in the order of asking.
func TestFirstGrantWaitsForTheQuarantine(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const quarantine = 5 * time.Second // so that the try below comes while it lasts
	e := newEngine(t, dial(t, s.Addr()), redislock.WithQuarantine(quarantine))
	began := time.Now()
	_, err := e.TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	first := waitFor(t, s, e, "key", 1)
	second := waitFor(t, s, e, "key", 2)
	g := receive(t, first, "the first grant")
	assert.Greater(t, time.Since(began), quarantine-100*time.Millisecond)
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, receive(t, second, "the second grant").Release(t.Context()))
	for i := range 200 { // every bucket was opened at the start, and not by the first that asks for a key of it
		key := fmt.Sprint(i)
		require.Equal(t, "1", s.Must(t, "HEXISTS", hashOf(e, key), "quiet"))
		require.NoError(t, acquire(t, e, key).Release(t.Context()))
	}
}
