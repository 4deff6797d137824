package reservation

import (
	"context"

	kl "github.com/seed-46f81e6d/keylock"
)

func function(ctx context.Context, m *kl.Manager[string], x bool) error {
	m.Reserve("k")          // want `the reservation of m.Reserve on line 10 is dropped`
	_ = m.ReserveAll("k")   // want `dropped`
	place := m.Reserve("k") // want `the reservation of m.Reserve on line 12 is neither waited for nor cancelled when the function returns on line 14 \(line 13: x is true\)`
	if x {
		return nil
	}
	place.Cancel()
	return nil
}

func generic[K comparable](ctx context.Context, m *kl.Manager[K], key K) {
	place := m.Reserve(key) // want `neither waited for nor cancelled`
	_ = place
}

type server struct{ locks *kl.Manager[string] }

func (s *server) method(ctx context.Context) {
	for _, key := range []string{"a", "b"} {
		place := s.locks.Reserve(key) // want `on the next round of the loop`
		if key == "b" {
			continue
		}
		go func() {
			lock, err := place.Wait(ctx)
			if err == nil {
				lock.Release()
			}
		}()
	}
}

var literal = func(ctx context.Context, m *kl.Manager[string]) error {
	place := m.Reserve("k") // want `neither`
	if err := ctx.Err(); err != nil {
		return err
	}
	defer place.Cancel()
	return nil
}

func reserve[K comparable](m *kl.Manager[K], key K) kl.Reservation[K] { return m.Reserve(key) }

func factory(m *kl.Manager[string]) {
	reserve(m, "k") // want `the reservation of reserve on line 54 is dropped`
}

// What follows is right.

func deferred(ctx context.Context, m *kl.Manager[string], x bool) error {
	place := m.Reserve("k")
	defer place.Cancel()
	if x {
		return nil
	}
	lock, err := place.Wait(ctx)
	lock.Release()
	return err
}

func chained(ctx context.Context, m *kl.Manager[string]) error {
	m.Reserve("k").Cancel()
	lock, err := m.Reserve("k").Wait(ctx)
	lock.Release()
	return err
}

func elsewhere(m *kl.Manager[string], places chan kl.Reservation[string], s *kl.Session[string]) kl.Reservation[string] {
	places <- m.Reserve("k")
	s.Reserve("k")
	all := []kl.Reservation[string]{m.Reserve("a"), m.Reserve("b")}
	for _, place := range all {
		place.Cancel()
	}
	a, b := m.Reserve("a"), m.Reserve("b")
	a.Cancel()
	return b
}

func onPurpose(m *kl.Manager[string]) {
	m.Reserve("k") //keylock:held blocks the key until m is closed
}
