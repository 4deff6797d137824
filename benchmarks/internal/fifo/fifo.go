// Package fifo is a keyed lock as one writes it with a mutex when it must be fast,
// fair and cancellable: the strongest honest rival of an owner goroutine.
package fifo

import (
	"context"
	"sync"
)

// Locks grants each key to one caller at a time, in the order of arrival.
type Locks struct {
	mu      sync.Mutex
	lines   map[string]*line // every held key; nil while no caller waits for it
	unused  []*line
	waiters sync.Pool // of *waiter
}

// New returns locks that are free.
func New() *Locks {
	l := &Locks{lines: make(map[string]*line)}
	l.waiters.New = func() any { return &waiter{granted: make(chan struct{}, 1)} }
	return l
}

// A line is who waits for a key. All of it is guarded by Locks.mu.
type line struct{ head, tail *waiter }

// A waiter's place is guarded by Locks.mu.
type waiter struct {
	granted    chan struct{}
	prev, next *waiter
	waits      bool // false from the moment at which it is granted
}

// maxUnused bounds what a burst leaves behind.
const maxUnused = 1024

// Lock waits until key is free and every earlier caller has had it. It returns
// ctx.Err() when ctx ends first.
func (l *Locks) Lock(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	queue, held := l.lines[key]
	if !held {
		l.lines[key] = nil
		l.mu.Unlock()
		return nil
	}
	if queue == nil {
		queue = l.newLine()
		l.lines[key] = queue
	}
	w := l.waiters.Get().(*waiter)
	queue.push(w)
	l.mu.Unlock()

	select {
	case <-w.granted:
		l.waiters.Put(w)
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	waits := w.waits
	if waits {
		queue.remove(w)
		l.dropEmpty(key, queue)
	}
	l.mu.Unlock()
	if !waits { // the grant was faster
		<-w.granted
		l.Unlock(key)
	}
	l.waiters.Put(w)
	return ctx.Err()
}

// Unlock hands a held key to its first waiter, or frees it.
func (l *Locks) Unlock(key string) {
	l.mu.Lock()
	queue := l.lines[key]
	if queue == nil {
		delete(l.lines, key)
		l.mu.Unlock()
		return
	}
	w := queue.head
	queue.remove(w)
	l.dropEmpty(key, queue)
	l.mu.Unlock()
	w.granted <- struct{}{}
}

func (l *Locks) newLine() *line {
	if n := len(l.unused); n > 0 {
		queue := l.unused[n-1]
		l.unused = l.unused[:n-1]
		return queue
	}
	return new(line)
}

// dropEmpty keeps the queue of a held key only while a caller waits in it.
func (l *Locks) dropEmpty(key string, queue *line) {
	if queue.head != nil {
		return
	}
	l.lines[key] = nil
	if len(l.unused) < maxUnused {
		l.unused = append(l.unused, queue)
	}
}

func (q *line) push(w *waiter) {
	w.waits, w.prev, w.next = true, q.tail, nil
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
}

func (q *line) remove(w *waiter) {
	w.waits = false
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}
