package correct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// After are the functions of this file by their names: written with the analyzers at hand,
// against what they might take for a mistake.
var After = map[string]Func{
	"FlagSetLater": FlagSetLater, "SameConditionTwice": SameConditionTwice, "OppositeConditions": OppositeConditions,
	"SwitchOverAll": SwitchOverAll, "ReleasedInLoop": ReleasedInLoop, "AcquiredInLoop": AcquiredInLoop, "HeldAcrossRounds": HeldAcrossRounds,
	"NumberAsked": NumberAsked, "ZeroCompared": ZeroCompared, "ErrorKept": ErrorKept, "ErrorSent": ErrorSent, "AndThen": AndThen,
	"EitherFails": EitherFails, "DeferredErrorWrap": DeferredErrorWrap, "SelectSend": SelectSend, "ReleasedByFlagField": ReleasedByFlagField,
	"ReservationMoved": ReservationMoved, "ReservedInSlice": ReservedInSlice, "TwoKeysOneOwner": TwoKeysOneOwner, "AgainAfterRelease": AgainAfterRelease,
	"SharedTwice": SharedTwice, "TryWhileHeld": TryWhileHeld, "SignalDetached": SignalDetached, "SignalWithoutDrain": SignalWithoutDrain,
	"CancelledManager": CancelledManager, "DeferredInSession": DeferredInSession, "IgnoredThenAsked": IgnoredThenAsked,
	"WaitAgainAnew": WaitAgainAnew, "OrderReserved": OrderReserved, "WorkersShareKeys": WorkersShareKeys, "DoTwoKeys": DoTwoKeys,
	"TypeSwitchReleases": TypeSwitchReleases, "LabelledRetry": LabelledRetry, "ExtraBracesAndParens": ExtraBracesAndParens,
	"FailureKept": FailureKept, "FailuresCollected": FailuresCollected, "LastFailure": LastFailure, "TriesCounted": TriesCounted,
	"StatusChosen": StatusChosen, "StickyFailure": StickyFailure, "FailureByLiteral": FailureByLiteral, "FailureByCall": FailureByCall,
	"StateChosen": StateChosen, "GrantCounted": GrantCounted, "NumberKept": NumberKept, "KeyAsked": KeyAsked, "ZeroVariable": ZeroVariable,
	"AskedByHelper": AskedByHelper, "AskedBeforeError": AskedBeforeError, "BusyReturned": BusyReturned, "FailedReturned": FailedReturned,
	"LockBook": LockBook, "MarkedInHelper": MarkedInHelper, "MarkedAbove": MarkedAbove, "FailuresRanged": FailuresRanged,
	"FailureBySwitch": FailureBySwitch, "FailureByChannel": FailureByChannel, "FailureSent": FailureSent, "FailureOfContext": FailureOfContext,
	"ErrorOverwritten": ErrorOverwritten, "HandoffNoted": HandoffNoted, "FailureInPackage": FailureInPackage, "AgainWhenOneFailed": AgainWhenOneFailed,
}

func FlagSetLater(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	released := false
	if x {
		lock.Release()
		released = true
	}
	fmt.Fprintln(io.Discard, "in between")
	if !released {
		lock.Release()
	}
	return nil
}

func SameConditionTwice(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	n := lock.Seq()
	if x {
		lock.Release()
	}
	err = work(n)
	if !x {
		lock.Release()
	}
	return err
}

func OppositeConditions(ctx context.Context, m *keylock.Manager[string], x bool) error {
	keys := []string{"a", "b"}
	if x {
		keys = nil
	}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		lock.Release()
	}
	if len(keys) == 0 {
		lock.Release()
	}
	return nil
}

type mode int

const (
	fast mode = iota
	slow
)

func SwitchOverAll(ctx context.Context, m *keylock.Manager[string], x bool) error {
	how := fast
	if x {
		how = slow
	}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch how {
	case fast:
		lock.Release()
	case slow:
		time.Sleep(time.Millisecond)
		lock.Release()
	}
	return nil
}

func ReleasedInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if i == 3 || x {
			lock.Release()
			return nil
		}
	}
}

func AcquiredInLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var err error
	for i := range 3 {
		if i > 0 {
			lock.Release()
		}
		lock, err = m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
	}
	lock.Release()
	return nil
}

func HeldAcrossRounds(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	held := false
	for i := range 5 {
		if !held {
			var err error
			if lock, err = m.Acquire(ctx, "k"); err != nil {
				return err
			}
			held = true
		}
		if i%2 == 1 {
			lock.Release()
			held = false
		}
	}
	if held {
		lock.Release()
	}
	return nil
}

func NumberAsked(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if lock.Seq() == 0 {
		return err
	}
	lock.Release()
	other, _ := m.TryAcquire("a")
	if other.Seq() > 0 {
		other.Release()
	}
	return nil
}

func ZeroCompared(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if lock == (keylock.Lock[string]{}) {
		return err
	}
	defer lock.Release()
	return nil
}

type result struct{ err error }

func ErrorKept(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var r result
	lock, err := m.Acquire(ctx, "k")
	r.err = err
	if r.err != nil {
		return r.err
	}
	lock.Release()
	return nil
}

func ErrorSent(ctx context.Context, m *keylock.Manager[string], x bool) error {
	failures := make(chan error, 1)
	lock, err := m.Acquire(ctx, "k")
	failures <- err
	if err := <-failures; err != nil {
		return err
	}
	lock.Release()
	return nil
}

func AndThen(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err == nil && x {
		lock.Release()
		return nil
	}
	if err == nil && !x {
		lock.Release()
	}
	return err
}

func EitherFails(ctx context.Context, m *keylock.Manager[string], x bool) error {
	a, aErr := m.Acquire(ctx, "a")
	b, bErr := m.Acquire(ctx, "b")
	if aErr != nil || bErr != nil {
		a.Release()
		b.Release()
		return errors.Join(aErr, bErr)
	}
	defer a.Release()
	defer b.Release()
	return nil
}

func DeferredErrorWrap(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("deferred: %w", err)
		}
	}()
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		lock.Release()
		return errOdd
	}
	lock.Release()
	return nil
}

func SelectSend(ctx context.Context, m *keylock.Manager[string], x bool) error {
	out := make(chan keylock.Lock[string])
	go func() {
		select {
		case lock := <-out:
			lock.Release()
		case <-time.After(time.Second):
		}
	}()
	if x {
		time.Sleep(2 * time.Second)
	}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	select {
	case out <- lock:
		return nil
	case <-time.After(time.Minute):
		lock.Release()
		return errOdd
	}
}

type section struct{ open bool }

func ReleasedByFlagField(ctx context.Context, m *keylock.Manager[string], x bool) error {
	s := &section{}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	s.open = true
	if x {
		lock.Release()
		s.open = false
	}
	if s.open {
		lock.Release()
	}
	return nil
}

type task[K comparable] struct{ reserved keylock.Reservation[K] }

func ReservationMoved(ctx context.Context, m *keylock.Manager[string], x bool) error {
	t := task[string]{reserved: m.Reserve("k")}
	reserved := t.reserved
	if x {
		reserved.Cancel()
		return nil
	}
	lock, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	lock.Release()
	return nil
}

func ReservedInSlice(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var reservations []keylock.Reservation[string]
	for range 3 {
		reserved := m.Reserve("k")
		reservations = append(reservations, reserved)
	}
	var first error
	for _, reserved := range reservations {
		if first != nil {
			reserved.Cancel()
			continue
		}
		lock, err := reserved.Wait(ctx)
		if err != nil {
			first = err
			continue
		}
		lock.Release()
	}
	return first
}

