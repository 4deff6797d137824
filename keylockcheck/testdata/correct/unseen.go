package correct

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/share"
)

// Unseen are the functions of this file by their names: about the calls that came later, and
// written from the documentation only.
var Unseen = map[string]Func{
	"SetDowngraded": SetDowngraded, "SetTriedInLoop": SetTriedInLoop, "GivesWay": GivesWay, "GivesWayOnAGoroutine": GivesWayOnAGoroutine,
	"LockerDeferred": LockerDeferred, "LockerAndCond": LockerAndCond, "LockerUnlockedBetween": LockerUnlockedBetween,
	"LockerAsMethods": LockerAsMethods, "LockerInStruct": LockerInStruct, "LockerOfOtherKey": LockerOfOtherKey,
	"LockerDeferredFirst": LockerDeferredFirst, "LockerSometimes": LockerSometimes, "LockerPassedOn": LockerPassedOn,
	"SetElse": SetElse, "SetsReservedInLoop": SetsReservedInLoop, "SharedAgain": SharedAgain, "SharedAgainAfterDowngrade": SharedAgainAfterDowngrade,
	"SharedSetsInLoop": SharedSetsInLoop, "DowngradedInLoop": DowngradedInLoop, "SetTriedWhileHeld": SetTriedWhileHeld,
	"UnknownModes": UnknownModes, "SetBuilt": SetBuilt, "HandOverHand": HandOverHand, "NextReservedFirst": NextReservedFirst,
	"ShareOfOtherKey": ShareOfOtherKey, "ShareAfterRelease": ShareAfterRelease, "SessionOfSets": SessionOfSets,
	"MethodsInParens": MethodsInParens, "ClosedWhileHeld": ClosedWhileHeld,
}

func SetDowngraded(ctx context.Context, m *keylock.Manager[string], x bool) error {
	both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b", Mode: keylock.Shared, Limit: 3})
	if err != nil {
		return err
	}
	release := both.Release
	defer release()
	both.Downgrade()
	return work(both.Seq())
}

func SetTriedInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for {
		if both, ok := m.TryAcquireSet(keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b"}); ok {
			defer both.Release()
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return nil
}

// GivesWay releases whenever another request waits, and queues again.
func GivesWay(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	wanted := lock.Wanted()
	for range 3 {
		select {
		case <-wanted:
			lock.Release()
			if lock, err = m.Acquire(ctx, "k"); err != nil {
				return err
			}
			wanted = lock.Wanted()
		default:
		}
	}
	lock.Release()
	return nil
}

func GivesWayOnAGoroutine(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		<-lock.Wanted()
		lock.Release()
	}()
	if next, err := m.AcquireShared(ctx, "k"); err == nil {
		next.Release()
	}
	<-over
	return nil
}

func LockerDeferred(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	mine.Lock()
	defer mine.Unlock()
	if x {
		return errOdd
	}
	return nil
}

func LockerAndCond(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ready := false
	mine := m.Locker("mine")
	changed := sync.NewCond(mine)
	go func() {
		changed.L.Lock()
		ready = true
		changed.L.Unlock()
		changed.Broadcast()
	}()
	mine.Lock()
	for !ready {
		changed.Wait()
	}
	changed.L.Unlock()
	return nil
}

// LockerUnlockedBetween leaves the last Unlock to the defer statement.
func LockerUnlockedBetween(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	mine.Lock()
	defer mine.Unlock()
	for range 3 {
		mine.Unlock()
		time.Sleep(time.Second)
		mine.Lock()
	}
	return nil
}

func LockerAsMethods(ctx context.Context, m *keylock.Manager[string], x bool) error {
	methods := func() (lock, unlock func()) {
		mine := m.Locker("mine")
		return mine.Lock, mine.Unlock
	}
	lock, unlock := methods()
	lock()
	unlock()
	begin := func() func() {
		mine := m.Locker("mine")
		mine.Lock()
		return mine.Unlock
	}
	defer begin()()
	return nil
}

type table struct{ sync.Locker }

func LockerInStruct(ctx context.Context, m *keylock.Manager[string], x bool) error {
	g := table{m.Locker("mine")}
	g.Lock()
	defer g.Unlock()
	g2 := new(table)
	g2.Locker = m.Locker("yours")
	g2.Locker.Lock()
	defer g2.Unlock()
	return nil
}

