package keylock_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// isWanted reports whether a channel of Wanted is closed, when all goroutines have come to rest.
func isWanted(wanted <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-wanted:
		return true
	default:
		return false
	}
}

func TestWantedIsClosedWhenARequestHasToWait(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		wanted := l.Wanted()
		requireBusy(t, m, "k")
		hold(t, m, "other")
		assert.False(t, isWanted(wanted), "a try does not wait, and another key is another key")

		ctx, cancel := context.WithCancel(t.Context())
		waiter := startAcquire(ctx, m, "k")
		assert.True(t, isWanted(wanted))
		assert.True(t, isWanted(l.Wanted()), "the request waits already")
		cancel()
		waiter.requireErr(t, context.Canceled)
		assert.True(t, isWanted(wanted), "it stays closed")
		again := l.Wanted()
		assert.False(t, isWanted(again), "nothing waits any more")
		assert.Equal(t, again, l.Wanted(), "there is one channel for all who ask")

		l.Release()
		assert.True(t, isWanted(again))
		assert.True(t, isWanted(l.Wanted()), "of a lock that was released")
		assert.True(t, isWanted(lock{}.Wanted()), "of the zero Lock")
	})
}

func TestWantedOfAllWhoShareAndOfManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, _ := m.AcquireShared(t.Context(), "k")
		two, _ := m.AcquireShared(t.Context(), "k")
		many, _ := m.AcquireAll(t.Context(), "a", "b")
		wanted := []<-chan struct{}{one.Wanted(), two.Wanted(), many.Wanted()}
		three, _ := m.AcquireShared(t.Context(), "k")
		for _, w := range wanted {
			assert.False(t, isWanted(w))
		}
		start(func() (lock, error) { return m.AcquireAll(t.Context(), "k", "b") })
		for _, w := range append(wanted, three.Wanted()) {
			assert.True(t, isWanted(w))
		}
	})
}

func TestWantedIsClosedWhenTheGrantOrTheManagerEnds(t *testing.T) {
	for name, end := range map[string]func(m manager, s *keylock.Session[string], l lock){
		"another copy is released": func(_ manager, _ *keylock.Session[string], l lock) { l.Release() },
		"the session is closed":    func(_ manager, s *keylock.Session[string], _ lock) { s.Close() },
		"the manager is closed":    func(m manager, _ *keylock.Session[string], _ lock) { m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m manager) {
				s := m.Session("s")
				l, err := s.Acquire(t.Context(), "k")
				require.NoError(t, err)
				wanted := l.Wanted()
				assert.False(t, isWanted(wanted))
				end(m, s, l)
				assert.True(t, isWanted(wanted))
				assert.True(t, isWanted(l.Wanted()))
			})
		})
	}
}

// What is handed off has a new holder, who is asked again.
func TestWantedBelongsToTheGrant(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		first := hold(t, m, "k")
		second, third := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff("value"))
		assert.True(t, isWanted(first.Wanted()))
		l, err := second.Wait(t.Context())
		require.NoError(t, err)
		assert.True(t, isWanted(l.Wanted()), "the third waits")
		third.Cancel()
		assert.False(t, isWanted(l.Wanted()))
	})
}

func TestDowngradeLetsInTheSharedRequestsDirectlyBehind(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := hold(t, m, "k")
		shared := start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") })
		shared.requireWaits(t)
		writer := startAcquire(t.Context(), m, "k")
		writer.requireWaits(t)
		late := start(func() (lock, error) { return m.AcquireShared(t.Context(), "k") })
		late.requireWaits(t)

		l.Downgrade()
		l.Downgrade()
		reader := shared.requireLock(t)
		late.requireWaits(t)
		assert.Equal(t, 2, statsOf(t, m).Shared)
		reader.Downgrade() // it is shared already
		reader.Release()
		writer.requireWaits(t)
		l.Release()
		l.Downgrade() // of a grant that has ended: the writer keeps the key to itself
		writer.requireLock(t)
		late.requireWaits(t)
	})
}

func TestDowngradeOfManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l, err := m.AcquireAll(t.Context(), "a", "b")
		require.NoError(t, err)
		l.Downgrade()
		for _, key := range []string{"a", "b"} {
			requireBusy(t, m, key)
			reader, err := m.AcquireShared(t.Context(), key)
			require.NoError(t, err)
			reader.Release()
		}
		l.Release()
		requireFree(t, m, "a")
		requireFree(t, m, "b")

		none, err := m.AcquireAll(t.Context())
		require.NoError(t, err)
		none.Downgrade()
		lock{}.Downgrade()
		assert.Equal(t, 1, statsOf(t, m).Held)
		none.Release()
		m.Close()
		l.Downgrade()
	})
}

