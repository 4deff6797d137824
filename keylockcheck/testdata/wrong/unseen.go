package wrong

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/share"
)

// Unseen are the functions of this file by their names: about the calls that came later, and
// written from the documentation only.
var Unseen = map[string]Case{
	"SetDropped":        {"dropped", SetDropped},
	"TrySetDropped":     {"dropped", TrySetDropped},
	"LockerDropped":     {"dropped", LockerDropped},
	"LockerMadeTwice":   {"dropped", LockerMadeTwice},
	"SetReserved":       {"reservation", SetReserved},
	"SetLost":           {"lostpath", SetLost},
	"TrySetLost":        {"lostpath", TrySetLost},
	"DowngradedAndLost": {"lostpath", DowngradedAndLost},
	"WantedAndKept":     {"lostpath", WantedAndKept},
	"LockerLost":        {"lostpath", LockerLost},
	"LockerLostInRound": {"lostpath", LockerLostInRound},
	"DeferredSometimes": {"lostpath", DeferredSometimes},
	"SetErrorIgnored":   {"errignored", SetErrorIgnored},
	"DowngradeTooLate":  {"afterrelease", DowngradeTooLate},
	"UnlockedTwice":     {"afterrelease", UnlockedTwice},
	"ParensTooLate":     {"afterrelease", ParensTooLate},
	"SetsInLoop":        {"deferloop", SetsInLoop},
	"LockersInLoop":     {"deferloop", LockersInLoop},
	"SetWhileHeld":      {"reacquire", SetWhileHeld},
	"KeyOfHeldSet":      {"reacquire", KeyOfHeldSet},
	"Upgraded":          {"reacquire", Upgraded},
	"WaitWhileHeld":     {"reacquire", WaitWhileHeld},
	"LockerWhileHeld":   {"reacquire", LockerWhileHeld},
	"ShareWhileHeld":    {"reacquire", ShareWhileHeld},
	"SetsInAnyOrder":    {"orderhint", SetsInAnyOrder},
}

func SetDropped(ctx context.Context, m *keylock.Manager[string], x bool) error {
	_, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b", Mode: keylock.Shared})
	return err
}

func TrySetDropped(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if _, ok := m.TryAcquireSet(keylock.Want[string]{Key: "a"}); ok {
		return work(m, "a")
	}
	return nil
}

func LockerDropped(ctx context.Context, m *keylock.Manager[string], x bool) error {
	m.Locker("mine").Lock()
	return work(m, "mine")
}

// LockerMadeTwice takes a Locker for the lock of its key: it is a holder.
func LockerMadeTwice(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	defer func() { show(recover()) }()
	m.Locker("mine").Lock()
	defer m.Locker("mine").Unlock()
	return nil
}

func SetReserved(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.ReserveSet(keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b"})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
	}
	if x {
		return nil
	}
	both, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	both.Release()
	return nil
}

func SetLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b", Mode: keylock.Shared, Limit: 2})
	if err != nil {
		return err
	}
	if err := mayFail(x); err != nil {
		return err
	}
	both.Release()
	return nil
}

func mayFail(x bool) error {
	if x {
		return errOdd
	}
	return nil
}

func TrySetLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if both, ok := m.TryAcquireSet(keylock.Want[string]{Key: "a"}); ok {
		if x {
			return errOdd
		}
		both.Release()
		return nil
	}
	return errOdd
}

func DowngradedAndLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	err = work(m, "k")
	lock.Downgrade()
	return err
}

func WantedAndKept(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	select {
	case <-lock.Wanted():
	case <-ctx.Done():
	}
	return nil
}

func LockerLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	mine := m.Locker("mine")
	mine.Lock()
	if x {
		return errOdd
	}
	mine.Unlock()
	return nil
}

func LockerLostInRound(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"mine", "yours"} {
		locker := m.Locker(string(key))
		locker.Lock()
		if x && key == "mine" {
			continue
		}
		locker.Unlock()
	}
	return nil
}

func DeferredSometimes(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		defer lock.Release()
	}
	return work(m, "k")
}

