package etcdlock

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Inspect implements cohort.Inspector: it returns the holder of key and those who wait for
// it, in any process, in the order of the queue; at most the first 1,000. Since is when a contender entered the
// queue, by its own clock, of the holder too. What a contender says of itself is not known of one that uses concurrency.Mutex.
func (e *Engine) Inspect(ctx context.Context, key string) ([]cohort.Contender, error) {
	resp, err := e.client.Get(ctx, e.Name(key)+"/", clientv3.WithPrefix(), clientv3.WithLimit(1000),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		return nil, fmt.Errorf("etcdlock: inspect %s: %w", keyText(key), err)
	}
	queue := make([]cohort.Contender, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		queue[i] = contenderOf(kv, e.lease())
	}
	return queue, nil
}

// lease returns the lease of the session, 0 before the first.
func (e *Engine) lease() int64 {
	if s := e.current.Load(); s != nil {
		return int64(s.lease)
	}
	return 0
}

func contenderOf(kv *mvccpb.KeyValue, own int64) cohort.Contender {
	c := parseContender(kv.Value)
	return cohort.Contender{Process: c.process, Since: c.since, Epoch: uint64(kv.CreateRevision), Own: kv.Lease == own}
}

// List implements cohort.Operator. It reads the etcd keys under the prefix, 1,000 at a time.
func (e *Engine) List(ctx context.Context, yield func(key string, first cohort.Contender) bool) error {
	var last string // the name of the queue that is being read, "" for none
	var first *mvccpb.KeyValue
	pass := func() bool {
		if first == nil {
			return true
		}
		key, err := url.PathUnescape(strings.TrimSuffix(strings.TrimPrefix(last, e.prefix), separator))
		return err != nil || yield(key, contenderOf(first, e.lease()))
	}
	end := clientv3.GetPrefixRangeEnd(e.prefix)
	for from, more := e.prefix, true; more; {
		resp, err := e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(1000),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
		if err != nil {
			return fmt.Errorf("etcdlock: list: %w", err)
		}
		for _, kv := range resp.Kvs {
			from = string(kv.Key) + "\x00"
			name, ok := e.queueOf(string(kv.Key))
			switch {
			case !ok:
			case name != last:
				if !pass() {
					return nil
				}
				last, first = name, kv
			case kv.CreateRevision < first.CreateRevision:
				first = kv
			}
		}
		more = resp.More
	}
	pass()
	return nil
}

// queueOf returns the name of the queue that an etcd key is in; ok is false for notes, and for what belongs to a
// prefix below this one.
func (e *Engine) queueOf(etcdKey string) (name string, ok bool) {
	escaped, lease, ok := strings.Cut(strings.TrimPrefix(etcdKey, e.prefix), separator+"/")
	if !ok || strings.ContainsAny(escaped, "/"+separator) {
		return "", false
	}
	_, err := strconv.ParseInt(lease, 16, 64)
	return e.prefix + escaped + separator, err == nil
}

// Break implements cohort.Operator. It takes key away from the contender with the epoch, as [Engine.Inspect]
// has shown it, whether it holds the key or waits: for a process that hangs, and neither releases nor dies. It reports
// whether that contender was still there; a later one is left alone, also one of the same process. Any process may
// call it that may write under the prefix. It is one transaction: if the create revision of the
// contender's etcd key is epoch, the etcd key is deleted.
//
// The process that held the key may go on to write: it notices the loss within a
// quarter of its TTL, and until then only the token, smaller than that of the next holder, keeps it out.
func (e *Engine) Break(ctx context.Context, key string, epoch uint64) (bool, error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("etcdlock: break the lock of %s: %w", keyText(key), err)
	}
	resp, err := e.client.Get(ctx, e.Name(key)+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithMinCreateRev(int64(epoch)), clientv3.WithMaxCreateRev(int64(epoch)))
	if err != nil {
		return fail(err)
	}
	if len(resp.Kvs) == 0 {
		return false, nil
	}
	etcdKey := string(resp.Kvs[0].Key) // no two keys are created by one contender's transaction
	seen := clientv3.Compare(clientv3.CreateRevision(etcdKey), "=", int64(epoch))
	done, err := e.client.Txn(ctx).If(seen).Then(clientv3.OpDelete(etcdKey)).Commit()
	if err != nil {
		return fail(err)
	}
	return done.Succeeded, nil
}

// Report implements cohort.Reporter.
func (e *Engine) Report() cohort.EngineReport {
	r := cohort.EngineReport{
		Process:  e.process,
		Sessions: e.begun.Load(),
		Lost:     e.lost.Load(),
		Retries:  e.retries.Load(),
		Orphans:  e.orphans.Load(),
	}
	if s := e.current.Load(); s != nil && s.ctx.Err() == nil {
		r.Session = strconv.FormatInt(int64(s.lease), 16)
		r.SessionBegan = s.began
		r.SessionEnds = time.Now().Add(s.left())
	}
	if f := e.lastFailure.Load(); f != nil {
		r.LastError, r.LastErrorAt = f.err, f.at
	}
	return r
}

// failure is something that went wrong and was tried again.
type failure struct {
	err error
	at  time.Time
}

// note counts what went wrong and will be tried again.
func (e *Engine) note(err error) {
	e.retries.Add(1)
	e.lastFailure.Store(&failure{err, time.Now()})
}

// contender is the value of an etcd key: what tells the attempts of a session apart, what a process that looks at
// the queue would like to know, and whether the one behind should leave a note. The zero contender is one that uses
// concurrency.Mutex, which writes an empty value.
type contender struct {
	attempt string
	since   time.Time
	listens bool
	process cohort.Process
}

// listening stands in the value of one who listens; a dash stands there otherwise.
const listening = "listens"

func (c contender) String() string {
	mark := "-"
	if c.listens {
		mark = listening
	}
	return fmt.Sprintf("%s %d %s %s", c.attempt, c.since.UnixMilli(), mark, c.process)
}

func parseContender(value []byte) contender {
	words := strings.SplitN(string(value), " ", 4)
	if len(words) < 4 {
		return contender{}
	}
	c := contender{attempt: words[0], listens: words[2] == listening, process: cohort.ParseProcess(words[3])}
	if ms, err := strconv.ParseInt(words[1], 10, 64); err == nil {
		c.since = time.UnixMilli(ms)
	}
	return c
}
