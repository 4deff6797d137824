package reservation

import (
	"context"

	kl "github.com/seed-46f81e6d/keylock"
)

func function(ctx context.Context, m *kl.Manager[string], x bool) error {
	m.Reserve("k")             // want `the reservation of m.Reserve on line 10 is dropped`
	_ = m.ReserveSet()         // want `dropped`
	reserved := m.Reserve("k") // want `the reservation of m.Reserve on line 12 is neither waited for nor cancelled when the function returns on line 14 \(line 13: x is true\)`
	if x {
		return nil
	}
	reserved.Cancel()
	return nil
}

func generic[K comparable](ctx context.Context, m *kl.Manager[K], key K) {
	reserved := m.Reserve(key) // want `neither waited for nor cancelled`
	_ = reserved
}

type server struct{ locks *kl.Manager[string] }

func (s *server) method(ctx context.Context) {
	for _, key := range []string{"a", "b"} {
		reserved := s.locks.Reserve(key) // want `on the next round of the loop`
		if key == "b" {
			continue
		}
		go func() {
			lock, err := reserved.Wait(ctx)
			if err == nil {
				lock.Release()
			}
		}()
	}
}

var literal = func(ctx context.Context, m *kl.Manager[string]) error {
	reserved := m.Reserve("k") // want `neither`
	if err := ctx.Err(); err != nil {
		return err
	}
	defer reserved.Cancel()
	return nil
}

func reserve[K comparable](m *kl.Manager[K], key K) kl.Reservation[K] { return m.Reserve(key) }

func factory(m *kl.Manager[string]) {
	reserve(m, "k") // want `the reservation of reserve on line 54 is dropped`
}

// What follows is right.

func deferred(ctx context.Context, m *kl.Manager[string], x bool) error {
	reserved := m.Reserve("k")
	defer reserved.Cancel()
	if x {
		return nil
	}
	lock, err := reserved.Wait(ctx)
	lock.Release()
	return err
}

func chained(ctx context.Context, m *kl.Manager[string]) error {
	m.Reserve("k").Cancel()
	lock, err := m.Reserve("k").Wait(ctx)
	lock.Release()
	return err
}

func elsewhere(m *kl.Manager[string], reservations chan kl.Reservation[string], s *kl.Session[string]) kl.Reservation[string] {
	reservations <- m.Reserve("k")
	s.Reserve("k")
	all := []kl.Reservation[string]{m.Reserve("a"), m.Reserve("b")}
	for _, reserved := range all {
		reserved.Cancel()
	}
	a, b := m.Reserve("a"), m.Reserve("b")
	a.Cancel()
	return b
}

func onPurpose(m *kl.Manager[string]) {
	m.Reserve("k") //keylock:held blocks the key until m is closed
}
