package inorder

import (
	"context"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// held is what the group has of a key at the manager.
type held[K comparable] struct {
	lock        keylock.Lock[K]        // while the queue is ready or running
	reservation keylock.Reservation[K] // while it is acquiring, and an outsider is ahead
}

// acquire asks the manager for the key of a queue, when the mutex has been given away. Until the
// answer has come, the root has one more that is unfinished, so that Wait does not return while
// the group holds a key or waits for one.
func (s *scheduler[K]) acquire(q *queue[K]) {
	q.state = acquiring
	s.root.accepted()
	s.later = append(s.later, func() {
		lock, ok := s.locks.TryAcquire(q.key)
		if !ok {
			s.reserved(q, s.locks.Reserve(q.key))
			return
		}
		s.lock()
		defer s.unlock()
		if s.acquired(q, lock) {
			s.makeReady(q)
		}
	})
}

// reserved waits for the reservation on a goroutine of its own, and runs what it lets run. It is
// called without the mutex.
func (s *scheduler[K]) reserved(q *queue[K], r keylock.Reservation[K]) {
	s.lock()
	defer s.unlock()
	if q.gone {
		s.finishLater(r.Cancel)
		return
	}
	q.held = &held[K]{reservation: r}
	go func() {
		if q, it := s.await(q, r); q != nil {
			s.work(q, it)
		}
	}()
}

// await waits until the manager grants the reservation, or refuses it, or a sweep has cancelled it. It
// returns the item to go on with; nil when there is none, or no slot for it. It is called
// without the mutex.
func (s *scheduler[K]) await(q *queue[K], r keylock.Reservation[K]) (*queue[K], *item[K]) {
	lock, err := r.Wait(context.Background())
	s.lock()
	defer s.unlock()
	if err != nil && !q.gone {
		s.refused(q, err)
		return nil, nil
	}
	if !s.acquired(q, lock) || s.running >= s.limit {
		if !q.gone {
			s.ready.push(q)
		}
		return nil, nil
	}
	s.ready.push(q)
	s.running++
	return s.next()
}

// acquired notes the lock of a queue; it is false, and the lock goes back, when the queue was
// emptied meanwhile.
func (s *scheduler[K]) acquired(q *queue[K], lock keylock.Lock[K]) bool {
	if q.gone {
		s.giveBack(lock)
		s.root.finished()
		return false
	}
	q.held = &held[K]{lock: lock}
	q.state = ready
	s.root.finished()
	return true
}

// refused fails the work of a queue whose key the manager does not grant.
func (s *scheduler[K]) refused(q *queue[K], err error) {
	q.state = running // so that a sweep leaves it alone
	for !q.empty() {
		it, again := q.pop()
		s.fail(it.group, q, err)
		s.discard(it, again)
	}
	s.queues.remove(q.key)
	s.root.finished()
}

// emptied gives back what is kept of the key of a queue that a sweep has emptied.
func (s *scheduler[K]) emptied(q *queue[K]) {
	switch {
	case s.locks == nil:
	case q.state == ready:
		s.giveBack(q.held.lock)
	case q.state == acquiring:
		q.gone = true
		if q.held != nil {
			s.later = append(s.later, q.held.reservation.Cancel)
		}
	}
}

// giveBack releases a lock when the mutex has been given away; Wait waits for it.
func (s *scheduler[K]) giveBack(lock keylock.Lock[K]) {
	s.root.accepted()
	s.finishLater(lock.Release)
}

// finishLater does what gives back a key when the mutex has been given away, and only then counts
// one less that is unfinished of the root.
func (s *scheduler[K]) finishLater(do func()) {
	s.later = append(s.later, func() {
		do()
		s.lock()
		defer s.unlock()
		s.root.finished()
	})
}

// doneUnderLock is done for a key of the manager's. The mutex is held, and given away on return.
//
// The next reservation is made before the lock is released. So those who came meanwhile have their
// turn, and the manager never sees the key unused while there is work for it.
func (s *scheduler[K]) doneUnderLock(q *queue[K], it *item[K], again bool, after time.Duration) (*queue[K], *item[K]) {
	lock := q.held.lock
	q.held = nil
	s.root.accepted() // until the lock is released: the item may be paused, and dropped, before that
	more := false
	switch {
	case again && after > 0:
		s.pause(q, after)
	case q.empty():
		s.queues.remove(q.key)
	default:
		more = true
		q.state = acquiring
		s.root.accepted()
	}
	s.unlock()

	var r keylock.Reservation[K]
	if more {
		r = s.locks.Reserve(q.key)
	}
	lock.Release()

	s.lock()
	s.root.finished()
	if !again {
		it.group.finished()
	}
	if more && q.gone {
		more = false
		s.finishLater(r.Cancel)
	}
	if more {
		q.held = &held[K]{reservation: r}
	}
	nextQ, next := s.next()
	s.unlock()
	switch {
	case !more:
		return nextQ, next
	case nextQ == nil: // this goroutine has nothing else to do
		return s.await(q, r)
	}
	go func() {
		if q, it := s.await(q, r); q != nil {
			s.work(q, it)
		}
	}()
	return nextQ, next
}
