package deferloop

import (
	"context"
	"slices"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func function(ctx context.Context, m *kl.Manager[string], keys []string) error {
	for _, key := range keys {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release() // want `the lock of m.Acquire on line 13 is released only when the function returns`
	}
	return nil
}

type server[K comparable] struct{ locks *kl.Manager[K] }

func (s *server[K]) method(key K) {
	for {
		lock, ok := s.locks.TryAcquire(key)
		if ok {
			defer lock.Release() // want `s.locks.TryAcquire on line 26`
		}
	}
}

var literal = func(ctx context.Context, m *cohort.Manager, keys []string) {
	for i := 0; i < len(keys); i++ {
		lock, err := m.Acquire(ctx, keys[i])
		defer func() { // want `goes on to acquire the next`
			lock.Release()
		}()
		if err != nil {
			continue
		}
	}
}

// What follows is right.

func leaves(ctx context.Context, m *kl.Manager[string], keys []string) error {
	for _, key := range keys {
		lock, ok := m.TryAcquire(key)
		if !ok {
			continue
		}
		defer lock.Release()
		if key == "" {
			break
		}
		return nil
	}
	return nil
}

func flagged(ctx context.Context, m *kl.Manager[string]) {
	for done := false; !done; {
		lock, ok := m.TryAcquire("k")
		if ok {
			defer lock.Release()
			done = true
		}
	}
}

func eachInAFunction(ctx context.Context, m *kl.Manager[string], keys []string) {
	for key := range slices.Values(keys) {
		func() {
			lock, err := m.Acquire(ctx, key)
			if err != nil {
				return
			}
			defer lock.Release()
		}()
	}
}

// A session, and shared locks, are often meant to be held together.
func together(ctx context.Context, m *kl.Manager[string], s *kl.Session[string], keys []string) error {
	for _, key := range keys {
		lock, err := s.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
		shared, err := m.AcquireShared(ctx, key)
		if err != nil {
			return err
		}
		defer shared.Release()
	}
	return nil
}

func many(ctx context.Context, m *cohort.Manager, keys []string) error {
	for _, key := range keys {
		both, err := m.AcquireAll(ctx, key, "all")
		if err != nil {
			return err
		}
		defer both.Release() // want `the lock of m.AcquireAll`
	}
	return nil
}

func sets(ctx context.Context, m *kl.Manager[string], keys []string) error {
	for _, key := range keys {
		readers, err := m.AcquireSet(ctx, kl.Want[string]{key, kl.Shared, 3})
		if err != nil {
			return err
		}
		defer readers.Release()
		both, err := m.AcquireSet(ctx, kl.Want[string]{Key: key, Mode: kl.Exclusive})
		if err != nil {
			return err
		}
		defer both.Release() // want `the lock of m.AcquireSet`
	}
	return nil
}

type transaction struct{ *kl.Session[string] }

func (t transaction) together(ctx context.Context, keys []string) error {
	for _, key := range keys {
		lock, err := t.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
	}
	return nil
}

// The loop releases before it acquires again, and leaves the last lock to the defer statement.
func releasedBetween(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer func() { lock.Release() }()
	for range 3 {
		lock.Release()
		if lock, err = m.Acquire(ctx, "k"); err != nil {
			return err
		}
	}
	return nil
}

// The defer statement is for panics.
func releasedTwice(ctx context.Context, m *kl.Manager[string], keys []string, work func()) error {
	for _, key := range keys {
		lock, err := m.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
		work()
		lock.Release()
	}
	return nil
}
