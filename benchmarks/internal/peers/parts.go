package peers

import (
	"context"
	"hash/maphash"

	"github.com/seed-46f81e6d/keylock"
)

// KeylockParts spreads the keys over two managers by hash. There is then no one
// history, no one WaitIdle and no lock on many keys across the parts.
var KeylockParts = Peer{
	Name:   "keylock x2",
	About:  "two managers of this library, keys spread over them by hash",
	Traits: Traits{FIFO: true, Context: true, Spread: true, Study: true},
	Open: func() Locker {
		l := parts{seed: maphash.MakeSeed()}
		for i := range l.managers {
			l.managers[i] = keylock.Start[string](context.Background())
		}
		return managed[parts, keylock.Lock[string]]{l}
	},
}

type parts struct {
	seed     maphash.Seed
	managers [2]*keylock.Manager[string]
}

func (p parts) Acquire(ctx context.Context, key string) (keylock.Lock[string], error) {
	return p.managers[maphash.String(p.seed, key)%uint64(len(p.managers))].Acquire(ctx, key)
}

func (p parts) Close() error {
	for _, m := range p.managers {
		m.Close()
	}
	return nil
}