func TwoKeysOneOwner(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	for _, key := range []string{"a", "b"} {
		first, err := order.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		second, err := order.Acquire(ctx, "k")
		if err != nil {
			first.Release()
			return err
		}
		second.Release()
		first.Release()
	}
	return nil
}

func AgainAfterRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	if lock, err = m.Acquire(ctx, "k"); err != nil {
		return err
	}
	lock.Release()
	return nil
}

func SharedTwice(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reader := m.Session("reader")
	defer reader.Close()
	first, err := reader.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	defer first.Release()
	second, err := reader.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	defer second.Release()
	return nil
}

func TryWhileHeld(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	if again, ok := m.TryAcquire("k"); ok {
		again.Release()
		return errOdd
	}
	return nil
}

// SignalDetached is told of the signal, and the manager is not: it drains.
func SignalDetached(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	if x {
		return nil
	}
	stopping, stop := signal.NotifyContext(ctx, syscall.SIGUSR2)
	own := keylock.Start[string](context.WithoutCancel(stopping))
	stop()
	return own.Shutdown(context.WithoutCancel(ctx))
}

// SignalWithoutDrain ends with the signal, and wants nothing else.
func SignalWithoutDrain(ctx context.Context, m *keylock.Manager[string], x bool) error {
	stopping, stop := signal.NotifyContext(ctx, syscall.SIGUSR2)
	defer stop()
	own := keylock.Start[string](stopping)
	defer own.Close()
	lock, err := m.Acquire(ctx, "k")
	lock.Release()
	return err
}

func CancelledManager(ctx context.Context, m *keylock.Manager[string], x bool) error {
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	own := keylock.Start[string](inner)
	lock, err := own.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	lock, err = m.Acquire(ctx, "k")
	lock.Release()
	return err
}

// DeferredInSession holds what it has until it is through, as a transaction does.
func DeferredInSession(ctx context.Context, m *keylock.Manager[string], x bool) error {
	transaction := m.Session("transaction")
	for _, key := range []string{"b", "a"} {
		lock, err := transaction.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		defer lock.Release()
	}
	return nil
}

func IgnoredThenAsked(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, _ := m.Acquire(ctx, "k")
	locked := lock.Seq() != 0
	lock.Release()
	if !locked {
		return errOdd
	}
	return nil
}

func WaitAgainAnew(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	for try := range 3 {
		if try > 0 {
			reserved = m.Reserve("k")
		}
		lock, err := reserved.Wait(ctx)
		if err != nil {
			continue
		}
		lock.Release()
	}
	return nil
}

func OrderReserved(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	for _, key := range []string{"a", "b", "a"} {
		reserved := m.Reserve(string(key))
		group.Add(1)
		go func() {
			defer group.Done()
			defer reserved.Cancel()
			if x {
				return
			}
			lock, err := reserved.Wait(ctx)
			if err != nil {
				return
			}
			defer lock.Release()
		}()
	}
	group.Wait()
	return nil
}

func WorkersShareKeys(ctx context.Context, m *keylock.Manager[string], x bool) error {
	jobs := make(chan string, 4)
	for _, key := range []string{"a", "b", "a", "k"} {
		jobs <- string(key)
	}
	close(jobs)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for key := range jobs {
				lock, err := m.Acquire(ctx, key)
				if err != nil {
					return
				}
				lock.Release()
			}
		})
	}
	group.Wait()
	return nil
}

func DoTwoKeys(ctx context.Context, m *keylock.Manager[string], x bool) error {
	return m.Do(ctx, "a", func(ctx context.Context) error {
		lock, err := m.Acquire(ctx, "b")
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	})
}

func TypeSwitchReleases(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var what any = 1
	if x {
		what = "one"
	}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch what := what.(type) {
	case int:
		fmt.Fprintln(io.Discard, what+1)
		lock.Release()
	case string:
		fmt.Fprintln(io.Discard, what+"!")
		lock.Release()
	}
	return nil
}

