// want package:"speaks keylock"

// Package helpers has functions that package user calls.
package helpers

import (
	"context"
	"log"

	"github.com/seed-46f81e6d/keylock"
)

func Look[K comparable](lock keylock.Lock[K]) { log.Print(lock.Key()) } // want Look:`borrows\[0\]`

func LookTwice(prefix string, lock keylock.Lock[string]) { // want LookTwice:`borrows\[1\]`
	Look(lock)
	Look(lock)
}

func Finish[K comparable](lock keylock.Lock[K]) { lock.Release() }

type Store[K comparable] struct {
	Locks *keylock.Manager[K]
	held  keylock.Lock[K]
}

func (s *Store[K]) Open(ctx context.Context, key K) (keylock.Lock[K], error) { // want Open:`returns fresh 0`
	lock, err := s.Locks.Acquire(ctx, key)
	if err != nil {
		return keylock.Lock[K]{}, err
	}
	return lock, nil
}

func (s *Store[K]) Try(key K) (lock keylock.Lock[K], ok bool) { // want Try:`returns fresh 0`
	lock, ok = s.Locks.TryAcquire(key)
	return
}

func (s *Store[K]) Reserve(key K) keylock.Reservation[K] { return s.Locks.Reserve(key) } // want Reserve:`returns fresh 0`

func (s *Store[K]) Current() keylock.Lock[K] { return s.held }

func (s *Store[K]) Recursive(ctx context.Context, key K, n int) (keylock.Lock[K], error) {
	if n == 0 {
		return s.Locks.Acquire(ctx, key)
	}
	return s.Recursive(ctx, key, n-1)
}

func Stats(m *keylock.Manager[int]) {} // want Stats:`borrows\[0\]`
