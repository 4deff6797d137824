package cohort_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// Code that is written against Do runs with either manager.
var (
	_ doer = (*keylock.Manager[string])(nil)
	_ doer = (*cohort.Manager)(nil)
)

type doer interface {
	Do(ctx context.Context, key string, fn func(context.Context) error) error
}

// The claim of the process is seen through its life: waiting at the engine, held, handed off, lost, gone.
func TestInspectShowsTheClaim(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		ours, engine := w.process(cohort.WithLocal(keylock.WithHoldTimes()))
		inspect := func() cohort.KeyInfo {
			info, err := ours.Inspect(t.Context(), "k")
			require.NoError(t, err)
			require.NoError(t, info.EngineErr)
			return info
		}
		assert.Equal(t, cohort.NoClaim, inspect().Claim.State)
		assert.Empty(t, inspect().Engine)

		blocker := acquire(t, theirs, "k")
		began := time.Now()
		first := wait(t.Context(), ours, "k")
		second := wait(t.Context(), ours, "k")
		time.Sleep(time.Second)
		info := inspect()
		assert.Equal(t, "k", info.Key)
		assert.Equal(t, 1, info.Held, "locally, who waits at the engine holds")
		assert.Equal(t, 1, info.Waiting)
		assert.Equal(t, cohort.Claim{State: cohort.ClaimWaiting, Since: began}, info.Claim)
		require.Len(t, info.Engine, 2)
		assert.Equal(t, blocker.Token().Epoch, info.Engine[0].Epoch)
		assert.False(t, info.Engine[0].Own)
		assert.True(t, info.Engine[1].Own)
		assert.Equal(t, began, info.Engine[1].Since)
		assert.Contains(t, info.String(), "waiting since")
		assert.Contains(t, info.String(), "process 1 holds it there; process 2 waits for it there")
		top, err := ours.Top(t.Context(), 5)
		require.NoError(t, err)
		require.Len(t, top.OldestWaits, 1)
		assert.Equal(t, info.Claim, top.OldestWaits[0].Claim)
		assert.Equal(t, "k", top.OldestHolds[0].Key)
		assert.Equal(t, "k", top.LongestQueues[0].Key)
		assert.Equal(t, info.Claim, top.LongestQueues[0].Claim)
		assert.Equal(t, 1, top.Stats.Waiting)
		assert.Equal(t, 0, top.Stats.Held)

		require.NoError(t, blocker.Release())
		granted := time.Now()
		held := (<-first).lock
		assert.Equal(t, cohort.Claim{State: cohort.ClaimHeld, Since: granted, Token: held.Token()}, inspect().Claim)
		require.NoError(t, held.Release())
		held = (<-second).lock
		assert.Equal(t, cohort.Claim{State: cohort.ClaimHeld, Since: granted, Token: held.Token()}, inspect().Claim, "handed off")
		assert.Equal(t, uint64(2), inspect().Claim.Token.Seq)
		assert.Contains(t, inspect().String(), held.Token().String())
		keys, err := ours.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, keys, 1)
		assert.Equal(t, inspect().Claim, keys[0].Claim)

		engine.Expire()
		assert.True(t, inspect().Claim.Lost)
		require.ErrorIs(t, held.Release(), cohort.ErrLost)
		synctest.Wait()
		assert.Equal(t, cohort.Claim{}, inspect().Claim)
		stats, err := ours.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, uint64(1), stats.Granted)
		assert.Equal(t, uint64(1), stats.Handoffs)
		assert.Equal(t, uint64(1), stats.Lost)
		assert.Equal(t, uint64(1), stats.Waits.Count)
		assert.Equal(t, 1.0, stats.Waits.Sum)
		assert.Equal(t, uint64(1), stats.Releases.Count)
		assert.Equal(t, uint64(2), stats.Engine.Sessions)
		assert.Equal(t, uint64(1), stats.Engine.Lost)
		assert.Zero(t, stats.Held+stats.Waiting)
	})
}

// With the engine out of reach, looking returns with its context, and what is known here is shown without it.
func TestLookingNeedsNoEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		l := acquire(t, m, "k")
		e.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Inspect(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		keys, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		assert.Len(t, keys, 1)
		top, err := m.Top(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, 1, top.Stats.Held)
		e.Heal()
		require.NoError(t, l.Release())
	})
}

func TestLookingAfterTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process()
		require.NoError(t, m.Close())
		_, err := m.Stats(t.Context())
		require.ErrorIs(t, err, cohort.ErrClosed)
		_, err = m.Snapshot(t.Context())
		require.ErrorIs(t, err, cohort.ErrClosed)
		_, err = m.Top(t.Context(), 1)
		require.ErrorIs(t, err, cohort.ErrClosed)
		_, err = m.Inspect(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrClosed)
	})
}