func LabelledRetry(ctx context.Context, m *keylock.Manager[string], x bool) error {
	tries := 0
again:
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		if tries++; tries < 3 {
			goto again
		}
		return err
	}
	if x && tries < 2 {
		tries++
		lock.Release()
		goto again
	}
	lock.Release()
	return nil
}

func ExtraBracesAndParens(ctx context.Context, m *keylock.Manager[string], x bool) error {
	{
		lock, err := (m).Acquire(ctx, ("k"))
		if (err) != (nil) {
			return (err)
		}
		{
			defer (lock).Release()
		}
	}
	return nil
}

// The failure of the lock may be kept in something else, which is asked instead.

func FailureKept(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failure error
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failure = wrap(err)
	}
	if failure != nil {
		return failure
	}
	lock.Release()
	return nil
}

func FailuresCollected(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failures []error
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failures = append(failures, err)
	}
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	lock.Release()
	return nil
}

func FailuresRanged(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failures []error
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failures = append(failures, err)
	}
	for _, failure := range failures {
		return failure
	}
	lock.Release()
	return nil
}

func LastFailure(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var last error
	for range 3 {
		var err error
		lock, err = m.Acquire(ctx, "k")
		if err == nil {
			last = nil
			break
		}
		last = err
	}
	if last != nil {
		return last
	}
	lock.Release()
	return nil
}

func TriesCounted(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var ok bool
	tries := 0
	for ; tries < 3; tries++ {
		if lock, ok = m.TryAcquire("k"); ok {
			break
		}
	}
	if tries == 3 {
		return errOdd
	}
	lock.Release()
	return nil
}

func StatusChosen(ctx context.Context, m *keylock.Manager[string], x bool) error {
	status := 200
	lock, ok := m.TryAcquire("k")
	if !ok {
		status = 409
	}
	if status != 200 {
		return errOdd
	}
	lock.Release()
	return nil
}

type sticky struct {
	err  error
	lost chan struct{}
}

func (s *sticky) fail(err error) { s.err = err }
func (s *sticky) failed() bool   { return s.err != nil }

func StickyFailure(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var s sticky
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		s.err = err
	}
	if s.failed() {
		return s.err
	}
	lock.Release()
	return nil
}

func FailureByCall(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var s sticky
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		s.fail(err)
	}
	if s.err != nil {
		return s.err
	}
	lock.Release()
	return nil
}

func FailureByLiteral(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failure error
	fail := func(err error) { failure = err }
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		fail(err)
	}
	if failure != nil {
		return failure
	}
	lock.Release()
	return nil
}

func FailureBySwitch(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var failure any
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failure = err
	}
	switch failure := failure.(type) {
	case error:
		return failure
	case nil:
		lock.Release()
	}
	return nil
}

func FailureByChannel(ctx context.Context, m *keylock.Manager[string], x bool) error {
	s := sticky{lost: make(chan struct{})}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		close(s.lost)
	}
	select {
	case <-s.lost:
		return errOdd
	default:
	}
	lock.Release()
	return nil
}

func FailureSent(ctx context.Context, m *keylock.Manager[string], x bool) error {
	failures := make(chan error, 1)
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		failures <- err
	}
	select {
	case err := <-failures:
		return err
	default:
	}
	lock.Release()
	return nil
}

func FailureOfContext(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		cancel(err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	lock.Release()
	return nil
}

var failed bool

func fail() { failed = true }

func FailureInPackage(ctx context.Context, m *keylock.Manager[string], x bool) error {
	failed = false
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		fail()
	}
	if failed {
		return err
	}
	lock.Release()
	return nil
}

// AgainWhenOneFailed may have no lock after the first condition.
func AgainWhenOneFailed(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil && err != keylock.ErrQueueFull {
		return err
	}
	if err == keylock.ErrQueueFull {
		if lock, err = m.Acquire(ctx, "k"); err != nil {
			return err
		}
	}
	lock.Release()
	return nil
}

