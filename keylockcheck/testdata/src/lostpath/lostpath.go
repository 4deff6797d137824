package lostpath

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func function(ctx context.Context, m *kl.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k") // want `the lock of m.Acquire on line 19 is not released when the function returns on line 24 \(line 23: x is true\)`
	if err != nil {
		return err
	}
	if x {
		return errors.New("x")
	}
	lock.Release()
	return nil
}

type server[K comparable] struct{ locks *kl.Manager[K] }

func (s *server[K]) method(key K, n int) {
	lock, ok := s.locks.TryAcquire(key) // want `not released when the function returns on line 43 \(line 37: n == 1 is false\)`
	if !ok {
		return
	}
	switch n {
	case 1:
		lock.Release()
	}
	log.Print("between")
	// and the function ends
}

var literal = func(ctx context.Context, m *cohort.Manager) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line 51`
	if err != nil {
		return err
	}
	if lock.Token() == (cohort.Token{}) {
		return errors.New("no token")
	}
	return lock.Release()
}

func generic[K ~string](ctx context.Context, m *kl.Manager[K], keys []K) error {
	for _, key := range keys {
		both, err := m.AcquireAll(ctx, key, "k") // want `on the next round of the loop \(line 62: key == "" is true; line 57: the loop is entered\)`
		if err != nil {
			return err
		}
		if key == "" {
			continue
		}
		both.Release()
	}
	return nil
}

func overwritten(ctx context.Context, m *kl.Manager[string]) {
	lock, err := m.Acquire(ctx, "a") // want `not released before it is overwritten on line 75`
	if err != nil {
		return
	}
	lock, err = m.Acquire(ctx, "b")
	if err == nil {
		lock.Release()
	}
}

func look(lock kl.Lock[string]) { log.Print(lock.Key()) }

func onlyLooked(ctx context.Context, m *kl.Manager[string]) {
	lock, err := m.Acquire(ctx, "k") // want `the lock of m.Acquire on line 84 is not released`
	if err == nil {
		look(lock)
	}
}

// What follows is right.

func exits(ctx context.Context, m *kl.Manager[string], n int) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		log.Fatal(err)
	}
	switch n {
	case 0:
		panic("0")
	case 1:
		os.Exit(1)
	case 2:
		log.Fatal("2")
	case 3:
		for {
		}
	}
	lock.Release()
}

type holder struct {
	lock kl.Lock[string]
	all  map[string]kl.Lock[string]
}

func passesOn(ctx context.Context, m *kl.Manager[string], h *holder, out chan<- kl.Lock[string]) (lock kl.Lock[string], err error) {
	a, err := m.Acquire(ctx, "a")
	if err != nil {
		return
	}
	h.lock = a
	b, err := m.Acquire(ctx, "b")
	if err != nil {
		return
	}
	h.all[b.Key()] = b
	c, err := m.Acquire(ctx, "c")
	if err != nil {
		return
	}
	out <- c
	d, err := m.Acquire(ctx, "d")
	if err != nil {
		return
	}
	defer func() { d.Release() }()
	lock, err = m.Acquire(ctx, "e")
	return
}

func onPurpose(ctx context.Context, m *kl.Manager[string]) error {
	//keylock:held for as long as the process lives
	lock, err := m.Acquire(ctx, "leader")
	if err != nil {
		return err
	}
	log.Print("leads since ", lock.Seq())
	return nil
}

func many(ctx context.Context, m *cohort.Manager, x bool) error {
	both, err := m.AcquireAll(ctx, "a", "b") // want `the lock of m.AcquireAll on line \d+ is not released`
	if err != nil {
		return err
	}
	if x {
		log.Print(both.Keys(), both.Token("a"))
		return both.Context().Err()
	}
	return both.Release()
}

func manyJoined(ctx context.Context, m *cohort.Manager, x bool) (err error) {
	both, err := m.AcquireAll(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, both.Release()) }()
	if x {
		return errors.New("x")
	}
	return nil
}

func locker(m *kl.Manager[string], x bool) {
	l := m.Locker("k")
	l.Lock() // want `the lock of l.Lock on line \d+ is not released when the function returns on line \d+ \(line \d+: x is true\)`
	if x {
		return
	}
	l.Unlock()
}

func lockerDeferred(m *kl.Manager[string], x bool) {
	l := m.Locker("k")
	l.Lock()
	defer l.Unlock()
	if x {
		l.Unlock()
		log.Print("between")
		l.Lock()
		return
	}
}

// A switch whose default goes on with the lock has a path on which it is lost, however many of its
// cases release it.
func switched(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: n == 0 is false; line \d+: n == 1 is false\)`
	if err != nil {
		return err
	}
	switch n {
	case 0:
		lock.Release()
	case 1:
		log.Print("one")
		lock.Release()
	default:
		log.Print("many")
	}
	return nil
}

// Without a default the cases may be all that there are.
func exhausted(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch n {
	case 0:
		lock.Release()
	case 1:
		lock.Release()
	}
	return nil
}

func handedOff(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: lock.Handoff\(n\) is false\)`
	if err != nil {
		return err
	}
	if lock.Handoff(n) {
		return nil
	}
	return errors.New("there is no next waiter")
}

func handedOffUnseen(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+`
	if err != nil {
		return err
	}
	lock.Handoff(n)
	return nil
}