// A wait at the engine is logged while it lasts, with who is ahead, and once more when it is over.
func TestSlowWaitsAtTheEngineAreLogged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		var log bytes.Buffer
		m := cohort.Start(t.Context(), w.store.Engine(), cohort.WithSlowLog(slog.New(slog.NewTextHandler(&log, nil)), time.Second))
		held, other := acquire(t, theirs, "k"), acquire(t, theirs, "other")
		ctx, cancel := context.WithCancel(t.Context())
		first, second := wait(t.Context(), m, "k"), wait(ctx, m, "other")
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, acquire(t, m, "quick").Release())
		time.Sleep(10 * time.Second)
		require.NoError(t, held.Release())
		require.NoError(t, (<-first).lock.Release())
		cancel()
		require.Error(t, (<-second).err)
		require.NoError(t, other.Release())
		require.NoError(t, m.Close())
		synctest.Wait()
		assert.Equal(t, 2*4, strings.Count(log.String(), "level=WARN"), "after 1, 2, 4 and 8 s each")
		assert.Contains(t, log.String(), `holder="process 1" holder_epoch=1`)
		assert.Contains(t, log.String(), "ahead=1")
		assert.Contains(t, log.String(), `level=INFO msg="cohort: a slow wait at the engine was granted" key=k waited=10.5s`)
		assert.Contains(t, log.String(), "has ended without the lock")
		assert.NotContains(t, log.String(), "quick")
	})
}

// A wait that exceeds the time is logged whenever it begins, at the moment when it does, and a shorter one never.
func TestEverySlowWaitAtTheEngineIsLoggedInTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		seen := &timedHandler{began: time.Now()}
		m := cohort.Start(t.Context(), w.store.Engine(), cohort.WithSlowLog(slog.New(seen), time.Second))
		for _, lasts := range []time.Duration{1800 * time.Millisecond, 900 * time.Millisecond, 2500 * time.Millisecond} {
			held := acquire(t, theirs, "k")
			time.Sleep(100 * time.Millisecond)
			ours := wait(t.Context(), m, "k")
			time.Sleep(lasts)
			require.NoError(t, held.Release())
			require.NoError(t, (<-ours).lock.Release())
		}
		require.NoError(t, m.Close())
		synctest.Wait()
		assert.Equal(t, []time.Duration{1100, 1900, 4000, 5000, 5500}, seen.at)
	})
}

// beginning has a queue in which nothing is granted yet, as that of a server that has just been started.
type beginning struct{ *cohorttest.Engine }

func (beginning) Inspect(context.Context, string) ([]cohort.Contender, error) {
	return []cohort.Contender{{Process: cohort.Process{Label: "first"}}, {Own: true}}, nil
}

func TestFirstOfAQueueIsNoHolderBeforeItsGrant(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		held := acquire(t, theirs, "k")
		var log bytes.Buffer
		m := cohort.Start(t.Context(), beginning{w.store.Engine()}, cohort.WithSlowLog(slog.New(slog.NewTextHandler(&log, nil)), time.Second))
		ours := wait(t.Context(), m, "k")
		time.Sleep(1500 * time.Millisecond)
		info, err := m.Inspect(t.Context(), "k")
		require.NoError(t, err)
		assert.Contains(t, info.String(), "; first waits for it there; an unknown process waits for it there")
		require.NoError(t, held.Release())
		require.NoError(t, (<-ours).lock.Release())
		require.NoError(t, m.Close())
		synctest.Wait()
		assert.Contains(t, log.String(), "ahead=1")
		assert.NotContains(t, log.String(), "holder")
	})
}

// timedHandler notes when it is called, in milliseconds.
type timedHandler struct {
	slog.Handler
	began time.Time
	at    []time.Duration
}

func (h *timedHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *timedHandler) Handle(context.Context, slog.Record) error {
	h.at = append(h.at, time.Since(h.began)/time.Millisecond)
	return nil
}

