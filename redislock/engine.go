package redislock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

// Engine is a cohort.Engine that keeps its locks in Redis.
type Engine struct {
	*lease.Engine
	store *store
}

type options struct {
	ttl           time.Duration
	prefix        string
	replicas      int
	quarantine    time.Duration
	quarantineSet bool
}

// Option changes how an Engine works; pass it to [New].
type Option func(*options)

// WithTTL sets how long the keys of a process stay locked that has died or is cut off:
// at least 100 ms. The default is 10 s. All processes that share keys should use the same TTL, because
// each counts on the quarantine of the others.
func WithTTL(d time.Duration) Option {
	return func(o *options) { o.ttl = d }
}

// WithPrefix sets what the names of the Redis keys begin with, within the braces
// of their hash tags. The default is "kl". It must not be empty or contain braces.
func WithPrefix(p string) Option {
	return func(o *options) { o.prefix = p }
}

// WithReplicas makes every grant and every renewal wait until n replicas have acknowledged it. A grant
// that fewer acknowledge within an eighth of the TTL is given back, and a
// renewal does not count then. The default is 0.
//
// WAIT counts replicas, and does not know which of them will be promoted: only
// n = all of them makes it certain that a failover loses no grant.
func WithReplicas(n int) Option {
	return func(o *options) { o.replicas = n }
}

// WithQuarantine sets for how long nothing is granted after a server was
// started or promoted, or has lost its data. The default is the TTL, after which no
// process that is not paused can believe in a lock that the server has forgotten. 0 is no quarantine:
// then a restart or a failover ends every session all the same, but others are let in before its holders know.
func WithQuarantine(d time.Duration) Option {
	return func(o *options) { o.quarantine, o.quarantineSet = d, true }
}

// New returns an engine that talks to Redis through client. It sends nothing
// before a key is asked for. The client stays the caller's, who closes it after the engine.
func New(client Client, opts ...Option) (*Engine, error) {
	o := options{ttl: 10 * time.Second, prefix: "kl"}
	for _, set := range opts {
		set(&o)
	}
	if !o.quarantineSet {
		o.quarantine = o.ttl
	}
	switch {
	case o.ttl < 100*time.Millisecond:
		return nil, fmt.Errorf("redislock: a TTL of %v is below 100 ms", o.ttl)
	case o.prefix == "" || strings.ContainsAny(o.prefix, "{}"):
		return nil, fmt.Errorf("redislock: the prefix %q is empty or contains braces", o.prefix)
	case o.replicas < 0:
		return nil, fmt.Errorf("redislock: %d replicas", o.replicas)
	case o.quarantine < 0:
		return nil, fmt.Errorf("redislock: a quarantine of %v", o.quarantine)
	}
	s := &store{client: client, options: o, sessions: make(map[string]*session)}
	e, err := lease.New(s, lease.Config{Name: "redislock", TTL: o.ttl})
	if err != nil {
		return nil, err
	}
	return &Engine{e, s}, nil
}

// Acquire implements cohort.Engine. The grant is a *Grant.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.grant(e.Engine.Acquire(ctx, key))
}

// TryAcquire implements cohort.Engine. The grant is a *Grant. During a
// quarantine every key is held.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.grant(e.Engine.TryAcquire(ctx, key))
}

func (e *Engine) grant(g cohort.Grant, err error) (cohort.Grant, error) {
	if err != nil {
		return nil, err
	}
	return &Grant{g.(*lease.Grant), e.store}, nil
}

// Inspect implements cohort.Inspector. A contender's Process is the ID of its session.
func (e *Engine) Inspect(ctx context.Context, key string) ([]cohort.Contender, error) {
	reply, err := e.store.run(ctx, inspectScript, bucketOf(key), false, 0, key)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("redislock: inspect: %w", err)
	}
	own := e.Report().Session
	var all []cohort.Contender
	for i, entry := range reply[1:] {
		session, _, _ := strings.Cut(entry, ":")
		c := cohort.Contender{Process: session, Own: session == own}
		if i == 0 && reply[0] != "" {
			if c.Epoch, err = strconv.ParseUint(reply[0], 10, 64); err != nil {
				return nil, fmt.Errorf("redislock: inspect: %w", err)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// Tag returns the hash tag of key, braces included. In a cluster, a Redis key
// whose name has it is where the lock is, so that a script can use both.
func (e *Engine) Tag(key string) string {
	return e.store.tag(bucketOf(key))
}

// Grant is a lock in Redis. It implements cohort.Grant.
type Grant struct {
	*lease.Grant
	store *store
}

// Guard returns what a script of yours needs to find out whether this grant still holds its
// lock, whatever this process believes: the name of a hash, a field of it, and
// the value that the field has for as long as the grant holds the lock. In the script, with the
// hash among KEYS and the others in ARGV,
//
//	if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
//	  return redis.error_reply('FENCED')
//	end
//
// keeps everything out that follows it, for data on the same server. In a cluster the names of
// the other keys need the tag, see [Engine.Tag].
func (g *Grant) Guard() (hash, field, value string) {
	return g.store.names(bucketOf(g.Key()))[0], "g:" + g.Key(), strconv.FormatUint(g.Epoch(), 10)
}
