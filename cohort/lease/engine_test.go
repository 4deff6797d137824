package lease_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	s := newServer()
	links := make(map[cohort.Engine]*link)
	cohorttest.Run(t, cohorttest.Harness{
		Within: 2 * time.Minute,
		Engine: func() (cohort.Engine, error) {
			l := s.link()
			e, err := lease.New(l, lease.Config{Name: "memory", TTL: 4 * time.Second}) // which is not lost because the machine is busy
			links[e] = l
			return e, err
		},
		Revoke: func(e cohort.Engine) error { s.revoke(links[e].session()); return nil },
		Cut:    func(e cohort.Engine) error { links[e].cut(); return nil },
		Heal:   func(e cohort.Engine) error { links[e].heal(); return nil },
	})
	require.Eventually(t, func() bool { _, entries := s.left(); return entries == 0 }, time.Minute, time.Millisecond)
}

const ttl = 10 * time.Second

// bubble runs f in a bubble with a server, and checks that nothing is left at it.
func bubble(t *testing.T, f func(t *testing.T, s *server)) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		f(t, s)
		synctest.Wait()
		_, entries := s.left()
		assert.Zero(t, entries, "entries are left behind")
	})
}

// process returns the engine of one more process, which is closed when the test ends.
func process(t *testing.T, s *server) (*lease.Engine, *link) {
	l := s.link()
	e, err := lease.New(l, lease.Config{Name: "memory", TTL: ttl})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close(context.Background())) })
	return e, l
}

func acquire(t *testing.T, e *lease.Engine, key string) *lease.Grant {
	t.Helper()
	g, err := e.Acquire(t.Context(), key)
	require.NoError(t, err)
	return g.(*lease.Grant)
}

// What is granted before notices arrive counts as wanted. That used to be the first key of each session.
func TestFirstGrantOfASessionIsWantedByNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		for range 3 {
			g := acquire(t, e, "key")
			synctest.Wait()
			select {
			case <-g.Wanted():
				assert.Fail(t, "there is no other process")
			default:
			}
			s.revoke(l.session())
			<-g.Lost()
			assert.Error(t, g.Release(t.Context()))
		}
	})
}

// begin starts an Acquire, and returns when it waits.
func begin(t *testing.T, e *lease.Engine, key string) <-chan *lease.Grant {
	granted := make(chan *lease.Grant, 1)
	go func() {
		if g, err := e.Acquire(t.Context(), key); err == nil {
			granted <- g.(*lease.Grant)
		} else {
			assert.Error(t, t.Context().Err(), "%v", err)
		}
	}()
	synctest.Wait()
	return granted
}

// failing makes one kind of call fail, after it was carried out or without.
func failing(which call, carriedOut bool, err error) func(call, func()) error {
	return func(c call, do func()) error {
		if c != which {
			do()
			return nil
		}
		if carriedOut {
			do()
		}
		return err
	}
}

// The replies to renewals are late by half of the TTL, and then stay away: the
// deadline counts from when the last confirmed renewal was sent.
func TestTrustCountsFromTheSending(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		g := acquire(t, e, "key")
		began := time.Now()
		l.set(func(c call, do func()) error {
			do()
			if c == "renew" {
				time.Sleep(5 * time.Second)
			}
			return nil
		})
		time.Sleep(9 * time.Second) // the renewal that was sent at 2.5 s was confirmed at 7.5 s
		assert.False(t, ended.Is(g.Lost()))
		l.set(failing("renew", true, errors.New("the reply is lost")))
		<-g.Lost()
		// Two more were sent before, at 5 and 7.5 s, and confirmed at 10 and 12.5 s: the last counts from 7.5 s.
		assert.Equal(t, 15500*time.Millisecond, time.Since(began))
		require.ErrorIs(t, g.Release(t.Context()), cohort.ErrLost)
	})
}