// A logger that panics, or ends its goroutine, costs one record; one that blocks, those that do not fit.
func TestLoggerHarmsNoLock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		theirs, _ := w.process()
		block := make(chan struct{})
		bad := &badHandler{blocked: block}
		m := cohort.Start(t.Context(), w.store.Engine(), cohort.WithSlowLog(slog.New(bad), time.Second))
		var held []cohort.Lock
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 100 {
			held = append(held, acquire(t, theirs, fmt.Sprint(i)))
			wait(ctx, m, fmt.Sprint(i))
		}
		time.Sleep(1500 * time.Millisecond)
		require.NoError(t, acquire(t, m, "free").Release())
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, stats.SlowLogLost, uint64(100-64-3), "one panicked, one ended its goroutine, one blocks, 64 wait")
		assert.LessOrEqual(t, stats.SlowLogLost, uint64(100-64))
		close(block)
		for _, l := range held {
			require.NoError(t, l.Release())
		}
		cancel()
		require.NoError(t, m.Close())
	})
}

type badHandler struct {
	slog.Handler
	calls   int
	blocked chan struct{}
}

func (h *badHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *badHandler) Handle(context.Context, slog.Record) error {
	h.calls++
	switch h.calls {
	case 1:
		panic("in a logger")
	case 2:
		runtime.Goexit()
	}
	<-h.blocked
	return nil
}

func TestSecondManagerOnAnEngineIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e := w.store.Engine()
		m := cohort.Start(t.Context(), e)
		assert.PanicsWithValue(t, "cohort: the engine has a manager already: give each manager an engine of its own, or share the manager",
			func() { cohort.Start(t.Context(), e) })
		require.NoError(t, acquire(t, m, "k").Release(), "the first is not harmed")
		require.NoError(t, m.Close())
		again := cohort.Start(t.Context(), e)
		_, err := again.Acquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrClosed, "the engine is closed, and says so")
		require.NoError(t, again.Close())
		assert.Panics(t, func() { cohort.Start(t.Context(), nil) })
	})
}

// Options of the local manager hold: here a bound on the queue.
func TestLocalOptions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process(cohort.WithLocal(keylock.WithMaxWaiters(1)))
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		_, err := m.Acquire(t.Context(), "k")
		require.ErrorIs(t, err, keylock.ErrQueueFull)
		require.NoError(t, l.Release())
		require.NoError(t, (<-next).lock.Release())
	})
}

// A holder that was paused past its deadline does not hand its claim off, although no timer has run.
func TestClaimPastItsDeadlineIsNotHandedOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process(cohort.WithMaxHold(time.Hour))
		theirs, _ := w.process()
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		e.Pause()
		stolen := acquire(t, theirs, "k")
		require.ErrorIs(t, l.Release(), cohort.ErrLost)
		requireAfter(t, next, stolen)
	})
}

// A person deletes a key at the engine, with a local waiter: from the notice on, the claim is not handed off.
func TestDeletedClaimIsNotHandedOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		theirs, _ := w.process()
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		w.store.Delete("k")
		stolen := acquire(t, theirs, "k")
		e.Notice()
		synctest.Wait()
		require.ErrorIs(t, context.Cause(l.Context()), cohort.ErrLost)
		require.ErrorIs(t, l.Release(), cohort.ErrLost)
		requireAfter(t, next, stolen)
	})
}

// requireAfter fails unless the wait lasts until another process has released its lock.
func requireAfter(t *testing.T, next <-chan result, stolen cohort.Lock) {
	t.Helper()
	synctest.Wait()
	assert.Empty(t, next)
	require.NoError(t, stolen.Release())
	got := <-next
	require.NoError(t, got.err)
	assert.Equal(t, 1, got.lock.Token().Compare(stolen.Token()))
	require.NoError(t, got.lock.Release())
}

// A release that the engine refuses gives the key back in the background.
func TestRefusedReleaseReportsTheErrorAndFreesTheKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		l := acquire(t, m, "k")
		refused := errors.New("permission denied")
		e.Script(cohorttest.Fault{Call: cohorttest.Release, Err: refused})
		require.ErrorIs(t, l.Release(), refused)
		synctest.Wait()
		assert.Zero(t, w.store.Len("k"))
		require.NoError(t, acquire(t, m, "k").Release())
	})
}

// The handles are printed on one line, and nothing is read that another goroutine may write.
func TestHandlesHaveTexts(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(t.Context(), store.Engine())
	assert.Equal(t, "cohort manager, running", fmt.Sprint(m))
	l, err := m.Acquire(t.Context(), "a\nb")
	require.NoError(t, err)
	assert.Equal(t, `lock of key "a\nb", token `+l.Token().String(), fmt.Sprint(l))
	all, err := m.AcquireAll(t.Context(), "z", "y", "z")
	require.NoError(t, err)
	assert.Equal(t, `lock of key "y" and 1 more`, fmt.Sprint(all))
	require.NoError(t, all.Release())
	all, err = m.AcquireAll(t.Context(), "z")
	require.NoError(t, err)
	assert.Regexp(t, `^lock of key "z", token `, fmt.Sprint(all))
	none, err := m.AcquireAll(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "lock of no key", fmt.Sprint(none))
	for _, one := range []interface{ Release() error }{l, all, none} {
		require.NoError(t, one.Release())
	}
	require.NoError(t, m.Close())
	assert.Equal(t, "cohort manager, ended", fmt.Sprint(m))
	assert.Equal(t, "no lock, no lock, no manager", fmt.Sprintf("%v, %v, %v", cohort.Lock{}, cohort.Locks{}, (*cohort.Manager)(nil)))
}

