// Package plain is keylock's design without any tuning: one owner goroutine, one
// request allocated per call, one select over three channels for every step. It is
// the yardstick for the tuning of the real one, and no more than that: it has one
// kind of key, no reservations and no statistics.
package plain

import (
	"container/list"
	"context"
	"errors"
)

// ErrClosed is returned by Acquire after Close.
var ErrClosed = errors.New("plain: closed")

// A Manager grants each key to one caller at a time, in the order of arrival.
type Manager struct {
	requests chan request
	closing  chan struct{}
	closed   chan struct{} // closed when the owner has exited
}

type request struct {
	verb   func(*owner, *ticket)
	ticket *ticket
}

// A ticket is one acquisition. All but granted is owned by the owner.
type ticket struct {
	key     string
	granted chan struct{}
	holds   bool
	waits   *list.Element // its entry in the queue; nil when it has none
}

// Start starts a manager.
func Start() *Manager {
	m := &Manager{
		requests: make(chan request),
		closing:  make(chan struct{}),
		closed:   make(chan struct{}),
	}
	o := &owner{lines: make(map[string]*list.List)}
	go func() {
		defer close(m.closed)
		for {
			select {
			case r := <-m.requests:
				r.verb(o, r.ticket)
			case <-m.closing:
				return
			}
		}
	}()
	return m
}

// Acquire waits for key. It returns ctx.Err() when ctx ends first, and ErrClosed when
// the manager ends.
func (m *Manager) Acquire(ctx context.Context, key string) (Lock, error) {
	t := &ticket{key: key, granted: make(chan struct{}, 1)}
	select {
	case m.requests <- request{(*owner).acquire, t}:
	case <-ctx.Done():
		return Lock{}, ctx.Err()
	case <-m.closed:
		return Lock{}, ErrClosed
	}
	select {
	case <-t.granted:
		return Lock{m, t}, nil
	case <-ctx.Done():
		m.leave(t)
		return Lock{}, ctx.Err()
	case <-m.closed:
		return Lock{}, ErrClosed
	}
}

// Close ends the manager.
func (m *Manager) Close() error {
	close(m.closing)
	<-m.closed
	return nil
}

func (m *Manager) leave(t *ticket) {
	select {
	case m.requests <- request{(*owner).leave, t}:
	case <-m.closed:
	}
}

// A Lock is a granted key.
type Lock struct {
	m *Manager
	t *ticket
}

// Release frees the key for its next waiter.
func (l Lock) Release() { l.m.leave(l.t) }

// owner is the state; only the manager's goroutine touches it.
type owner struct {
	lines map[string]*list.List // of *ticket, the waiters of every held key
}

func (o *owner) acquire(t *ticket) {
	line, held := o.lines[t.key]
	if held {
		t.waits = line.PushBack(t)
		return
	}
	o.lines[t.key] = list.New()
	t.grant()
}

func (o *owner) leave(t *ticket) {
	line := o.lines[t.key]
	switch {
	case t.waits != nil:
		line.Remove(t.waits)
		t.waits = nil
	case t.holds:
		t.holds = false
		if line.Len() == 0 {
			delete(o.lines, t.key)
			return
		}
		next := line.Remove(line.Front()).(*ticket)
		next.waits = nil
		next.grant()
	}
}

func (t *ticket) grant() {
	t.holds = true
	t.granted <- struct{}{}
}
