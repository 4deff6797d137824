package cohort

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// Manager grants locks by key among processes. Its methods may be called from any
// goroutine. Use [Start] to make one.
type Manager struct {
	options
	engine Engine
	asker  Asker                    // the engine, if it is one
	local  *keylock.Manager[string] // where the process's contenders wait
	ctx    context.Context          // ends when local does: nothing is asked of the engine any more

	waiting atomic.Int64 // callers in or before the local queues

	draining atomic.Bool // Shutdown or Close was called

	handoffs atomic.Uint64
	claims   *registry
	keeper   *keeper // nil without WithKeep

	done chan struct{} // closed when the engine is closed
	err  error         // of closing it; written before done is closed
}

// managed holds the engines that have a manager.
var managed atomic.Pointer[map[Engine]bool]

// manage notes that an engine has a manager, and reports false if it had one.
func manage(engine Engine) bool {
	if !reflect.ValueOf(engine).Comparable() {
		return true // it cannot be told from a copy
	}
	for {
		old := managed.Load()
		engines := make(map[Engine]bool)
		if old != nil {
			maps.Copy(engines, *old)
		}
		if engines[engine] {
			return false
		}
		engines[engine] = true
		if managed.CompareAndSwap(old, &engines) {
			return true
		}
	}
}

// unmanage forgets an engine that is closed.
func unmanage(engine Engine) {
	if !reflect.ValueOf(engine).Comparable() {
		return
	}
	for {
		old := managed.Load()
		engines := maps.Clone(*old)
		delete(engines, engine)
		if managed.CompareAndSwap(old, &engines) {
			return
		}
	}
}

// Start starts a manager, which runs until [Manager.Close], [Manager.Shutdown] or the
// end of ctx; the latter works like Close. The engine becomes the manager's, which
// closes it. An engine has one manager: Start panics if it has another, because two that share an
// engine's session would lose each other's locks when the first closes it. It also panics when
// ctx, engine, which may be a nil pointer, or an option is nil.
func Start(ctx context.Context, engine Engine, opts ...Option) *Manager {
	if ctx == nil {
		panic("cohort: Start with a nil context")
	}
	if v := reflect.ValueOf(engine); engine == nil || v.Kind() == reflect.Pointer && v.IsNil() { // which would panic later, on a goroutine of the manager's
		panic("cohort: Start with a nil engine")
	}
	m := &Manager{
		options: defaults,
		engine:  engine,
		done:    make(chan struct{}),
	}
	for _, set := range opts {
		if set == nil {
			panic("cohort: Start with a nil Option")
		}
		set(&m.options)
	}
	m.local = keylock.Start[string](ctx, m.localOptions...) // which may panic: the engine has no manager then
	if !manage(engine) {
		_ = m.local.Close()
		panic("cohort: the engine has a manager already: give each manager an engine of its own, or share the manager")
	}
	m.asker, _ = engine.(Asker)
	m.claims = newRegistry(m.done, m.newSlowLog())
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	m.ctx = ctx
	if m.keepKeys > 0 {
		m.keeper = newKeeper(m.keepIdle, m.keepKeys, m.listen, func(c *claim) bool { return errors.Is(m.giveBack(c), ErrLost) })
		go m.keeper.run(ctx.Done())
	}
	go func() {
		<-m.local.Done()
		end()
		m.closeEngine()
	}()
	return m
}

// mustBeStarted panics, in the caller, for a Manager that Start did not make.
func (m *Manager) mustBeStarted() {
	if m == nil || m.local == nil {
		panic("cohort: a Manager must be made by Start")
	}
}

// newSlowLog starts the goroutine that logs, nil if nothing is to be logged.
func (m *Manager) newSlowLog() *slowLog {
	if m.slowLogger == nil {
		return nil
	}
	inspector, _ := m.engine.(Inspector)
	l := &slowLog{
		logger: m.slowLogger, after: m.slowAfter, engine: inspector,
		records: make(chan slowRecord, 64), next: make(map[*claim]time.Duration),
	}
	go l.run()
	return l
}

// closeEngine follows the end of the local manager.
func (m *Manager) closeEngine() {
	ctx, cancel := context.WithTimeout(context.Background(), m.engineTimeout)
	defer cancel()
	m.err = m.engine.Close(ctx)
	unmanage(m.engine)
	close(m.done)
}

