package cohorttest

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Store is a lock service in memory, for tests: what etcd is to etcdlock. Every
// process that a test plays gets an engine of its own from it.
type Store struct {
	decisions chan func(*queues)
	done      chan struct{} // closed by Close
}

// queues are the contenders for every key in the order in which they came; the
// first holds the key. Owned by the store's goroutine, as are the entries, the sessions and
// the scripts of its engines.
type queues struct {
	byKey     map[string][]*entry
	epoch     uint64
	processes int
}

// entry is one contender's entry in the queue for one key.
type entry struct {
	engine  *Engine
	session *session
	key     string
	since   time.Time
	granted chan uint64   // receives the epoch, once
	epoch   uint64        // 0 until then
	deleted bool          // the store has dropped it behind its engine's back
	lost    chan struct{} // closed when its engine knows that it is gone

	wanted   bool   // its engine knows that another process wants the key, or does not know
	onWanted func() // nil until it is set, and after it was called
}

// session stands for a process at the store: what a lease is at etcd.
type session struct {
	process int
	revoked bool // the store has dropped it, whether or not its engine knows
	entries map[*entry]bool
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
	e := &Engine{
		store:    s,
		script:   script,
		closed:   make(chan struct{}),
		broken:   make(chan struct{}),
		sessions: 1,
	}
	s.decide(func(q *queues) {
		q.processes++
		e.session = newSession(q.processes)
	})
	if e.session == nil { // the store is closed
		e.session = newSession(0)
	}
	return e
}

// Len returns how many contenders for key the store knows: the holder and all that wait.
func (s *Store) Len(key string) int {
	var n int
	s.decide(func(q *queues) { n = len(q.byKey[key]) })
	return n
}

// Delete drops every contender for key behind the backs of their engines, as a person would who
// tidies up: others can have the key, and the engines learn of it by Engine.Notice or when they release.
func (s *Store) Delete(key string) {
	s.decide(func(q *queues) {
		for _, p := range slices.Backward(slices.Clone(q.byKey[key])) {
			p.deleted = true
			q.leave(p)
		}
	})
}

func (s *Store) run() {
	q := &queues{byKey: make(map[string][]*entry)}
	for {
		select {
		case decision := <-s.decisions:
			decision(q)
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
	case s.decisions <- func(q *queues) { decision(q); close(carriedOut) }:
		<-carriedOut
		return true
	case <-s.done:
		return false
	}
}

// join adds an entry of the session to the queue for key.
func (q *queues) join(e *Engine, key string) *entry {
	p := &entry{
		engine: e, session: e.session, key: key, since: time.Now(),
		granted: make(chan uint64, 1), lost: make(chan struct{}), wanted: e.deaf,
	}
	p.session.entries[p] = true
	q.byKey[p.key] = append(q.byKey[p.key], p)
	if len(q.byKey[p.key]) == 1 {
		q.grant(p)
	} else {
		q.byKey[p.key][0].want()
	}
	return p
}

// want has the entry's engine know that another process wants the key.
func (p *entry) want() {
	p.wanted = true
	if p.onWanted != nil {
		p.onWanted()
		p.onWanted = nil
	}
}

// leave takes p out of its queue, grants the key to the next if p held it, and
// reports whether p was still there.
func (q *queues) leave(p *entry) bool {
	queue := q.byKey[p.key]
	at := slices.Index(queue, p)
	if at < 0 {
		return false
	}
	if !p.deleted && !p.session.revoked { // else its engine has yet to learn of it
		delete(p.session.entries, p)
	}
	queue = slices.Delete(queue, at, at+1)
	q.byKey[p.key] = queue
	switch {
	case len(queue) == 0:
		delete(q.byKey, p.key)
	case at == 0:
		q.grant(queue[0])
	}
	return true
}

func (q *queues) grant(p *entry) {
	q.epoch++
	p.epoch = q.epoch
	p.granted <- q.epoch
	if len(q.byKey[p.key]) > 1 {
		p.want()
	}
}

// revoke drops everything that the session holds or waits for.
func (q *queues) revoke(s *session) {
	s.revoked = true
	for _, queue := range q.byKey {
		for _, p := range slices.Backward(slices.Clone(queue)) { // from the end, so that no key passes from the session to itself
			if p.session == s {
				q.leave(p)
			}
		}
	}
}

// lose has the session's engine know that all its entries are gone.
func (s *session) lose() {
	close(s.lost)
	for p := range s.entries {
		p.lose()
	}
}

// lose has the entry's engine know that it is gone.
func (p *entry) lose() {
	delete(p.session.entries, p)
	close(p.lost)
	p.want()
}

func newSession(process int) *session {
	return &session{process: process, entries: make(map[*entry]bool), lost: make(chan struct{})}
}

// name is what the process calls itself.
func (s *session) name() cohort.Process {
	return cohort.Process{Label: fmt.Sprint("process ", s.process)}
}

// contender describes the entry to the process whose session is own.
func (p *entry) contender(own *session) cohort.Contender {
	return cohort.Contender{Process: p.session.name(), Since: p.since, Epoch: p.epoch, Own: p.session == own}
}
