package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Engine is one process's engine on a Store. Its calls can be made to fail by a
// script, its session to be lost, its connection to be cut, its waits to be broken.
type Engine struct {
	store  *Store
	closed chan struct{} // closed by Close

	// Owned by the store's goroutine.
	script   []Fault
	session  *session
	healed   chan struct{} // nil while the store can be reached; else closed by Heal
	broken   chan struct{} // closed and replaced by BreakWaits
	paused   bool
	deaf     bool
	isClosed bool

	sessions, retries, orphans uint64
}

// Call names the calls that a Fault can strike.
type Call string

// The calls to the store.
const (
	Acquire Call = "acquire" // taking an entry in a queue, also for TryAcquire
	Wait    Call = "wait"    // watching a queue, when a wait begins and after BreakWaits
	Release Call = "release" // leaving a queue, also after a wait that was abandoned
)

// Fault befalls one call of an engine to its store.
type Fault struct {
	Call   Call
	Delay  time.Duration // the request travels this long
	Err    error         // the store does nothing and replies with this error
	Passes bool          // Err is one that waiting mends: the engine repeats the request
	Drop   bool          // the store does what it is asked, and its reply never arrives
	Late   time.Duration // with Err: the store does what it is asked all the same, this much later; for Acquire
}

// Script adds faults to those that are to come.
func (e *Engine) Script(faults ...Fault) {
	e.store.decide(func(*queues) { e.script = append(e.script, faults...) })
}

// Expire ends the engine's session in good order: Lost is closed first, then
// the store drops what the session had.
func (e *Engine) Expire() {
	e.store.decide(func(q *queues) {
		lost := e.session
		e.renew()
		q.revoke(lost)
	})
}

// Revoke has the store drop the engine's session behind its back: others get its
// keys while it still believes that they are its own, until Notice.
func (e *Engine) Revoke() {
	e.store.decide(func(q *queues) { q.revoke(e.session) })
}

// Pause has the store drop the engine's session as after a pause of its process: no timer of the
// engine has run yet, and only a call of Grant.Lost, which compares the deadline with the clock, can notice.
func (e *Engine) Pause() {
	e.store.decide(func(q *queues) {
		q.revoke(e.session)
		e.paused = true
	})
}

// Notice tells the engine of a Revoke, and of keys that Store.Delete has deleted.
func (e *Engine) Notice() {
	e.store.decide(func(*queues) { e.notice() })
}

// BreakWaits ends what the engine's waits watch, as a connection does that breaks after the store has
// forgotten what happened since they began: each has to look again.
func (e *Engine) BreakWaits() {
	e.store.decide(func(*queues) {
		close(e.broken)
		e.broken = make(chan struct{})
	})
}

// Deafen ends what tells the engine that other processes want its keys, until Hear: each
// key that it has, or is granted, counts as wanted.
func (e *Engine) Deafen() {
	e.store.decide(func(*queues) {
		e.deaf = true
		for p := range e.session.entries {
			p.want()
		}
	})
}

// Hear ends a Deafen, for later grants.
func (e *Engine) Hear() {
	e.store.decide(func(*queues) { e.deaf = false })
}

// Cut makes the store unreachable for the engine: its calls wait until Heal.
func (e *Engine) Cut() {
	e.store.decide(func(*queues) {
		if e.healed == nil {
			e.healed = make(chan struct{})
		}
	})
}

// Heal ends a Cut.
func (e *Engine) Heal() {
	e.store.decide(func(*queues) {
		if e.healed != nil {
			close(e.healed)
			e.healed = nil
		}
	})
}

// Acquire implements cohort.Engine.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, false)
}

// TryAcquire implements cohort.Engine.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, true)
}

func (e *Engine) acquire(ctx context.Context, key string, try bool) (cohort.Grant, error) {
	for {
		p, dropped, err := e.enter(ctx, key, try)
		if err != nil {
			return nil, fmt.Errorf("cohorttest: acquire %s: %w", keyText(key), err)
		}
		granted := p.granted
		if dropped {
			granted = nil // the reply never arrives
		}
		epoch, err := e.wait(ctx, p, granted)
		switch {
		case errors.Is(err, errEntryLost): // enter the queue anew, unless the engine is closed
		case err != nil:
			go e.leaveInTheEnd(p)
			return nil, fmt.Errorf("cohorttest: acquire %s: %w", keyText(key), err)
		default:
			return &grant{engine: e, entry: p, epoch: epoch, refused: make(chan error, 1), released: make(chan struct{})}, nil
		}
	}
}

var errEntryLost = errors.New("the entry is lost")

