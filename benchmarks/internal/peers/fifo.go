package peers

import (
	"context"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/fifo"
)

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
