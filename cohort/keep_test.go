package cohort_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

const idle = time.Second

// keeps starts the manager of one more process, which keeps up to so many keys.
func (w *world) keeps(keys int, opts ...cohort.Option) (*cohort.Manager, *cohorttest.Engine) {
	return w.process(append(opts, cohort.WithKeep(idle, keys))...)
}

// keepsKey has the manager keep a key.
func keepsKey(t *testing.T, m *cohort.Manager, key string) cohort.Token {
	l := acquire(t, m, key)
	require.NoError(t, l.Release())
	require.Equal(t, cohort.ClaimKept, stateOf(t, m, key))
	return l.Token()
}

func stateOf(t *testing.T, m *cohort.Manager, key string) cohort.State {
	info, err := m.Inspect(t.Context(), key)
	require.NoError(t, err)
	return info.Claim.State
}

func statsOf(t *testing.T, m *cohort.Manager) cohort.Stats {
	s, err := m.Stats(t.Context())
	require.NoError(t, err)
	return s
}

func TestKeptKeyNeedsNoEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		first := keepsKey(t, m, "k")
		e.Cut()
		for i := range 5 {
			l := acquire(t, m, "k")
			assert.Equal(t, cohort.Token{Epoch: first.Epoch, Seq: first.Seq + uint64(i) + 1}, l.Token())
			require.NoError(t, l.Release())
		}
		l, err := m.TryAcquire(t.Context(), "k")
		require.NoError(t, err)
		next := wait(t.Context(), m, "k")
		require.NoError(t, l.Release())
		require.NoError(t, (<-next).lock.Release())
		e.Heal()
		s := statsOf(t, m)
		assert.Equal(t, uint64(1), s.Granted)
		assert.Equal(t, uint64(7), s.Hits, "also for a caller that waited for it")
		assert.Zero(t, s.Handoffs)
		assert.Equal(t, 1, s.Kept)
		assert.Equal(t, 1, s.Held)
		assert.Zero(t, s.Recalls)
	})
}

func TestKeptKeyIsRecalledByAnotherProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(2)
		theirs, _ := w.process()
		token := keepsKey(t, m, "k")
		keepsKey(t, m, "other")
		began := time.Now()
		l := acquire(t, theirs, "k")
		assert.Zero(t, time.Since(began), "it did not have to wait until the key was idle")
		assert.Equal(t, 1, l.Token().Compare(token))
		synctest.Wait() // the recall is counted when the engine has confirmed it
		s := statsOf(t, m)
		assert.Equal(t, uint64(1), s.Recalls)
		assert.Equal(t, 1, s.Kept, "the other key")
		require.NoError(t, l.Release())
	})
}

// Who tries in another process finds a kept key held once, and the next time free.
func TestTryRecallsAKeptKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(1)
		theirs, _ := w.process()
		keepsKey(t, m, "k")
		_, err := theirs.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld)
		synctest.Wait()
		l, err := theirs.TryAcquire(t.Context(), "k")
		require.NoError(t, err)
		require.NoError(t, l.Release())
	})
}

func TestIdleKeyIsGivenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(3)
		for _, key := range []string{"a", "b", "c"} {
			keepsKey(t, m, key)
			time.Sleep(idle / 4)
		}
		for range 4 { // one of them is used
			l := acquire(t, m, "a")
			time.Sleep(idle / 4)
			require.NoError(t, l.Release())
		}
		assert.Equal(t, 1, w.store.Len("a"))
		assert.Zero(t, w.store.Len("b"))
		assert.Zero(t, w.store.Len("c"))
		time.Sleep(idle - time.Millisecond)
		assert.Equal(t, 1, w.store.Len("a"), "it is kept since its last release")
		time.Sleep(2 * time.Millisecond)
		assert.Zero(t, w.store.Len("a"))
		s := statsOf(t, m)
		assert.Zero(t, s.Kept)
		assert.Zero(t, s.Held)
		assert.Zero(t, s.Recalls, "no other process wanted one")
	})
}

// A key may be kept until another process wants it. The end of that time used to lie in the past.
func TestKeyIsKeptForTheLongestTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process(cohort.WithKeep(math.MaxInt64, 1))
		theirs, _ := w.process()
		for range 2 {
			time.Sleep(time.Hour)
			keepsKey(t, m, "k")
			synctest.Wait()
			require.Equal(t, 1, statsOf(t, m).Kept)
		}
		l := acquire(t, theirs, "k")
		require.NoError(t, l.Release())
	})
}

