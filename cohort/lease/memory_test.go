package lease_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

// server is a lock server in memory.
type server struct {
	mu       sync.Mutex
	sessions map[string]time.Time // until when each lives
	queues   map[string][]lease.Entry
	granted  map[string]uint64 // the epoch with which the head of the queue holds the key
	refused  map[string]bool   // entries that must not be entered any more
	warned   map[string]bool   // the entries that warners have asked for
	epoch    uint64
	links    map[string]*link // by the session that listens
}

func newServer() *server {
	return &server{
		sessions: make(map[string]time.Time),
		queues:   make(map[string][]lease.Entry),
		granted:  make(map[string]uint64),
		refused:  make(map[string]bool),
		warned:   make(map[string]bool),
		links:    make(map[string]*link),
	}
}

func (s *server) alive(id string) bool { return time.Now().Before(s.sessions[id]) }

// settle removes dead heads and grants the key to the head, if that is a new one.
func (s *server) settle(key string, asker string) {
	q := s.queues[key]
	for len(q) > 0 && !s.alive(q[0].Session.ID) {
		q = q[1:]
		delete(s.granted, key)
	}
	if len(q) == 0 {
		delete(s.queues, key)
		delete(s.granted, key)
		return
	}
	s.queues[key] = q
	if s.granted[key] != 0 {
		return
	}
	s.epoch = max(s.epoch+1, uint64(time.Now().UnixMicro()))
	s.granted[key] = s.epoch
	if q[0].ID() != asker {
		s.send(q[0], lease.Granted, s.epoch)
	}
	if len(q) > 1 {
		s.send(q[0], lease.Wanted, 0)
	}
}

func (s *server) send(to lease.Entry, kind lease.NoticeKind, epoch uint64) {
	if l := s.links[to.Session.ID]; l != nil && !(kind == lease.Wanted && l.warns && !to.Warn && !s.warned[to.ID()]) {
		l.hear(lease.Notice{Kind: kind, Attempt: to.Attempt, Epoch: epoch})
	}
}

func (s *server) remove(id string) {
	for key, q := range s.queues {
		held := q[0].Session.ID == id
		q = slices.DeleteFunc(q, func(e lease.Entry) bool { return e.Session.ID == id })
		if held {
			delete(s.granted, key)
		}
		s.queues[key] = q
		s.settle(key, "")
	}
}

// revoke drops a session behind its engine's back.
func (s *server) revoke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
	s.remove(id)
}

// delete removes a key as an operator would.
func (s *server) delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.queues, key)
	delete(s.granted, key)
}

// left returns how many sessions and entries there are.
func (s *server) left() (sessions, entries int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		entries += len(q)
	}
	return len(s.sessions), entries
}

// call names a call of a Store.
type call string

// link is one process's connection to the server: a Store whose calls can be made to fail.
type link struct {
	*server
	mu     sync.Mutex
	healed chan struct{} // nil while the server can be reached
	fault  func(c call, do func()) error
	deaf   bool // notices do not arrive
	warns  bool // Wanted notices are sent only for entries that a Warn has asked for
	calls  map[call]int
	id     string // of the last session
	heard  chan lease.Notice
	drop   chan struct{} // what is sent here ends a Listen
}

func (s *server) link() *link {
	return &link{server: s, calls: make(map[call]int), heard: make(chan lease.Notice, 1000), drop: make(chan struct{})}
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.healed == nil {
		l.healed = make(chan struct{})
	}
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.healed != nil {
		close(l.healed)
		l.healed = nil
	}
}

func (l *link) set(fault func(c call, do func()) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = fault
}

func (l *link) beDeaf(deaf bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = deaf
}

func (l *link) count(c call) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[c]
}

// do carries out a request, as the faults permit.
func (l *link) do(ctx context.Context, c call, work func()) error {
	l.mu.Lock()
	healed, fault := l.healed, l.fault
	l.calls[c]++
	l.mu.Unlock()
	if healed != nil {
		select {
		case <-healed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	locked := func() {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		work()
	}
	if fault != nil {
		return fault(c, locked)
	}
	locked()
	return nil
}

func (l *link) hear(n lease.Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.deaf {
		l.heard <- n
	}
}

func (l *link) Begin(ctx context.Context, s lease.Session) error {
	return l.do(ctx, "begin", func() {
		l.sessions[s.ID] = time.Now().Add(s.TTL)
		l.links[s.ID] = l
		l.id = s.ID
	})
}

func (l *link) Renew(ctx context.Context, s lease.Session, held []lease.Held) (missing []lease.Held, err error) {
	var gone error
	err = l.do(ctx, "renew", func() {
		if !l.alive(s.ID) {
			gone = lease.ErrSessionGone
			return
		}
		l.sessions[s.ID] = time.Now().Add(s.TTL)
		for _, h := range held {
			if l.granted[h.Key] != h.Epoch {
				missing = append(missing, h)
			}
		}
	})
	return missing, errors.Join(err, gone)
}

func (l *link) Enter(ctx context.Context, e lease.Entry, try bool) (st lease.Standing, err error) {
	var refusal error
	err = l.do(ctx, "enter", func() {
		if !l.alive(e.Session.ID) {
			refusal = lease.ErrSessionGone
			return
		}
		if l.refused[e.ID()] {
			return
		}
		l.settle(e.Key, "")
		at := slices.Index(l.queues[e.Key], e)
		if at < 0 {
			if try && len(l.queues[e.Key]) > 0 {
				l.send(l.queues[e.Key][0], lease.Wanted, 0)
				refusal = cohort.ErrHeld
				return
			}
			at = len(l.queues[e.Key])
			l.queues[e.Key] = append(l.queues[e.Key], e)
			l.settle(e.Key, e.ID())
		}
		head := l.queues[e.Key][0]
		if at == 0 {
			st = lease.Standing{Epoch: l.granted[e.Key], Wanted: len(l.queues[e.Key]) > 1}
			return
		}
		l.send(head, lease.Wanted, 0)
		st.Again = time.Until(l.sessions[head.Session.ID]) + time.Millisecond
	})
	return st, errors.Join(err, refusal)
}

func (l *link) Leave(ctx context.Context, e lease.Entry, late bool) (found bool, err error) {
	var gone error
	err = l.do(ctx, "leave", func() {
		if !l.alive(e.Session.ID) {
			gone = lease.ErrSessionGone
			return
		}
		if late {
			l.refused[e.ID()] = true
		}
		at := slices.Index(l.queues[e.Key], e)
		if at < 0 {
			return
		}
		found = true
		if at == 0 {
			delete(l.granted, e.Key)
		}
		l.queues[e.Key] = slices.Delete(l.queues[e.Key], at, at+1)
		l.settle(e.Key, "")
	})
	return found, errors.Join(err, gone)
}

func (l *link) End(ctx context.Context, s lease.Session) error {
	return l.do(ctx, "end", func() {
		delete(l.sessions, s.ID)
		delete(l.links, s.ID)
		l.remove(s.ID)
	})
}

func (l *link) Listen(ctx context.Context, _ lease.Session, notify func(lease.Notice)) error {
	n := lease.Notice{Kind: lease.Look}
	for {
		notify(n)
		select {
		case n = <-l.heard:
		case <-l.drop:
			return errors.New("the connection was lost")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// warner is a link that is a lease.Warner.
type warner struct{ *link }

func (w warner) Warn(ctx context.Context, e lease.Entry) (wanted bool, err error) {
	err = w.do(ctx, "warn", func() {
		q := w.queues[e.Key]
		wanted = len(q) != 1 || q[0] != e
		w.warned[e.ID()] = !wanted
	})
	return wanted, err
}
