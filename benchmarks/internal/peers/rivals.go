package peers

import (
	"context"
	"sync"

	"github.com/moby/locker"
	"golang.org/x/sync/semaphore"
	"k8s.io/utils/keymutex"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/fifo"
)

// Moby is the keyed mutex of the container world.
var Moby = Peer{
	Name:  "moby/locker",
	About: "github.com/moby/locker v1.0.1: no context, newcomers overtake",
	Open:  func() Locker { return mobyLocker{locker.New()} },
}

type mobyLocker struct{ locks *locker.Locker }

func (l mobyLocker) Client() Client { return &mobyClient{locks: l.locks} }
func (l mobyLocker) Close()         {}

type mobyClient struct {
	locks *locker.Locker
	key   string
}

func (c *mobyClient) Lock(_ context.Context, key string) error {
	c.key = key
	c.locks.Lock(key)
	return nil
}

func (c *mobyClient) Unlock() {
	if err := c.locks.Unlock(c.key); err != nil {
		panic(err) // the adapter unlocked what it had not locked
	}
}

// KeyMutex is the striped mutex of Kubernetes.
var KeyMutex = Peer{
	Name:   "k8s keymutex",
	About:  "k8s.io/utils/keymutex with 1,024 stripes: no context, newcomers overtake, keys collide",
	Traits: Traits{Striped: true},
	Open:   func() Locker { return keyMutex{keymutex.NewHashed(1024)} },
}

type keyMutex struct{ locks keymutex.KeyMutex }

func (l keyMutex) Client() Client { return &keyMutexClient{locks: l.locks} }
func (l keyMutex) Close()         {}

type keyMutexClient struct {
	locks keymutex.KeyMutex
	key   string
}

func (c *keyMutexClient) Lock(_ context.Context, key string) error {
	c.key = key
	c.locks.LockKey(key)
	return nil
}

func (c *keyMutexClient) Unlock() {
	if err := c.locks.UnlockKey(c.key); err != nil {
		panic(err) // it never fails
	}
}

// FIFO is the strongest rival that can be built in an afternoon.
var FIFO = Peer{
	Name:   "mutex+fifo",
	About:  "one mutex, a map of held keys, FIFO lists of pooled waiters, direct handoff",
	Traits: Traits{FIFO: true, Context: true},
	Open:   func() Locker { return fifoLocker{fifo.New()} },
}

type fifoLocker struct{ locks *fifo.Locks }

func (l fifoLocker) Client() Client { return &fifoClient{locks: l.locks} }
func (l fifoLocker) Close()         {}

type fifoClient struct {
	locks *fifo.Locks
	key   string
}

func (c *fifoClient) Lock(ctx context.Context, key string) error {
	c.key = key
	return c.locks.Lock(ctx, key)
}

func (c *fifoClient) Unlock() { c.locks.Unlock(c.key) }

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

// Channels is the other usual recipe: a channel of one per key is a lock that a select
// can wait for, and the run-time queues its senders in order.
var Channels = Peer{
	Name:   "channels",
	About:  "a mutex and a map of pooled channels of one, counted references",
	Traits: Traits{FIFO: true, Context: true},
	Open: func() Locker {
		return &channels{entries: make(map[string]*channelEntry)}
	},
}

type channels struct {
	mu      sync.Mutex
	entries map[string]*channelEntry
	pool    sync.Pool // of *channelEntry, empty
}

type channelEntry struct {
	held chan struct{} // full while the key is held
	refs int           // holders and waiters; guarded by channels.mu
}

func (l *channels) lock(ctx context.Context, key string) (*channelEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	e := l.entries[key]
	if e == nil {
		if e, _ = l.pool.Get().(*channelEntry); e == nil {
			e = &channelEntry{held: make(chan struct{}, 1)}
		}
		l.entries[key] = e
	}
	e.refs++
	l.mu.Unlock()

	select { // of one channel: much cheaper than the one below
	case e.held <- struct{}{}:
		return e, nil
	default:
	}
	select {
	case e.held <- struct{}{}:
		return e, nil
	case <-ctx.Done():
		l.leave(key, e)
		return nil, ctx.Err()
	}
}

func (l *channels) leave(key string, e *channelEntry) {
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

func (l *channels) Client() Client { return &channelClient{locks: l} }
func (l *channels) Close()         {}

type channelClient struct {
	locks *channels
	entry *channelEntry
	key   string
}

func (c *channelClient) Lock(ctx context.Context, key string) (err error) {
	c.key = key
	c.entry, err = c.locks.lock(ctx, key)
	return err
}

func (c *channelClient) Unlock() {
	<-c.entry.held
	c.locks.leave(c.key, c.entry)
}

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