func handedOffOrReleased(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch {
	case n > 2 && lock.Handoff(n):
		return nil
	case n == 2:
		return fail(lock.Handoff(n), lock)
	case n == 1:
		for !lock.Handoff(n) {
			log.Print("once more")
		}
		return nil
	}
	if !lock.Handoff(n) {
		lock.Release()
	}
	return nil
}

func handedOffAndDeferred(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	lock.Handoff(n)
	return nil
}

func fail(done bool, lock kl.Lock[string]) error {
	lock.Release()
	return nil
}

type logger interface{ Fatalf(string, ...any) }

type event struct{}

func (event) Msg(string) {}

type events interface{ Fatal() event }

// Loggers end the process where nothing shows it.
func fatal(ctx context.Context, m *kl.Manager[string], mode string, l logger, e events) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	switch mode {
	case "a":
		lock.Release()
	case "b":
		e.Fatal().Msg(mode)
	default:
		l.Fatalf("mode %s", mode)
	}
	return nil
}

// peek returns a lock that it releases itself.
func peek(ctx context.Context, m *kl.Manager[string]) (kl.Lock[string], error) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return lock, err
	}
	defer lock.Release()
	return lock, nil
}

func peeks(ctx context.Context, m *kl.Manager[string]) (uint64, error) {
	lock, err := peek(ctx, m)
	if err != nil {
		return 0, err
	}
	return lock.Seq(), nil
}

func printed(ctx context.Context, m *kl.Manager[string], l *log.Logger) error {
	lock, err := m.Acquire(ctx, "k") // want `the lock of m.Acquire on line \d+ is not released`
	if err != nil {
		return err
	}
	fmt.Println("got", lock)
	l.Printf("got %v", lock)
	slog.InfoContext(ctx, "got", "lock", lock)
	return nil
}

// A function of another package may keep it.
func keptElsewhere(ctx context.Context, m *kl.Manager[string], all *list.List) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	all.PushBack(lock)
	return nil
}

func handedOffAtEnd(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+`
	if err != nil {
		return err
	}
	defer lock.Handoff(n)
	return nil
}

func handedOffAtEndOrReleased(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	defer lock.Handoff(n)
	return nil
}

func handedOffElsewhere(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+`
	if err != nil {
		return err
	}
	go lock.Handoff(n)
	return nil
}

// A condition about something else does not ask for the error, though it was passed on with it.
func askedLater(ctx context.Context, m *kl.Manager[string], list []string) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: len\(list\) > 2 is true\)`
	if err != nil {
		log.Print(err, list)
	}
	if len(list) > 2 {
		return err
	}
	lock.Release()
	return nil
}

func note(ctx context.Context, n int, err error) { panic(err) }

var noting = note

func notedLater(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: n > 2 is true\)`
	if err != nil {
		errors.Join(ctx.Err(), err)
		strings.Repeat(err.Error(), n)
	}
	if n > 2 {
		return err
	}
	lock.Release()
	return nil
}

func endedLater(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: ctx.Err\(\) != nil is true\)`
	if err != nil {
		context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return err
	}
	lock.Release()
	return nil
}

func notedByValue(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: n > 2 is true\)`
	if err != nil {
		noting(ctx, n, err)
	}
	if err != nil {
		return err
	}
	if n > 2 {
		return errors.New("n")
	}
	lock.Release()
	return nil
}

func wrapsLater(ctx context.Context, m *kl.Manager[string]) (err error) {
	defer func() { err = errors.Join(err, ctx.Err()) }()
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: err != nil is true\)`
	if err != nil {
		log.Print(err)
	}
	if err = context.Cause(ctx); err != nil {
		return err
	}
	lock.Release()
	return nil
}

func triedAgain(ctx context.Context, m *kl.Manager[string], x bool) error {
	tries := 0
	for tries < 3 {
		lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: x is true\)`
		if err != nil {
			tries++
			continue
		}
		if x {
			return errors.New("x")
		}
		lock.Release()
		return nil
	}
	return errors.New("tried in vain")
}

func failedTest(t *testing.T, m *kl.Manager[string]) {
	lock, err := m.Acquire(t.Context(), "k")
	if err != nil {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	lock.Release()
}

func handedOffStored(ctx context.Context, m *kl.Manager[string], n int) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	done := lock.Handoff(n)
	if done {
		return nil
	}
	lock.Release()
	return nil
}

// Both ways on lead through the assignment, so it does not tell them apart.
func countedBoth(ctx context.Context, m *kl.Manager[string]) (n int, err error) {
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+ \(line \d+: n == 1 is true\)`
	if err != nil {
		log.Print(err)
	}
	n++
	if n == 1 {
		return n, err
	}
	lock.Release()
	return n, nil
}

// What nothing releases is lost, whatever is asked.
func neverReleased(ctx context.Context, m *kl.Manager[string]) error {
	var failure error
	lock, err := m.Acquire(ctx, "k") // want `not released when the function returns on line \d+`
	if err != nil {
		failure = err
	}
	if failure == nil {
		log.Print(lock.Key())
	}
	return failure
}
