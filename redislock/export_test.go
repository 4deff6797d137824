package redislock

import "github.com/seed-46f81e6d/keylock/cohort/lease"

// Store returns the engine's store, for tests of single calls.
func (e *Engine) Store() lease.Store { return e.store }

// BucketNames returns the names of the Redis keys that are used for a key.
func (e *Engine) BucketNames(key string) (hash, sessions string) {
	names := e.store.names(bucketOf(key))
	return names[0], names[1]
}