// Claims are granted and kept between the moment at which Stats learns how many there are and the one at which it learns
// how many are kept. The others, which metrics show, were fewer than none.
func TestStatsCountNoMoreKeptThanHeld(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	const most = 2000
	m := cohort.Start(t.Context(), store.Engine(), cohort.WithKeep(time.Hour, most))
	defer m.Close()
	used := make(chan struct{})
	go func() {
		defer close(used)
		for i := range most {
			l, err := m.Acquire(t.Context(), fmt.Sprint(i))
			if assert.NoError(t, err) {
				assert.NoError(t, l.Release())
			}
		}
	}()
	for !ended.Is(used) {
		s := statsOf(t, m)
		assert.LessOrEqual(t, s.Kept, s.Held)
	}
	assert.Equal(t, most, statsOf(t, m).Kept)
}

func TestFullStoreKeepsNothingNew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(2)
		keepsKey(t, m, "a")
		keepsKey(t, m, "b")
		require.NoError(t, acquire(t, m, "c").Release())
		assert.Zero(t, w.store.Len("c"))
		a := acquire(t, m, "a") // which makes room
		keepsKey(t, m, "c")
		require.NoError(t, a.Release())
		assert.Zero(t, w.store.Len("a"))
		assert.Equal(t, 2, statsOf(t, m).Kept)
	})
}

func TestKeptKeyThatIsLostIsAcquiredAnew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		token := keepsKey(t, m, "k")
		e.Expire()
		synctest.Wait()
		assert.Equal(t, cohort.NoClaim, stateOf(t, m, "k"))
		l := acquire(t, m, "k")
		assert.Greater(t, l.Token().Epoch, token.Epoch)
		require.NoError(t, l.Context().Err())
		require.NoError(t, l.Release(), "the loss was not that of this holder")
		assert.Equal(t, uint64(1), statsOf(t, m).Lost)
		assert.Zero(t, statsOf(t, m).Recalls)
		assert.Equal(t, 1, w.store.Len("k"), "a loss does not make the key shy")
	})
}

// A process that was paused past its deadline does not trust what it has kept, although no timer has run.
func TestKeptKeyPastItsDeadlineIsNotUsed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		theirs, _ := w.process()
		keepsKey(t, m, "k")
		e.Pause()
		require.Zero(t, w.store.Len("k"))
		stolen := acquire(t, theirs, "k")
		ours := wait(t.Context(), m, "k")
		assert.Empty(t, ours)
		require.NoError(t, stolen.Release())
		got := <-ours
		require.NoError(t, got.err)
		assert.Equal(t, 1, got.lock.Token().Compare(stolen.Token()))
		require.NoError(t, got.lock.Release())
	})
}

// A lock that is lost while it is held is not kept, and its holder hears of it.
func TestLostKeyIsNotKept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		l := acquire(t, m, "k")
		e.Pause()
		require.ErrorIs(t, l.Release(), cohort.ErrLost)
		assert.Zero(t, statsOf(t, m).Kept)
	})
}

func TestDeafEngineKeepsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(2)
		keepsKey(t, m, "kept")
		e.Deafen()
		synctest.Wait()
		assert.Zero(t, w.store.Len("kept"), "it could not be recalled")
		require.NoError(t, acquire(t, m, "deaf").Release())
		assert.Zero(t, w.store.Len("deaf"))
		e.Hear()
		keepsKey(t, m, "deaf")
	})
}

// simple is an engine that cannot tell when another process wants a key.
type simple struct{ cohort.Engine }

type simpleGrant struct{ cohort.Grant }

func (s simple) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	g, err := s.Engine.Acquire(ctx, key)
	if err != nil {
		return nil, err
	}
	return simpleGrant{g}, nil
}

func TestEngineThatCannotTellWorksAsEver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := cohort.Start(t.Context(), simple{w.store.Engine()}, cohort.WithKeep(idle, 10), cohort.WithMaxHandoffs(2))
		defer m.Close()
		assert.Equal(t, []int{3, 3, 1}, holdersByGrant(t, m, 7))
		assert.Zero(t, w.store.Len("k"))
	})
}