// Acquire waits until key is granted: in the queue of this process, then in the
// engine's. It returns an error that wraps ctx.Err() and the cause when ctx ends first, [ErrClosed] when the
// manager is or becomes closed or is shutting down, and else the engine's error. When it fails
// it returns the zero Lock. A nil context panics.
func (m *Manager) Acquire(ctx context.Context, key string) (Lock, error) {
	m.mustBeStarted()
	if ctx == nil {
		panic("cohort: nil context")
	}
	done := ctx.Done()
	local, err := m.acquireLocal(ctx, key)
	if err != nil {
		return Lock{}, err
	}
	return m.contend(ctx, done, local, false)
}

// acquireLocal waits for the lock of key among the callers in this process. It counts as waiting meanwhile, and no longer when the
// caller's context panics.
func (m *Manager) acquireLocal(ctx context.Context, key string) (keylock.Lock[string], error) {
	m.waiting.Add(1)
	defer m.waiting.Add(-1)
	return m.local.Acquire(ctx, key)
}

// TryAcquire returns the lock of key if it is free. It returns [ErrHeld] when the key is held or
// waited for, in this process or in another, or is still being given back; a [*HeldError] where it is known who
// has it; an error that wraps ctx.Err() and the cause when ctx ends before the engine has replied; [ErrClosed] when the manager is closed or shutting down; and
// else the engine's error, for instance that it cannot be reached. When it fails it returns the
// zero Lock.
func (m *Manager) TryAcquire(ctx context.Context, key string) (Lock, error) {
	m.mustBeStarted()
	if ctx == nil {
		panic("cohort: nil context")
	}
	done := ctx.Done()
	if ctx.Err() != nil {
		return Lock{}, endOf(ctx, key)
	}
	local, ok := m.local.TryAcquire(key)
	if !ok {
		if m.refusing() {
			return Lock{}, ErrClosed
		}
		return Lock{}, m.heldHere(ctx, key)
	}
	return m.contend(ctx, done, local, true)
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
// the error of Release. A nil fn panics before anything is acquired.
func (m *Manager) Do(ctx context.Context, key string, fn func(context.Context) error) (err error) {
	if fn == nil {
		panic("cohort: Do with a nil function")
	}
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
	ctx, cancel := context.WithCancelCause(withToken(ended.Sound(ctx), l.Token()))
	defer cancel(nil)
	defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
	return fn(ctx)
}

// WaitIdle waits until this process neither holds nor contends for any key. It returns
// [ErrClosed] when the manager ends first, and an error that wraps ctx.Err() when ctx does.
func (m *Manager) WaitIdle(ctx context.Context) error {
	m.mustBeStarted()
	return m.local.WaitIdle(ctx)
}

// Shutdown refuses new requests with [ErrClosed], serves those that wait, waits until every
// lock is released, and closes the engine. It returns the engine's error, if any. When ctx ends
// first it returns an error that wraps ctx.Err() and goes on in the background; it can be called again, or Close.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.mustBeStarted()
	if ctx == nil {
		panic("cohort: nil context")
	}
	m.draining.Store(true)
	if m.keeper != nil {
		m.keeper.close()
	}
	if err := m.local.Shutdown(ctx); err != nil {
		return err
	}
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return ended.Err(ctx)
	}
}

// Close ends the manager at once: waiters and later calls get [ErrClosed], the locks
// that are held are given up, their contexts cancelled with the cause [ErrLost], and
// the engine is closed. It returns the engine's error, if any, after at most the
// [WithEngineTimeout]; if that is not nil, other processes may have to wait until the
// engine drops this one's locks. It may be called again.
func (m *Manager) Close() error {
	m.mustBeStarted()
	m.draining.Store(true)
	if err := m.local.Close(); err != nil {
		return fmt.Errorf("cohort: %w", err)
	}
	<-m.done
	return m.err
}

// String says whether the manager has ended. (Package fmt would print its fields, which other
// goroutines write.)
func (m *Manager) String() string {
	if m == nil || m.local == nil {
		return "no manager"
	}
	select {
	case <-m.done:
		return "cohort manager, ended"
	default:
		return "cohort manager, running"
	}
}

// Done returns a channel that is closed when the manager has ended and its engine is closed.
func (m *Manager) Done() <-chan struct{} {
	m.mustBeStarted()
	return m.done
}
