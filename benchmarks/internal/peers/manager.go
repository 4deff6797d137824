package peers

import "context"

// manager is what keylock and the copies it is compared with have in common.
type manager[L lock] interface {
	Acquire(ctx context.Context, key string) (L, error)
	Close() error
}

type lock interface{ Release() }

// managed is the adapter of all of them.
type managed[M manager[L], L lock] struct{ m M }

func (l managed[M, L]) Client() Client { return &managedClient[M, L]{m: l.m} }
func (l managed[M, L]) Close()         { l.m.Close() }

type managedClient[M manager[L], L lock] struct {
	m    M
	lock L
}

func (c *managedClient[M, L]) Lock(ctx context.Context, key string) (err error) {
	c.lock, err = c.m.Acquire(ctx, key)
	return err
}

func (c *managedClient[M, L]) Unlock() { c.lock.Release() }

// wholeManager can also share keys and lock many at once, as keylock and its older
// selves can.
type wholeManager[L, A lock] interface {
	manager[L]
	AcquireShared(ctx context.Context, key string) (L, error)
	AcquireAll(ctx context.Context, keys ...string) (A, error)
}

type whole[M wholeManager[L, A], L, A lock] struct{ m M }

func (l whole[M, L, A]) Client() Client {
	return &wholeClient[M, L, A]{managedClient[M, L]{m: l.m}}
}

func (l whole[M, L, A]) ManyClient() ManyClient { return &wholeManyClient[M, L, A]{m: l.m} }
func (l whole[M, L, A]) Close()                 { l.m.Close() }

type wholeClient[M wholeManager[L, A], L, A lock] struct{ managedClient[M, L] }

func (c *wholeClient[M, L, A]) LockShared(ctx context.Context, key string) (err error) {
	c.lock, err = c.m.AcquireShared(ctx, key)
	return err
}

type wholeManyClient[M wholeManager[L, A], L, A lock] struct {
	m     M
	locks A
}

func (c *wholeManyClient[M, L, A]) LockAll(ctx context.Context, keys []string) (err error) {
	c.locks, err = c.m.AcquireAll(ctx, keys...)
	return err
}

func (c *wholeManyClient[M, L, A]) Unlock() { c.locks.Release() }