// A key that only one process uses never goes back while callers wait for it there.
func TestHandoffsAreNotBoundedWhileNoOtherProcessWantsTheKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.process(cohort.WithMaxHandoffs(2), cohort.WithMaxHold(time.Millisecond))
		assert.Equal(t, []int{50}, holdersByGrant(t, m, 50))
		assert.Zero(t, w.store.Len("k"))
	})
}

// holdersByGrant has n callers wait for a key, and returns how many shared each grant of the engine.
func holdersByGrant(t *testing.T, m *cohort.Manager, n int) (holders []int) {
	waiting := []<-chan result{wait(t.Context(), m, "k")}
	for range n - 1 {
		waiting = append(waiting, wait(t.Context(), m, "k"))
	}
	var last uint64
	for _, next := range waiting {
		got := <-next
		require.NoError(t, got.err)
		if got.lock.Token().Epoch != last {
			holders = append(holders, 0)
		}
		last = got.lock.Token().Epoch
		holders[len(holders)-1]++
		time.Sleep(time.Millisecond)
		require.NoError(t, got.lock.Release())
	}
	return holders
}

// Handoffs and time count from when another process comes, however long the key was handed off before.
func TestHandoffsCountFromWhenTheKeyIsWanted(t *testing.T) {
	for _, bound := range []cohort.Option{cohort.WithMaxHandoffs(2), cohort.WithMaxHold(3 * time.Millisecond)} {
		inWorld(t, func(t *testing.T, w *world) {
			m, _ := w.process(bound)
			theirs, _ := w.process()
			var waiting []<-chan result
			for range 20 {
				waiting = append(waiting, wait(t.Context(), m, "k"))
			}
			var other <-chan result
			for i, next := range waiting {
				got := <-next
				require.NoError(t, got.err)
				assert.Equal(t, i >= 13, got.lock.Token().Epoch > 1, i)
				if i == 10 {
					other = wait(t.Context(), theirs, "k")
				}
				time.Sleep(time.Millisecond)
				require.NoError(t, got.lock.Release())
				if i == 12 {
					require.NoError(t, (<-other).lock.Release())
				}
			}
		})
	}
}

// Processes that take turns should not recall the key each time: it is kept less and less often.
func TestKeyThatIsRecalledBecomesShy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(10)
		theirs, _ := w.process()
		turn := func() bool {
			require.NoError(t, acquire(t, m, "k").Release())
			kept := stateOf(t, m, "k") == cohort.ClaimKept
			require.NoError(t, acquire(t, theirs, "k").Release())
			return kept
		}
		var skipped []int
		n := 0
		for len(skipped) < 9 {
			if turn() {
				skipped = append(skipped, n)
				n = -1
			}
			n++
		}
		assert.Equal(t, []int{0, 1, 3, 7, 15, 31, 63, 63, 63}, skipped)
		keepsKey(t, m, "another")
	})
}

func TestKeyThatServedItsHoldersIsNotShy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(1)
		theirs, _ := w.process()
		recall := func(holders int) {
			for range holders {
				keepsKey(t, m, "k")
			}
			require.NoError(t, acquire(t, theirs, "k").Release())
		}
		recall(1) // and so it is skipped once
		require.NoError(t, acquire(t, m, "k").Release())
		require.Equal(t, cohort.NoClaim, stateOf(t, m, "k"))
		recall(4) // the first was not served by a kept claim
		recall(3) // shy again, but as if for the first time
		require.NoError(t, acquire(t, m, "k").Release())
		require.Equal(t, cohort.NoClaim, stateOf(t, m, "k"))
		keepsKey(t, m, "k")
	})
}

// Whether a claim of a shy key is skipped is decided once, however many callers of the process share the claim. When more than
// three have shared it, it is kept all the same: a hot key stayed at handoffs for as long as callers waited.
func TestShyKeyIsSkippedOncePerClaim(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(1)
		theirs, _ := w.process()
		keepsKey(t, m, "k")
		require.NoError(t, acquire(t, theirs, "k").Release()) // and so it is shy
		require.NoError(t, acquire(t, m, "k").Release())
		keepsKey(t, m, "k")
		require.NoError(t, acquire(t, theirs, "k").Release()) // and now three claims are skipped
		before := statsOf(t, m)
		share := func(holders int) cohort.State {
			var waiting []<-chan result
			for range holders {
				waiting = append(waiting, wait(t.Context(), m, "k"))
			}
			for _, next := range waiting {
				require.NoError(t, (<-next).lock.Release())
			}
			return stateOf(t, m, "k")
		}
		for range 2 {
			require.Equal(t, cohort.NoClaim, share(3))
		}
		s := statsOf(t, m)
		assert.Equal(t, uint64(4), s.Handoffs-before.Handoffs)
		assert.Equal(t, before.Hits, s.Hits)
		assert.Equal(t, cohort.ClaimKept, share(6))
		s = statsOf(t, m)
		assert.Equal(t, uint64(7), s.Handoffs-before.Handoffs)
		assert.Equal(t, before.Hits+2, s.Hits)
	})
}

