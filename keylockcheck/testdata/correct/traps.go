package correct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// Traps are functions in which analyzers of other things to close, or their users, were
// wrong once; the comments name a public report. Those that are missing here are wrong
// functions, or need a test file.
var Traps = map[string]Func{
	"Trap01": Trap01, "Trap02": Trap02, "Trap04": Trap04, "Trap05": Trap05, "Trap06": Trap06, "Trap07": Trap07, "Trap08": Trap08,
	"Trap09": Trap09, "Trap10": Trap10, "Trap11": Trap11, "Trap13": Trap13, "Trap14": Trap14, "Trap15": Trap15, "Trap16": Trap16,
	"Trap17": Trap17, "Trap18": Trap18, "Trap19": Trap19, "Trap20": Trap20, "Trap21": Trap21, "Trap22": Trap22, "Trap23": Trap23,
	"Trap24": Trap24, "Trap25": Trap25,
}

// A naked return uses a named result (golang/go#16230).
func Trap01(ctx context.Context, m *keylock.Manager[string], x bool) error {
	acquire := func() (lock keylock.Lock[string], err error) {
		lock, err = m.Acquire(ctx, "k")
		if err != nil || x {
			return
		}
		return lock, nil
	}
	lock, err := acquire()
	defer lock.Release()
	return err
}

// A variable of the function around a literal (golang/go#31856).
func Trap02(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var lock keylock.Lock[string]
	begin := func() (err error) {
		lock, err = m.Acquire(ctx, "k")
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	defer lock.Release()
	return nil
}

// Helpers and interfaces that end the goroutine (dominikh/go-tools#635, #651).
func Trap04(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	var tb testing.TB
	if lock.Key() != "k" {
		tb.Fatalf("got %v", lock.Key())
	} else if lock.Seq() == 0 {
		fatal(tb)
	} else {
		lock.Release()
	}
	return nil
}

func fatal(tb testing.TB) {
	tb.Helper()
	panic("fatal")
}

// Released in a deferred literal (ryanrolds/sqlclosecheck#49).
func Trap05(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer func() {
		if x {
			fmt.Fprintln(io.Discard, "slow path")
		}
		lock.Release()
	}()
	if x {
		return errOdd
	}
	return nil
}

// Released by a helper, which calls another one (timakin/bodyclose#80).
func Trap06(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer finally(lock)
	return work(lock.Seq())
}

func finally[K comparable](lock keylock.Lock[K]) { finish(lock, nil) }

type releaser interface{ Release() }

// Passed as an interface (timakin/bodyclose#18).
func Trap07(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	var r releaser = lock
	defer r.Release()
	return nil
}

// Returned by a factory that does more (jjti/go-spancheck#33).
func Trap08(ctx context.Context, m *keylock.Manager[string], x bool) error {
	begin := func(key string) (*job[string], error) {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			return nil, err
		}
		j := &job[string]{name: key, lock: lock}
		return j, nil
	}
	j, err := begin("k")
	if err != nil {
		return err
	}
	defer j.finish()
	return nil
}

// Kept in a field of a field (securego/gosec#1591).
func Trap09(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var all struct{ first, second job[string] }
	lock, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	all.first.lock = lock
	defer all.first.finish()
	if x {
		if all.second.lock, err = m.Acquire(ctx, "b"); err != nil {
			return err
		}
	}
	defer all.second.finish()
	return nil
}

var global releaser

// Kept in a package variable (securego/gosec#1601).
func Trap10(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	global = lock
	trap10Ends()
	return nil
}

func trap10Ends() { global.Release() }

// Released in the literal of a goroutine (securego/gosec#1590).
func Trap11(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Millisecond)
		lock.Release()
	}()
	if x {
		return nil
	}
	<-done
	return nil
}

// Released after the block, through another variable (timakin/bodyclose#77).
func Trap13(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var held keylock.Lock[string]
	if x {
		lock, err := m.Acquire(ctx, "a")
		if err != nil {
			return err
		}
		held = lock
	} else {
		lock, err := m.Acquire(ctx, "b")
		if err != nil {
			return err
		}
		held = lock
	}
	held.Release()
	return nil
}

// A defer in a loop that leaves at once (dominikh/go-tools#488).
func Trap14(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for try := 0; try < 3; try++ {
		lock, err := m.Acquire(ctx, "k")
		if err != nil {
			continue
		}
		defer lock.Release()
		if x {
			break
		}
		return work(lock.Seq())
	}
	return errOdd
}

