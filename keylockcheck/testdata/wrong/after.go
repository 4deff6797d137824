package wrong

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// After are the functions of this file by their names: written with the analyzers at hand,
// against what they might miss.
var After = map[string]Case{
	"Trap12":                 {"lostpath", Trap12},
	"DroppedInGoroutine":     {"dropped", DroppedInGoroutine},
	"DroppedByDefer":         {"dropped", DroppedByDefer},
	"DroppedByVar":           {"dropped", DroppedByVar},
	"ReservedOnOneBranch":    {"reservation", ReservedOnOneBranch},
	"ReservedAndErrorFirst":  {"reservation", ReservedAndErrorFirst},
	"SelectGivesUp":          {"lostpath", SelectGivesUp},
	"FlagSaysReleased":       {"lostpath", FlagSaysReleased},
	"ReleasedOnlyOnErrors":   {"lostpath", ReleasedOnlyOnErrors},
	"OverwrittenEachRound":   {"lostpath", OverwrittenEachRound},
	"LostEachRound":          {"lostpath", LostEachRound},
	"GotoSkipsRelease":       {"lostpath", GotoSkipsRelease},
	"ReleasedWhenTrueOnly":   {"lostpath", ReleasedWhenTrueOnly},
	"LostBesideLoopVariable": {"lostpath", LostBesideLoopVariable},
	"BatchLost":              {"lostpath", BatchLost},
	"LostThroughInterface":   {"lostpath", LostThroughInterface},
	"LostInNestedLiteral":    {"lostpath", LostInNestedLiteral},
	"OnlyPrinted":            {"lostpath", OnlyPrinted},
	"PrintedByHelper":        {"lostpath", PrintedByHelper},
	"PrintedFromHelper":      {"lostpath", PrintedFromHelper},
	"HandoffDeferred":        {"lostpath", HandoffDeferred},
	"HandoffToBlank":         {"lostpath", HandoffToBlank},
	"MarkedBefore":           {"dropped", MarkedBefore},
	"FailureOfLater":         {"lostpath", FailureOfLater},
	"KeptButLost":            {"lostpath", KeptButLost},
	"ErrorOfWorkToo":         {"lostpath", ErrorOfWorkToo},
	"RoundsCounted":          {"lostpath", RoundsCounted},
	"TakenByHelper":          {"lostpath", TakenByHelper},
	"PrintedAndAsked":        {"reacquire", PrintedAndAsked},
	"BoolIgnored":            {"errignored", BoolIgnored},
	"WaitErrorIgnored":       {"errignored", WaitErrorIgnored},
	"HandoffAfterBoth":       {"afterrelease", HandoffAfterBoth},
	"DeferredLiteralInLoop":  {"deferloop", DeferredLiteralInLoop},
	"ReacquireInDo":          {"reacquire", ReacquireInDo},
	"ReacquireInBatch":       {"reacquire", ReacquireInBatch},
	"UpgradeInSession":       {"reacquire", UpgradeInSession},
	"GoInLoop":               {"orderhint", GoInLoop},
}

// Outside are functions that cannot be run in a bubble.
var Outside = map[string]Case{
	"NeverEnded":      {"neverended", NeverEnded},
	"NeverEndedField": {"neverended", NeverEndedField},
	"SignalCloses":    {"signalctx", SignalCloses},
}

// Trap12 returns outside the block of the lock; the report is at the lock
// (jjti/go-spancheck#25).
func Trap12(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if x {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		show(lock.Key())
	}
	show("outside")
	return nil
}

func DroppedInGoroutine(ctx context.Context, m *keylock.Manager[string], x bool) error {
	go m.Acquire(ctx, "k")
	time.Sleep(time.Second)
	return nil
}

func DroppedByDefer(ctx context.Context, m *keylock.Manager[string], x bool) error {
	defer m.TryAcquireSet(keylock.Want[string]{Key: "a"}, keylock.Want[string]{Key: "b"})
	return nil
}

func DroppedByVar(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var _, err = m.Acquire(ctx, "k")
	return err
}

func ReservedOnOneBranch(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	if x {
		lock, err := reserved.Wait(ctx)
		if err != nil {
			return err
		}
		lock.Release()
	}
	return nil
}

func ReservedAndErrorFirst(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.ReserveSet(keylock.Want[string]{Key: "k", Mode: keylock.Shared})
	if err := ctx.Err(); err != nil || x {
		return err
	}
	defer reserved.Cancel()
	return nil
}

