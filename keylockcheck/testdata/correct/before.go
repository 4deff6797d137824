package correct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// Before are the functions of this file by their names.
var Before = map[string]Func{
	"DeferAfterCheck": DeferAfterCheck, "DeferBeforeCheck": DeferBeforeCheck, "ReleaseOnBothPaths": ReleaseOnBothPaths,
	"TryInIf": TryInIf, "TryElse": TryElse, "EventsInOrder": EventsInOrder, "ReserveDeferCancel": ReserveDeferCancel,
	"ReserveCancelOrWait": ReserveCancelOrWait, "Transfer": Transfer, "SessionClosed": SessionClosed, "SessionReleased": SessionReleased,
	"CallerReleases": CallerReleases, "NamedResults": NamedResults, "KeptInStruct": KeptInStruct, "KeptInMap": KeptInMap,
	"KeptInSlice": KeptInSlice, "SentToWorker": SentToWorker, "PassedToHelper": PassedToHelper, "PassedToGoroutine": PassedToGoroutine,
	"DeferredLiteral": DeferredLiteral, "ReleaseAsValue": ReleaseAsValue, "UnlockReturned": UnlockReturned, "CleanupRegistered": CleanupRegistered,
	"SwitchOnError": SwitchOnError, "QueueFullIsFine": QueueFullIsFine, "ErrorWrapped": ErrorWrapped, "ErrorCheckedByHelper": ErrorCheckedByHelper,
	"ErrorCopied": ErrorCopied, "ConditionalByFlag": ConditionalByFlag, "ConditionalZeroLock": ConditionalZeroLock, "RetryLoop": RetryLoop,
	"RetryOuterVariable": RetryOuterVariable, "Chain": Chain, "GotoCleanup": GotoCleanup, "BreakOut": BreakOut, "SelectLoop": SelectLoop,
	"PanicBetween": PanicBetween, "ExitBetween": ExitBetween, "FatalBetween": FatalBetween, "HandoffOrRelease": HandoffOrRelease,
	"CloserReturned": CloserReturned, "GenericHelper": GenericHelper, "MethodValueOfManager": MethodValueOfManager, "ThroughInterface": ThroughInterface,
	"OnlyWhenNil": OnlyWhenNil, "LiteralCalled": LiteralCalled, "Iterator": Iterator, "OnceFunc": OnceFunc, "AfterContext": AfterContext,
	"AfterTime": AfterTime, "ArrayOfLocks": ArrayOfLocks, "JoinedErrors": JoinedErrors, "SecondFails": SecondFails, "LoopBody": LoopBody,
	"LiteralPerRound": LiteralPerRound, "SharedReaders": SharedReaders, "RecoverAndRelease": RecoverAndRelease, "Barrier": Barrier,
	"OwnManager": OwnManager, "ManagerReturned": ManagerReturned, "LateRelease": LateRelease, "TwiceReleased": TwiceReleased,
}

func DeferAfterCheck(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	if x {
		return errOdd
	}
	return work(lock.Seq())
}

func DeferBeforeCheck(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	defer lock.Release()
	if err != nil {
		return fmt.Errorf("acquire %q: %w", "k", err)
	}
	return work(lock.Seq())
}

func ReleaseOnBothPaths(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		lock.Release()
		return nil
	}
	err = work(lock.Seq())
	lock.Release()
	return err
}

func TryInIf(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if lock, ok := m.TryAcquire("k"); ok {
		defer lock.Release()
		return work(lock.Seq())
	}
	return errOdd
}

func TryElse(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		fmt.Fprintln(io.Discard, "k is being refreshed")
		return nil
	} else {
		fmt.Fprintln(io.Discard, "refresh", lock.Key())
	}
	lock.Release()
	return nil
}

func EventsInOrder(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var group sync.WaitGroup
	var story []string
	for _, word := range []string{"signs up", "pays", "leaves"} {
		reserved := m.Reserve("k")
		group.Go(func() {
			lock, err := reserved.Wait(ctx)
			if err != nil {
				return
			}
			defer lock.Release()
			story = append(story, word)
		})
	}
	group.Wait()
	return nil
}

