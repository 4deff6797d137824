package keylock_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// slowLogged runs fn in a bubble, with a manager whose slow log it returns, one line
// after the other, each with the time since the start.
func slowLogged(t *testing.T, after time.Duration, fn func(t *testing.T, m *keylock.Manager[string]), opts ...keylock.Option) []string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey && len(groups) == 0 {
					return slog.String("t", a.Value.Time().Sub(start).String())
				}
				return a
			},
		}))
		m := keylock.Start[string](t.Context(), append(opts, keylock.WithSlowLog(logger, after))...)
		fn(t, m)
		m.Close()
		synctest.Wait()
	})
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestSlowLogTellsWhileItHappensAndWhenItIsOver(t *testing.T) {
	lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		culprit, _ := m.Session("culprit").TryAcquire("k")
		time.Sleep(500 * time.Millisecond)
		victim := m.Session("victim").Reserve("k")
		m.ReserveShared("k")
		time.Sleep(3 * time.Second)
		culprit.Release()
		lock, err := victim.Wait(t.Context())
		require.NoError(t, err)
		lock.Release()
		time.Sleep(time.Hour)
	})
	want := []string{
		`t=1s level=WARN msg="keylock: slow hold" key=k held=1s queue=2 grant=1 mode=exclusive session=culprit`,
		`t=1.5s level=WARN msg="keylock: slow wait" key=k waited=1s queue=2 mode=exclusive session=victim holder.grant=1 holder.mode=exclusive holder.session=culprit holder.held=1.5s`,
		`t=2s level=WARN msg="keylock: slow hold" key=k held=2s queue=2 grant=1 mode=exclusive session=culprit`,
		`t=2.5s level=WARN msg="keylock: slow wait" key=k waited=2s queue=2 mode=exclusive session=victim holder.grant=1 holder.mode=exclusive holder.session=culprit holder.held=2.5s`,
		`t=3.5s level=INFO msg="keylock: slow hold is over" key=k held=3.5s outcome=released grant=1 mode=exclusive session=culprit`,
		`t=3.5s level=INFO msg="keylock: slow wait is over" key=k waited=3s outcome=granted mode=exclusive session=victim`,
	}
	require.GreaterOrEqual(t, len(lines), len(want))
	assert.Equal(t, want, lines[:len(want)])
	// The shared one holds for the rest of the hour, and is told of at 1, 2, 4, ... seconds.
	var at []string
	for _, l := range lines[len(want):] {
		assert.Contains(t, l, `msg="keylock: slow hold" key=k`)
		at = append(at, regexp.MustCompile(`held=(\S+)`).FindStringSubmatch(l)[1])
	}
	assert.Equal(t, []string{"1s", "2s", "4s", "8s", "16s", "32s", "1m4s", "2m8s", "4m16s", "8m32s", "17m4s", "34m8s"}, at)
}

func TestSlowLogTellsWhereAndHowAWaitEnded(t *testing.T) {
	lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		m.TryAcquire("k")
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err := m.Acquire(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		m.Reserve("k")
		time.Sleep(1200 * time.Millisecond)
	}, keylock.WithCallers())
	require.Len(t, lines, 6)
	caller := regexp.MustCompile(`caller="\S*/slowlog_test.go:\d+ \S+"`)
	for _, l := range lines {
		assert.Regexp(t, caller, l)
	}
	assert.Regexp(t, `holder.caller="\S*/slowlog_test.go:\d+ `, lines[1])
	assert.Regexp(t, `t=1.5s level=INFO msg="keylock: slow wait is over" key=k waited=1.5s outcome=cancelled `, lines[2])
	assert.Regexp(t, `t=2.7s level=INFO msg="keylock: slow wait is over" key=k waited=1.2s outcome=closed `, lines[5])
}