func StateChosen(ctx context.Context, m *keylock.Manager[string], x bool) error {
	state := "waiting"
	lock, err := m.Acquire(ctx, "k")
	if err == nil {
		state = "held"
	}
	if state == "held" {
		lock.Release()
	}
	return err
}

func GrantCounted(ctx context.Context, m *keylock.Manager[string], x bool) error {
	grants := 0
	lock, ok := m.TryAcquire("k")
	if ok {
		grants++
	}
	if grants == 0 {
		return errOdd
	}
	lock.Release()
	return nil
}

// The lock itself may say that there is none.

func NumberKept(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, _ := m.TryAcquire("k")
	held := lock.Seq() != 0
	if !held {
		return errOdd
	}
	lock.Release()
	return nil
}

func KeyAsked(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, _ := m.Acquire(ctx, "k")
	if lock.Key() == "" {
		return errOdd
	}
	lock.Release()
	return nil
}

func ZeroVariable(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var zero keylock.Lock[string]
	lock, _ := m.Acquire(ctx, "k")
	if lock == zero {
		return errOdd
	}
	lock.Release()
	return nil
}

func isHeld[K comparable](lock keylock.Lock[K]) bool { return lock != keylock.Lock[K]{} }

func AskedByHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, _ := m.TryAcquire("k")
	if !isHeld(lock) {
		return errOdd
	}
	lock.Release()
	return nil
}

func AskedBeforeError(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if !isHeld(lock) {
		return err
	}
	lock.Release()
	return nil
}

func ErrorOverwritten(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	_, err = fmt.Fprintln(io.Discard, "asked")
	if err != nil {
		lock.Release()
		return err
	}
	if lock.Key() == "" {
		return errOdd
	}
	lock.Release()
	return nil
}

func HandoffNoted(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	state := "held"
	if lock.Handoff("value") {
		state = "handed off"
	}
	if state == "handed off" {
		return nil
	}
	lock.Release()
	return nil
}

// A bool need not be true when there is a lock.

func isBusy(m *keylock.Manager[string]) (lock keylock.Lock[string], busy bool) {
	lock, ok := m.TryAcquire("k")
	return lock, !ok
}

func BusyReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, busy := isBusy(m)
	if busy {
		return errOdd
	}
	lock.Release()
	return nil
}

func fails(ctx context.Context, m *keylock.Manager[string]) (keylock.Lock[string], bool) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return lock, true
	}
	return lock, false
}

func FailedReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, failed := fails(ctx, m)
	if failed {
		return errOdd
	}
	lock.Release()
	return nil
}

// A book has locks of others.
type book interface {
	AcquiredLock(key string) (keylock.Lock[string], bool)
	ReservedBy(key string) keylock.Reservation[string]
}

type page struct {
	lock     keylock.Lock[string]
	reserved keylock.Reservation[string]
}

func (p page) AcquiredLock(string) (keylock.Lock[string], bool)  { return p.lock, true }
func (p page) ReservedBy(key string) keylock.Reservation[string] { return p.reserved }

func LockBook(ctx context.Context, m *keylock.Manager[string], x bool) error {
	held, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer held.Release()
	var b book = page{lock: held}
	lock, ok := b.AcquiredLock("k")
	if !ok {
		return errOdd
	}
	_ = b.ReservedBy("k")
	return work(lock.Seq())
}

func lead(ctx context.Context, m *keylock.Manager[string]) (keylock.Lock[string], error) {
	return m.Acquire(ctx, "k") //keylock:held until m is closed
}

func MarkedInHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	own := keylock.Start[string](context.Background())
	defer own.Close()
	_, err = lead(ctx, own)
	return err
}

func MarkedAbove(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	own := keylock.Start[string](context.Background())
	defer own.Close()
	//keylock:held until own is closed
	// It is the only one.
	_, err =
		own.Acquire(ctx,
			"k")
	return err
}