func ReserveDeferCancel(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	defer reserved.Cancel()
	if x {
		return errOdd
	}
	lock, err := reserved.Wait(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	return work(lock.Seq())
}

func ReserveCancelOrWait(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	if x {
		reserved.Cancel()
		return nil
	}
	lock, err := reserved.Wait(ctx)
	if err == nil {
		lock.Release()
	}
	return err
}

func Transfer(ctx context.Context, m *keylock.Manager[string], x bool) error {
	balance := map[string]int{"a": 1}
	transfer := func(from, to string, amount int) error {
		both, err := m.AcquireAll(ctx, from, to)
		if err != nil {
			return err
		}
		defer both.Release()
		if balance[from] < amount {
			return errOdd
		}
		balance[from] -= amount
		balance[to] += amount
		return nil
	}
	if x {
		return transfer("a", "b", 1)
	}
	return errors.Join(transfer("b", "a", 5), transfer("a", "b", 1))
}

func SessionClosed(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	defer order.Close()
	if _, err := order.Acquire(ctx, "a"); err != nil {
		return err
	}
	if x {
		if _, err := order.Acquire(ctx, "b"); err != nil {
			return err
		}
	}
	return nil
}

func SessionReleased(ctx context.Context, m *keylock.Manager[string], x bool) error {
	order := m.Session("order")
	a, err := order.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	defer a.Release()
	b, err := order.Acquire(ctx, "b")
	if err != nil {
		return err
	}
	defer b.Release()
	return work(b.Seq())
}

func open(ctx context.Context, m *keylock.Manager[string], key string) (keylock.Lock[string], error) {
	lock, err := m.Acquire(ctx, key)
	if err != nil {
		return keylock.Lock[string]{}, fmt.Errorf("open %s: %w", key, err)
	}
	return lock, nil
}

func CallerReleases(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := open(ctx, m, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	return work(lock.Seq())
}

func openNamed(ctx context.Context, m *keylock.Manager[string], key string) (lock keylock.Lock[string], err error) {
	lock, err = m.Acquire(ctx, key)
	if err != nil {
		return
	}
	return
}

func NamedResults(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := openNamed(ctx, m, "k")
	lock.Release()
	return err
}

type job[K comparable] struct {
	name string
	lock keylock.Lock[K]
}

func (j *job[K]) finish() { j.lock.Release() }

func KeptInStruct(ctx context.Context, m *keylock.Manager[string], x bool) error {
	j := &job[string]{name: "k"}
	var err error
	if j.lock, err = m.Acquire(ctx, "k"); err != nil {
		return err
	}
	defer j.finish()
	if x {
		return errOdd
	}
	return nil
}

func KeptInMap(ctx context.Context, m *keylock.Manager[string], x bool) error {
	held := make(map[string]keylock.Lock[string])
	defer func() {
		for _, lock := range held {
			lock.Release()
		}
	}()
	for _, key := range []string{"a", "b"} {
		lock, err := m.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		held[lock.Key()] = lock
	}
	return nil
}

func KeptInSlice(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var held []keylock.Lock[string]
	defer func() {
		for _, lock := range held {
			lock.Release()
		}
	}()
	for range 3 {
		lock, err := m.AcquireShared(ctx, "k")
		if err != nil {
			return err
		}
		held = append(held, lock)
	}
	return nil
}

func SentToWorker(ctx context.Context, m *keylock.Manager[string], x bool) error {
	jobs := make(chan keylock.Lock[string])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lock := range jobs {
			lock.Release()
		}
	}()
	defer func() { close(jobs); <-done }()
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	jobs <- lock
	return nil
}

func finish[K comparable](lock keylock.Lock[K], err error) error {
	lock.Release()
	return err
}

func PassedToHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		return finish(lock, errOdd)
	}
	return finish(lock, nil)
}

func PassedToGoroutine(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	go finish(lock, nil)
	return nil
}

func DeferredLiteral(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer func() {
		lock.Release()
		err = wrap(err)
	}()
	if x {
		return errOdd
	}
	return work(lock.Seq())
}

func ReleaseAsValue(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	release := lock.Release
	defer release()
	return nil
}

func mutex(ctx context.Context, m *keylock.Manager[string], key string) (unlock func(), err error) {
	lock, err := m.Acquire(ctx, key)
	if err != nil {
		return nil, err
	}
	return lock.Release, nil
}

func UnlockReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	unlock, err := mutex(ctx, m, "k")
	if err != nil {
		return err
	}
	defer unlock()
	return nil
}

type cleanups []func()

func (c *cleanups) add(f func()) { *c = append(*c, f) }

func (c *cleanups) run() {
	for _, f := range *c {
		f()
	}
}

func CleanupRegistered(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var after cleanups
	defer after.run()
	a, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	after.add(a.Release)
	b, err := m.Acquire(ctx, "b")
	if err != nil {
		return err
	}
	after.add(func() { b.Release() })
	return nil
}

func SwitchOnError(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	switch {
	case errors.Is(err, keylock.ErrClosed):
		return nil
	case err != nil:
		return err
	}
	defer lock.Release()

	other, err := m.Acquire(ctx, "a")
	switch err {
	case nil:
		other.Release()
		return nil
	case context.Canceled, context.DeadlineExceeded:
		return err
	default:
		return errOdd
	}
}