// A process that was paused wakes before its timers: the clock decides.
func TestPausedHolderIsLateByTheClock(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		g := acquire(t, e, "key")
		e.Overdue()
		assert.True(t, ended.Is(g.Lost()))
		require.ErrorIs(t, g.Release(t.Context()), cohort.ErrLost)
		g = acquire(t, e, "key")
		e.Overdue()
		require.ErrorIs(t, g.Release(t.Context()), cohort.ErrLost)
		g = acquire(t, e, "key") // in another session
		require.NoError(t, g.Release(t.Context()))
	})
}

// A grant that comes to a process that was paused beyond its deadline is not taken.
func TestGrantAfterThePauseIsNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, l := process(t, s)
		held := acquire(t, holder, "key")
		granted := begin(t, e, "key")
		before := l.session()
		e.Overdue()
		require.NoError(t, held.Release(t.Context()))
		g := <-granted
		assert.NotEqual(t, before, g.Entry().Session.ID)
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestLostNoticeIsRepairedByALook(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, l := process(t, s)
		held := acquire(t, holder, "key")
		granted := begin(t, e, "key")
		l.beDeaf(true)
		released := time.Now()
		require.NoError(t, held.Release(t.Context()))
		synctest.Wait()
		require.Empty(t, granted, "the notice is lost")
		g := <-granted
		assert.LessOrEqual(t, time.Since(released), ttl/4)
		require.NoError(t, g.Release(t.Context()))
	})
}

// A notice was lost while nothing listened: every waiter asks when something does again.
func TestWaitersLookWhenTheSubscriptionWasRenewed(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, l := process(t, s)
		held := acquire(t, holder, "key")
		granted := begin(t, e, "key")
		l.beDeaf(true)
		require.NoError(t, held.Release(t.Context()))
		synctest.Wait()
		require.Empty(t, granted, "the notice is lost")
		l.beDeaf(false)
		l.drop <- struct{}{}
		renewed := time.Now()
		g := <-granted
		assert.Less(t, time.Since(renewed), ttl/20)
		require.NoError(t, g.Release(t.Context()))
	})
}

// The subscription begins while the reply to an Enter is on its way, and between the two the key became free: what
// the reply says is old.
func TestLookWhileTheReplyIsOnItsWayIsNotLost(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, l := process(t, s)
		require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		held := acquire(t, holder, "key")
		l.set(func(c call, do func()) error {
			do()
			if c == "enter" {
				time.Sleep(time.Second)
			}
			return nil
		})
		l.beDeaf(true)
		began := time.Now()
		granted := begin(t, e, "key") // the server has it in the queue
		require.NoError(t, held.Release(t.Context()))
		synctest.Wait()
		l.beDeaf(false)
		l.drop <- struct{}{}
		synctest.Wait()
		require.Empty(t, granted, "the notice is lost, and the reply is on its way")
		g := <-granted
		assert.LessOrEqual(t, time.Since(began), 2*time.Second)
		require.NoError(t, g.Release(t.Context()))
	})
}

// Waiters whose numbers share a place in the session each get their own notices, at once.
func TestNoticeReachesTheWaiterWithItsNumber(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, _ := process(t, s)
		first, second := acquire(t, holder, "first"), acquire(t, holder, "second")
		waitsFirst := begin(t, e, "first")
		for range 1023 {
			require.NoError(t, acquire(t, e, "another").Release(t.Context()))
		}
		waitsSecond := begin(t, e, "second") // 1,024 later than the other
		began := time.Now()
		require.NoError(t, first.Release(t.Context()))
		g := <-waitsFirst
		assert.Equal(t, "first", g.Key())
		assert.Empty(t, waitsSecond)
		require.NoError(t, second.Release(t.Context()))
		other := <-waitsSecond
		assert.Zero(t, time.Since(began))
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, other.Release(t.Context()))
	})
}

// More notices come at once than are kept, for waiters that are not in their places: they look instead.
func TestManyNoticesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, _ := process(t, s)
		const keys = 3000
		var held []*lease.Grant
		var granted []<-chan *lease.Grant
		for i := range keys {
			held = append(held, acquire(t, holder, strconv.Itoa(i)))
		}
		for i := range keys {
			granted = append(granted, begin(t, e, strconv.Itoa(i)))
		}
		began := time.Now()
		for _, g := range held {
			require.NoError(t, g.Release(t.Context()))
		}
		for _, g := range granted {
			require.NoError(t, (<-g).Release(t.Context()))
		}
		assert.Zero(t, time.Since(began))
	})
}

