// Package cohort puts a process's lock manager in front of an engine that knows all
// processes: the calls of package keylock, for keys that several processes share.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
//	engine, err := etcdlock.New(client)
//	locks := cohort.Start(ctx, engine)
//	defer locks.Close()
//
//	lock, err := locks.Acquire(ctx, "order/42")
//	if err != nil {
//		return err
//	}
//	err = save(lock.Context(), lock.Token(), order) // the store refuses a token that is smaller than one it has seen
//	return errors.Join(err, lock.Release())
//
// The contenders for a key within the process wait in a keylock.Manager, first come,
// first served. One of them at a time goes to the engine. The engine's lock is then
// handed off from one to the next within the process, up to [WithMaxHandoffs] times or
// for [WithMaxHold], and given back. So a busy key costs the engine one lock for many
// holders. This is lock cohorting (Dice, Marathe and Shavit, "Lock Cohorting",
// PPoPP 2012), where a process stands for a processor node.
//
// # What is promised
//
// Fencing, not exclusion. No lock that can be lost, and a lock that outlives the crash
// of its holder must be able to be lost, excludes a holder that does not know of its loss: a
// process may be paused for longer than its lease lasts, and then goes on to write
// (Kleppmann, "How to do distributed locking", 2016; Jepsen, "etcd 3.4.3", 2020).
// What keeps such a write out is the resource itself:
//
//  1. Token. [Lock.Token] is strictly greater than that of whoever held the key before, in
//     any process. A resource that remembers the greatest token it has seen, on reads
//     too, and refuses smaller ones, is never changed by a holder that is not the last.
//  2. Notice. When the engine can no longer vouch for the lock, the context of the holder
//     is cancelled with the cause [ErrLost], before another process can get the
//     key, and Release returns ErrLost. A process that is paused gets the notice late:
//     that is what 1 is for.
//  3. Exclusion. Short of such pauses, and of clocks that run at different speeds, one
//     holder at a time has the key. Within the process it is certain.
//  4. Order. Within the process a key is granted in the order in which it was asked for.
//     Among processes the engine's order holds, with many local holders for one turn.
//  5. Cancellation. Every wait ends with its context, also while the engine cannot be
//     reached; the entry in the engine's queue then passes to the next waiter of the process.
//  6. Loss. When the engine's lock is lost, it is handed off to nobody: whoever waits
//     acquires anew. With an engine that has one session per process, as etcdlock,
//     losing it loses all keys.
//  7. Release depends on no context of the caller, and waits for the engine for at most
//     [WithEngineTimeout]; so do Close and Shutdown.
//  8. The state that a key has here travels with its handoff, and there is no mutex.
package cohort

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock"
)

// Manager grants locks by key among processes. Its methods may be called from any
// goroutine. Use [Start] to make one.
type Manager struct {
	options
	engine Engine
	local  *keylock.Manager[string] // where the process's contenders wait
	ctx    context.Context          // ends when local does: nothing is asked of the engine any more

	waiting atomic.Int64 // callers in or before the local queues

	draining atomic.Bool // Shutdown or Close was called

	granted, handoffs, lost atomic.Uint64

	done chan struct{} // closed when the engine is closed
	err  error         // of closing it; written before done is closed
}

// Stats are the totals of a Manager.
type Stats struct {
	// Local counts what happened in this process. A contender that waits for the
	// engine holds the key locally: Held is the keys that this process holds or waits
	// for at the engine, Waiting is those who wait behind.
	Local keylock.Stats

	Granted  uint64 // locks that the engine granted
	Handoffs uint64 // times that one was handed off within the process
	Lost     uint64 // locks that the engine lost before they were given back
}

// Start starts a manager, which runs until [Manager.Close], [Manager.Shutdown] or the
// end of ctx; the latter works like Close. The engine becomes the manager's, which
// closes it.
func Start(ctx context.Context, engine Engine, opts ...Option) *Manager {
	m := &Manager{
		options: defaults,
		engine:  engine,
		done:    make(chan struct{}),
	}
	for _, set := range opts {
		set(&m.options)
	}
	m.local = keylock.Start[string](ctx, m.localOptions...)
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	m.ctx = ctx
	go func() {
		<-m.local.Done()
		end()
		m.closeEngine()
	}()
	return m
}

// closeEngine follows the end of the local manager.
func (m *Manager) closeEngine() {
	ctx, cancel := context.WithTimeout(context.Background(), m.engineTimeout)
	defer cancel()
	m.err = m.engine.Close(ctx)
	close(m.done)
}