// A key becomes shy by the holders that its claim has served, and not only by those that found it kept: one that was handed off
// to its last holders, because another process wanted it, had become shy, also where each claim served dozens.
func TestHotKeyThatAnotherProcessWantsIsNotShy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(1)
		theirs, _ := w.process()
		l := acquire(t, m, "k")
		var waiting []<-chan result
		for range 3 {
			waiting = append(waiting, wait(t.Context(), m, "k"))
		}
		var other <-chan result
		for _, next := range waiting {
			require.NoError(t, l.Release())
			l = (<-next).lock
			if other == nil {
				other = wait(t.Context(), theirs, "k")
			}
		}
		require.NoError(t, l.Release())
		require.NoError(t, (<-other).lock.Release())
		s := statsOf(t, m)
		require.Equal(t, uint64(1), s.Hits)
		require.Equal(t, uint64(2), s.Handoffs)
		keepsKey(t, m, "k")
	})
}

// A caller of the process waits when the key is released. It finds the key kept, or, when another process wants it too, is handed
// the key off. Neither asks the engine.
func TestWaiterFindsTheKeyKept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		theirs, _ := w.process()
		l := acquire(t, m, "k")
		next := wait(t.Context(), m, "k")
		require.NoError(t, l.Release())
		l = (<-next).lock
		assert.Equal(t, uint64(1), statsOf(t, m).Hits)

		other := wait(t.Context(), theirs, "k")
		e.Cut() // and what comes now asks no engine
		next = wait(t.Context(), m, "k")
		require.NoError(t, l.Release())
		l = (<-next).lock
		assert.Equal(t, uint64(1), statsOf(t, m).Handoffs, "another process wants it, so it is not kept")
		e.Heal()
		require.NoError(t, l.Release())
		require.NoError(t, (<-other).lock.Release())
	})
}

// While a key is given back, its next caller waits for that, so that the process is not in the engine's queue twice.
func TestCallerWaitsUntilARecalledKeyIsBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		theirs, _ := w.process()
		keepsKey(t, m, "k")
		e.Script(cohorttest.Fault{Call: cohorttest.Release, Delay: time.Second})
		other := wait(t.Context(), theirs, "k")
		ours := wait(t.Context(), m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		leaves := wait(ctx, m, "k")
		cancel()
		require.ErrorIs(t, (<-leaves).err, context.Canceled)
		assert.Equal(t, 2, w.store.Len("k"), "the kept claim and that of the other process")
		_, err := m.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld)
		require.Empty(t, other, "the kept key is on its way back")
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, (<-other).lock.Release())
		require.NoError(t, (<-ours).lock.Release())
	})
}

func TestCallerThatWaitsForARecallMayGiveUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.keeps(1)
		theirs, _ := w.process()
		keepsKey(t, m, "k")
		e.Cut()
		_, err := theirs.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = m.Acquire(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = m.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld)
		require.NoError(t, m.WaitIdle(t.Context()))
		e.Heal()
		require.NoError(t, acquire(t, m, "k").Release())
	})
}

func TestWaitIdleDoesNotCountKeptKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(1)
		keepsKey(t, m, "k")
		require.NoError(t, m.WaitIdle(t.Context()))
		assert.Equal(t, 1, w.store.Len("k"))
	})
}

func TestSnapshotShowsKeptKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(2)
		token := keepsKey(t, m, "kept")
		l := acquire(t, m, "held")
		infos, err := m.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, infos, 2)
		assert.Equal(t, "held", infos[0].Key)
		assert.Equal(t, cohort.ClaimHeld, infos[0].Claim.State)
		assert.Equal(t, "kept", infos[1].Key)
		assert.Equal(t, cohort.Claim{State: cohort.ClaimKept, Since: infos[1].Claim.Since, Token: token}, infos[1].Claim)
		assert.Contains(t, infos[1].String(), "kept, granted "+infos[1].Claim.Since.Format(time.RFC3339))
		require.NoError(t, l.Release())
	})
}

