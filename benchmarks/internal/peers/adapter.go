package peers

import (
	"context"

	"github.com/seed-46f81e6d/keylock"
)

// keylocks is the adapter of keylock, of which base.sh makes a copy for another revision. It has
// no type parameters, as those of the rivals have none: with them each call goes through a
// dictionary, which was a fifth of what it takes to lock and unlock a key that is kept.
type keylocks struct{ m *keylock.Manager[string] }

func (l keylocks) Client() Client         { return &keylockClient{m: l.m} }
func (l keylocks) ManyClient() ManyClient { return &keylockManyClient{m: l.m} }
func (l keylocks) Close()                 { l.m.Close() }

type keylockClient struct {
	m    *keylock.Manager[string]
	lock keylock.Lock[string]
}

func (c *keylockClient) Lock(ctx context.Context, key string) (err error) {
	c.lock, err = c.m.Acquire(ctx, key)
	return err
}

func (c *keylockClient) LockShared(ctx context.Context, key string) (err error) {
	c.lock, err = c.m.AcquireShared(ctx, key)
	return err
}

func (c *keylockClient) Unlock() { c.lock.Release() }

type keylockManyClient struct {
	m     *keylock.Manager[string]
	locks keylock.Lock[string] // of all
}

func (c *keylockManyClient) LockAll(ctx context.Context, keys []string) (err error) {
	c.locks, err = c.m.AcquireAll(ctx, keys...)
	return err
}

func (c *keylockManyClient) Unlock() { c.locks.Release() }
