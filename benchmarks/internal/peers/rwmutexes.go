package peers

import (
	"context"
	"sync"
)

// RWMutexes is the usual recipe for keys that can be shared.
var RWMutexes = Peer{
	Name:  "rwmutexes",
	About: "a mutex and a map of pooled sync.RWMutex, counted references: no context, newcomers overtake",
	Open: func() Locker {
		return &rwMutexes{entries: make(map[string]*rwMutexEntry)}
	},
}

type rwMutexes struct {
	mu      sync.Mutex
	entries map[string]*rwMutexEntry
	pool    sync.Pool // of *rwMutexEntry, unlocked
}

type rwMutexEntry struct {
	sync.RWMutex
	refs int // holders and waiters; guarded by rwMutexes.mu
}

func (l *rwMutexes) join(key string) *rwMutexEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	if e == nil {
		if e, _ = l.pool.Get().(*rwMutexEntry); e == nil {
			e = new(rwMutexEntry)
		}
		l.entries[key] = e
	}
	e.refs++
	return e
}

func (l *rwMutexes) leave(key string, e *rwMutexEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(l.entries, key)
		l.pool.Put(e)
	}
}

func (l *rwMutexes) Client() Client { return &rwMutexClient{locks: l} }
func (l *rwMutexes) Close()         {}

type rwMutexClient struct {
	locks  *rwMutexes
	entry  *rwMutexEntry
	key    string
	shared bool
}

func (c *rwMutexClient) Lock(_ context.Context, key string) error {
	c.key, c.shared = key, false
	c.entry = c.locks.join(key)
	c.entry.Lock()
	return nil
}

func (c *rwMutexClient) LockShared(_ context.Context, key string) error {
	c.key, c.shared = key, true
	c.entry = c.locks.join(key)
	c.entry.RLock()
	return nil
}

func (c *rwMutexClient) Unlock() {
	if c.shared {
		c.entry.RUnlock()
	} else {
		c.entry.Unlock()
	}
	c.locks.leave(c.key, c.entry)
}