// SelectGivesUp loses the lock when nothing receives it in time.
func SelectGivesUp(ctx context.Context, m *keylock.Manager[string], x bool) error {
	out := make(chan keylock.Lock[string])
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	select {
	case out <- lock:
	case <-time.After(time.Minute):
		return errOdd
	}
	return nil
}

func FlagSaysReleased(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	released := x
	if !released {
		lock.Release()
	}
	return nil
}

func ReleasedOnlyOnErrors(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	err = work(m, "k")
	if err != nil {
		lock.Release()
		return err
	}
	err = work(m, "k")
	if err != nil {
		lock.Release()
		return fmt.Errorf("again: %w", err)
	}
	return nil
}

func OverwrittenEachRound(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var err error
	for _, key := range []string{"a", "b"} {
		lock, err = m.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		show(lock.Key())
	}
	lock.Release()
	return nil
}

func LostEachRound(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"a", "b", "k"} {
		lock, err := m.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		if lock.Key() == "b" {
			lock.Release()
		}
	}
	return nil
}

func GotoSkipsRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		goto end
	}
	lock.Release()
end:
	show("the end")
	return nil
}

func ReleasedWhenTrueOnly(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err == nil && x {
		lock.Release()
	}
	return err
}

func LostBesideLoopVariable(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i := range 3 {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		if i == 1 {
			return nil
		}
		lock.Release()
	}
	return nil
}

func BatchLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	both, err := m.AcquireAll(ctx, "a", "b")
	if err != nil {
		return err
	}
	switch {
	case x:
		return fmt.Errorf("grant %d: %w", both.Seq(), errOdd)
	default:
		both.Release()
	}
	return nil
}

type locker interface {
	TryAcquire(key string) (keylock.Lock[string], bool)
}

func LostThroughInterface(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var l locker = m
	lock, ok := l.TryAcquire("k")
	if ok {
		show(lock.Key())
	}
	return nil
}

func LostInNestedLiteral(ctx context.Context, m *keylock.Manager[string], x bool) error {
	try := func() error {
		return func() error {
			lock, err := m.Acquire(ctx, "k")
			if err != nil || x {
				return err
			}
			lock.Release()
			return nil
		}()
	}
	return try()
}

func BoolIgnored(ctx context.Context, m *keylock.Manager[string], x bool) error {
	before := held(m)
	lock, _ := m.TryAcquire("k")
	defer lock.Release()
	if held(m) == before {
		return fmt.Errorf("%w: it is not locked here", ErrProof)
	}
	return nil
}

func WaitErrorIgnored(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	reserved := m.Reserve("k")
	lock, _ := reserved.Wait(ctx)
	defer lock.Release()
	return work(m, "k")
}

func HandoffAfterBoth(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		show("slow")
		lock.Release()
	} else {
		lock.Release()
	}
	if passed := lock.Handoff(1); !passed {
		return fmt.Errorf("%w: the value went nowhere", ErrProof)
	}
	return nil
}

func DeferredLiteralInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i := 0; i < 2; i++ {
		lock, ok := m.TryAcquire([]string{"a", "b"}[i])
		if !ok {
			continue
		}
		defer func() { lock.Release() }()
	}
	if n := held(m); n > 1 {
		return fmt.Errorf("%w: %d locks are held at once", ErrProof, n)
	}
	return nil
}

