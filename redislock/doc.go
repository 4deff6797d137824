// Package redislock is the Redis engine of package cohort: locks by key among
// processes, in queues that Redis keeps.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addresses, ConnWriteTimeout: 2 * time.Second})
//	engine, err := redislock.New(rueidisadapter.New(client))
//	locks := cohort.Start(ctx, engine)
//	defer locks.Close()
//
// The client is behind an interface of two methods, [Client]. Package
// rueidisadapter has it for rueidis, the module goredisadapter for go-redis.
//
// # What it promises
//
// Fencing, as every engine of package cohort: the epoch of a grant, and with it every cohort.Token,
// grows from one holder of a key to the next, also when the server has lost its newest
// data, or all of it. It is the server's clock in microseconds, or one more than the last.
// For data in the same Redis, [Grant.Guard] lets a script of yours check the lock in the same step.
//
// Exclusion short of pauses, with two conditions. Redis may forget what it has confirmed: at a
// failover to a replica that lags behind, or at a restart. Therefore a server that was
// started or promoted, or whose data are gone, grants nothing for one TTL, see [WithQuarantine]: until then every
// process that is not paused has learned that its locks are lost. One case is not noticed: a master that becomes a replica
// of another and a master again, within a TTL, without a restart and before any process uses the bucket at the other, has the other's
// older data and grants at once. And a master that was
// replaced must stop confirming renewals: see [WithReplicas] and min-replicas-to-write in the README.
//
// # How it works
//
// Everything happens in Lua scripts, run by EVALSHA. Keys are divided into 64 buckets, each in
// one slot of a cluster. A process has one session for all its keys, which it renews
// four times per TTL; a session ends by the server's clock. A release makes
// the next living entry of the queue the holder, and tells its process alone. Package
// lease has the rest.
//
// Redis 7.0 or later is needed in a cluster, for SPUBLISH, and Redis 5 or later elsewhere. The tests run against 7.0.15.
package redislock