func QueueFullIsFine(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if errors.Is(err, keylock.ErrQueueFull) {
		return nil
	}
	if err != nil {
		return err
	}
	lock.Release()
	return nil
}

func ErrorWrapped(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	err = wrap(err)
	if err != nil {
		return err
	}
	err = work(lock.Seq())
	lock.Release()
	return err
}

func ErrorCheckedByHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if bad(err) {
		return err
	}
	lock.Release()
	return nil
}

func ErrorCopied(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	first := err
	if first != nil {
		return first
	}
	failed := err != nil
	if failed {
		return err
	}
	lock.Release()
	return nil
}

func ConditionalByFlag(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var err error
	if x {
		lock, err = m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(io.Discard, lock.Seq())
	if x {
		lock.Release()
	}
	return nil
}

func ConditionalZeroLock(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	if x {
		var err error
		if lock, err = m.AcquireShared(ctx, "k"); err != nil {
			return err
		}
	}
	defer lock.Release()
	return nil
}

func RetryLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for {
		lock, ok := m.TryAcquire("k")
		if ok {
			err := work(lock.Seq())
			lock.Release()
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func RetryOuterVariable(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	var err error
	for try := 0; ; try++ {
		lock, err = m.Acquire(ctx, "k")
		if err == nil {
			break
		}
		if try == 3 {
			return err
		}
	}
	defer lock.Release()
	return work(lock.Seq())
}

// Chain holds each key until it has the next, as one walks down a tree.
func Chain(ctx context.Context, m *keylock.Manager[string], x bool) error {
	held, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	for _, key := range []string{"b", "k"} {
		next, err := m.Acquire(ctx, string(key))
		held.Release()
		if err != nil {
			return err
		}
		held = next
	}
	held.Release()
	return nil
}

func GotoCleanup(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if err = work(lock.Seq()); err != nil {
		goto done
	}
	if x {
		err = errOdd
		goto done
	}
	fmt.Fprintln(io.Discard, lock.Key())
done:
	lock.Release()
	return err
}

func BreakOut(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
loop:
	for i := range 10 {
		switch {
		case x && i == 3:
			break loop
		case i == 5:
			continue loop
		}
	}
	lock.Release()
	return nil
}

func SelectLoop(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ticks := make(chan int, 3)
	for i := range 3 {
		ticks <- i
	}
	close(ticks)
	for {
		select {
		case _, ok := <-ticks:
			if !ok {
				return nil
			}
			lock, err := m.Acquire(ctx, "k")
			if err != nil {
				if errors.Is(err, context.Canceled) {
					return nil
				}
				continue
			}
			if x {
				lock.Release()
				continue
			}
			err = work(lock.Seq())
			lock.Release()
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func PanicBetween(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if lock.Seq() == 0 {
		panic("a lock without a number")
	}
	lock.Release()
	return nil
}

func ExitBetween(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if lock.Seq() == 0 {
		fmt.Fprintln(os.Stderr, "a lock without a number")
		os.Exit(1)
	}
	lock.Release()
	return nil
}

func die(why string) {
	log.Fatal(why)
}

func FatalBetween(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch {
	case lock.Key() != "k":
		log.Fatalf("got %v", lock.Key())
	case lock.Seq() == 0:
		die("a lock without a number")
	default:
		lock.Release()
	}
	return nil
}

func HandoffOrRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		next := m.Reserve("k")
		defer func() {
			if lock, err := next.Wait(ctx); err == nil {
				lock.Release()
			}
		}()
	}
	if !lock.Handoff("half done") {
		lock.Release()
	}
	return nil
}

type guarded[K comparable] struct{ lock keylock.Lock[K] }

func (g guarded[K]) Close() error {
	g.lock.Release()
	return nil
}

func openGuarded(ctx context.Context, m *keylock.Manager[string]) (io.Closer, error) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return nil, err
	}
	return guarded[string]{lock}, nil
}

func CloserReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	c, err := openGuarded(ctx, m)
	if err != nil {
		return err
	}
	defer c.Close()
	return nil
}

func with[K comparable](ctx context.Context, m *keylock.Manager[K], key K, fn func() error) error {
	lock, err := m.Acquire(ctx, key)
	if err != nil {
		return err
	}
	defer lock.Release()
	return fn()
}

func GenericHelper(ctx context.Context, m *keylock.Manager[string], x bool) error {
	return with(ctx, m, "a", func() error {
		return with(ctx, m, "b", func() error { return nil })
	})
}

func MethodValueOfManager(ctx context.Context, m *keylock.Manager[string], x bool) error {
	acquire := m.Acquire
	if x {
		acquire = m.AcquireShared
	}
	lock, err := acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	return nil
}

type locker[K comparable] interface {
	Acquire(ctx context.Context, key K) (keylock.Lock[K], error)
}

func ThroughInterface(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var l locker[string] = m
	if x {
		l = m.Session("one of many")
	}
	lock, err := l.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	return nil
}

func OnlyWhenNil(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err == nil {
		err = work(lock.Seq())
		lock.Release()
	}
	return err
}

func LiteralCalled(ctx context.Context, m *keylock.Manager[string], x bool) error {
	if err := func() error {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		defer lock.Release()
		return work(lock.Seq())
	}(); err != nil {
		return err
	}
	return nil
}

func Iterator(ctx context.Context, m *keylock.Manager[string], x bool) error {
	rows := func() iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			lock, err := m.Acquire(ctx, "k")
			if err != nil {
				yield(0, err)
				return
			}
			defer lock.Release()
			for i := range 3 {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
	for i, err := range rows() {
		if err != nil || x && i == 1 {
			return err
		}
	}
	return nil
}

func OnceFunc(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	release := sync.OnceFunc(lock.Release)
	defer release()
	if x {
		release()
	}
	return nil
}

func AfterContext(ctx context.Context, m *keylock.Manager[string], x bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, lock.Release)
	return nil
}

func AfterTime(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	time.AfterFunc(time.Second, func() { lock.Release() })
	return nil
}

func ArrayOfLocks(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	var held [2]keylock.Lock[string]
	for i, key := range []string{"a", "b"} {
		held[i], err = m.Acquire(ctx, string(key))
		if err != nil {
			break
		}
	}
	for _, lock := range held {
		lock.Release()
	}
	return err
}

func JoinedErrors(ctx context.Context, m *keylock.Manager[string], x bool) error {
	a, aErr := m.Acquire(ctx, "a")
	b, bErr := m.Acquire(ctx, "b")
	err := errors.Join(aErr, bErr)
	if err == nil {
		err = work(b.Seq())
	}
	a.Release()
	b.Release()
	return err
}

func SecondFails(ctx context.Context, m *keylock.Manager[string], x bool) error {
	a, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	b, err := m.Acquire(ctx, "b")
	if err != nil {
		a.Release()
		return err
	}
	b.Release()
	a.Release()
	return nil
}

func LoopBody(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for i := range 3 {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return err
		}
		if x && i == 1 {
			lock.Release()
			break
		}
		if i == 0 {
			lock.Release()
			continue
		}
		lock.Release()
	}
	return nil
}

