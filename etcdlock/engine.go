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
// As long as no process is paused and clocks run at about the same speed, one
// process at a time holds a key, and learns that it lost the key before another
// gets it: a lease is counted from the moment at which its renewal was sent, not
// from when the answer came, and is given up a fifth before its end.
//
// # Line
//
// The layout is that of go.etcd.io/etcd/client/v3/concurrency: a contender for a key
// is an etcd key under [Engine.Name] that ends in its lease, the one with the
// lowest create revision holds the lock, and everybody watches only the one
// ahead. So a concurrency.Mutex on the same name and an Engine exclude each other.
//
// # One lease
//
// An Engine has one session for all its keys: one lease, renewed four times per
// TTL. When it is lost, all keys of this process are lost with it. Waits go on
// in a new session, at the end of their queues.
package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

// Engine is a cohort.Engine that keeps its locks in etcd. Use it through a
// cohort.Manager, or alone: it lets one contender per key at a time go to etcd,
// so that goroutines that share it exclude each other too.
type Engine struct {
	client *clientv3.Client
	options

	turns *keylock.Manager[string] // whose turn it is, in this process, to contend for a key

	ctx      context.Context // ends when Close begins, and with it every session and every wait
	end      context.CancelFunc
	requests context.Context // ends with the context of Close: until then a lease can be obtained or revoked
	abort    context.CancelFunc

	asks     chan chan<- sessionReply // for the session, replied by keepSession
	kept     chan struct{}            // closed when keepSession has returned
	current  atomic.Pointer[session]  // the last one that keepSession has started; it may be lost
	sessions sync.WaitGroup           // those that have not ended; grows only in keepSession

	attempts atomic.Uint64 // numbers the entries in queues
}

type options struct {
	ttl    time.Duration
	prefix string
}

// Option changes how an Engine works.
type Option func(*options)

// WithTTL sets how long the keys of a process that has died or is cut off stay
// locked: whole seconds, rounded up, and at least what the cluster allows. The
// default is 10 s.
func WithTTL(d time.Duration) Option {
	return func(o *options) { o.ttl = (d + time.Second - 1).Truncate(time.Second) }
}

// WithPrefix sets under which etcd keys the queues are; a slash is added if it does
// not end in one. The default is "/locks/".
func WithPrefix(p string) Option {
	return func(o *options) { o.prefix = strings.TrimSuffix(p, "/") + "/" }
}

// New returns an engine that talks to etcd through client, with the client's
// endpoints, TLS and credentials; the user needs read and write permission for
// the prefix. It sends nothing before the first Acquire. The client stays the
// caller's, who closes it after the engine.
//
// A client whose connection dies silently waits for answers that will not come:
// set DialKeepAliveTime and DialKeepAliveTimeout well below the TTL.
func New(client *clientv3.Client, opts ...Option) (*Engine, error) {
	e := &Engine{
		client:  client,
		options: options{ttl: 10 * time.Second, prefix: "/locks/"},
		turns:   keylock.Start[string](context.Background()),
		asks:    make(chan chan<- sessionReply),
		kept:    make(chan struct{}),
	}
	for _, set := range opts {
		set(&e.options)
	}
	if e.ttl <= 0 {
		return nil, errors.Join(fmt.Errorf("etcdlock: a TTL of %v", e.ttl), e.turns.Close())
	}
	e.ctx, e.end = context.WithCancel(context.Background())
	e.requests, e.abort = context.WithCancel(context.Background())
	go e.keepSession()
	return e, nil
}

// Name returns the name under which key's queue is kept in etcd: what to pass to
// concurrency.NewMutex to contend for the same key. Slashes in key are escaped,
// because the queue of "a" would otherwise contain the one of "a/b".
func (e *Engine) Name(key string) string {
	return e.prefix + url.PathEscape(key)
}

// Acquire implements cohort.Engine. While etcd cannot be reached it keeps trying
// until ctx ends. The Grant is a *Grant.
func (e *Engine) Acquire(ctx context.Context, key string) (cohort.Grant, error) {
	turn, err := e.turns.Acquire(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: acquire %q: %w", key, err)
	}
	return e.contend(ctx, turn, (*entry).join)
}

// TryAcquire implements cohort.Engine. A key that another goroutine of this
// process has, contends for or is about to give back is held. The Grant is a *Grant.
func (e *Engine) TryAcquire(ctx context.Context, key string) (cohort.Grant, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("etcdlock: try %q: %w", key, err)
	}
	if e.ctx.Err() != nil {
		return nil, fmt.Errorf("etcdlock: try %q: %w", key, cohort.ErrClosed)
	}
	turn, ok := e.turns.TryAcquire(key)
	if !ok {
		return nil, fmt.Errorf("etcdlock: try %q: %w", key, cohort.ErrHeld)
	}
	return e.contend(ctx, turn, (*entry).try)
}

// contend queues up for the turn's key until one attempt succeeds, or fails in a way
// that another attempt would not mend.
func (e *Engine) contend(ctx context.Context, turn keylock.Lock[string], enterQueue func(*entry, context.Context) error) (cohort.Grant, error) {
	for retry := (backoff{}); ; {
		s, err := e.session(ctx)
		cleared := nothingToClear
		if err == nil {
			p := e.newEntry(s, turn.Key())
			if err = enterQueue(p, ctx); err == nil {
				return newGrant(p, turn), nil
			}
			cleared = p.clear()
		}
		if passes(err) && ctx.Err() == nil && e.ctx.Err() == nil {
			select {
			case <-cleared: // the next attempt has the same etcd key and must not meet what this one left
			case <-ctx.Done():
			}
			if retry.wait(ctx) == nil {
				continue
			}
		}
		go func() {
			<-cleared
			turn.Release()
		}()
		return nil, fmt.Errorf("etcdlock: acquire %q: %w", turn.Key(), e.explain(ctx, err))
	}
}

// explain says why an Acquire failed: the caller's context comes before the engine's
// end, and that before what went wrong at etcd.
func (e *Engine) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return ctx.Err()
	case ctx.Err() != nil:
		return fmt.Errorf("%w; before that: %w", ctx.Err(), err)
	case e.ctx.Err() != nil:
		return cohort.ErrClosed
	default:
		return err
	}
}

// Close implements cohort.Engine: it revokes the lease, which frees every key. If
// ctx ends before etcd has confirmed that, Close returns an error, and the lease ends
// by itself within its TTL. Either way the engine leaves no goroutine behind.
func (e *Engine) Close(ctx context.Context) error {
	e.end()
	stop := context.AfterFunc(ctx, e.abort)
	defer stop()

	err := e.turns.Shutdown(ctx) // for those who are about to return
	<-e.kept
	e.sessions.Wait()
	if s := e.current.Load(); s != nil && err == nil {
		err = s.revoke(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("etcdlock: close: %w", err), e.turns.Close())
	}
	return nil
}

// newEntry prepares a entry in key's queue. Its value in etcd is unique within the
// lease, by which the entry can be found even if the answer that told its revision was lost.
func (e *Engine) newEntry(s *session, key string) *entry {
	queue := e.Name(key) + "/"
	return &entry{
		engine:  e,
		session: s,
		queue:   queue,
		key:     queue + strconv.FormatInt(int64(s.lease), 16),
		value:   strconv.FormatUint(e.attempts.Add(1), 10),
		entered: make(chan struct{}),
	}
}
