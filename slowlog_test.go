package keylock_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
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
		m.ReserveSet(sharing("k")...)
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
		`t=3.5s level=INFO msg="keylock: slow hold ended" key=k held=3.5s outcome=released grant=1 mode=exclusive session=culprit`,
		`t=3.5s level=INFO msg="keylock: slow wait ended" key=k waited=3s outcome=granted mode=exclusive session=victim`,
	}
	require.GreaterOrEqual(t, len(lines), len(want))
	assert.Equal(t, want, lines[:len(want)])
	// The shared one holds for the rest of the hour, and is reported after 1, 2, 4, ... seconds.
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
	assert.Regexp(t, `t=1.5s level=INFO msg="keylock: slow wait ended" key=k waited=1.5s outcome=cancelled `, lines[2])
	assert.Regexp(t, `t=2.7s level=INFO msg="keylock: slow wait ended" key=k waited=1.2s outcome=closed `, lines[5])
}

func TestSlowLogTellsForWhichOfItsKeysARequestWaits(t *testing.T) {
	lines := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		m.TryAcquireSet(alone("b", "c")...)
		m.ReserveSet(alone("a", "b", "c")...)
		m.Reserve("c")
		m.Reserve("a")
		m.AcquireAll(t.Context())
		time.Sleep(time.Second + time.Millisecond)
	})
	require.Len(t, lines, 8)
	assert.Contains(t, lines[0], `msg="keylock: slow hold" key=c keys=2 held=1s queue=2 grant=1`)
	assert.Contains(t, lines[1], `msg="keylock: slow hold" keys=0 held=1s queue=0`)
	assert.Contains(t, lines[2], `msg="keylock: slow wait" key=b keys=3 waited=1s queue=1 mode=exclusive holder.grant=1`)
	assert.Contains(t, lines[3], `msg="keylock: slow wait" key=c waited=1s queue=2 mode=exclusive holder.grant=1`)
	assert.Contains(t, lines[4], `msg="keylock: slow wait" key=a waited=1s queue=2 mode=exclusive`, "a is not held")
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
	assert.Less(t, len(lines[0]), 500)
	assert.Contains(t, lines[0], `xxx\"…(1048577 bytes)" held`)
	assert.Contains(t, lines[0], `session="\"a\\nb\\xff\""`)
}

// A failingHandler notes the key of each record and how many are lost before it, but for
// those records in which it fails.
type failingHandler struct {
	slog.Handler
	fail   map[int64]func() // by the number of the call, from 1
	calls  atomic.Int64
	logged chan string
}

func newFailing(fail map[int64]func()) *failingHandler {
	return &failingHandler{fail: fail, logged: make(chan string, 1000)}
}

func (h *failingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *failingHandler) Handle(_ context.Context, r slog.Record) error {
	if fail := h.fail[h.calls.Add(1)]; fail != nil {
		fail()
	}
	text := ""
	for a := range r.Attrs {
		if a.Key == "key" || a.Key == "lost" {
			text += a.String() + " "
		}
	}
	h.logged <- strings.TrimSpace(text)
	return nil
}

// requireHolds holds keys from 1 to n for two seconds each, one after the other: two
// records for each.
func requireHolds(t *testing.T, m *keylock.Manager[int], n int) {
	for key := 1; key <= n; key++ {
		lock, ok := m.TryAcquire(key)
		require.True(t, ok)
		time.Sleep(1500 * time.Millisecond)
		lock.Release()
		synctest.Wait()
	}
}

func lostOf(t *testing.T, m *keylock.Manager[int]) uint64 {
	s, err := m.Stats(t.Context())
	require.NoError(t, err)
	return s.SlowLogLost
}

func drained(logged chan string) (all []string) {
	for len(logged) > 0 {
		all = append(all, <-logged)
	}
	return all
}

func TestSlowLogGoesOnWhateverTheLoggerDoes(t *testing.T) {
	panics, exits := func() { panic("in a logger") }, func() { runtime.Goexit() }
	for name, c := range map[string]struct {
		fail map[int64]func()
		want []string
		lost uint64
	}{
		"panic":             {map[int64]func(){1: panics}, []string{"key=1 lost=1", "key=2", "key=2", "key=3", "key=3"}, 1},
		"Goexit":            {map[int64]func(){2: exits}, []string{"key=1", "key=2 lost=1", "key=2", "key=3", "key=3"}, 1},
		"one after another": {map[int64]func(){1: exits, 2: panics, 3: exits, 4: exits}, []string{"key=3 lost=4", "key=3"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFailing(c.fail)
				m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
				requireHolds(t, m, 3)
				assert.Equal(t, c.want, drained(h.logged))
				assert.Equal(t, c.lost, lostOf(t, m))
				m.Close()
			})
		})
	}
	t.Run("always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newFailing(nil)
			h.fail = map[int64]func(){}
			for n := range int64(100) {
				h.fail[n] = []func(){panics, exits}[n%2]
			}
			m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
			requireHolds(t, m, 50)
			assert.Equal(t, []string{"key=50 lost=99"}, drained(h.logged))
			assert.EqualValues(t, 99, lostOf(t, m))
			m.Close()
		})
	})
}

