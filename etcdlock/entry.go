package etcdlock

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// entry is one attempt's entry in the queue for a key.
type entry struct {
	engine  *Engine
	session *session
	queue   string // what the etcd keys of all contenders begin with
	key     string // the queue and the lease
	value   string // unique among the entries of the lease

	entered  chan struct{} // closed when the outcome of entering the queue is known, and with it what follows
	enterErr error
	revision int64  // at which the key was created, 0 if it was not, or if nobody knows
	ahead    string // who was next in the queue then, "" if nobody
}

var (
	errEntryGone = errors.New("the entry in the queue is gone")
	errLeftover  = errors.New("an earlier attempt had left its key behind")
)

// join enters the queue and waits until nobody is ahead.
func (p *entry) join(ctx context.Context) error {
	// Whoever is ahead is read before the key is put, and so is not the key itself.
	return p.enterQueue(ctx,
		clientv3.Compare(clientv3.CreateRevision(p.key), "=", 0),
		clientv3.OpGet(p.queue, clientv3.WithLastCreate()...),
		p.put(),
	)
}

// try enters the queue if it is empty.
func (p *entry) try(ctx context.Context) error {
	return p.enterQueue(ctx, clientv3.Compare(clientv3.CreateRevision(p.queue).WithPrefix(), "=", 0), p.put())
}

func (p *entry) put() clientv3.Op {
	return clientv3.OpPut(p.key, p.value, clientv3.WithLease(p.session.lease))
}

func (p *entry) enterQueue(ctx context.Context, condition clientv3.Cmp, ops ...clientv3.Op) error {
	// The request outlives ctx: if it were cancelled, nobody would know whether it was carried out.
	go func() {
		defer close(p.entered)
		p.enterErr = p.enter(condition, ops)
	}()
	select {
	case <-p.entered:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case p.session.ctx.Err() != nil:
		return errSessionLost
	case p.enterErr != nil:
		return p.enterErr
	default:
		return p.wait(ctx)
	}
}

func (p *entry) enter(condition clientv3.Cmp, ops []clientv3.Op) error {
	ctx, cancel := p.session.request()
	defer cancel()
	resp, err := p.engine.client.Txn(ctx).If(condition).Then(ops...).Else(clientv3.OpGet(p.key)).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		p.session.lose()
		return errSessionLost
	case err != nil:
		return err
	case !resp.Succeeded:
		return p.refused(ctx, resp)
	}
	p.revision = resp.Header.Revision
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		p.ahead = string(kvs[0].Key)
	}
	return nil
}

// refused finds out why the queue could not be entered. The key can be there already
// when a request arrives long after its sender gave it up. It is removed, and never
// taken over: a grant on its old revision could have the token of an earlier holder.
func (p *entry) refused(ctx context.Context, resp *clientv3.TxnResponse) error {
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return cohort.ErrHeld
	}
	found := clientv3.Compare(clientv3.ModRevision(p.key), "=", kvs[0].ModRevision)
	if _, err := p.engine.client.Txn(ctx).If(found).Then(clientv3.OpDelete(p.key)).Commit(); err != nil {
		return err
	}
	return errLeftover
}

// wait waits until nobody is ahead.
func (p *entry) wait(ctx context.Context) error {
	if p.ahead == "" {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.session.ctx, func() { cancel(errSessionLost) })()

	retry := backoff{}
	for ahead := p.ahead; ahead != ""; {
		next, err := p.outlast(ctx, ahead)
		switch {
		case err == nil:
			ahead = next
			retry = backoff{}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errEntryGone) || !passes(err) || retry.wait(ctx) != nil:
			return err
		}
	}
	return nil
}

// outlast waits until the one ahead is gone, and returns who is then ahead.
//
// It watches from now on, not from a known revision: etcd serves a watch from a
// revision, even the current one, in rounds that are 100 ms apart. What happened before the
// watch began is seen by looking again once it has.
func (p *entry) outlast(ctx context.Context, ahead string) (next string, err error) {
	// A member that is cut off from the others must not let us wait for ever.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range p.engine.client.Watch(ctx, ahead, clientv3.WithCreatedNotify(), clientv3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			return "", err
		}
		if next, err := p.look(ctx); err != nil || next != ahead {
			return next, err
		}
	}
	return "", errWatchEnded
}

// look returns who is ahead now, "" if nobody is.
func (p *entry) look(ctx context.Context) (ahead string, err error) {
	before := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(p.revision-1))
	resp, err := p.engine.client.Txn(ctx).Then(clientv3.OpGet(p.key), clientv3.OpGet(p.queue, before...)).Commit()
	if err != nil {
		return "", err
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != p.revision {
		p.session.suspect()
		return "", errEntryGone
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		ahead = string(kvs[0].Key)
	}
	return ahead, nil
}

// isMine is true of etcd while the entry is there: this one, and no later one of the same session.
func (p *entry) isMine() clientv3.Cmp {
	if p.revision == 0 {
		return clientv3.Compare(clientv3.Value(p.key), "=", p.value)
	}
	return clientv3.Compare(clientv3.CreateRevision(p.key), "=", p.revision)
}

// leave gives up the entry. It returns nil when it did, and ErrLost when the entry had been
// lost before. It tries until etcd answers, until ctx ends, or until the session
// does, and the entry with it. When unsure, an earlier try may have succeeded.
func (p *entry) leave(ctx context.Context, unsure bool) error {
	for retry := (backoff{}); ; {
		if p.session.ctx.Err() != nil {
			return cohort.ErrLost
		}
		attempt, cancel := p.session.request()
		stop := context.AfterFunc(ctx, cancel)
		resp, err := p.engine.client.Txn(attempt).If(p.isMine()).Then(clientv3.OpDelete(p.key)).Commit()
		stop()
		cancel()
		switch {
		case err == nil && (resp.Succeeded || unsure):
			return nil
		case err == nil, p.session.ctx.Err() != nil:
			return cohort.ErrLost
		case ctx.Err() != nil:
			return ctx.Err()
		case !passes(err):
			return err
		}
		unsure = true
		if retry.wait(ctx) != nil && p.session.ctx.Err() == nil {
			return ctx.Err()
		}
	}
}

// clear removes what a failed attempt has left in the queue, or may have left. The channel is
// closed when the next attempt may begin.
func (p *entry) clear() <-chan struct{} {
	cleared := make(chan struct{})
	go func() {
		defer close(cleared)
		<-p.entered
		if p.enterErr != nil && !passes(p.enterErr) {
			return // it never was in the queue
		}
		if err := p.leave(p.session.ctx, false); err != nil && p.revision == 0 {
			// Nobody knows whether the request to enter the queue is still on its way.
			go p.clearLate()
		}
	}()
	return cleared
}

// clearLate looks again when a request that was lost can no longer arrive.
func (p *entry) clearLate() {
	late := time.NewTimer(lateness)
	defer late.Stop()
	select {
	case <-late.C:
		_ = p.leave(p.session.ctx, false)
	case <-p.session.ctx.Done():
	}
}

// lateness is longer than an etcd server works at a request: five seconds and two election timeouts.
const lateness = 10 * time.Second

// nothingToClear is what clear returns when it has nothing to do.
var nothingToClear = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