// The wait for a dead process ends with its session, although no notice is sent.
func TestDeadHeadIsMetWhenItsSessionHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		dead, l := process(t, s)
		acquire(t, dead, "key")
		e, _ := process(t, s)
		granted := begin(t, e, "key")
		l.cut()
		cut := time.Now()
		require.Empty(t, granted)
		g := <-granted
		assert.LessOrEqual(t, time.Since(cut), ttl+2*time.Millisecond)
		l.heal()
		require.NoError(t, g.Release(t.Context()))
	})
}

// The reply to an Enter is lost, its caller gives up, and the request arrives at the store after the
// Leave: it must do nothing then.
func TestEnterThatArrivesLateDoesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		var late atomic.Bool
		l.set(func(c call, do func()) error {
			if c == "enter" {
				time.AfterFunc(3*time.Second, func() { do(); late.Store(true) })
				return errors.New("the connection was lost")
			}
			do()
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "the connection was lost", "it says what went wrong before")
		l.set(nil)
		time.Sleep(5 * time.Second)
		require.True(t, late.Load())
		_, entries := s.left()
		assert.Zero(t, entries)
		g, err := e.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, g.Release(t.Context()))
	})
}

// The Leave of a cancelled Acquire waits for the reply to its Enter, and leaves no note.
func TestCleanUpFollowsTheReply(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		l.set(func(c call, do func()) error {
			if c == "enter" {
				time.Sleep(time.Second)
			}
			do()
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := e.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 100*time.Millisecond, time.Since(began), "Acquire returns at once")
		time.Sleep(2 * time.Second)
		assert.Empty(t, s.refused)
	})
}

// The notice of a grant overtakes the reply to the Enter: the Leave waits for the reply, and leaves no note.
// A busy key would otherwise leave one for each of its grants, in a session that lives on.
func TestReleaseFollowsTheReply(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, l := process(t, s)
		held := acquire(t, holder, "key")
		l.set(func(c call, do func()) error {
			do()
			if c == "enter" {
				time.Sleep(time.Second)
			}
			return nil
		})
		granted := begin(t, e, "key")
		require.NoError(t, held.Release(t.Context()))
		began := time.Now()
		g := <-granted
		assert.Zero(t, time.Since(began), "the notice is enough for a grant")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, g.Release(ctx), context.DeadlineExceeded)
		require.NoError(t, g.Release(t.Context()))
		assert.Equal(t, time.Second, time.Since(began))
		assert.Empty(t, s.refused)
	})
}

// Whatever the errors are, a release goes on until it is confirmed.
func TestReleaseOutlastsErrors(t *testing.T) {
	for name, err := range map[string]error{
		"that pass": errors.New("no leader"), "refusals": lease.Refused(errors.New("permission denied")), "held": cohort.ErrHeld,
	} {
		for _, carriedOut := range []bool{true, false} {
			t.Run(name+", carried out: "+strconv.FormatBool(carriedOut), func(t *testing.T) {
				bubble(t, func(t *testing.T, s *server) {
					e, l := process(t, s)
					other, _ := process(t, s)
					g := acquire(t, e, "key")
					l.set(failing("leave", carriedOut, err))
					short, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					require.ErrorIs(t, g.Release(short), context.DeadlineExceeded)
					l.set(nil)
					require.NoError(t, acquire(t, other, "key").Release(t.Context()))
					require.NoError(t, g.Release(t.Context()), "it was a success, and says so")
					assert.True(t, ended.Is(g.Lost()))
				})
			})
		}
	}
}

