package peers

import (
	"context"

	"k8s.io/utils/keymutex"
)

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
