package redislock

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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
	label         string
	ttl           time.Duration
	prefix        string
	replicas      int
	quarantine    time.Duration
	quarantineSet bool
}

// Option changes how an Engine works; pass it to [New].
type Option func(*options)

// WithTTL sets how long the keys of a process stay locked that has died or is cut off:
// at least 100 ms, and many times what a request takes. The default is 10 s. All processes that share keys should use the same TTL, because
// each counts on the quarantine of the others.
func WithTTL(d time.Duration) Option {
	return func(o *options) { o.ttl = d }
}

// WithLabel sets how this process is called in the queues, besides its host and its number: see
// [Engine.Inspect]. It has at most 128 bytes. The default is none.
func WithLabel(label string) Option {
	return func(o *options) { o.label = label }
}

// WithPrefix sets what the names of the Redis keys begin with, within the braces
// of their hash tags. The default is "kl". It must not be empty, contain braces or end with a digit: the number of
// a bucket follows it.
func WithPrefix(p string) Option {
	return func(o *options) { o.prefix = p }
}

// WithReplicas makes every grant and every renewal wait until n replicas have acknowledged it, which takes a connection of
// its own meanwhile. A grant that fewer acknowledge within an eighth of the TTL is not used: it is asked for again until the
// caller's context ends, and given back then. A renewal does not count then. The default is 0.
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
// before a key is asked for. The client stays the caller's, who closes it after the engine. New returns
// an error for a nil client, and for an option that is nil or out of its bounds.
func New(client Client, opts ...Option) (*Engine, error) {
	o := options{ttl: 10 * time.Second, prefix: "kl"}
	for _, set := range opts {
		if set == nil {
			return nil, errors.New("redislock: nil Option")
		}
		set(&o)
	}
	if !o.quarantineSet {
		o.quarantine = o.ttl
	}
	switch {
	case client == nil:
		return nil, errors.New("redislock: nil client")
	case o.ttl < 100*time.Millisecond:
		return nil, fmt.Errorf("redislock: a TTL of %v is below 100 ms", o.ttl)
	case o.prefix == "" || strings.ContainsAny(o.prefix, "{}") || strings.ContainsAny(o.prefix[len(o.prefix)-1:], "0123456789"):
		return nil, fmt.Errorf("redislock: the prefix %q is empty, contains braces or ends with a digit", o.prefix)
	case o.replicas < 0:
		return nil, fmt.Errorf("redislock: %d replicas", o.replicas)
	case o.quarantine < 0:
		return nil, fmt.Errorf("redislock: a quarantine of %v", o.quarantine)
	}
	s := &store{
		client: client, options: o, single: newScripts(o, false), clustered: newScripts(o, true),
		asides:   make(chan struct{}, mostAside),
		sessions: make(map[string]*session),
	}
	e, err := lease.New(s, lease.Config{Name: "redislock", TTL: o.ttl, Label: o.label})
	if err != nil {
		return nil, err
	}
	return &Engine{e, s}, nil
}

// longestKey is how long a key may be: whatever its proto-max-bulk-len is, a server takes so much.
const longestKey = 1 << 20

// tooLong returns an error for a key with which a server would close the connection, which others use too.
func tooLong(key string) error {
	if len(key) <= longestKey {
		return nil
	}
	return fmt.Errorf("redislock: a key of %d bytes: want at most %d", len(key), longestKey)
}

// Acquire implements cohort.Engine. The grant is a *Grant. A key has at most 1 MiB.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	if err := tooLong(key); err != nil {
		return nil, err
	}
	return e.grant(e.Engine.Acquire(ctx, key))
}

// TryAcquire implements cohort.Engine. The grant is a *Grant. During a
// quarantine every key is held.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	if err := tooLong(key); err != nil {
		return nil, err
	}
	return e.grant(e.Engine.TryAcquire(ctx, key))
}

// Ask implements cohort.Asker. The grant is a *Grant.
func (e *Engine) Ask(ctx context.Context, key string, try bool, reply func(cohort.Grant, error)) {
	if err := tooLong(key); err != nil {
		reply(nil, err)
		return
	}
	e.Engine.Ask(ctx, key, try, func(g cohort.Grant, err error) { reply(e.grant(g, err)) })
}

func (e *Engine) grant(g cohort.Grant, err error) (cohort.Grant, error) {
	if err != nil {
		return nil, err
	}
	return &Grant{g.(*lease.Grant), e.store}, nil
}