func TestRefusalEndsAnAcquire(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		denied := errors.New("permission denied")
		for _, c := range []call{"begin", "enter"} {
			l.set(failing(c, false, lease.Refused(denied)))
			_, err := e.Acquire(t.Context(), "key")
			require.ErrorIs(t, err, denied)
			_, err = e.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, denied)
			require.NotErrorIs(t, err, cohort.ErrHeld)
			l.set(nil)
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		}
	})
}

// More keys are held than one renewal asks about: each is asked about in its turn.
func TestEveryHeldKeyIsAudited(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		var held []*lease.Grant
		for i := range 3000 {
			held = append(held, acquire(t, e, strconv.Itoa(i)))
		}
		for _, i := range []int{0, 1500, 2999} {
			s.delete(strconv.Itoa(i))
		}
		time.Sleep(3*ttl/4 + time.Second)
		for i, g := range held {
			if lost := i%1500 == 0 || i == 2999; assert.Equal(t, lost, ended.Is(g.Lost()), i) && lost {
				require.ErrorIs(t, g.Release(t.Context()), cohort.ErrLost)
			} else {
				require.NoError(t, g.Release(t.Context()))
			}
		}
	})
}

func TestWantedIsSignalled(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		a, _ := process(t, s)
		b, _ := process(t, s)
		c, _ := process(t, s)
		for _, e := range []*lease.Engine{a, b, c} {
			hear(t, e)
		}
		held := acquire(t, a, "key")
		synctest.Wait()
		assert.False(t, ended.Is(held.Wanted()))
		second := begin(t, b, "key")
		third := begin(t, c, "key")
		assert.True(t, ended.Is(held.Wanted()))
		require.NoError(t, held.Release(t.Context()))
		g := <-second
		synctest.Wait()
		assert.True(t, ended.Is(g.Wanted()), "from the start, because another waits")
		require.NoError(t, g.Release(t.Context()))
		g = <-third
		synctest.Wait()
		assert.False(t, ended.Is(g.Wanted()))
		require.NoError(t, g.Release(t.Context()))
	})
}

// hear has the engine begin its session and listen. What it is granted before may count as wanted.
func hear(t *testing.T, e *lease.Engine) {
	require.NoError(t, acquire(t, e, "another key").Release(t.Context()))
	synctest.Wait()
}

func TestRefusedTryIsSignalled(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		a, _ := process(t, s)
		b, _ := process(t, s)
		hear(t, a)
		held := acquire(t, a, "key")
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, cohort.ErrHeld)
		synctest.Wait()
		assert.True(t, ended.Is(held.Wanted()))
		require.NoError(t, held.Release(t.Context()))
	})
}

// A Warner sends notices for an entry when they are needed, and for the next ones until many were not. What came before they
// were asked for is in the reply.
func TestWarnerIsAskedWhenItMatters(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		l := s.link()
		l.warns = true
		e, err := lease.New(warner{l}, lease.Config{Name: "memory", TTL: ttl})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, e.Close(context.Background())) })
		other, _ := process(t, s)
		hear(t, e)
		hear(t, other)
		give := func(held *lease.Grant, waiting <-chan *lease.Grant) {
			t.Helper()
			require.NoError(t, held.Release(t.Context()))
			require.NoError(t, (<-waiting).Release(t.Context()))
		}

		late := acquire(t, e, "key")
		waiting := begin(t, other, "key")
		assert.Zero(t, l.count("warn"))
		assert.True(t, ended.Is(wantedOf(late)), "another waits already")
		assert.Equal(t, 1, l.count("warn"))
		give(late, waiting)

		expected := acquire(t, e, "key")
		assert.True(t, expected.Entry().Warn)
		waiting = begin(t, other, "key")
		assert.True(t, ended.Is(wantedOf(expected)))
		assert.Equal(t, 1, l.count("warn"), "it was entered so")
		give(expected, waiting)

		for range 16 {
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		}
		asked := acquire(t, e, "key")
		assert.False(t, asked.Entry().Warn, "not needed for long")
		wanted := wantedOf(asked)
		assert.False(t, ended.Is(wanted))
		assert.Equal(t, 2, l.count("warn"))
		waiting = begin(t, other, "key")
		assert.True(t, ended.Is(wanted))
		give(asked, waiting)

		for range 16 {
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		}
		l.set(failing("warn", false, errors.New("a failure")))
		failed := acquire(t, e, "key")
		assert.True(t, ended.Is(wantedOf(failed)), "it cannot be asked")
		l.set(nil)
		require.NoError(t, failed.Release(t.Context()))

		closed := acquire(t, e, "key")
		require.NoError(t, e.Close(t.Context()))
		assert.True(t, ended.Is(wantedOf(closed)))
	})
}

