package etcdlock

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// keepAuditing compares the etcd keys of the lease with the entries of the session, whenever
// the lease is renewed and when something is suspected, and guards an entry between.
func (s *session) keepAuditing() {
	var guards sync.WaitGroup
	defer guards.Wait()
	var guarded guardedEntry
	for {
		select {
		case <-s.audits:
			s.audit()
		case <-guarded.ended:
			guarded = guardedEntry{}
			continue
		case <-s.ctx.Done():
			return
		}
		if guarded.entry != nil && !guarded.entry.isHeld() {
			guarded.stop()
			guarded = guardedEntry{}
		}
		if guarded.entry != nil {
			continue
		}
		if p := s.longHeld(); p != nil {
			ctx, stop := context.WithCancel(s.ctx)
			ended := make(chan struct{})
			guarded = guardedEntry{p, stop, ended}
			guards.Go(func() {
				defer close(ended)
				defer stop()
				s.guard(ctx, p)
			})
		}
	}
}

// guardedEntry is the entry that is watched; ended is closed when it is watched no more.
type guardedEntry struct {
	entry *entry
	stop  context.CancelFunc
	ended <-chan struct{}
}

// longHeld returns an entry that has been in etcd for a while, nil if there is none.
func (s *session) longHeld() *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.entries {
		if time.Since(p.made) > s.engine.ttl/4 && p.isHeld() {
			return p
		}
	}
	return nil
}

// isHeld reports whether the entry is in etcd, as far as this process knows.
func (p *entry) isHeld() bool {
	select {
	case <-p.entered:
		return p.enterErr == nil && !p.leaving.Load() && !p.isGone.Load()
	default:
		return false
	}
}

// audit bounds what any fault leaves behind, in either direction. An etcd key of the lease that
// is no entry of the session is deleted: it was put by a request that was carried out long after its
// sender had abandoned it. An entry whose etcd key is gone is lost: another process, or a person, has deleted it.
//
// What the lease knows of its keys is a hint; each finding is then checked by a read or a
// condition that the whole cluster agrees on.
func (s *session) audit() {
	ctx := s.request()
	var expected []*entry // in etcd before the question was asked
	s.mu.Lock()
	for _, p := range s.entries {
		if p.isHeld() {
			expected = append(expected, p)
		}
	}
	s.mu.Unlock()
	resp, err := s.engine.client.TimeToLive(ctx, s.lease, clientv3.WithAttachedKeys())
	if err != nil {
		s.engine.note(err)
		return
	}
	if resp.TTL < 0 { // perhaps a member knows no better; the renewal decides
		signal(s.doubt)
		return
	}
	attached := make(map[string]bool, len(resp.Keys))
	for _, key := range resp.Keys {
		attached[string(key)] = true
	}
	var missing []*entry
	for _, p := range expected {
		if !attached[p.key] {
			missing = append(missing, p)
		}
		delete(attached, p.key)
	}
	for some := range byRequest(missing) {
		if err := s.findLost(ctx, some); err != nil {
			s.engine.note(err)
			return
		}
	}
	for key := range attached {
		if err := s.findOrphan(ctx, key); err != nil {
			s.engine.note(err)
			return
		}
	}
}

// mostOps is below how many operations etcd allows in a transaction.
const mostOps = 100

// byRequest divides entries so that one request, in which each has its name five times, is not too large for etcd.
func byRequest(entries []*entry) iter.Seq[[]*entry] {
	return func(yield func([]*entry) bool) {
		for more := true; more && len(entries) > 0; {
			n, size := 0, 0
			for n < min(len(entries), mostOps) && (n == 0 || size+5*len(entries[n].key) <= mostBatchSize) {
				size += 5 * len(entries[n].key)
				n++
			}
			more = yield(entries[:n])
			entries = entries[n:]
		}
	}
}

// findLost looks for entries that seem to be missing, and marks those that are as lost.
func (s *session) findLost(ctx context.Context, missing []*entry) error {
	var gets []clientv3.Op
	for _, p := range missing {
		gets = append(gets, clientv3.OpGet(p.key, clientv3.WithKeysOnly()))
	}
	resp, err := s.engine.client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return err
	}
	for i, p := range missing {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if p.isHeld() && (len(kvs) == 0 || kvs[0].CreateRevision != p.revision) {
			p.lose()
		}
	}
	return nil
}

