// Package etcdlock is the etcd engine of package cohort: locks by key among
// processes, in queues that etcd keeps.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: time.Second})
//	engine, err := etcdlock.New(client, etcdlock.WithTTL(10*time.Second), etcdlock.WithPrefix("/locks/"))
//	locks := cohort.Start(ctx, engine)
//	defer locks.Close()
//
// # What it promises
//
// Fencing, not exclusion. A lease is a promise about time, and no process knows
// how late it is: it may be paused by its scheduler, its hypervisor or a
// garbage collector, for longer than its lease, between the last check and the
// write. Jepsen found etcd's locks to be unsafe for this reason, as all locks by
// lease are (https://jepsen.io/analyses/etcd-3.4.3). The remedy is a number that
// grows with every holder and that the protected resource checks
// (Kleppmann, https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html).
// Here it is the revision at which etcd created the holder's key: [Grant.Epoch],
// and part of every cohort.Token. For writes to etcd itself, [Grant.IsOwner] puts
// the check into the same transaction.
//
// As long as no process is paused, clocks run at about the same speed, and keys and leases
// are left to the processes that own them, one process at a time holds a key, and learns that it lost
// the key before another gets it: a lease is counted from the moment at which its renewal was
// sent, not from when the reply came, and is given up a fifth before its end.
//
// # How a loss is noticed
//
//   - The lease runs out because etcd cannot be reached: by the clock, a fifth of the TTL before
//     its earliest end. An outage of 55 % of the TTL is survived for certain: four fifths less
//     the quarter that may have passed since the last renewal.
//   - A person revokes the lease: at once if this process has held or waited for a key for longer than a
//     quarter of the TTL, because it then watches one; else at the next renewal, within a quarter of the TTL.
//   - A person deletes the etcd key of a holder: at the next renewal.
//   - The process was paused: at its first call of Grant.Lost, which compares the
//     deadline with the clock. The clock is the one that Go measures time with. It stands still
//     while a machine is suspended; a process that wakes up on such a machine believes in its lease
//     until its next renewal is refused.
//
// In the second, third and fourth case another process can have the key before this one
// notices; what this one does with its smaller token meanwhile, a resource that checks tokens refuses.
//
// # Queue
//
// The layout is that of go.etcd.io/etcd/client/v3/concurrency: a contender for a key
// is an etcd key under [Engine.Name] that ends in its lease, the one with the
// lowest create revision holds the lock, and each watches only the one
// ahead. So a concurrency.Mutex on the same name and an Engine exclude each other.
//
// # Which keys others want
//
// A process learns at once that another one wants a key that it holds, see [Grant.OnWanted], by notes for its lease, on
// which it has one watch. A note costs a request, so that it is left only where it matters: the first call of
// OnWanted marks the holder's etcd key as one that listens, unless a contender is behind it already, and those that
// come later leave a note before they wait, which they remove when they leave the queue. A failed try
// puts a note and removes it. While that watch is not there, because the connection broke, the member has no leader
// or etcd has forgotten its history, every key counts as wanted. A user of concurrency.Mutex leaves
// no note: the queues of keys that were held for half a second are looked at, 1,000 of them every half second, so
// that such a user is noticed within a second.
//
// # Nothing is left behind
//
// A release, a wait that was abandoned, a try and a Close end in one of two ways: the etcd key is gone,
// or its lease will be. A request to remove a key is repeated until etcd
// confirms it; when etcd has refused for three TTLs, the lease is given up and ends one TTL
// later. A request to put a key that is carried out long after its sender has abandoned it, as by a
// member that was stopped, is found by an audit: whenever the lease is renewed, its keys are compared
// with what this process claims, and what is not claimed is deleted at its revision.
//
// # One lease
//
// An Engine has one session for all its keys: one lease, renewed four times per
// TTL over one stream. When it is lost, all keys of this process are lost with it. Waits go on
// in a new session, at the end of their queues.
package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// Engine is a cohort.Engine that keeps its locks in etcd. Use it through a
// cohort.Manager, or alone: it sends one contender per key at a time to etcd,
// so that goroutines that share it exclude each other too.
type Engine struct {
	client *clientv3.Client
	options
	process cohort.Process
	start   time.Time // deadlines are counted from here

	turns *turns     // of this process's contenders
	crew  *crew.Crew // the goroutines of their calls

	ctx      context.Context // ends when Close begins, and with it every session and every wait
	end      context.CancelFunc
	requests context.Context // ends with the context of Close: until then a lease can be obtained or revoked
	abort    context.CancelFunc

	asks     chan chan<- sessionReply // for the session; keepSession replies
	kept     chan struct{}            // closed when keepSession has returned
	current  atomic.Pointer[session]  // the last one that keepSession has started; it may be lost
	sessions sync.WaitGroup           // those that have not ended; grows only in keepSession

	// Owned by startSession until kept is closed.
	unconfirmed int64 // the ID of the lease that is being obtained, 0 for none
	sent        bool  // etcd may have granted it without our knowing

	attempts atomic.Uint64 // numbers the entries in queues

	begun, lost, retries, orphans atomic.Uint64
	lastFailure                   atomic.Pointer[failure]
}

type options struct {
	ttl    time.Duration
	prefix string
	label  string
}

// Option changes how an Engine works; pass it to [New].
type Option func(*options)

// WithTTL sets how long the keys of a process that has died or is cut off stay
// locked: whole seconds, rounded up, and at least what the cluster allows. The
// default is 10 s; New returns an error for a d that is not positive, or longer than 36 years.
func WithTTL(d time.Duration) Option {
	return func(o *options) { o.ttl = d }
}

