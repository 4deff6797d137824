package dropped

import (
	"context"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func function(ctx context.Context, m *kl.Manager[string]) error {
	_, err := m.Acquire(ctx, "k") // want `the lock of m.Acquire on line 11 is dropped`
	if err != nil {
		return err
	}
	if _, ok := m.TryAcquire("k"); ok { // want `the lock of m.TryAcquire on line 15 is dropped`
		return nil
	}
	m.AcquireShared(ctx, "k")         // want `dropped`
	_, _ = m.AcquireAll(ctx)          // want `dropped`
	_, err = m.Reserve("k").Wait(ctx) // want `the lock of m.Reserve\("k"\).Wait on line 20 is dropped`
	return err
}

type server[K comparable] struct{ locks *kl.Manager[K] }

func (s *server[K]) method(ctx context.Context, key K) error {
	_, err := s.locks.Acquire(ctx, key) // want `the lock of s.locks.Acquire on line 27 is dropped`
	return err
}

var literal = func(ctx context.Context, m *cohort.Manager) error {
	_, err := m.TryAcquire(ctx, "k") // want `dropped`
	return err
}

func generic[K ~string](ctx context.Context, m *kl.Manager[K]) {
	go m.Acquire(ctx, "k") // want `dropped`
}

// The session is never closed.
func session(ctx context.Context, m *kl.Manager[string]) error {
	s := m.Session("s")
	_, err := s.Acquire(ctx, "k") // want `dropped`
	return err
}

func open(ctx context.Context, m *kl.Manager[string]) (kl.Lock[string], error) {
	return m.Acquire(ctx, "k")
}

func factory(ctx context.Context, m *kl.Manager[string]) error {
	_, err := open(ctx, m) // want `the lock of open on line 52 is dropped`
	return err
}

// What follows is right, or said to be.

func sessions(ctx context.Context, m *kl.Manager[string], theirs *kl.Session[string]) error {
	ours := m.Session("ours")
	defer ours.Close()
	if _, err := ours.Acquire(ctx, "k"); err != nil {
		return err
	}
	_, err := theirs.Acquire(ctx, "k")
	return err
}

func onPurpose(ctx context.Context, m *kl.Manager[string]) {
	m.Acquire(ctx, "k") //keylock:held the process ends here
	//keylock:held until m is closed
	m.Acquire(ctx, "k")
}

func elsewhere(ctx context.Context, m *kl.Manager[string], locks map[string]kl.Lock[string], errs []error) {
	locks["k"], errs[0] = m.Acquire(ctx, "k")
	func(kl.Lock[string], error) {}(m.Acquire(ctx, "k"))
}

type other struct{}

func (other) Acquire(ctx context.Context, key string) (int, error) { return 0, nil }

func stranger(ctx context.Context) {
	other{}.Acquire(ctx, "k")
}

func many(ctx context.Context, m *cohort.Manager) error {
	if _, err := m.AcquireAll(ctx, "a", "b"); err != nil { // want `the lock of m.AcquireAll on line \d+ is dropped`
		return err
	}
	both, err := m.AcquireAll(ctx, "a", "b")
	if err != nil {
		return err
	}
	return both.Release()
}

func locker(m *kl.Manager[string]) {
	m.Locker("k").Lock() // want `the lock of m.Locker\("k"\).Lock on line \d+ is dropped: another Locker of the key cannot release it; keep this one in a variable`
	l := m.Locker("k")
	l.Lock()
	l.Unlock()
	held := m.Locker("held") //keylock:held is for the Lock
	held.Lock()              //keylock:held until the process ends
}

// An embedded session, one behind an interface, and reservations of one end with its Close.

type transaction struct {
	*kl.Session[string]
	reserved []kl.Reservation[string]
}

func (t transaction) all(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if _, err := t.Acquire(ctx, key); err != nil {
			return err
		}
	}
	reserved := t.Reserve("last")
	if _, err := reserved.Wait(ctx); err != nil {
		return err
	}
	for _, reserved := range t.reserved {
		if _, err := reserved.Wait(ctx); err != nil {
			return err
		}
	}
	_, err := t.lock(ctx, "k")
	return err
}

func (t transaction) lock(ctx context.Context, key string) (kl.Lock[string], error) {
	return t.Acquire(ctx, key)
}

type acquirer interface {
	Acquire(ctx context.Context, key string) (kl.Lock[string], error)
}

func either(ctx context.Context, locks acquirer) error {
	_, err := locks.Acquire(ctx, "k")
	return err
}

type failing struct{ err error }

func (f *failing) dropped(ctx context.Context, m *kl.Manager[string]) {
	_, f.err = m.Acquire(ctx, "k") // want `the lock of m.Acquire on line \d+ is dropped`
}

func onPurposeOverLines(ctx context.Context, m *kl.Manager[string]) error {
	_, err := m.Acquire(
		ctx,
		"leader",
	) //keylock:held until the process ends
	m.Acquire(ctx, "next") // want `dropped`
	return err
}

// The marker is about the line of code that it stands on, or about the statement after it.
func markers(ctx context.Context, m *kl.Manager[string]) error {
	_, first := m.Acquire(ctx, "a")    //keylock:held and not the next line
	_, second := m.Acquire(ctx, "b")   // want `dropped`
	if first != nil || second != nil { //keylock:held which says nothing
		_, first = m.Acquire(ctx, "c") // want `dropped`
	} //keylock:held which says nothing
	switch {
	default: //keylock:held which says nothing
		m.Acquire(ctx, "c") // want `dropped`
	}
	m.Acquire(ctx, "d") //keylock:heldover is not the marker // want `dropped`
	m.Acquire(ctx, "e") // keylock:held neither // want `dropped`
	m.Acquire(ctx, "f") //keylock:held
	m.Acquire(ctx, "g") //keylock:held: for life
	//keylock:held for life
	//
	// Which is long.
	_, second =
		m.Acquire(ctx, "h")

	//keylock:held by what is far away

	m.Acquire(ctx, "i") // want `dropped`
	return second
}

// A bool of a function says whether there is a lock only if it is that of TryAcquire.
func tries(m *kl.Manager[string]) (kl.Lock[string], bool) { return m.TryAcquire("k") }

func triesOf(m *kl.Manager[string]) bool {
	_, ok := tries(m) // want `dropped`
	return ok
}
