package pglock

import "github.com/seed-46f81e6d/keylock/cohort/lease"

// Store returns what the engine rests on.
func (e *Engine) Store() lease.Store { return e.store }

var (
	Judge = judge
	KeyOf = keyOf
)
