package peers

import (
	"context"

	"github.com/seed-46f81e6d/keylock"
)

// Keylock is this library.
var Keylock = Peer{
	Name:   "keylock",
	About:  "this library",
	Traits: Traits{FIFO: true, Context: true},
	Open: func() Locker {
		m := keylock.Start[string](context.Background())
		return whole[*keylock.Manager[string], keylock.Lock[string], keylock.Lock[string]]{m}
	},
}