func LiteralPerRound(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for range 3 {
		err := func() error {
			lock, err := m.Acquire(ctx, "k")
			if err != nil {
				return err
			}
			defer lock.Release()
			return work(lock.Seq())
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

func SharedReaders(ctx context.Context, m *keylock.Manager[string], x bool) error {
	first, err := m.AcquireShared(ctx, "k")
	if err != nil {
		return err
	}
	defer first.Release()
	if second, ok := m.TryAcquireSet(keylock.Want[string]{Key: "k", Mode: keylock.Shared}); ok {
		defer second.Release()
	}
	return nil
}

func RecoverAndRelease(ctx context.Context, m *keylock.Manager[string], x bool) (err error) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
		lock.Release()
	}()
	if x {
		panic("in the section")
	}
	return nil
}

// Barrier waits until everyone who asked earlier is through.
func Barrier(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	return nil
}

func OwnManager(ctx context.Context, m *keylock.Manager[string], x bool) error {
	own := keylock.Start[int](context.Background())
	defer own.Close()
	lock, err := own.Acquire(ctx, 1)
	if err != nil {
		return err
	}
	defer lock.Release()
	return nil
}

type server struct {
	locks *keylock.Manager[string]
}

func newServer() *server {
	locks := keylock.Start[string](context.Background(), keylock.WithMaxWaiters(10))
	return &server{locks: locks}
}

func (s *server) stop(ctx context.Context) error {
	if err := s.locks.Shutdown(ctx); err != nil {
		return s.locks.Close()
	}
	return nil
}

func ManagerReturned(ctx context.Context, m *keylock.Manager[string], x bool) error {
	s := newServer()
	lock, err := s.locks.Acquire(ctx, "k")
	if err == nil {
		lock.Release()
	}
	return errors.Join(err, s.stop(context.WithoutCancel(ctx)))
}

func LateRelease(ctx context.Context, m *keylock.Manager[string], x bool) error {
	own := keylock.Start[string](context.Background())
	lock, err := own.Acquire(ctx, "k")
	if err != nil {
		own.Close()
		return err
	}
	own.Close()
	lock.Release()
	return nil
}

func TwiceReleased(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := work(lock.Seq()); err != nil {
		return err
	}
	lock.Release() // others may go on while we log
	fmt.Fprintln(io.Discard, lock.Key(), lock.Seq())
	return nil
}
