package main

import "github.com/seed-46f81e6d/keylock/examples/threatscore/store"

// run is one pass of the workers over all events.
type run struct {
	transaction store.Transaction // empty where the database has but one kind
	locked      bool
}

// String names the run for people.
func (r run) String() string {
	if r.transaction == "" {
		return lockName(r.locked)
	}
	return string(r.transaction) + ", " + lockName(r.locked)
}

func lockName(locked bool) string {
	if locked {
		return "with the lock"
	}
	return "without the lock"
}