// Inspect implements cohort.Inspector; it returns at most the first 1,000. Since when the first holds the key is
// told by its epoch, which is the clock of the server, as long as that is not set back. Since when the others wait is not known.
func (e *Engine) Inspect(ctx context.Context, key string) ([]cohort.Contender, error) {
	if err := tooLong(key); err != nil {
		return nil, err
	}
	reply, err := e.store.run(ctx, e.store.single.inspect, bucketOf(key), 0, key, "1000")
	if err != nil {
		return nil, operatorError(ctx, "inspect", err)
	}
	own := e.Report().Session
	var all []cohort.Contender
	for entry := range slices.Chunk(reply[1:], 2) {
		session, _, _ := strings.Cut(entry[0], ":")
		c := cohort.Contender{Own: session == own}
		if len(entry) == 2 {
			c.Process = cohort.ParseProcess(entry[1])
		}
		if len(all) == 0 && reply[0] != "" {
			if c.Epoch, err = strconv.ParseUint(reply[0], 10, 64); err != nil {
				return nil, fmt.Errorf("redislock: inspect: %w", err)
			}
			c.Since = time.UnixMicro(int64(c.Epoch))
		}
		all = append(all, c)
	}
	return all, nil
}

// List implements cohort.Operator. It looks at one bucket after the other, at some 500 keys at a time.
func (e *Engine) List(ctx context.Context, yield func(key string, first cohort.Contender) bool) error {
	own := e.Report().Session
	for b := range buckets {
		seen := make(map[string]bool) // Redis may return a key twice
		for cursor, more := "0", true; more; more = cursor != "0" {
			reply, err := e.store.run(ctx, e.store.single.list, b, 0, cursor)
			if err != nil {
				return operatorError(ctx, "list", err)
			}
			cursor = reply[0]
			for of := range slices.Chunk(reply[1:], 4) {
				if len(of) < 4 {
					return fmt.Errorf("redislock: list: the reply %q", of)
				}
				c := cohort.Contender{Process: cohort.ParseProcess(of[3]), Own: of[2] == own}
				if epoch, err := strconv.ParseUint(of[1], 10, 64); err == nil {
					c.Epoch, c.Since = epoch, time.UnixMicro(int64(epoch))
				}
				if !seen[of[0]] && !yield(of[0], c) {
					return nil
				}
				seen[of[0]] = true
			}
		}
	}
	return nil
}

// Break implements cohort.Operator. A process that did not release in time learns of it within a quarter of its
// TTL, as long as it holds no more than 1,024 keys.
func (e *Engine) Break(ctx context.Context, key string, epoch uint64) (bool, error) {
	if err := tooLong(key); err != nil {
		return false, err
	}
	reply, err := e.store.run(ctx, e.store.single.force, bucketOf(key), e.store.replicas, key, strconv.FormatUint(epoch, 10))
	if err != nil {
		return false, operatorError(ctx, "break", err)
	}
	return len(reply) == 2 && reply[1] == "1", nil
}

func operatorError(ctx context.Context, call string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("redislock: %s: %w", call, err)
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

// Client is what an Engine needs of a Redis client. Packages rueidisadapter and
// goredisadapter make one of the two usual clients; for another, both methods
// take about sixty lines.
//
// The methods are called from several goroutines at once, and return soon after
// their context ends. An error that the server replied has its text, which begins with a
// word in capitals such as NOPERM.
type Client interface {
	// Run runs the script with EVALSHA at the master that has its keys, which
	// are in one slot of a cluster, or with EVAL when the server does not know the
	// script. It does not repeat a request whose outcome is unknown. The script
	// returns an array of strings.
	//
	// If call.Replicas is not 0, WAIT call.Replicas call.Within follows on the same
	// connection, which nothing else uses meanwhile, and Run returns how
	// many replicas acknowledged.
	Run(ctx context.Context, call Call) (reply []string, acknowledged int, err error)

	// Subscribe calls message for what is published in the channel, and subscribed whenever
	// the subscription has begun, at the start and after a connection was lost. It
	// returns when ctx ends, or when it does not subscribe again by itself: when the server has ended the subscription,
	// as it does when a slot of a cluster moves, or the connection does not answer a ping in time. With a client of a
	// cluster it uses SSUBSCRIBE. Neither function blocks.
	Subscribe(ctx context.Context, channel string, subscribed func(), message func(string)) error
}

// Call is one execution of a script.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string

	// Aside says that no lock waits for the call. It may use another connection: some clients are
	// slower on a connection that several goroutines use at once.
	Aside bool

	// Urgent says that the call begins or renews the session, which ends with all its locks when that takes too long. It must
	// not wait for calls that are not urgent, as for their connections of a pool: there can be one for each lock that is
	// asked for at once. Urgent calls are few, because a session has 64 buckets however many locks it has.
	Urgent bool

	Replicas int           // how many replicas WAIT waits for; 0 is no WAIT
	Within   time.Duration // for how long at most; in whole milliseconds
}

// Script is a Lua script.
type Script struct {
	Source string
	SHA1   string // of Source, in hexadecimal digits
}

func newScript(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{Source: source, SHA1: hex.EncodeToString(sum[:])}
}