// A call that does not return is left alone: others log the rest, as long as not all of them
// are stuck.
func TestSlowLogGoesOnBesideCallsThatBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		block := func() { <-free }
		h := newFailing(map[int64]func(){1: block, 4: block, 5: block})
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
		requireHolds(t, m, 10)
		logged := drained(h.logged)
		require.Len(t, logged, 17, "all but three")
		assert.Equal(t, []string{"key=1", "key=2"}, logged[:2])
		assert.Equal(t, "key=10", logged[16])
		close(free)
		synctest.Wait()
		assert.Len(t, drained(h.logged), 3, "they are not lost")
		assert.Zero(t, lostOf(t, m))
		requireHolds(t, m, 1)
		assert.Len(t, drained(h.logged), 2)
		m.Close()
	})
}

func TestBlockedLoggerCostsRecordsAndNotGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		h := newFailing(nil)
		h.fail = map[int64]func(){}
		for n := range int64(5) {
			h.fail[n] = func() { <-free }
		}
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
		for key := range 10 {
			m.TryAcquire(key)
		}
		time.Sleep(1<<20*time.Second + time.Millisecond) // 21 records for each
		lock, ok := m.TryAcquire(10)
		require.True(t, ok)
		lock.Release()
		const lost = 210 - 64 - 4
		assert.EqualValues(t, lost, lostOf(t, m), "four are being logged, 64 wait for it")
		assert.Empty(t, h.logged)

		close(free)
		synctest.Wait()
		assert.Len(t, drained(h.logged), 68)
		time.Sleep(1<<20*time.Second + time.Millisecond)
		assert.Contains(t, drained(h.logged)[0], fmt.Sprintf("lost=%d", lost), "the next record says so")
		m.Close()
	})
}

func TestCloseDoesNotWaitForABlockedLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		h := newFailing(map[int64]func(){1: func() { <-free }})
		m := keylock.Start[int](t.Context(), keylock.WithSlowLog(slog.New(h), time.Second))
		m.TryAcquire(1)
		time.Sleep(1100 * time.Millisecond)
		m.Close()
		<-m.Done()
		assert.Empty(t, h.logged)
		close(free)
		synctest.Wait()
		assert.Len(t, h.logged, 1)
	})
}

// All that a session holds ends with it, for the hold times and for the slow log.
func TestEveryHoldOfAClosedSessionEnds(t *testing.T) {
	records := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		s := m.Session("s")
		for _, key := range []string{"a", "b", "c"} {
			_, ok := s.TryAcquire(key)
			require.True(t, ok)
		}
		time.Sleep(1500 * time.Millisecond)
		s.Close()
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 3, stats.Holds.Count)
		assert.Zero(t, stats.OldestHold)
	})
	require.Len(t, records, 6)
	ended := strings.Join(records[3:], "\n")
	for _, key := range []string{"a", "b", "c"} {
		assert.Contains(t, ended, `msg="keylock: slow hold ended" key=`+key)
	}
}

// What began long ago is looked at rarely, and what begins beside it is not.
func TestOldHoldDoesNotDelayTheRecordsOfOthers(t *testing.T) {
	records := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		m.TryAcquire("old")
		time.Sleep(time.Hour)
		young, _ := m.TryAcquire("young")
		time.Sleep(1100 * time.Millisecond)
		young.Release()
		time.Sleep(10 * time.Minute)
	})
	require.Len(t, records, 12+2+1)
	assert.Contains(t, records[12], `t=1h0m1s level=WARN msg="keylock: slow hold" key=young held=1s`)
	assert.Contains(t, records[14], `t=1h8m16s level=WARN msg="keylock: slow hold" key=old`)
}

// A batch that was logged as waiting for one key, and then waits for another, leaves the
// log of the first key to the next wait.
func TestBatchThatMovesOnDoesNotSilenceItsFirstKey(t *testing.T) {
	records := slowLogged(t, time.Second, func(t *testing.T, m *keylock.Manager[string]) {
		a, _ := m.TryAcquire("a")
		m.TryAcquire("b")
		m.ReserveSet(alone("a", "b")...)
		time.Sleep(1100 * time.Millisecond) // logged: it waits for a
		a.Release()                         // it stands first there
		time.Sleep(time.Second)             // logged: it waits for b
		m.Reserve("a")                      // behind the batch
		time.Sleep(1100 * time.Millisecond)
	})
	var waits []string
	for _, r := range records {
		if strings.Contains(r, `msg="keylock: slow wait" `) {
			waits = append(waits, regexp.MustCompile(`key=(\w)`).FindStringSubmatch(r)[1])
		}
	}
	assert.Equal(t, []string{"a", "b", "a"}, waits)
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