// What is around a literal does not belong to it (opennota/check#22).
func Trap15(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "a")
	if err != nil {
		return err
	}
	inside := func() error {
		lock, err := m.Acquire(ctx, "b")
		if err != nil {
			return err
		}
		lock.Release()
		return nil
	}
	err = inside()
	lock.Release()
	return err
}

func must[K comparable](lock keylock.Lock[K], err error) keylock.Lock[K] {
	if err != nil {
		return keylock.Lock[K]{}
	}
	return lock
}

// A call as the arguments of another (golang/go#52661).
func Trap16(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock := must(m.Acquire(ctx, "k"))
	defer lock.Release()
	must(m.Acquire(ctx, "a")).Release()
	return nil
}

type stack[K comparable, V any] struct {
	locks *keylock.Manager[K]
	held  map[K]V
}

func (s *stack[K, V]) put(ctx context.Context, key K, v V) error {
	lock, err := s.locks.Acquire(ctx, key)
	if err != nil {
		return err
	}
	defer lock.Release()
	s.held[key] = v
	return nil
}

// Generic types with generic methods (golangci/golangci-lint#2649).
func Trap17(ctx context.Context, m *keylock.Manager[string], x bool) error {
	s := &stack[string, int]{locks: m, held: make(map[string]int)}
	return errors.Join(s.put(ctx, "a", 1), s.put(ctx, "b", 2))
}

// A try that is tried twice, and a lock that is conditional (Tarsnap/libcperciva#393).
func Trap18(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, ok := m.TryAcquire("k")
	if !ok {
		lock, ok = m.TryAcquire("k")
	}
	if !ok {
		return errOdd
	}
	if x {
		fmt.Fprintln(io.Discard, lock.Key())
	}
	lock.Release()
	return nil
}

type turnstile struct{ inside int }

func (t *turnstile) Acquire(ctx context.Context, key string) (uint64, error) {
	t.inside++
	return uint64(t.inside), nil
}

// Names alone mean nothing (golang/go#26165).
func Trap19(ctx context.Context, m *keylock.Manager[string], x bool) error {
	var t turnstile
	if _, err := t.Acquire(ctx, "k"); err != nil {
		return err
	}
	lock, err := m.Acquire(ctx, "k")
	lock.Release()
	return err
}

// Held on purpose, which the marker says (google/error-prone#385).
func Trap20(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	own := keylock.Start[string](context.Background())
	defer own.Close()
	if _, err := own.Acquire(ctx, "k"); err != nil { //keylock:held until own is closed
		return err
	}
	//keylock:held until own is closed
	reserved := own.Reserve("k")
	fmt.Fprintln(io.Discard, reserved == keylock.Reservation[string]{})
	return nil
}

// Much may stand between the lock and its defer (google/error-prone#3346).
func Trap21(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	begun := time.Now()
	if err != nil {
		fmt.Fprintln(io.Discard, "waited in vain for", time.Since(begun))
		return err
	}
	fmt.Fprintln(io.Discard, "waited for", time.Since(begun))
	key := lock.Key()
	_ = key
	defer lock.Release()
	return nil
}

// An empty section is a barrier (elves/elvish#1319).
func Trap22(ctx context.Context, m *keylock.Manager[string], x bool) error {
	for _, key := range []string{"a", "b"} {
		lock, err := m.Acquire(ctx, string(key))
		if err != nil {
			return err
		}
		lock.Release()
	}
	return nil
}

// Nothing has to be deferred (cockroachdb/cockroach#107577).
func Trap23(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	n := lock.Seq()
	lock.Release()
	return work(n)
}

type registry[K comparable] struct {
	mu   sync.Mutex
	held map[K]keylock.Lock[K]
}

// Lock is a getter: the registry still owns what it returns.
func (r *registry[K]) Lock(key K) (keylock.Lock[K], bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lock, ok := r.held[key]
	return lock, ok
}

// What a getter returns belongs to someone already (timakin/bodyclose#76).
func Trap24(ctx context.Context, m *keylock.Manager[string], x bool) error {
	r := registry[string]{held: make(map[string]keylock.Lock[string])}
	var err error
	if r.held["k"], err = m.Acquire(ctx, "k"); err != nil {
		return err
	}
	if lock, ok := r.Lock("k"); ok {
		fmt.Fprintln(io.Discard, lock.Seq())
	}
	r.held["k"].Release()
	return nil
}

// Ownership moves by assignment, and a defer may be conditional (golang/go#46788).
func Trap25(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	mine := true
	if x {
		moved := lock
		mine = false
		go func() { moved.Release() }()
	}
	if mine {
		defer lock.Release()
	}
	if os.Getenv("KEYLOCK_NEVER_SET") != "" {
		return errOdd
	}
	return nil
}