// longestTTL has room in a Duration for the multiples that are counted with.
const longestTTL = math.MaxInt64 / 8

// WithPrefix sets under which etcd keys the queues are; a slash is added if it does
// not end in one. The default is "/locks/". Engines with different prefixes never
// meet, also where one prefix begins with the other; New returns an error for one that contains a comma, or that etcd
// would not take.
func WithPrefix(p string) Option {
	return func(o *options) { o.prefix = strings.TrimSuffix(p, "/") + "/" }
}

// WithLabel sets how this process is called in the queues, besides its host and its number: see
// [Engine.Inspect]. It has at most 128 bytes. The default is none.
func WithLabel(label string) Option {
	return func(o *options) { o.label = label }
}

// New returns an engine that talks to etcd through client, with the client's
// endpoints, TLS and credentials; the user needs read and write permission for
// the prefix. It sends nothing before the first Acquire. The client stays the
// caller's, who closes it after the engine. New returns an error for a client that is nil or
// has no connection, and for an option that is nil or out of its bounds.
//
// A client whose connection dies silently waits for replies that will not come:
// set DialKeepAliveTime and DialKeepAliveTimeout well below the TTL.
func New(client *clientv3.Client, opts ...Option) (*Engine, error) {
	o := options{ttl: 10 * time.Second, prefix: "/locks/"}
	for _, set := range opts {
		if set == nil {
			return nil, errors.New("etcdlock: nil Option")
		}
		set(&o)
	}
	switch {
	case client == nil:
		return nil, errors.New("etcdlock: nil client")
	case o.ttl <= 0:
		return nil, fmt.Errorf("etcdlock: a TTL of %v: want more than 0", o.ttl)
	case o.ttl > longestTTL:
		return nil, fmt.Errorf("etcdlock: a TTL of %v: want at most %v", o.ttl, time.Duration(longestTTL))
	case strings.Contains(o.prefix, separator):
		return nil, fmt.Errorf("etcdlock: the prefix %s contains %q, which ends the names of keys", keyText(o.prefix), separator)
	case len(o.prefix)+len(separator) > maxName:
		return nil, fmt.Errorf("etcdlock: the prefix %s is too long: etcd would refuse a name of more than %d bytes", keyText(o.prefix), maxName)
	}
	process, err := cohort.ThisProcess(o.label)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: %w", err)
	}
	if client.ActiveConnection() == nil {
		return nil, errors.New("etcdlock: the client has no connection: clientv3.New makes one that has")
	}
	o.ttl = (o.ttl + time.Second - 1).Truncate(time.Second)
	e := &Engine{
		client:  client,
		options: o,
		process: process,
		start:   time.Now(),
		turns:   newTurns(),
		crew:    crew.New(),
		asks:    make(chan chan<- sessionReply),
		kept:    make(chan struct{}),
	}
	e.ctx, e.end = context.WithCancel(context.Background())
	e.requests, e.abort = context.WithCancel(context.Background())
	go e.keepSession()
	return e, nil
}

// separator ends the name of a key. It is in no escaped key and in no prefix, so that the queue of
// a key holds no etcd keys of another key or of another prefix.
const separator = ","

// Name returns the name under which key's queue is kept in etcd: what to pass to
// concurrency.NewMutex to contend for the same key. Slashes and commas in key are escaped,
// and a comma ends the name, because the queue of "a" would otherwise contain the one of "a/b".
func (e *Engine) Name(key string) string {
	return e.prefix + url.PathEscape(key) + separator
}

// maxName is how long a name may be: a request holds it five times, and etcd takes requests of 1.5 MiB
// unless it is configured otherwise.
const maxName = 1 << 18

// Acquire implements cohort.Engine. While etcd cannot be reached it keeps trying
// until ctx ends, and then adds to ctx.Err() what was wrong. The Grant is a *Grant.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, false)
}

// TryAcquire implements cohort.Engine. A key that another goroutine of this
// process has, contends for or is about to give back is held. The Grant is a *Grant.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	return e.acquire(ctx, key, true)
}

func (e *Engine) tooLong(key string) error {
	if len(key) > maxName || len(e.Name(key)) > maxName {
		return fmt.Errorf("etcdlock: the key %s is too long: etcd would refuse a name of more than %d bytes", keyText(key), maxName)
	}
	return nil
}

// Close implements cohort.Engine: it revokes the lease, which frees every key. If
// ctx ends before etcd has confirmed that, or if etcd refuses, Close returns an error, and the lease ends
// by itself within its TTL. Either way the engine leaves no goroutine behind.
func (e *Engine) Close(ctx context.Context) error {
	ctx = ended.Sound(ctx)
	e.end()
	e.crew.Dismiss()
	stop := context.AfterFunc(ctx, e.abort)
	defer stop()

	err := e.turns.close(ctx) // for those who are about to return
	if err != nil {
		e.turns.refuse()
	}
	<-e.kept
	e.sessions.Wait()
	<-e.crew.Gone() // soon: a call has its turn or is refused it, and then ends with the engine or with its session
	if s := e.current.Load(); s != nil && err == nil {
		err = s.revoke(ctx)
	}
	if e.sent && err == nil {
		err = e.revoke(ctx, clientv3.LeaseID(e.unconfirmed))
	}
	if err != nil {
		return fmt.Errorf("etcdlock: close: %w", err)
	}
	return nil
}
