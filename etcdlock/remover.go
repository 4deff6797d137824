package etcdlock

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

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
