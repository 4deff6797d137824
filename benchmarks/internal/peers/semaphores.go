package peers

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Semaphores is the usual recipe for a keyed lock with a context.
var Semaphores = Peer{
	Name:   "semaphores",
	About:  "a mutex and a map of pooled golang.org/x/sync/semaphore, counted references",
	Traits: Traits{FIFO: true, Context: true},
	Open: func() Locker {
		return &semaphores{entries: make(map[string]*semaphoreEntry)}
	},
}

type semaphores struct {
	mu      sync.Mutex
	entries map[string]*semaphoreEntry
	pool    sync.Pool // of *semaphoreEntry; an idle semaphore is as good as a new one
}

type semaphoreEntry struct {
	sem  *semaphore.Weighted
	refs int // holders and waiters; guarded by semaphores.mu
}

// allReaders is the weight of an exclusive lock: more than there are readers.
const allReaders = 1 << 30

func (l *semaphores) lock(ctx context.Context, key string, weight int64) (*semaphoreEntry, error) {
	l.mu.Lock()
	e := l.entries[key]
	if e == nil {
		if e, _ = l.pool.Get().(*semaphoreEntry); e == nil {
			e = &semaphoreEntry{sem: semaphore.NewWeighted(allReaders)}
		}
		l.entries[key] = e
	}
	e.refs++
	l.mu.Unlock()

	if err := e.sem.Acquire(ctx, weight); err != nil {
		l.leave(key, e)
		return nil, err
	}
	return e, nil
}

func (l *semaphores) leave(key string, e *semaphoreEntry) {
	l.mu.Lock()
	e.refs--
	last := e.refs == 0
	if last {
		delete(l.entries, key)
	}
	l.mu.Unlock()
	if last {
		l.pool.Put(e)
	}
}

func (l *semaphores) Client() Client { return &semaphoreClient{locks: l} }
func (l *semaphores) Close()         {}

type semaphoreClient struct {
	locks  *semaphores
	entry  *semaphoreEntry
	key    string
	weight int64
}

func (c *semaphoreClient) Lock(ctx context.Context, key string) error {
	return c.lock(ctx, key, allReaders)
}

func (c *semaphoreClient) LockShared(ctx context.Context, key string) error {
	return c.lock(ctx, key, 1)
}

func (c *semaphoreClient) lock(ctx context.Context, key string, weight int64) (err error) {
	c.key, c.weight = key, weight
	c.entry, err = c.locks.lock(ctx, key, weight)
	return err
}

func (c *semaphoreClient) Unlock() {
	c.entry.sem.Release(c.weight)
	c.locks.leave(c.key, c.entry)
}