func wantedOf(g *lease.Grant) <-chan struct{} {
	wanted := make(chan struct{})
	g.OnWanted(func() { close(wanted) }) // which can be called once for a grant
	synctest.Wait()
	return wanted
}

// While notices do not arrive, or may have been lost, other processes may want any key.
func TestKeysCountAsWantedWhileNothingIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		hear(t, e)
		held := acquire(t, e, "held")
		synctest.Wait()
		require.False(t, ended.Is(held.Wanted()))

		l.drop <- struct{}{}
		synctest.Wait()
		assert.True(t, ended.Is(held.Wanted()))
		deaf := acquire(t, e, "deaf")
		assert.True(t, ended.Is(deaf.Wanted()), "it was granted while nothing listened")

		time.Sleep(time.Second) // it listens again
		again := acquire(t, e, "again")
		synctest.Wait()
		assert.False(t, ended.Is(again.Wanted()))
		l.hear(lease.Notice{Kind: lease.Look}) // something was lost
		synctest.Wait()
		assert.True(t, ended.Is(again.Wanted()))
		for _, g := range []*lease.Grant{held, deaf, again} {
			require.NoError(t, g.Release(t.Context()))
		}
	})
}

func TestLostGrantCountsAsWanted(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		hear(t, e)
		deleted, held := acquire(t, e, "deleted"), acquire(t, e, "held")
		s.delete("deleted")
		<-deleted.Lost()
		synctest.Wait()
		assert.True(t, ended.Is(deleted.Wanted()))
		require.False(t, ended.Is(held.Wanted()))
		s.revoke(held.Entry().Session.ID)
		<-held.Lost()
		synctest.Wait()
		assert.True(t, ended.Is(held.Wanted()))
		var called int
		held.OnWanted(func() { called++ })
		assert.Equal(t, 1, called, "at once, because it is too late otherwise")
	})
}

// What was lost is ended at the store, so that others need not wait for its TTL.
func TestLostSessionIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		other, _ := process(t, s)
		g := acquire(t, e, "key")
		l.set(failing("renew", false, errors.New("lost")))
		<-g.Lost()
		lost := time.Now()
		theirs := acquire(t, other, "key")
		assert.Less(t, time.Since(lost), time.Second)
		require.NoError(t, theirs.Release(t.Context()))
		assert.Greater(t, theirs.Epoch(), g.Epoch())
	})
}

// The reply to Begin is lost and the engine closes: the session must not be left.
func TestCloseEndsASessionWhoseBeginWasNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		l := s.link()
		e, err := lease.New(l, lease.Config{Name: "memory", TTL: ttl})
		require.NoError(t, err)
		l.set(failing("begin", true, errors.New("the reply is lost")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = e.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, e.Close(t.Context()))
		sessions, _ := s.left()
		assert.Zero(t, sessions)
	})
}

func TestCloseOfAnUnreachableStoreIsBoundedAndCanBeRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		l := s.link()
		e, err := lease.New(l, lease.Config{Name: "memory", TTL: ttl})
		require.NoError(t, err)
		g := acquire(t, e, "key")
		l.cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, e.Close(ctx), context.DeadlineExceeded)
		assert.True(t, ended.Is(g.Lost()))
		l.heal()
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, e.Close(t.Context()))
		sessions, _ := s.left()
		assert.Zero(t, sessions)
		require.ErrorIs(t, g.Release(t.Context()), cohort.ErrLost)
	})
}