// Of a session, what waits for another only because that one was alone does not any more.
func TestDowngradeInASession(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, two := m.Session("one"), m.Session("two")
		defer one.Close()
		defer two.Close()
		l, _ := one.Acquire(t.Context(), "k")
		two.Acquire(t.Context(), "other")
		reader := start(func() (lock, error) { return two.AcquireShared(t.Context(), "k") })
		reader.requireWaits(t)
		l.Downgrade()
		reader.requireLock(t)
		waits := start(func() (lock, error) { return one.Acquire(t.Context(), "other") })
		waits.requireWaits(t)
		_, err := two.Acquire(t.Context(), "k")
		assert.ErrorIs(t, err, keylock.ErrDeadlock)
	})
}

func TestHandoffPassesTheKeyAndTheValueToTheNextWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		defer m.Close()

		first, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		next, last := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff(7))

		second, err := next.Wait(ctx)
		require.NoError(t, err)
		assert.Equal(t, 7, second.Value())
		assert.Greater(t, second.Seq(), first.Seq())
		assert.False(t, first.Handoff(8), "its grant has ended")
		first.Release()

		second.Release()
		third, err := last.Wait(ctx)
		require.NoError(t, err)
		assert.Nil(t, third.Value(), "a release passes nothing on")
	})
}

func TestHandoffPassesTheValueToAllReadersWhoAreLetInTogether(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		writer := hold(t, m, "k")
		readers := make([]reservation, 1000) // which a release would grant in parts
		for i := range readers {
			readers[i] = m.ReserveSet(sharing("k")...)
		}
		require.True(t, writer.Handoff(7))
		for _, r := range readers {
			l, err := r.Wait(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 7, l.Value())
		}
	})
}

func TestHandoffKeepsTheKeyWhenNobodyCanTakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		lock, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		other, err := m.Acquire(ctx, "other")
		require.NoError(t, err)

		assert.False(t, lock.Handoff(1), "there is no waiter")
		both := m.ReserveSet(alone("k", "other")...)
		assert.False(t, lock.Handoff(1), "the next waits for the other key as well")
		_, ok := m.TryAcquire("k")
		assert.False(t, ok, "it is still held")
		other.Release()
		assert.False(t, lock.Handoff(1), "many keys have no value")
		both.Cancel()

		_, err = m.AcquireShared(ctx, "shared")
		require.NoError(t, err)
		shared, err := m.AcquireShared(ctx, "shared")
		require.NoError(t, err)
		m.Reserve("shared")
		assert.False(t, shared.Handoff(1), "the other reader is in the way")
		assert.False(t, keylock.Lock[string]{}.Handoff(1), "the zero lock holds nothing")
		require.NoError(t, m.Close())
		assert.False(t, lock.Handoff(1), "nothing is granted after the end")
	})
}

// The handoff and the end of the receiver's context cross: the owner grants first, and
// the receiver, woken by both, must not throw away what it was given.
func TestHandoffLosesNoValueToACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](t.Context())
		defer m.Close()
		for range 100 { // both ways round
			ctx, cancel := context.WithCancel(t.Context())
			first, err := m.Acquire(ctx, "k")
			require.NoError(t, err)
			next := m.Reserve("k")
			require.True(t, first.Handoff("state"))
			cancel()
			second, err := next.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, "state", second.Value())
			second.Release()
		}
	})
}

func TestCancelledReservationPassesItsValueOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := keylock.Start[string](ctx)
		defer m.Close()
		first, err := m.Acquire(ctx, "k")
		require.NoError(t, err)
		next, last := m.Reserve("k"), m.Reserve("k")
		require.True(t, first.Handoff("state"))
		next.Cancel()
		third, err := last.Wait(ctx)
		require.NoError(t, err)
		assert.Equal(t, "state", third.Value())
		last = m.Reserve("k")
		require.True(t, third.Handoff("state"))
		last.Cancel()
		assert.NoError(t, m.WaitIdle(ctx), "without a next waiter the key is free")
	})
}

