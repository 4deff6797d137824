package cohorttest

import (
	"slices"
)

// Store is a lock service in memory, for tests: what etcd is to etcdlock. Every
// process that a test plays gets an engine of its own from it.
type Store struct {
	decisions chan func(*queues)
	done      chan struct{} // closed by Close
}

// queues are the contenders for every key in the order in which they came; the
// first holds the key. Owned by the store's goroutine, as are the sessions and
// the scripts of its engines.
type queues struct {
	byKey map[string][]*entry
	epoch uint64
}

// entry is one contender's entry in the queue for one key.
type entry struct {
	session *session
	key     string
	granted chan uint64 // receives the epoch, once
}

// session stands for a process at the store: what a lease is at etcd.
type session struct {
	revoked bool          // the store has dropped it, whether or not its engine knows
	lost    chan struct{} // closed when its engine knows
}

// NewStore starts a store. Close ends it.
func NewStore() *Store {
	s := &Store{decisions: make(chan func(*queues)), done: make(chan struct{})}
	go s.run()
	return s
}

// Close ends the store. Calls on its engines return cohort.ErrClosed from then on.
// It must be called once.
func (s *Store) Close() {
	close(s.done)
}

// Engine returns the engine of one more process. The faults befall its calls
// in the given order: each strikes once, at the first call of its kind that no
// earlier fault has struck.
func (s *Store) Engine(script ...Fault) *Engine {
	return &Engine{
		store:   s,
		script:  script,
		session: newSession(),
		closed:  make(chan struct{}),
	}
}

// Len returns how many contenders for key the store knows: the holder and all who wait.
func (s *Store) Len(key string) int {
	var n int
	s.decide(func(l *queues) { n = len(l.byKey[key]) })
	return n
}

func (s *Store) run() {
	l := &queues{byKey: make(map[string][]*entry)}
	for {
		select {
		case decision := <-s.decisions:
			decision(l)
		case <-s.done:
			return
		}
	}
}

// decide has the store's goroutine carry out decision, and reports false when
// the store was closed instead.
func (s *Store) decide(decision func(*queues)) bool {
	carriedOut := make(chan struct{})
	select {
	case s.decisions <- func(l *queues) { decision(l); close(carriedOut) }:
		<-carriedOut
		return true
	case <-s.done:
		return false
	}
}

func (l *queues) join(p *entry) {
	l.byKey[p.key] = append(l.byKey[p.key], p)
	if len(l.byKey[p.key]) == 1 {
		l.grant(p)
	}
}

// leave takes p out of its queue, grants the key to the next if p held it, and
// reports whether p was still there.
func (l *queues) leave(p *entry) bool {
	queue := l.byKey[p.key]
	at := slices.Index(queue, p)
	if at < 0 {
		return false
	}
	queue = slices.Delete(queue, at, at+1)
	l.byKey[p.key] = queue
	switch {
	case len(queue) == 0:
		delete(l.byKey, p.key)
	case at == 0:
		l.grant(queue[0])
	}
	return true
}

func (l *queues) grant(p *entry) {
	l.epoch++
	p.granted <- l.epoch
}

// revoke drops everything that the session holds or waits for.
func (l *queues) revoke(s *session) {
	s.revoked = true
	for _, queue := range l.byKey {
		for _, p := range slices.Backward(slices.Clone(queue)) { // from the end, so that no key passes from the session to itself
			if p.session == s {
				l.leave(p)
			}
		}
	}
}

func newSession() *session {
	return &session{lost: make(chan struct{})}
}