// Acquire waits until key is granted: in the queue of this process, then in the
// engine's. It returns ctx.Err() when ctx ends first, [ErrClosed] when the manager is or
// becomes closed or is shutting down, and else the engine's error. When it fails it
// returns the zero Lock.
func (m *Manager) Acquire(ctx context.Context, key string) (Lock, error) {
	m.waiting.Add(1)
	local, err := m.local.Acquire(ctx, key)
	m.waiting.Add(-1)
	if err != nil {
		return Lock{}, err
	}
	inherited, _ := local.Value().(*claim)
	return m.contend(ctx, local, inherited, m.engine.Acquire)
}

// TryAcquire returns the lock of key if it is free. It returns [ErrHeld] when the key is held or
// waited for, in this process or in another, or is still being given back; ctx.Err() when ctx
// ends before the engine has replied; [ErrClosed] when the manager is closed or shutting down; and
// else the engine's error, for instance that it cannot be reached. When it fails it returns the
// zero Lock.
func (m *Manager) TryAcquire(ctx context.Context, key string) (Lock, error) {
	if err := ctx.Err(); err != nil {
		return Lock{}, err
	}
	local, ok := m.local.TryAcquire(key)
	if !ok {
		if m.refusing() {
			return Lock{}, ErrClosed
		}
		return Lock{}, ErrHeld
	}
	return m.contend(ctx, local, nil, m.engine.TryAcquire)
}

// refusing reports whether the manager takes no more requests.
func (m *Manager) refusing() bool {
	select {
	case <-m.local.Done():
		return true
	default:
		return m.draining.Load()
	}
}

// Do acquires key, calls fn, and releases key when fn returns, panics or calls
// runtime.Goexit. The context of fn ends when ctx does, or, with the cause [ErrLost], when the
// lock is lost; [TokenFrom] finds the token in it. Do returns the error of Acquire,
// in which case fn was not called, else the error of fn as it is, or, if that is nil,
// the error of Release.
func (m *Manager) Do(ctx context.Context, key string, fn func(context.Context) error) (err error) {
	l, err := m.Acquire(ctx, key)
	if err != nil {
		return err
	}
	defer func() {
		if releaseErr := l.Release(); err == nil {
			err = releaseErr
		}
	}()
	held := l.Context()
	ctx, cancel := context.WithCancelCause(withToken(ctx, l.Token()))
	defer cancel(nil)
	defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
	return fn(ctx)
}

// Stats returns the manager's totals. Those of Local are of one moment; the others may
// be a moment later. It returns [ErrClosed] after the end, and ctx.Err() when ctx ends first.
func (m *Manager) Stats(ctx context.Context) (Stats, error) {
	local, err := m.local.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	return Stats{local, m.granted.Load(), m.handoffs.Load(), m.lost.Load()}, nil
}

// Snapshot returns, as of one moment, every key that this process holds or contends
// for. A key that this process waits for at the engine counts as held. It
// returns [ErrClosed] after the end, and ctx.Err() when ctx ends first.
func (m *Manager) Snapshot(ctx context.Context) ([]keylock.KeyInfo[string], error) {
	return m.local.Snapshot(ctx)
}

// WaitIdle waits until this process neither holds nor contends for any key. It returns
// [ErrClosed] when the manager ends first, and ctx.Err() when ctx does.
func (m *Manager) WaitIdle(ctx context.Context) error {
	return m.local.WaitIdle(ctx)
}

// Shutdown refuses new requests with [ErrClosed], serves those that wait, waits until every
// lock is released, and closes the engine. It returns the engine's error, if any. When ctx ends
// first it returns ctx.Err() and goes on in the background; it can be called again, or Close.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.draining.Store(true)
	if err := m.local.Shutdown(ctx); err != nil {
		return err
	}
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the manager at once: waiters and later calls get [ErrClosed], the locks
// that are held are given up, their contexts cancelled with the cause [ErrLost], and
// the engine is closed. It returns the engine's error, if any, after at most the
// [WithEngineTimeout]; if that is not nil, other processes may have to wait until the
// engine drops this one's locks. It may be called again.
func (m *Manager) Close() error {
	m.draining.Store(true)
	if err := m.local.Close(); err != nil {
		return fmt.Errorf("cohort: %w", err)
	}
	<-m.done
	return m.err
}

// Done is closed when the manager has ended and its engine is closed.
func (m *Manager) Done() <-chan struct{} {
	return m.done
}