// A Do would have no way to read the value.
func TestHandoffIsNotForADo(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		first := hold(t, m, "k")
		ran := startErr(func() error { return m.Do(t.Context(), "k", func(context.Context) error { return nil }) })
		ran.requireWaits(t)
		require.False(t, first.Handoff("baton"))
		ran.requireWaits(t)
		first.Release()
		ran.requireNil(t)

		// Nor is it for one that has left before it.
		first = hold(t, m, "k")
		ctx, cancel := context.WithCancel(t.Context())
		gone := startErr(func() error { return m.Do(ctx, "k", func(context.Context) error { return nil }) })
		next := m.Reserve("k")
		cancel()
		gone.requireErr(t, context.Canceled)
		require.True(t, first.Handoff("baton"))
		second, err := next.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "baton", second.Value())
	})
}

// A session that is closed hands off what it has not read, and keeps nothing of what it has.
func TestClosedSessionPassesItsValueOn(t *testing.T) {
	for name, opts := range map[string][]keylock.Option{"plain": nil, "observed": {keylock.WithHoldTimes()}} {
		t.Run(name, func(t *testing.T) {
			run(t, "to the next waiter", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				unread := s.Reserve("k")
				again := s.ReserveSet(sharing("other")...)
				require.True(t, first.Handoff("baton"))
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				_, err := unread.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrClosed)
				_, err = again.Wait(t.Context())
				assert.ErrorIs(t, err, keylock.ErrClosed)
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", l.Value())
				l.Release()
				requireFree(t, m, "k")
			}, opts...)
			run(t, "past its own waiters and one that has left", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				unread := s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				m.Reserve("k").Cancel()
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				unread.Cancel()
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", l.Value())
			}, opts...)
			run(t, "only once", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				r := s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				read, err := r.Wait(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "baton", read.Value())
				next := m.Reserve("k")
				require.NoError(t, s.Close())
				l, err := next.Wait(t.Context())
				require.NoError(t, err)
				assert.Nil(t, l.Value())
			}, opts...)
			run(t, "to none", func(t *testing.T, m manager) {
				first := hold(t, m, "k")
				s := m.Session("s")
				s.Reserve("k")
				require.True(t, first.Handoff("baton"))
				require.NoError(t, s.Close())
				requireFree(t, m, "k")
			}, opts...)
		})
	}
}

// The lock of many keys is a Lock like any other, but it is never handed off and comes with
// no value.
func TestTheLockOfManyKeysIsALock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for _, want := range []struct {
			keys []string
			key  string
			text string
		}{
			{[]string{"a", "b", "c"}, "a", `lock of key "a" and 2 more, grant `},
			{[]string{"a"}, "a", `lock of key "a", grant `},
			{nil, "", "lock of no key, grant "},
		} {
			lock, err := m.AcquireAll(t.Context(), want.keys...)
			require.NoError(t, err)
			assert.Equal(t, want.key, lock.Key())
			assert.Equal(t, want.text+fmt.Sprint(lock.Seq()), lock.String())
			assert.Nil(t, lock.Value())
			waiter := startAcquire(t.Context(), m, "a")
			assert.False(t, lock.Handoff(7))
			if len(want.keys) > 0 {
				waiter.requireWaits(t)
			}
			lock.Release()
			lock.Release()
			next := waiter.requireLock(t)
			assert.Nil(t, next.Value())
			next.Release()
			for _, key := range want.keys {
				requireFree(t, m, key)
			}
		}
	})
}

// Close ends a grant that is on its way to its caller. Only the Wait of a reservation used to
// look: every other call returned a lock that another holder had by then.
func TestNoCallReturnsALockOfAClosedSession(t *testing.T) {
	type session = *keylock.Session[string]
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the grant is there before its caller runs
	for name, call := range map[string]func(context.Context, session) error{
		"Acquire":       func(ctx context.Context, s session) error { _, err := s.Acquire(ctx, "k"); return err },
		"AcquireShared": func(ctx context.Context, s session) error { _, err := s.AcquireShared(ctx, "k"); return err },
		"AcquireAll":    func(ctx context.Context, s session) error { _, err := s.AcquireAll(ctx, "k", "l"); return err },
		"Wait":          func(ctx context.Context, s session) error { _, err := s.Reserve("k").Wait(ctx); return err },
		"Do": func(ctx context.Context, s session) error {
			return s.Do(ctx, "k", func(context.Context) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := keylock.Start[string](context.Background())
			defer m.Close()
			for range 20 {
				s := m.Session("s")
				first := hold(t, m, "k")
				inside, result := false, make(chan error)
				go func() {
					err := call(t.Context(), s)
					assert.False(t, err == nil && inside, "a lock beside another holder")
					result <- err
				}()
				// With one processor the owner and this loop can keep it between them for minutes:
				// each wakes the other as what runs next.
				for statsOf(t, m).Waiting == 0 {
					runtime.Gosched()
				}
				first.Release()
				require.NoError(t, s.Close())
				mine, err := m.Acquire(t.Context(), "k")
				require.NoError(t, err)
				inside = true
				if err = <-result; err != nil { // nil when it was quicker than Close
					require.ErrorIs(t, err, keylock.ErrClosed)
				}
				mine.Release()
			}
		})
	}
}