// Renewals are few, however many keys are held or waited for.
func TestOneRenewalForAllKeys(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		var held []*lease.Grant
		for i := range 100 {
			held = append(held, acquire(t, e, strconv.Itoa(i)))
		}
		before := l.count("renew")
		time.Sleep(ttl)
		assert.InDelta(t, 4, l.count("renew")-before, 1)
		for _, g := range held {
			require.NoError(t, g.Release(t.Context()))
		}
	})
}

// What has ended is forgotten, also between two renewals.
func TestEndedAttemptsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		for range 20_000 {
			require.NoError(t, acquire(t, e, "key").Release(t.Context()))
		}
		synctest.Wait()
		assert.Less(t, e.Known(), 2000)
	})
}

func TestReport(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		process, err := cohort.ThisProcess("")
		require.NoError(t, err)
		assert.Equal(t, cohort.EngineReport{Process: process}, e.Report())
		g := acquire(t, e, "key")
		assert.Equal(t, cohort.EngineReport{
			Process: process,
			Session: l.session(), SessionBegan: time.Now(), SessionEnds: time.Now().Add(ttl * 4 / 5), Sessions: 1,
		}, e.Report())
		failed := errors.New("no connection")
		l.set(failing("renew", false, failed))
		<-g.Lost()
		synctest.Wait()
		r := e.Report()
		assert.Empty(t, r.Session)
		assert.Equal(t, uint64(1), r.Lost)
		assert.Equal(t, uint64(3), r.Retries)
		require.ErrorIs(t, r.LastError, failed)
		assert.Equal(t, time.Now().Add(-ttl/20), r.LastErrorAt)
	})
}

func TestErrorsCutLongKeys(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		key := strings.Repeat("k", 1<<20)
		g := acquire(t, e, key)
		_, err := e.TryAcquire(t.Context(), key)
		require.ErrorIs(t, err, cohort.ErrHeld)
		assert.Less(t, len(err.Error()), 200)
		require.NoError(t, g.Release(t.Context()))
	})
}

// A number without a unit is nanoseconds, in which no session can be renewed.
func TestTTLMustBeAMillisecond(t *testing.T) {
	for _, short := range []time.Duration{-1, 0, 10, time.Millisecond - 1} {
		_, err := lease.New(newServer().link(), lease.Config{Name: "memory", TTL: short})
		require.ErrorContains(t, err, "memory: a TTL of "+short.String())
	}
}

func TestTTLMayBeTheLongestDuration(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, err := lease.New(s.link(), lease.Config{Name: "memory", TTL: math.MaxInt64})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		g, err := e.Acquire(ctx, "key")
		require.NoError(t, err)
		require.NoError(t, g.Release(ctx))
		require.NoError(t, e.Close(ctx))
	})
}

func TestStoreMustBeGiven(t *testing.T) {
	_, err := lease.New(nil, lease.Config{Name: "memory", TTL: ttl})
	require.EqualError(t, err, "memory: nil store")
	_, err = lease.New(nil, lease.Config{})
	require.EqualError(t, err, "lease: nil store", "without a name")
}

// What is nil ended the process, on a goroutine of the engine's.
func TestNilArgumentsPanicInTheirCaller(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, _ := process(t, s)
		g := acquire(t, e, "key")
		var none context.Context
		for name, call := range map[string]func(){
			"Acquire":    func() { _, _ = e.Acquire(none, "other") },
			"TryAcquire": func() { _, _ = e.TryAcquire(none, "other") },
			"Ask":        func() { e.Ask(none, "other", true, func(cohort.Grant, error) {}) },
			"Release":    func() { _ = g.Release(none) },
			"Close":      func() { _ = e.Close(none) },
		} {
			assert.PanicsWithValue(t, "keylock: nil context", call, name)
		}
		assert.PanicsWithValue(t, "lease: OnWanted with a nil function", func() { g.OnWanted(nil) })
		require.NoError(t, g.Release(t.Context()), "nothing has changed")
	})
}