// wait waits until the entry is granted.
func (e *Engine) wait(ctx context.Context, p *entry, granted <-chan uint64) (epoch uint64, err error) {
	for {
		var broken chan struct{}
		e.store.decide(func(*queues) { broken = e.broken })
		select {
		case epoch := <-granted:
			return epoch, nil
		default:
		}
		if _, err := e.send(ctx, Wait); err != nil {
			if errors.Is(err, cohort.ErrClosed) {
				return 0, errEntryLost
			}
			return 0, err
		}
		select {
		case epoch := <-granted:
			return epoch, nil
		case <-broken: // look again
		case <-p.lost:
			return 0, errEntryLost
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Inspect implements cohort.Inspector.
func (e *Engine) Inspect(ctx context.Context, key string) ([]cohort.Contender, error) {
	if err := e.reach(ctx); err != nil {
		return nil, fmt.Errorf("cohorttest: inspect %s: %w", keyText(key), err)
	}
	var queue []cohort.Contender
	e.store.decide(func(q *queues) {
		for _, p := range q.byKey[key] {
			queue = append(queue, p.contender(e.session))
		}
	})
	return queue, nil
}

// List implements cohort.Operator.
func (e *Engine) List(ctx context.Context, yield func(key string, first cohort.Contender) bool) error {
	if err := e.reach(ctx); err != nil {
		return fmt.Errorf("cohorttest: list: %w", err)
	}
	first := make(map[string]cohort.Contender)
	e.store.decide(func(q *queues) {
		for key, queue := range q.byKey {
			first[key] = queue[0].contender(e.session)
		}
	})
	for key, c := range first {
		if !yield(key, c) {
			break
		}
	}
	return nil
}

// Break implements cohort.Operator. The engine that held the key learns of it 10 ms later.
func (e *Engine) Break(ctx context.Context, key string, epoch uint64) (broken bool, err error) {
	if err := e.reach(ctx); err != nil {
		return false, fmt.Errorf("cohorttest: break the lock of %s: %w", keyText(key), err)
	}
	e.store.decide(func(q *queues) {
		if queue := q.byKey[key]; len(queue) > 0 && queue[0].epoch == epoch {
			queue[0].deleted = true
			time.AfterFunc(auditEvery, queue[0].engine.Notice)
			q.leave(queue[0])
			broken = true
		}
	})
	return broken, nil
}

// Report implements cohort.Reporter.
func (e *Engine) Report() cohort.EngineReport {
	var r cohort.EngineReport
	e.store.decide(func(*queues) {
		r = cohort.EngineReport{
			Process: e.session.name(), Session: e.session.name().Label,
			Sessions: e.sessions, Lost: e.sessions - 1, Retries: e.retries, Orphans: e.orphans,
		}
	})
	return r
}

// Close implements cohort.Engine.
func (e *Engine) Close(ctx context.Context) error {
	e.store.decide(func(*queues) {
		if !e.isClosed {
			e.isClosed = true
			close(e.closed)
			e.session.lose()
		}
	})
	err := e.reach(ctx)
	if err == nil {
		e.store.decide(func(q *queues) { q.revoke(e.session) })
	}
	return err
}

// enter takes an entry in the queue for key.
func (e *Engine) enter(ctx context.Context, key string, try bool) (p *entry, dropped bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	f, err := e.send(ctx, Acquire)
	if err != nil {
		if f.Late > 0 {
			go e.enterLate(key, f.Late)
		}
		return nil, false, err
	}
	err = cohort.ErrClosed
	e.store.decide(func(q *queues) {
		switch {
		case e.isClosed:
		case try && len(q.byKey[key]) > 0:
			q.byKey[key][0].want()
			err = &cohort.HeldError{Key: key, Holder: q.byKey[key][0].contender(e.session)}
		default:
			e.notice()
			p, err = q.join(e, key), nil
		}
	})
	return p, f.Drop, err
}

// enterLate has the store carry out a request that was abandoned, and the engine find what it has left.
func (e *Engine) enterLate(key string, late time.Duration) {
	time.Sleep(late)
	var p *entry
	e.store.decide(func(q *queues) {
		if !e.isClosed {
			p = q.join(e, key)
		}
	})
	if p != nil {
		time.Sleep(auditEvery)
		e.store.decide(func(q *queues) {
			if q.leave(p) {
				e.orphans++
			}
		})
	}
}

// auditEvery is how long an engine takes to find what a request has left that was carried out late.
const auditEvery = 10 * time.Millisecond

// leave removes the entry, which may be a grant. It takes as long as the store cannot be reached.
func (e *Engine) leave(p *entry) (dropped bool, err error) {
	f, err := e.send(context.Background(), Release)
	if err != nil && !errors.Is(err, cohort.ErrClosed) { // with the engine closed, the session has ended and everything it had
		return f.Drop, err
	}
	err = cohort.ErrLost
	e.store.decide(func(q *queues) {
		if q.leave(p) {
			err = nil
		}
	})
	return f.Drop, err
}

// leaveInTheEnd removes the entry, however often the store refuses.
func (e *Engine) leaveInTheEnd(p *entry) {
	for {
		if _, err := e.leave(p); err == nil || errors.Is(err, cohort.ErrLost) {
			return
		}
	}
}

// noDelay is the end of a delay of nothing. In a synctest bubble the race detector of Go 1.26 sometimes crashes
// on a timer that has run out when it is selected.
var noDelay = func() <-chan time.Time {
	over := make(chan time.Time)
	close(over)
	return over
}()

// send stands for the way of a request to the store, and suffers the fault that
// is next for the call.
func (e *Engine) send(ctx context.Context, call Call) (f Fault, err error) {
	for {
		f = Fault{}
		e.store.decide(func(*queues) {
			if next := slices.IndexFunc(e.script, func(f Fault) bool { return f.Call == call }); next >= 0 {
				f = e.script[next]
				e.script = slices.Concat(e.script[:next], e.script[next+1:])
			}
		})
		passed := noDelay
		if f.Delay > 0 {
			passed = time.After(f.Delay)
		}
		select {
		case <-passed:
		case <-ctx.Done():
			return f, ctx.Err()
		case <-e.closed:
			return f, cohort.ErrClosed
		}
		if err := e.reach(ctx); err != nil {
			return f, err
		}
		if f.Err == nil || !f.Passes {
			return f, f.Err
		}
		e.store.decide(func(*queues) { e.retries++ })
	}
}

// reach waits while the store cannot be reached.
func (e *Engine) reach(ctx context.Context) error {
	var healed chan struct{}
	if !e.store.decide(func(*queues) { healed = e.healed }) {
		return cohort.ErrClosed
	}
	if healed == nil {
		return nil
	}
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.store.done:
		return cohort.ErrClosed
	}
}

// notice lets the engine learn that its session was revoked, or entries of it deleted. Called by the store's goroutine.
func (e *Engine) notice() {
	if e.isClosed {
		return
	}
	e.paused = false
	if e.session.revoked {
		e.renew()
		return
	}
	for p := range e.session.entries {
		if p.deleted {
			p.lose()
		}
	}
}

// renew replaces the engine's session. Called by the store's goroutine.
func (e *Engine) renew() {
	e.session.lose()
	e.session = newSession(e.session.process)
	e.sessions++
}

// grant is an entry in a queue that came first.
type grant struct {
	engine *Engine
	entry  *entry
	epoch  uint64

	releasing bool          // owned by the store's goroutine
	refused   chan error    // receives why the store has refused the release, once
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

func (g *grant) Epoch() uint64 { return g.epoch }

// Lost notices a pause, as an engine does that compares its deadline with the clock.
func (g *grant) Lost() <-chan struct{} {
	g.engine.store.decide(func(*queues) {
		if g.engine.paused {
			g.engine.notice()
		}
	})
	return g.entry.lost
}

// OnWanted implements cohort.Recaller.
func (g *grant) OnWanted(f func()) {
	wanted := false
	g.engine.store.decide(func(*queues) {
		if wanted = g.entry.wanted; !wanted {
			g.entry.onWanted = f
		}
	})
	if wanted {
		f()
	}
}

func (g *grant) Release(ctx context.Context) error {
	first := false
	g.engine.store.decide(func(*queues) {
		first = !g.releasing
		g.releasing = true
	})
	if first {
		go g.release()
	}
	select {
	case <-g.released:
		return g.outcome
	case err := <-g.refused:
		return fmt.Errorf("cohorttest: release %s: %w", keyText(g.entry.key), err)
	case <-ctx.Done():
		return fmt.Errorf("cohorttest: release %s: %w", keyText(g.entry.key), ctx.Err())
	case <-g.engine.closed:
		return cohort.ErrLost
	case <-g.engine.store.done:
		return cohort.ErrLost
	}
}

// release gives the key back, however often the store refuses; the caller hears of the first refusal.
func (g *grant) release() {
	for {
		dropped, err := g.engine.leave(g.entry)
		switch {
		case dropped:
			return
		case err == nil, errors.Is(err, cohort.ErrLost):
			g.outcome = err
			close(g.released)
			return
		}
		select {
		case g.refused <- err:
		default:
		}
	}
}

// keyText quotes a key for an error, and cuts it where it is huge.
func keyText(key string) string {
	if len(key) > 128 {
		return fmt.Sprintf("%q…", key[:128])
	}
	return fmt.Sprintf("%q", key)
}

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
	if s == nil || s.decisions == nil {
		panic("cohorttest: a Store must be made by NewStore")
	}
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
