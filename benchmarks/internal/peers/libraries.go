package peers

import (
	"context"

	"github.com/moby/locker"
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