func TestTryOfAClosedSessionFails(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		s := m.Session("s")
		require.NoError(t, s.Close())
		_, ok := s.TryAcquire("k")
		assert.False(t, ok)
		_, ok = s.TryAcquireSet(alone("k", "l")...)
		assert.False(t, ok)
		requireFree(t, m, "k")
	})
}

func shared(key string) keylock.Want[string] {
	return keylock.Want[string]{Key: key, Mode: keylock.Shared}
}

func upTo(limit int, key string) keylock.Want[string] {
	return keylock.Want[string]{Key: key, Mode: keylock.Shared, Limit: limit}
}

func startSet(ctx context.Context, m manager, set ...keylock.Want[string]) *call {
	return start(func() (lock, error) { return m.AcquireSet(ctx, set...) })
}

// Who waits for a child does not keep others from other children.
func TestASetThatWaitsForOneKeyIsPassedWhereItShares(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		child := hold(t, m, "/docs/a")
		waits := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/a"})
		waits.requireWaits(t)
		other := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/b"}).requireLock(t)
		folder := startAcquire(t.Context(), m, "/docs")
		folder.requireWaits(t)
		late := startSet(t.Context(), m, shared("/docs"), keylock.Want[string]{Key: "/docs/c"})
		late.requireWaits(t) // behind the one that wants the folder alone

		child.Release()
		first := waits.requireLock(t)
		assert.Greater(t, first.Seq(), other.Seq())
		first.Release()
		folder.requireWaits(t)
		other.Release()
		folder.requireLock(t).Release()
		late.requireLock(t).Release()
	})
}

func TestALimitTravelsWithTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one := startSet(t.Context(), m, upTo(2, "a")).requireLock(t)
		two := startSet(t.Context(), m, upTo(2, "a")).requireLock(t)
		_, ok := m.TryAcquireSet(upTo(2, "a"))
		assert.False(t, ok, "two hold it")
		waits := startSet(t.Context(), m, upTo(2, "a"))
		waits.requireWaits(t)
		_, ok = m.TryAcquireSet(upTo(3, "a"))
		assert.False(t, ok, "it does not pass one that waits")
		other, ok := m.TryAcquireSet(upTo(1, "b"))
		assert.True(t, ok, "each key has its own")
		other.Release()
		one.Release()
		waits.requireLock(t).Release()
		third, ok := m.TryAcquireSet(upTo(3, "a"))
		assert.True(t, ok)
		two.Release()
		third.Release()
		requireFree(t, m, "a")
	})
}

func TestOfAKeyThatIsNamedTwiceTheStricterTermsCount(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for name, set := range map[string][]keylock.Want[string]{
			"alone":       {shared("k"), {Key: "k"}, shared("l")},
			"alone first": {{Key: "k"}, shared("k")},
			"limit":       {upTo(3, "k"), upTo(1, "k"), shared("k")},
		} {
			reader, ok := m.TryAcquireSet(shared("k"))
			require.True(t, ok)
			_, ok = m.TryAcquireSet(set...)
			assert.False(t, ok, name)
			reader.Release()
			l, ok := m.TryAcquireSet(set...)
			assert.True(t, ok, name)
			l.Release()
		}
		none, ok := m.TryAcquireSet()
		assert.True(t, ok)
		none.Release()
		assert.PanicsWithValue(t, "keylock: Want with the Limit -1: want 0 or more", func() { m.TryAcquireSet(upTo(-1, "k")) })
		assert.PanicsWithValue(t, "keylock: Want with the Mode 2: want Exclusive or Shared", func() {
			m.ReserveSet(keylock.Want[string]{Key: "k", Mode: keylock.Shared + 1})
		})
		l, ok := m.TryAcquireSet(keylock.Want[string]{Key: "k"})
		assert.True(t, ok)
		assert.Equal(t, "k", l.Key())
		l.Release()
		requireFree(t, m, "k")
	})
}