func ReacquireInDo(ctx context.Context, m *keylock.Manager[string], x bool) error {
	err := m.Do(ctx, "k", func(ctx context.Context) error {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return err
}

func ReacquireInBatch(ctx context.Context, m *keylock.Manager[string], x bool) error {
	const mine = "k"
	lock, ok := m.TryAcquire(mine)
	if !ok {
		return errOdd
	}
	defer func() { lock.Release() }()
	both, err := m.AcquireAll(ctx, "a", mine)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	both.Release()
	return err
}

func UpgradeInSession(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reader := m.Session("reader")
	defer reader.Close()
	key := "k"
	shared, err := reader.AcquireShared(ctx, key)
	if err != nil {
		return err
	}
	defer shared.Release()
	exclusive, err := reader.Acquire(ctx, key)
	if errors.Is(err, keylock.ErrDeadlock) {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	exclusive.Release()
	return err
}

func GoInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var said []int
	for i := 0; i < 200; i++ {
		key := fmt.Sprint("even or odd: ", i%2)
		group.Add(1)
		go func(key string) {
			defer group.Done()
			lock, err := m.Acquire(ctx, string(key[:4]))
			if err != nil {
				return
			}
			defer lock.Release()
			mu.Lock()
			said = append(said, i)
			mu.Unlock()
		}(key)
	}
	group.Wait()
	for i := 1; i < len(said); i++ {
		if said[i] < said[i-1] {
			return fmt.Errorf("%w: %d came after %d", ErrProof, said[i], said[i-1])
		}
	}
	return nil
}

func NeverEnded(ctx context.Context, m *keylock.Manager[string], x bool) error {
	own := keylock.Start[int](context.Background())
	lock, err := own.Acquire(ctx, 1)
	if err != nil {
		return err
	}
	lock.Release()
	return fmt.Errorf("%w: it is not Done", ErrProof)
}

func count(ctx context.Context, locks *keylock.Manager[int]) (int, error) {
	stats, err := locks.Stats(ctx)
	return stats.Held, err
}

func NeverEndedField(ctx context.Context, m *keylock.Manager[string], x bool) error {
	root := context.WithValue(context.Background(), errOdd, 1)
	own := keylock.Start[int](root, keylock.WithMaxWaiters(1))
	_, err := count(ctx, own)
	return errors.Join(err, ErrProof)
}

func SignalCloses(ctx context.Context, m *keylock.Manager[string], x bool) error {
	stopping, stop := signal.NotifyContext(ctx, syscall.SIGUSR1)
	defer stop()
	own := keylock.Start[string](stopping)
	lock, err := own.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	queued := own.Reserve("k")
	defer queued.Cancel()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	<-stopping.Done()
	own.Shutdown(ctx)
	if next, err := queued.Wait(ctx); err != nil {
		return fmt.Errorf("%w: queued work was not drained: %w", ErrProof, err)
	} else {
		next.Release()
	}
	return nil
}

func OnlyPrinted(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		return fmt.Errorf("odd with %v", lock)
	}
	lock.Release()
	return nil
}

func shows(lock keylock.Lock[string]) { slog.New(slog.DiscardHandler).Info("taken", "lock", lock) }

func PrintedByHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	shows(lock)
	return nil
}

func showsTaken(ctx context.Context, m *keylock.Manager[string]) (keylock.Lock[string], error) {
	lock, err := m.Acquire(ctx, "k")
	fmt.Fprintln(io.Discard, lock, err)
	return lock, err
}

func PrintedFromHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := showsTaken(ctx, m)
	if err != nil {
		return err
	}
	return work(m, lock.Key())
}

func HandoffDeferred(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Handoff("done")
	return work(m, "k")
}

func HandoffToBlank(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	_ = lock.Handoff("done")
	return nil
}

func MarkedBefore(ctx context.Context, m *keylock.Manager[string], x bool) error {
	first, err := m.Acquire(ctx, "a") //keylock:held and not the next
	_, err2 := m.Acquire(ctx, "b")
	first.Release()
	return errors.Join(err, err2)
}

// FailureOfLater collects errors of what follows, not that of the lock.
func FailureOfLater(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failures []error
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if err = mayFail(x); err != nil {
		failures = append(failures, err)
	}
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	lock.Release()
	return nil
}

// KeptButLost notes that there is no lock, and asks for something else.
func KeptButLost(ctx context.Context, m *keylock.Manager[string], x bool) error {
	failed := 0
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failed++
	}
	if x {
		return errOdd
	}
	lock.Release()
	show(failed)
	return nil
}

// ErrorOfWorkToo has one variable for two errors, of which it asks too late.
func ErrorOfWorkToo(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err == nil {
		err = mayFail(x)
	}
	if err == nil {
		lock.Release()
	}
	return err
}

func RoundsCounted(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i := 0; i < 2; i++ {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			continue
		}
		if x && i == 1 {
			continue
		}
		lock.Release()
	}
	return nil
}

func takes(ctx context.Context, m *keylock.Manager[string]) (keylock.Lock[string], bool) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return lock, false
	}
	return lock, true
}

func TakenByHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := takes(ctx, m)
	if !ok {
		return errOdd
	}
	if x {
		return errOdd
	}
	lock.Release()
	return nil
}

// PrintedAndAsked prints the lock, which is then still held.
func PrintedAndAsked(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		return errOdd
	}
	defer lock.Release()
	fmt.Fprintln(io.Discard, lock)
	again, err := m.Acquire(ctx, "k")
	defer again.Release()
	return waits(err)
}