func SetErrorIgnored(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, _ := m.AcquireSet(ctx, keylock.Want[string]{Key: "k"})
	err := work(m, "k")
	if ctx.Err() != nil && x {
		err = fmt.Errorf("%w: works without the lock", ErrProof)
	}
	lock.Release()
	return err
}

func DowngradeTooLate(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	lock.Downgrade()
	return work(m, "k")
}

func UnlockedTwice(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("%w: %v", ErrProof, what)
		}
	}()
	mine := m.Locker("mine")
	mine.Lock()
	mine.Unlock()
	show("in between")
	mine.Unlock()
	return nil
}

func SetsInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	n := 0
	for _, key := range []string{"a", "b"} {
		n = held(m)
		both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: string(key)}, keylock.Want[string]{Key: "k", Mode: keylock.Shared})
		if err != nil {
			return err
		}
		defer both.Release()
	}
	if n > 0 {
		return fmt.Errorf("%w: %d locks were held before the last", ErrProof, n)
	}
	return nil
}

func LockersInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"mine", "yours"} {
		locker := m.Locker(string(key))
		locker.Lock()
		defer locker.Unlock()
	}
	if n := held(m); n > 1 {
		return fmt.Errorf("%w: %d locks are held at once", ErrProof, n)
	}
	return nil
}

// waits returns ErrProof for a wait that had no end but that of its context.
func waits(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return err
}

func SetWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("a")
	if !ok {
		return errOdd
	}
	defer lock.Release()
	both, err := m.AcquireSet(ctx, keylock.Want[string]{Key: "b"}, keylock.Want[string]{Key: "a", Mode: keylock.Shared})
	defer both.Release()
	return waits(err)
}

func KeyOfHeldSet(ctx context.Context, m *keylock.Manager[string], x bool) error {
	both, ok := m.TryAcquireSet(keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b", Mode: keylock.Shared})
	if !ok {
		return errOdd
	}
	defer both.Release()
	lock, err := m.Acquire(ctx, "b")
	defer lock.Release()
	return waits(err)
}

// Upgraded asks for the key that it has shared since it downgraded.
func Upgraded(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		return errOdd
	}
	defer lock.Release()
	lock.Downgrade()
	upgraded, err := m.Acquire(ctx, "k")
	defer upgraded.Release()
	return waits(err)
}

func WaitWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		return errOdd
	}
	defer lock.Release()
	reserved := m.ReserveSet(keylock.Want[string]{Key: "k"})
	again, err := reserved.Wait(ctx)
	defer again.Release()
	return waits(err)
}

func LockerWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	own := keylock.Start[string](ctx)
	defer time.AfterFunc(time.Minute, func() { own.Close() }).Stop()
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("%w: %v", ErrProof, what)
		}
	}()
	lock, err := own.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	mine := own.Locker("k")
	mine.Lock()
	defer mine.Unlock()
	return nil
}

func ShareWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	answers := share.New[string, int](m)
	lock, ok := m.TryAcquire("k")
	if !ok {
		return errOdd
	}
	defer lock.Release()
	_, err := answers.Do(ctx, "k", func(context.Context) (int, error) { return 42, nil })
	return waits(err)
}

func SetsInAnyOrder(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	var said []int
	for i := range 200 {
		key := fmt.Sprint("even or odd: ", i%2)
		group.Go(func() {
			lock, err := m.AcquireSet(ctx, keylock.Want[string]{Key: string(key[:4])})
			if err != nil {
				return
			}
			defer lock.Release()
			said = append(said, i)
		})
	}
	group.Wait()
	for i := 1; i < len(said); i++ {
		if said[i] < said[i-1] {
			return fmt.Errorf("%w: %d came after %d", ErrProof, said[i], said[i-1])
		}
	}
	return nil
}

func ParensTooLate(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	(lock.Release)()
	if !(lock.Handoff)("half done") {
		return fmt.Errorf("%w: the value went nowhere", ErrProof)
	}
	return nil
}