func LockerOfOtherKey(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	mine := m.Locker("mine")
	mine.Lock()
	mine.Unlock()
	lock.Release()
	again := m.Locker("k")
	again.Lock()
	again.Unlock()
	return nil
}

func LockerDeferredFirst(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	defer mine.Unlock()
	mine.Lock()
	return nil
}

func LockerSometimes(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	if x {
		mine.Lock()
	}
	if x {
		mine.Unlock()
	}
	return nil
}

func LockerPassedOn(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	mine.Lock()
	unlock(mine)
	return nil
}

func unlock(l sync.Locker) { l.Unlock() }

func SetElse(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "k"}); err != nil {
		return err
	} else {
		defer both.Release()
	}
	return nil
}

func SetsReservedInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	for _, key := range []string{"a", "b", "a"} {
		reserved := m.ReserveSet(keylock.Want[string]{Key: string(key)}, keylock.Want[string]{Key: "k", Mode: keylock.Shared})
		group.Go(func() {
			both, err := reserved.Wait(ctx)
			if err != nil {
				return
			}
			defer both.Release()
		})
	}
	group.Wait()
	return nil
}

func SharedAgain(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	again, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "k", Mode: keylock.Shared})
	if err != nil {
		return err
	}
	defer again.Release()
	return nil
}

func SharedAgainAfterDowngrade(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	lock.Downgrade()
	again, err := m.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	defer again.Release()
	return nil
}

func SharedSetsInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"a", "b"} {
		both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: string(key), Mode: keylock.Shared})
		if err != nil {
			return err
		}
		defer both.Release()
	}
	return nil
}

func DowngradedInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"a", "b"} {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
		lock.Downgrade()
	}
	return nil
}

func SetTriedWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "a"})
	if err != nil {
		return err
	}
	defer both.Release()
	if again, ok := m.TryAcquireSet(keylock.Want[string]{Key: "a"}); ok {
		again.Release()
		return errors.New("twice")
	}
	return nil
}

// UnknownModes has a mode that is decided elsewhere, so that it may be shared.
func UnknownModes(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mode := keylock.Exclusive
	if !x {
		mode = keylock.Shared
	}
	lock, err := m.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	if mode == keylock.Exclusive {
		lock.Release()
	}
	again, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "k", Mode: mode})
	lock.Release()
	if err != nil {
		return err
	}
	again.Release()
	return nil
}

func SetBuilt(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var set []keylock.Want[string]
	for _, key := range []string{"a", "b"} {
		set = append(set, keylock.Want[string]{Key: string(key), Mode: keylock.Shared})
	}
	both, err := m.AcquireSet(ctx, set...)
	if err != nil {
		return err
	}
	defer both.Release()
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	return nil
}

// HandOverHand holds a key until it has the next one.
func HandOverHand(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var last keylock.Lock[string]
	for _, key := range []string{"a", "b", "k"} {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			last.Release()
			return err
		}
		last.Release()
		last = lock
	}
	last.Release()
	return nil
}

// NextReservedFirst enters the queue of the key again before it gives the key to others.
func NextReservedFirst(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	next := m.Reserve("k")
	lock.Release()
	if lock, err = next.Wait(ctx); err != nil {
		return err
	}
	lock.Release()
	return nil
}

func ShareOfOtherKey(ctx context.Context, m *keylock.Manager[string], x bool) error {
	answers := share.New[string, int](m)
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	_, err = answers.Do(ctx, "a", func(ctx context.Context) (int, error) {
		return 42, m.Do(ctx, "b", func(context.Context) error { return nil })
	})
	return err
}

func ShareAfterRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	answers := share.New[string, int](m)
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	_, err = answers.Do(ctx, "k", func(context.Context) (int, error) { return 42, nil })
	return err
}

func SessionOfSets(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	defer order.Close()
	for _, key := range []string{"a", "b"} {
		if _, err := order.AcquireSet(ctx, keylock.Want[string]{Key: string(key)}); err != nil {
			return err
		}
	}
	return nil
}

func MethodsInParens(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := (m.Acquire)(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		((lock).Release)()
		return nil
	}
	defer (lock.Release)()
	return nil
}

// ClosedWhileHeld does not wait for itself: the request fails, since the manager has ended.
func ClosedWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	own := keylock.Start[string](context.Background())
	defer own.Close()
	lock, err := own.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	own.Close()
	again, err := own.Acquire(ctx, "k")
	defer again.Release()
	if errors.Is(err, keylock.ErrClosed) {
		return nil
	}
	return err
}