// Shutdown gives the keys that are kept back at once, also while other keys are still held.
func TestShutdownGivesKeptKeysBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(200)
		theirs, _ := w.process()
		var keys []string
		for i := range 200 {
			keys = append(keys, fmt.Sprint(i))
			keepsKey(t, m, keys[i])
		}
		held := acquire(t, m, "0")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		down := make(chan error, 1)
		go func() { down <- m.Shutdown(ctx) }()
		synctest.Wait()
		for _, key := range keys[1:] {
			l, err := theirs.TryAcquire(t.Context(), key)
			require.NoError(t, err, key)
			require.NoError(t, l.Release())
		}
		require.NoError(t, held.Release())
		require.NoError(t, <-down)
		assert.Zero(t, w.store.Len("0"), "nothing is kept any more")
	})
}

func TestCloseGivesKeptKeysBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, _ := w.keeps(100)
		for i := range 100 {
			keepsKey(t, m, fmt.Sprint(i))
		}
		require.NoError(t, m.Close())
		for i := range 100 {
			assert.Zero(t, w.store.Len(fmt.Sprint(i)))
		}
	})
}

// A thousand kept keys have no goroutines of their own, and another process gets them all.
func TestManyKeptKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const n = 1000
		m, _ := w.keeps(n)
		theirs, _ := w.process()
		before := runtime.NumGoroutine()
		for i := range n {
			keepsKey(t, m, fmt.Sprint(i))
		}
		synctest.Wait()
		assert.LessOrEqual(t, runtime.NumGoroutine(), before+10)
		assert.Equal(t, n, statsOf(t, m).Kept)
		var waiting []<-chan result
		for i := range n {
			waiting = append(waiting, wait(t.Context(), theirs, fmt.Sprint(i)))
		}
		for _, next := range slices.Backward(waiting) {
			got := <-next
			require.NoError(t, got.err)
			require.NoError(t, got.lock.Release())
		}
		synctest.Wait()
		assert.Zero(t, statsOf(t, m).Kept)
		assert.Equal(t, uint64(n), statsOf(t, m).Recalls)
	})
}

func TestKeepRefusesNonsense(t *testing.T) {
	assert.PanicsWithValue(t, "cohort: WithKeep(0s): want more than 0", func() { cohort.WithKeep(0, 1) })
	assert.PanicsWithValue(t, "cohort: WithKeep(1s, 0): want at least one key", func() { cohort.WithKeep(time.Second, 0) })
}

func TestHolderLearnsThatItsKeyIsWanted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m, e := w.process()
		theirs, _ := w.process()
		closed := func(c <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		l := acquire(t, m, "k")
		wanted := l.Wanted()
		require.False(t, closed(wanted))
		_, err := theirs.TryAcquire(t.Context(), "k")
		require.ErrorIs(t, err, cohort.ErrHeld)
		assert.True(t, closed(wanted), "by another process")
		require.NoError(t, l.Release())

		l = acquire(t, m, "k")
		wanted = l.Wanted()
		next := wait(t.Context(), m, "k")
		assert.True(t, closed(wanted), "by another caller of this process")
		require.NoError(t, l.Release())
		l = (<-next).lock
		wanted = l.Wanted()
		require.False(t, closed(wanted))
		e.Expire()
		assert.True(t, closed(wanted), "it is lost")
		require.ErrorIs(t, l.Release(), cohort.ErrLost)

		l = acquire(t, m, "k")
		wanted = l.Wanted()
		require.NoError(t, l.Release())
		assert.True(t, closed(wanted), "it is released")
		assert.True(t, closed(l.Wanted()))
		assert.True(t, closed(cohort.Lock{}.Wanted()))
	})
}

// mute is an engine that cannot tell when another process wants a key.
type mute struct{ *cohorttest.Engine }

func (e mute) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	g, err := e.Engine.Acquire(ctx, key)
	return struct{ cohort.Grant }{g}, err
}

func TestHolderOfAMuteEngineLearnsOfItsLoss(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		engine := w.store.Engine()
		m := cohort.Start(t.Context(), mute{engine})
		defer m.Close()
		wanted := acquire(t, m, "k").Wanted()
		synctest.Wait()
		select {
		case <-wanted:
			t.Fatal("nothing is known of another process")
		default:
		}
		engine.Expire()
		<-wanted
	})
}