// Without a limit of its own, a request has that of the manager, and that may be the stricter one.
func TestOfAKeyThatIsNamedTwiceTheLimitOfTheManagerCountsToo(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		s := m.Session("s")
		defer s.Close()
		both := []keylock.Want[string]{shared("k"), upTo(3, "k")}
		for range 2 {
			l, ok := m.TryAcquireSet(both...)
			require.True(t, ok)
			defer l.Release()
		}
		for range 2 {
			_, ok := m.TryAcquireSet(both...)
			assert.False(t, ok, "two hold it")
			_, ok = s.TryAcquireSet(both...)
			assert.False(t, ok, "two hold it")
			both[0], both[1] = both[1], both[0]
		}
		third, ok := m.TryAcquireSet(upTo(3, "k"))
		assert.True(t, ok, "its own limit stands above that of the manager")
		third.Release()
		var none *keylock.Manager[string]
		assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() { none.TryAcquireSet(both...) })
	}, keylock.WithSharedLimit(2))
}

func TestTheLockOfASetOfOneKeyIsHandedOff(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		for _, set := range [][]keylock.Want[string]{{{Key: "k"}}, {{Key: "k"}, {Key: "k"}}, {shared("k"), {Key: "k"}, upTo(2, "k")}} {
			holder := startSet(t.Context(), m, set...).requireLock(t)
			next := startSet(t.Context(), m, set...)
			next.requireWaits(t)
			assert.True(t, holder.Handoff("value"), "%v", set)
			holder.Release()
			got := next.requireLock(t)
			assert.Equal(t, "value", got.Value(), "%v", set)
			got.Release()
		}
		requireFree(t, m, "k")
	})
}

func TestSetsInSessionsDoNotDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		one, two := m.Session("one"), m.Session("two")
		defer one.Close()
		defer two.Close()
		one.Acquire(t.Context(), "a")
		two.AcquireShared(t.Context(), "b")
		waits := start(func() (lock, error) { return two.AcquireSet(t.Context(), shared("a"), shared("c")) })
		waits.requireWaits(t)
		free, err := one.AcquireSet(t.Context(), shared("b"), shared("c"))
		require.NoError(t, err, "it shares both")
		free.Release()
		_, err = one.AcquireSet(t.Context(), keylock.Want[string]{Key: "b"}, shared("c"))
		assert.ErrorIs(t, err, keylock.ErrDeadlock)
	})
}

func TestLocker(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		l := m.Locker("k")
		l.Lock()
		waiter := startAcquire(t.Context(), m, "k")
		waiter.requireWaits(t)
		l.Unlock()
		assert.PanicsWithValue(t, "keylock: Unlock of a Locker that is not locked", l.Unlock)
		requireBusy(t, m, "k") // the second Unlock has freed no lock
		waiter.requireLock(t).Release()

		n := 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				l.Lock()
				defer l.Unlock()
				n++
			})
		}
		all.Wait()
		assert.Equal(t, 100, n)

		l.Lock()
		m.Close()
		for range 2 {
			l.Unlock() // does nothing
			assert.PanicsWithValue(t, keylock.ErrClosed, l.Lock)
		}
	})
}

// The Wait of a sync.Cond locks again when it is over. Where that panics, the deferred Unlock used
// to panic, too, and what was recovered was that of the Unlock.
func TestCondThatWaitsWhenTheManagerEndsPanicsWithErrClosed(t *testing.T) {
	for _, shutDown := range []bool{false, true} {
		bubble(t, func(t *testing.T, m manager) {
			changed := sync.NewCond(m.Locker("k"))
			panicked := make(chan any, 1)
			go func() {
				defer func() { panicked <- recover() }()
				changed.L.Lock()
				defer changed.L.Unlock()
				changed.Wait()
			}()
			synctest.Wait()
			other := hold(t, m, "other")
			if shutDown {
				go m.Shutdown(t.Context())
				synctest.Wait()
			} else {
				m.Close()
			}
			changed.Broadcast()
			assert.Equal(t, keylock.ErrClosed, <-panicked)
			other.Release()
		})
	}
}