func TestSlowLogTellsForWhichOfItsKeysARequestWaits(t *testing.T) {
	lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		m.TryAcquireAll("b", "c")
		m.ReserveAll("a", "b", "c")
		m.Reserve("c")
		m.Reserve("a")
		m.AcquireAll(t.Context())
		time.Sleep(time.Second + time.Millisecond)
	})
	require.Len(t, lines, 8)
	assert.Contains(t, lines[0], `msg="keylock: slow hold" key=c keys=2 held=1s queue=2 grant=1`)
	assert.Contains(t, lines[1], `msg="keylock: slow hold" key="" held=1s queue=0`)
	assert.Contains(t, lines[2], `msg="keylock: slow wait" key=b keys=3 waited=1s queue=1 mode=exclusive holder.grant=1`)
	assert.Contains(t, lines[3], `msg="keylock: slow wait" key=c waited=1s queue=2 mode=exclusive holder.grant=1`)
	assert.Contains(t, lines[4], `msg="keylock: slow wait" key=a waited=1s queue=2 mode=exclusive`, "nobody holds a")
	assert.NotContains(t, lines[4], "holder")
}

func TestSlowLogIsNeverAFlood(t *testing.T) {
	t.Run("of one key", func(t *testing.T) {
		lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
			m.TryAcquire("k")
			for range 10_000 {
				m.Reserve("k")
			}
			time.Sleep(time.Second + time.Millisecond)
		})
		require.Len(t, lines, 3, "the hold, one wait, and its end")
		assert.Contains(t, lines[1], "queue=10000")
	})
	t.Run("of many keys", func(t *testing.T) {
		lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
			for key := range 10_000 {
				m.TryAcquire(fmt.Sprint(key))
			}
			time.Sleep(time.Second + time.Millisecond)
			s, err := m.Stats(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, 10_000-32, s.SlowLogLost)
			time.Sleep(time.Second)
		})
		require.Len(t, lines, 64)
		assert.Contains(t, lines[32], "lost=9968")
		assert.NotContains(t, lines[33], "lost=")
	})
}

func TestSlowLogMakesHostileTextHarmless(t *testing.T) {
	lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		m.Session("a\nb\xff").TryAcquire(strings.Repeat("x", 1<<20) + "\n")
		time.Sleep(time.Second + time.Millisecond)
	})
	require.Len(t, lines, 1)
	assert.Less(t, len(lines[0]), 400)
	assert.Contains(t, lines[0], `xxx…`)
	assert.Contains(t, lines[0], `session="a\nb�"`)
}

// blockedHandler is a handler that blocks until it may go on, and counts.
type blockedHandler struct {
	slog.Handler
	free  chan struct{}
	calls atomic.Int64
}

func (h *blockedHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *blockedHandler) Handle(context.Context, slog.Record) error {
	<-h.free
	h.calls.Add(1)
	return nil
}

func TestBlockedLoggerCostsLinesAndNotGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &blockedHandler{free: make(chan struct{})}
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
		for key := range 10 {
			m.TryAcquire(key)
		}
		time.Sleep(1<<20*time.Second + time.Millisecond) // 21 lines for each
		lock, ok := m.TryAcquire(10)
		require.True(t, ok)
		lock.Release()
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 210-64-1, s.SlowLogLost, "one is being logged, 64 wait for it")
		assert.Zero(t, h.calls.Load())

		m.Close() // does not wait for the logger
		<-m.Done()
		close(h.free)
		synctest.Wait()
		assert.EqualValues(t, 65, h.calls.Load())
	})
}

// panicking is a handler that panics.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("in a logger") }

func TestPanickingLoggerCostsLinesAndNotTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(panicking{}), time.Second))
		defer m.Close()
		lock, _ := m.TryAcquire(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		lock.Release()
		synctest.Wait()
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 7, s.SlowLogLost)
	})
}

// Each time that the owner looks at its clock is a request.
func TestSlowLogDoesNotPollWhenNobodyIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(slog.DiscardHandler), time.Second))
		defer m.Close()
		lock, _ := m.TryAcquire(1)
		lock.Release()
		time.Sleep(time.Hour)
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 4, s.Requests, "an acquire, a release, one look, and this question")
	})
}

func TestSlowLogLooksOnceForHoldsThatAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(slog.DiscardHandler), time.Second))
		defer m.Close()
		for range 1000 {
			lock, _ := m.TryAcquire(1)
			time.Sleep(10 * time.Millisecond)
			lock.Release()
		}
		s, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.LessOrEqual(t, s.Requests, uint64(2000+10+1))
	})
}

func TestWithSlowLogRefusesNonsense(t *testing.T) {
	assert.Panics(t, func() { keylock.WithSlowLog(nil, time.Second) })
	assert.Panics(t, func() { keylock.WithSlowLog(slog.Default(), 0) })
}