// A store may mark what a call has returned without a look at it.
func TestNoErrorIsNotRefused(t *testing.T) { require.NoError(t, lease.Refused(nil)) }

// session returns the ID of the link's last session.
func (l *link) session() string {
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	return l.id
}

// The caller of Ask is told the outcome once: the grant, or at once that its context or the engine has ended,
// although a request is under way.
func TestAskTellsTheOutcomeOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		e, l := process(t, s)
		type outcome struct {
			grant cohort.Grant
			err   error
		}
		ask := func(ctx context.Context, try bool) <-chan outcome {
			told := make(chan outcome, 2)
			e.Ask(ctx, "key", try, func(g cohort.Grant, err error) { told <- outcome{g, err} })
			return told
		}
		told := ask(t.Context(), true)
		o := <-told
		require.NoError(t, o.err)
		held := <-ask(t.Context(), true)
		require.ErrorIs(t, held.err, cohort.ErrHeld)
		waiter := ask(t.Context(), false)
		synctest.Wait()
		require.NoError(t, o.grant.Release(t.Context()))
		next := <-waiter
		require.NoError(t, next.err)
		require.NoError(t, next.grant.Release(t.Context()))

		l.set(func(c call, do func()) error {
			if c == "enter" {
				time.Sleep(time.Second)
			}
			do()
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cancelled := ask(ctx, false)
		synctest.Wait()
		began := time.Now()
		cancel()
		o = <-cancelled
		require.ErrorIs(t, o.err, context.Canceled)
		assert.Zero(t, time.Since(began))
		time.Sleep(2 * time.Second)
		_, entries := s.left()
		assert.Zero(t, entries)

		require.NoError(t, e.Close(t.Context()))
		o = <-ask(t.Context(), false)
		require.ErrorIs(t, o.err, cohort.ErrClosed)
		for _, told := range []<-chan outcome{told, waiter, cancelled} {
			assert.Empty(t, told)
		}
	})
}

// A grant whose caller ends at the same moment is given back.
func TestGrantThatMeetsTheEndOfItsCallerIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		holder, _ := process(t, s)
		e, _ := process(t, s)
		for range 200 {
			held := acquire(t, holder, "key")
			ctx, cancel := context.WithCancel(t.Context())
			told := make(chan cohort.Grant, 1)
			e.Ask(ctx, "key", false, func(g cohort.Grant, _ error) { told <- g })
			synctest.Wait()
			go cancel()
			require.NoError(t, held.Release(t.Context()))
			if g := <-told; g != nil {
				require.NoError(t, g.Release(t.Context()))
			}
			synctest.Wait()
			cancel()
		}
	})
}

// Some contexts close Done before they set Err. A call that saw the one and asked the other had no error to
// return: its entry stayed in the queue, and what package context derives from such a context panics.
func TestContextThatEndsWithoutAnErrorEndsTheCall(t *testing.T) {
	for name, call := range map[string]func(context.Context, *lease.Engine) error{
		"Acquire": func(ctx context.Context, e *lease.Engine) error { _, err := e.Acquire(ctx, "key"); return err },
		"Ask": func(ctx context.Context, e *lease.Engine) error {
			replied := make(chan error, 1)
			e.Ask(ctx, "key", false, func(_ cohort.Grant, err error) { replied <- err })
			return <-replied
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				holder, _ := process(t, s)
				e, _ := process(t, s)
				g := acquire(t, holder, "key")
				ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
				returned := make(chan error, 1)
				go func() { returned <- call(ctx, e) }()
				synctest.Wait()
				close(ctx.Ended)
				require.ErrorIs(t, <-returned, context.Canceled)
				require.ErrorIs(t, call(ctx, e), context.Canceled)
				require.NoError(t, g.Release(t.Context()))
				synctest.Wait()
				again, err := e.TryAcquire(t.Context(), "key")
				require.NoError(t, err, "nothing is left in the queue")
				if err := again.Release(ctx); err != nil { // the store may be as fast
					require.ErrorIs(t, err, context.Canceled)
				}
			})
		})
	}
}
