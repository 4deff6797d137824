package peers

import (
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/plain"
)

// Plain is the same design as keylock's without any tuning.
var Plain = Peer{
	Name:   "plain",
	About:  "keylock's design without tuning: one three-way select per call, one allocation per request",
	Traits: Traits{FIFO: true, Context: true, Study: true},
	Open: func() Locker {
		return managed[*plain.Manager, plain.Lock]{plain.Start()}
	},
}