func TestProcessIsReadAsItWasWritten(t *testing.T) {
	this, err := cohort.ThisProcess("a label: {with} words")
	require.NoError(t, err)
	assert.NotEmpty(t, this.Host)
	assert.NotZero(t, this.PID)
	for _, p := range []cohort.Process{this, {}, {Label: "label"}, {Host: "host", PID: 1}, {Label: "a b:1", Host: "fe80::1", PID: 4242}} {
		assert.Equal(t, p, cohort.ParseProcess(p.String()), "%q", p.String())
	}
	assert.Equal(t, "web-3:4242 checkout", cohort.Process{Label: "checkout", Host: "web-3", PID: 4242}.String())
	for _, other := range []string{"some text", ":1", "host:", "host:0 x", "host:x y"} {
		assert.Equal(t, cohort.Process{Label: other}, cohort.ParseProcess(other))
	}
	for label, want := range map[string]string{
		strings.Repeat("x", 129): "129 bytes",
		"\xff":                   "not UTF-8",
		"two\nlines":             "control characters",
	} {
		_, err := cohort.ThisProcess(label)
		require.ErrorContains(t, err, want)
	}
}

// A try that fails says who holds the key, wherever that is.
func TestFailedTryNamesTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		here := cohort.Start(t.Context(), store.Engine())
		there := cohort.Start(t.Context(), store.Engine())
		defer here.Close()
		defer there.Close()
		began := time.Now()
		held, err := there.Acquire(t.Context(), "key")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		try := func(m *cohort.Manager) cohort.Contender {
			_, err := m.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, cohort.ErrHeld)
			var named *cohort.HeldError
			require.ErrorAs(t, err, &named)
			assert.Equal(t, "key", named.Key)
			require.ErrorContains(t, err, "held by process 2 since "+began.Format("2006-01-02T15:04:05"))
			return named.Holder
		}
		holder := cohort.Contender{Process: cohort.Process{Label: "process 2"}, Since: began, Epoch: held.Token().Epoch}
		assert.Equal(t, holder, try(here))
		holder.Own = true
		assert.Equal(t, holder, try(there))

		// While this process waits for the key, only the engine knows.
		waiting := make(chan cohort.Lock, 1)
		go func() {
			l, err := here.Acquire(t.Context(), "key")
			assert.NoError(t, err)
			waiting <- l
		}()
		synctest.Wait()
		_, err = here.TryAcquire(t.Context(), "key")
		require.Equal(t, cohort.ErrHeld, err)
		snapshot, err := here.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, snapshot, 1)
		holder.Own = false
		require.Len(t, snapshot[0].Engine, 2)
		assert.Equal(t, holder, snapshot[0].Engine[0], "a waiter sees what it waits for")
		snapshot, err = there.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, snapshot, 1)
		assert.Nil(t, snapshot[0].Engine, "who holds it does not ask")

		require.NoError(t, held.Release())
		require.NoError(t, (<-waiting).Release())
	})
}

// A Snapshot does not wait for an engine that cannot be reached for longer than its timeout.
func TestSnapshotOutlastsTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		engine := store.Engine()
		there := cohort.Start(t.Context(), store.Engine())
		here := cohort.Start(t.Context(), engine, cohort.WithEngineTimeout(time.Second))
		defer here.Close()
		defer there.Close()
		for _, key := range []string{"a", "b", "c"} {
			_, err := there.Acquire(t.Context(), key)
			require.NoError(t, err)
			go func() { _, _ = here.Acquire(t.Context(), key) }()
		}
		synctest.Wait()
		engine.Cut()
		began := time.Now()
		snapshot, err := here.Snapshot(t.Context())
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(began))
		require.Len(t, snapshot, 3)
		for _, k := range snapshot {
			require.Error(t, k.EngineErr)
			assert.Equal(t, cohort.ClaimWaiting, k.Claim.State)
		}
		engine.Heal()
	})
}
