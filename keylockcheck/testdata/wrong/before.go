package wrong

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/seed-46f81e6d/keylock"
)

// Before are the functions of this file by their names.
var Before = map[string]Case{
	"DroppedLock":            {"dropped", DroppedLock},
	"DroppedTry":             {"dropped", DroppedTry},
	"ResultUnused":           {"dropped", ResultUnused},
	"DroppedInCondition":     {"dropped", DroppedInCondition},
	"DroppedBatch":           {"dropped", DroppedBatch},
	"ReservedAlone":          {"reservation", ReservedAlone},
	"ReservedBlank":          {"reservation", ReservedBlank},
	"ReservedThenReturned":   {"reservation", ReservedThenReturned},
	"ReservedLoopContinues":  {"reservation", ReservedLoopContinues},
	"EarlyReturn":            {"lostpath", EarlyReturn},
	"SecondFailsFirstIsLost": {"lostpath", SecondFailsFirstIsLost},
	"BreakSkipsRelease":      {"lostpath", BreakSkipsRelease},
	"ContinueSkipsRelease":   {"lostpath", ContinueSkipsRelease},
	"NeverReleased":          {"lostpath", NeverReleased},
	"SwitchMissesOne":        {"lostpath", SwitchMissesOne},
	"TryLost":                {"lostpath", TryLost},
	"WaitedAndLost":          {"lostpath", WaitedAndLost},
	"LostInLiteral":          {"lostpath", LostInLiteral},
	"Overwritten":            {"lostpath", Overwritten},
	"OnlyLookedAt":           {"lostpath", OnlyLookedAt},
	"FactoryLost":            {"lostpath", FactoryLost},
	"SessionOpen":            {"lostpath", SessionOpen},
	"ErrorIgnored":           {"errignored", ErrorIgnored},
	"HandoffTooLate":         {"afterrelease", HandoffTooLate},
	"WaitedTwice":            {"afterrelease", WaitedTwice},
	"WaitAfterCancel":        {"afterrelease", WaitAfterCancel},
	"DeferInLoop":            {"deferloop", DeferInLoop},
	"ReacquireInSession":     {"reacquire", ReacquireInSession},
	"ReacquireHangs":         {"reacquire", ReacquireHangs},
	"NotInOrder":             {"orderhint", NotInOrder},
}

func DroppedLock(ctx context.Context, m *keylock.Manager[string], x bool) error {
	_, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	return work(m, "k")
}

func DroppedTry(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if _, ok := m.TryAcquire("k"); !ok {
		return errOdd
	}
	return nil
}

func ResultUnused(ctx context.Context, m *keylock.Manager[string], x bool) error {
	m.Acquire(ctx, "k")
	return work(m, "k")
}

func DroppedInCondition(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if _, err := m.AcquireShared(ctx, "k"); err != nil {
		return fmt.Errorf("k: %w", err)
	}
	return nil
}

func DroppedBatch(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var err error
	if x {
		_, err = m.AcquireAll(ctx, "a", "b")
	}
	return err
}

func ReservedAlone(ctx context.Context, m *keylock.Manager[string], x bool) error {
	m.Reserve("k")
	return nil
}

func ReservedBlank(ctx context.Context, m *keylock.Manager[string], x bool) error {
	_ = m.ReserveSet(keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b"})
	return nil
}

func ReservedThenReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	if x {
		return errOdd
	}
	lock, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	return work(m, "k")
}

func ReservedLoopContinues(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	defer group.Wait()
	for _, word := range []string{"signs up", "", "leaves"} {
		reserved := m.Reserve("k")
		if word == "" {
			continue
		}
		group.Go(func() {
			if lock, err := reserved.Wait(ctx); err == nil {
				lock.Release()
			}
		})
	}
	return nil
}

func EarlyReturn(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		return nil
	}
	lock.Release()
	return nil
}

func SecondFailsFirstIsLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	a, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	bctx := ctx
	if x {
		var cancel context.CancelFunc
		bctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	b, err := m.Acquire(bctx, "b")
	if err != nil {
		return fmt.Errorf("b: %w", err)
	}
	defer a.Release()
	defer b.Release()
	return work(m, "b")
}

func BreakSkipsRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i := range 3 {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		if x && i == 2 {
			break
		}
		lock.Release()
	}
	return nil
}

func ContinueSkipsRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i, key := range []string{"a", "b"} {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			return err
		}
		if x && i == 0 {
			continue
		}
		show(lock.Key())
		lock.Release()
	}
	return nil
}

func NeverReleased(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	show(lock.Key(), lock.Seq())
	return nil
}

func SwitchMissesOne(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch {
	case x:
		lock.Release()
	case lock.Seq() == 0:
		panic("a lock without a number")
	}
	return nil
}

func TryLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		return nil
	}
	if err := work(m, "k"); err != nil || x {
		return err
	}
	lock.Release()
	return nil
}

func WaitedAndLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	defer reserved.Cancel()
	lock, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	if x {
		return errOdd
	}
	lock.Release()
	return nil
}

func LostInLiteral(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	group.Go(func() {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return
		}
		if x {
			show("nothing to do")
			return
		}
		lock.Release()
	})
	group.Wait()
	return nil
}

func Overwritten(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	lock, err = m.Acquire(ctx, "b")
	if err != nil {
		return err
	}
	lock.Release()
	return nil
}

func describe(lock keylock.Lock[string]) string {
	return fmt.Sprintf("%q, grant %d", lock.Key(), lock.Seq())
}

func OnlyLookedAt(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	show(describe(lock))
	return nil
}

func open(ctx context.Context, m *keylock.Manager[string]) (keylock.Lock[string], error) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return keylock.Lock[string]{}, fmt.Errorf("open: %w", err)
	}
	return lock, nil
}

func FactoryLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := open(ctx, m)
	if err != nil {
		return err
	}
	if x {
		return errOdd
	}
	lock.Release()
	return nil
}

func SessionOpen(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	lock, err := order.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		return errOdd
	}
	lock.Release()
	return nil
}

func ErrorIgnored(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	lock, _ := m.Acquire(ctx, "k")
	err := work(m, "k")
	lock.Release()
	return err
}

func HandoffTooLate(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	next := m.Reserve("k")
	defer next.Cancel()
	lock.Release()
	if !lock.Handoff("half done") {
		return fmt.Errorf("%w: the value went nowhere", ErrProof)
	}
	return nil
}

func WaitedTwice(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	lock, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	lock.Release()
	again, err := reserved.Wait(ctx)
	if errors.Is(err, keylock.ErrReservationDone) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	again.Release()
	return err
}

func WaitAfterCancel(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	reserved.Cancel()
	lock, err := reserved.Wait(ctx)
	if errors.Is(err, keylock.ErrReservationDone) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	lock.Release()
	return err
}

func DeferInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"a", "b"} {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
	}
	if n := held(m); n > 1 {
		return fmt.Errorf("%w: %d locks are held at once", ErrProof, n)
	}
	return nil
}

func ReacquireInSession(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	first, err := order.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer first.Release()
	second, err := order.Acquire(ctx, "k")
	if errors.Is(err, keylock.ErrDeadlock) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err != nil {
		return err
	}
	defer second.Release()
	return nil
}

func ReacquireHangs(ctx context.Context, m *keylock.Manager[string], x bool) error {
	first, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer first.Release()
	second, err := m.Acquire(ctx, "k")
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err != nil {
		return err
	}
	defer second.Release()
	return nil
}

// NotInOrder starts goroutines in the order of the words, and they lock in another.
func NotInOrder(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	var keys, said []string
	for range 200 {
		keys = append(keys, "k")
	}
	for i, key := range keys {
		group.Go(func() {
			lock, err := m.Acquire(ctx, key)
			if err != nil {
				return
			}
			defer lock.Release()
			said = append(said, fmt.Sprintf("%03d", i))
		})
	}
	group.Wait()
	for i := 1; i < len(said); i++ {
		if said[i] < said[i-1] {
			return fmt.Errorf("%w: %s came after %s", ErrProof, said[i], said[i-1])
		}
	}
	return nil
}
