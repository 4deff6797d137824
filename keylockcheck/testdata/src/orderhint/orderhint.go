package orderhint

import (
	"context"
	"sync"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

type event struct{ user string }

func function(ctx context.Context, m *kl.Manager[string], events []event) {
	var group sync.WaitGroup
	for _, e := range events {
		group.Go(func() {
			lock, err := m.Acquire(ctx, e.user) // want `the goroutines of the loop on line 15 lock in any order`
			if err != nil {
				return
			}
			defer lock.Release()
		})
	}
	group.Wait()
}

type server[K comparable] struct{ locks *kl.Manager[K] }

func (s *server[K]) method(ctx context.Context, keys []K) {
	for i := range keys {
		go func(key K) {
			s.locks.Do(ctx, key, func(context.Context) error { return nil }) // want `in any order`
		}(keys[i])
	}
}

// What follows is right.

func reserved(ctx context.Context, m *kl.Manager[string], events []event) {
	for _, e := range events {
		reserved := m.Reserve(e.user)
		go func() {
			lock, err := reserved.Wait(ctx)
			if err == nil {
				lock.Release()
			}
		}()
	}
}

func workers(ctx context.Context, m *kl.Manager[string], events chan event) {
	for range 4 {
		go func() {
			for e := range events {
				m.Do(ctx, e.user, func(context.Context) error { return nil })
			}
		}()
	}
}

func sameKey(ctx context.Context, m *kl.Manager[string], events []event) {
	for range events {
		go m.Do(ctx, "k", func(context.Context) error { return nil })
		go func() {
			m.Do(ctx, "k", func(context.Context) error { return nil })
		}()
	}
}

func try(m *kl.Manager[string], events []event) {
	for _, e := range events {
		go func() {
			if lock, ok := m.TryAcquire(e.user); ok {
				lock.Release()
			}
		}()
	}
}

// A group keeps the order of the loop, and its work may lock more.
func grouped(ctx context.Context, m *kl.Manager[string], events []event) {
	g := inorder.New[string](ctx, 4)
	for _, e := range events {
		g.Go(ctx, e.user, func(ctx context.Context) error {
			return m.Do(ctx, e.user, func(context.Context) error { return nil })
		})
	}
	g.Wait()
}
