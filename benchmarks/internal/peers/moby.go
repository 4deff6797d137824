package peers

import (
	"context"

	"github.com/moby/locker"
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
