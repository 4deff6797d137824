package errignored

import (
	"context"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func work() {}

func function(ctx context.Context, m *kl.Manager[string]) {
	lock, _ := m.Acquire(ctx, "k") // want `the error of m.Acquire on line 13 is ignored: when it fails, what follows runs without the lock`
	work()
	lock.Release()
}

type server[K comparable] struct{ locks *kl.Manager[K] }

func (s server[K]) method(key K) {
	lock, _ := s.locks.TryAcquire(key) // want `the bool of s.locks.TryAcquire on line 21 is ignored`
	defer lock.Release()
	work()
}

var literal = func(ctx context.Context, m *cohort.Manager) {
	lock, _ := m.Acquire(ctx, "k") // want `ignored`
	defer lock.Release()
	work()
}

func generic[K comparable](ctx context.Context, m *kl.Manager[K], key K) {
	reserved := m.Reserve(key)
	lock, _ := reserved.Wait(ctx) // want `ignored`
	work()
	lock.Release()
}

// What follows is right.

func checked(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k")
	defer lock.Release()
	if err != nil {
		return err
	}
	work()
	return nil
}

func asked(ctx context.Context, m *kl.Manager[string]) {
	if lock, _ := m.TryAcquire("k"); lock.Seq() != 0 {
		work()
		lock.Release()
	}
}

func barrier(ctx context.Context, m *kl.Manager[string]) {
	lock, _ := m.Acquire(ctx, "k")
	lock.Release()
	work()
}

func returned(ctx context.Context, m *kl.Manager[string]) kl.Lock[string] {
	lock, _ := m.Acquire(ctx, "k")
	work()
	return lock
}

// waited reports whether it had to wait.
func waited(ctx context.Context, m *kl.Manager[string]) (kl.Lock[string], bool) {
	if lock, ok := m.TryAcquire("k"); ok {
		return lock, false
	}
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		panic(err)
	}
	return lock, true
}

func anotherBool(ctx context.Context, m *kl.Manager[string]) {
	lock, _ := waited(ctx, m)
	defer lock.Release()
	work()
}