// findOrphan deletes the etcd key if it is no entry's.
func (s *session) findOrphan(ctx context.Context, key string) error {
	if s.claims(key) {
		return nil
	}
	resp, err := s.engine.client.Get(ctx, key, clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	// An entry that is made from now on puts its key at a later revision than the one that was found.
	if s.claims(key) || len(resp.Kvs) == 0 || resp.Kvs[0].Lease != int64(s.lease) {
		return nil
	}
	return s.removeOrphan(ctx, key, resp.Kvs[0].ModRevision)
}

// claims reports whether an entry of the session has the etcd key, or may have, as its own or as a note.
func (s *session) claims(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key] != nil || s.notes[key]
}

// removeOrphan deletes the etcd key as it was at the revision, and no later one.
func (s *session) removeOrphan(ctx context.Context, key string, revision int64) error {
	found := clientv3.Compare(clientv3.ModRevision(key), "=", revision)
	resp, err := s.engine.client.Txn(ctx).If(found).Then(clientv3.OpDelete(key)).Commit()
	if err == nil && resp.Succeeded {
		s.engine.orphans.Add(1)
	}
	return err
}

// remover removes entries from their queues. A few at a time are removed by a request each; of more, as when a manager
// gives back what it has kept, as many by one request as a transaction may have.
type remover struct {
	session *session
	calls   atomic.Int64 // of remove, that have not returned

	mu      sync.Mutex
	waiting []*removal
	sending bool // there is a goroutine that sends what waits
}

// removal is what is to be done at etcd for one entry.
type removal struct {
	op   clientv3.Op
	size int

	replied   chan struct{} // closed when what follows is known
	succeeded bool
	err       error
}

const (
	mostSingle    = 8       // calls that send a request of their own
	mostBatchSize = 1 << 19 // bytes; etcd takes requests of 1.5 MiB unless it is configured otherwise
)

// remove has etcd carry out then if the condition holds, and otherwise the rest, and reports which. After an error
// it may have been carried out, or may yet be.
func (r *remover) remove(ctx context.Context, condition clientv3.Cmp, then, otherwise []clientv3.Op) (succeeded bool, err error) {
	defer r.calls.Add(-1)
	if r.calls.Add(1) > mostSingle {
		succeeded, err = r.removeWithOthers(ctx, condition, then, otherwise)
		if err == nil || passes(err) || ctx.Err() != nil {
			return succeeded, err
		}
		// Another entry may be the reason for the refusal.
	}
	resp, err := r.session.engine.client.Txn(ctx).If(condition).Then(then...).Else(otherwise...).Commit()
	return err == nil && resp.Succeeded, err
}

func (r *remover) removeWithOthers(ctx context.Context, condition clientv3.Cmp, then, otherwise []clientv3.Op) (succeeded bool, err error) {
	m := &removal{op: clientv3.OpTxn([]clientv3.Cmp{condition}, then, otherwise), replied: make(chan struct{})}
	m.size = len(condition.KeyBytes())
	for _, op := range slices.Concat(then, otherwise) {
		m.size += len(op.KeyBytes())
	}
	r.mu.Lock()
	r.waiting = append(r.waiting, m)
	if !r.sending {
		r.sending = true
		go r.send()
	}
	r.mu.Unlock()
	select {
	case <-m.replied:
		return m.succeeded, m.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// send sends what waits, until nothing does.
func (r *remover) send() {
	for {
		r.mu.Lock()
		n, size := 0, 0
		for n < min(len(r.waiting), mostOps) && (n == 0 || size+r.waiting[n].size <= mostBatchSize) {
			size += r.waiting[n].size
			n++
		}
		batch := r.waiting[:n:n]
		r.waiting = r.waiting[n:]
		r.sending = n > 0
		r.mu.Unlock()
		if n == 0 {
			return
		}
		r.sendBatch(batch)
	}
}

func (r *remover) sendBatch(batch []*removal) {
	ctx := r.session.request()
	ops := make([]clientv3.Op, len(batch))
	for i, m := range batch {
		ops[i] = m.op
	}
	resp, err := r.session.engine.client.Txn(ctx).Then(ops...).Commit()
	for i, m := range batch {
		m.err = err
		if err == nil {
			m.succeeded = resp.Responses[i].GetResponseTxn().Succeeded
		}
		close(m.replied)
	}
}
