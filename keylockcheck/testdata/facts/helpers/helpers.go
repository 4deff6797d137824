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

func Print(level string, locks *keylock.Manager[int], lock keylock.Lock[string]) { // want Print:`borrows\[1 2\]`
	log.Println(level, locks, lock)
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

func (s *Store[K]) OpenTold(ctx context.Context, key K) (keylock.Lock[K], bool) { // want OpenTold:`returns fresh 0`
	lock, err := s.Locks.Acquire(ctx, key)
	if err != nil {
		return lock, false
	}
	log.Print(lock)
	return lock, true
}

func (s *Store[K]) OpenCompared(ctx context.Context, key K) (keylock.Lock[K], bool) { // want OpenCompared:`returns fresh 0`
	lock, err := s.Locks.Acquire(ctx, key)
	return lock, err == nil
}

func (s *Store[K]) TryTwice(key K) (lock keylock.Lock[K], ok bool) { // want TryTwice:`returns fresh 0`
	if lock, ok = s.Locks.TryAcquire(key); ok {
		return
	}
	lock, ok = s.Locks.TryAcquire(key)
	return lock, ok
}

func (s *Store[K]) TryThenOpen(ctx context.Context, key K) (keylock.Lock[K], bool) { // want TryThenOpen:`returns fresh 0`
	lock, ok := s.Locks.TryAcquire(key)
	if !ok {
		var err error
		if lock, err = s.Locks.Acquire(ctx, key); err != nil {
			return lock, false
		}
	}
	return lock, true
}

// The bools of these do not say whether there is a lock.

func (s *Store[K]) Busy(key K) (keylock.Lock[K], bool) {
	lock, ok := s.Locks.TryAcquire(key)
	return lock, !ok
}

func (s *Store[K]) Failed(ctx context.Context, key K) (keylock.Lock[K], bool) {
	lock, err := s.Locks.Acquire(ctx, key)
	if err != nil {
		return keylock.Lock[K]{}, true
	}
	return lock, false
}

func (s *Store[K]) FailedNamed(key K) (lock keylock.Lock[K], failed bool) {
	lock, ok := s.Locks.TryAcquire(key)
	failed = !ok
	return
}

func (s *Store[K]) First(ctx context.Context, key K) (lock keylock.Lock[K], first bool) {
	lock, err := s.Locks.Acquire(ctx, key)
	if err != nil {
		return lock, true
	}
	return lock, lock.Seq() == 1
}

func (s *Store[K]) Overwritten(key K) (keylock.Lock[K], bool) {
	lock, ok := s.Locks.TryAcquire(key)
	ok = !ok
	return lock, ok
}

func (s *Store[K]) Optional(key K, need bool) (keylock.Lock[K], bool) {
	if !need {
		return keylock.Lock[K]{}, true
	}
	return s.Locks.TryAcquire(key)
}

func (s *Store[K]) Always(key K) (keylock.Lock[K], bool) {
	lock, ok := s.Locks.TryAcquire(key)
	log.Print(ok)
	return lock, true
}

func (s *Store[K]) Never(key K) (keylock.Lock[K], bool) {
	lock, ok := s.Locks.TryAcquire(key)
	log.Print(ok)
	return lock, false
}

func (s *Store[K]) FirstOrPanic(ctx context.Context, key K) (lock keylock.Lock[K], first bool) {
	lock, err := s.Locks.Acquire(ctx, key)
	if err != nil {
		panic(err)
	}
	return lock, lock.Key() == key
}

func (s *Store[K]) Marked(ctx context.Context, key K) (keylock.Lock[K], error) {
	lock, err := s.Locks.Acquire(ctx, key) //keylock:held by the process
	return lock, err
}

func (s *Store[K]) MarkedAtOnce(ctx context.Context, key K) (keylock.Lock[K], error) {
	return s.Locks.Acquire(ctx, key) //keylock:held by the process
}

func (s *Store[K]) MarkedReservation(key K) keylock.Reservation[K] {
	//keylock:held by the process
	return s.Locks.Reserve(key)
}

func (s *Store[K]) Current() keylock.Lock[K] { return s.held }

func (s *Store[K]) Recursive(ctx context.Context, key K, n int) (keylock.Lock[K], error) {
	if n == 0 {
		return s.Locks.Acquire(ctx, key)
	}
	return s.Recursive(ctx, key, n-1)
}

func Stats(m *keylock.Manager[int]) {} // want Stats:`borrows\[0\]`
