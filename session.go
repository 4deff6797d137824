package keylock

import (
	"context"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Session is one logical holder of locks: a transaction, a job, a request that is being
// handled. It has the calls of the [Manager], and one promise more: a session may wait
// while it holds, and cannot deadlock by it. A request that would make the session wait
// for itself, along any chain of holders and waiters, returns a [*DeadlockError] instead of
// waiting forever. So does asking again for a key that the session holds, because a lock is
// not re-entrant. Only a request can close such a chain, and a request that is refused
// changes nothing for others.
//
// The promise is about sessions: the manager cannot know what a goroutine that acquires
// without a session holds already.
//
// A session stands for one actor, but its methods may be called from any goroutine. All
// its requests count as waits of that one actor.
type Session[K comparable] struct {
	m     *Manager[K]
	state sessionState[K]
}

// Session returns a new session. The label names it to people, in errors and snapshots;
// it need not be unique. A session costs nothing while it neither holds nor waits.
func (m *Manager[K]) Session(label string) *Session[K] {
	m.mustBeStarted()
	return &Session[K]{m: m, state: sessionState[K]{entries: table.NewSession[K](label)}}
}

// manager returns the session's manager, and panics, in the caller, for a Session that
// Manager.Session did not make.
func (s *Session[K]) manager() *Manager[K] {
	if s == nil || s.m == nil {
		panic("keylock: a Session must be made by Manager.Session")
	}
	return s.m
}

// Acquire is [Manager.Acquire] for the session. It also returns a [*DeadlockError] when
// waiting would make the session wait for itself, and [ErrClosed] when the session is or
// becomes closed.
func (s *Session[K]) Acquire(ctx context.Context, key K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, table.Request[K]{Key: key}, false)
}

// AcquireShared is [Manager.AcquireShared] for the session; it fails as
// [Session.Acquire] does. A shared lock cannot be upgraded: asking for the exclusive
// lock of a key that the session holds shared is a deadlock.
func (s *Session[K]) AcquireShared(ctx context.Context, key K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, table.Request[K]{Key: key, Mode: table.Shared}, false)
}

// AcquireAll is [Manager.AcquireAll] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) AcquireAll(ctx context.Context, keys ...K) (Lock[K], error) {
	return s.manager().acquire(ctx, &s.state, wantAll(keys), false)
}

// AcquireSet is [Manager.AcquireSet] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) AcquireSet(ctx context.Context, set ...Want[K]) (Lock[K], error) {
	m := s.manager()
	return m.acquire(ctx, &s.state, m.wantSet(set), false)
}

// TryAcquire is [Manager.TryAcquire] for the session. It is false for a closed session.
func (s *Session[K]) TryAcquire(key K) (Lock[K], bool) {
	return s.manager().try(&s.state, table.Request[K]{Key: key})
}

// TryAcquireSet is [Manager.TryAcquireSet] for the session.
func (s *Session[K]) TryAcquireSet(set ...Want[K]) (Lock[K], bool) {
	m := s.manager()
	return m.try(&s.state, m.wantSet(set))
}

// Reserve is [Manager.Reserve] for the session; Wait fails as [Session.Acquire] does. The
// session waits from now on, not only from Wait on.
func (s *Session[K]) Reserve(key K) Reservation[K] {
	return s.manager().reserve(&s.state, table.Request[K]{Key: key})
}

// ReserveSet is [Manager.ReserveSet] for the session, see [Session.Reserve].
func (s *Session[K]) ReserveSet(set ...Want[K]) Reservation[K] {
	m := s.manager()
	return m.reserve(&s.state, m.wantSet(set))
}

// Do is [Manager.Do] for the session; it fails as [Session.Acquire] does.
func (s *Session[K]) Do(ctx context.Context, key K, fn func(context.Context) error) error {
	return s.manager().do(ctx, &s.state, table.Request[K]{Key: key}, fn)
}

// Close releases all that the session holds and ends all its waits, with [ErrClosed],
// at one instant. Later calls of the session get ErrClosed; the release of its locks
// does nothing any more. It always returns nil and may be called again.
func (s *Session[K]) Close() error {
	m := s.manager()
	m.gate.before("closes its session")
	s.state.closed.Store(true)
	m.long.Add(1)
	m.kept.sends()
	m.send(message[K]{request: &closeSession[K]{&s.state}})
	return nil
}
