package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// entry is one attempt's entry in the queue of a key.
//
// It ends in one of two ways: its etcd key is gone, or its lease will be. What is
// left behind in any other way, the audit finds.
type entry struct {
	engine  *Engine
	session *session
	queue   string    // what the etcd keys of all contenders begin with
	key     string    // the queue and the lease
	value   contender // its attempt is unique among the entries of the lease
	made    time.Time

	entered  chan struct{} // closed when the outcome of entering the queue is known, and with it what follows
	enterErr error
	revision int64     // at which the key was created, 0 if it was not, or if that is not known
	ahead    neighbour // the entry before it at that moment

	leaving atomic.Bool // leave was called: that the etcd key is gone is no loss
	unsure  atomic.Bool // a request to remove the etcd key may have been carried out

	note       string                 // the one that it has left in an inbox, or may have; "" for none; owned by who acts for the entry
	noteIsLeft bool                   // the note is there for certain; owned likewise
	noted      atomic.Int64           // the latest revision for which a note has come in our own inbox
	whenWanted atomic.Pointer[func()] // called when another process wants the entry; &wanted from then on
	looked     int64                  // when its queue was looked at; owned by keepLooking

	isGone atomic.Bool            // gone is closed, or about to be
	gone   chan struct{}          // closed when the session is lost, or the etcd key is and we did not remove it
	onLoss atomic.Pointer[func()] // called then, if it was set before
	spare  func() bool            // stops the loss of the session from closing gone
}

// newEntry prepares an entry in key's queue. Its value in etcd is unique within the
// lease, by which the entry can be found even if the reply with its revision was lost.
func (e *Engine) newEntry(s *session, key string) *entry {
	queue := e.Name(key) + "/"
	now := time.Now()
	p := &entry{
		engine:  e,
		session: s,
		queue:   queue,
		key:     queue + strconv.FormatInt(int64(s.lease), 16),
		value:   contender{strconv.FormatUint(e.attempts.Add(1), 36), now, false, e.process},
		made:    now,
		entered: make(chan struct{}),
		gone:    make(chan struct{}),
	}
	p.spare = context.AfterFunc(s.ctx, p.lose)
	s.add(p)
	return p
}

// lose marks the entry as gone from etcd, or as good as gone.
func (p *entry) lose() {
	if p.isGone.CompareAndSwap(false, true) {
		close(p.gone)
		if f := p.onLoss.Load(); f != nil {
			(*f)()
		}
		p.want()
	}
}

// whenLost has f called when the entry is lost, now if it is. It is called once for an entry; f may be called twice.
func (p *entry) whenLost(f func()) {
	p.onLoss.Store(&f)
	if p.isGone.Load() {
		f()
	}
}

// isLost reports whether the entry is gone. It asks the clock too, because after a pause of the
// process no timer may have run yet.
func (p *entry) isLost() bool {
	if !p.session.alive() {
		p.lose()
	}
	return p.isGone.Load()
}

// forget is called once the etcd key is gone or left to the lease.
func (p *entry) forget() {
	p.session.remove(p)
	if p.note != "" {
		p.session.removeNote(p.note)
	}
	p.spare()
}

// enterQueue enters the queue and waits until the entry is first, or enters it only if it is empty.
func (c *call) enterQueue(p *entry) error {
	// The request outlives ctx: if it were cancelled, it would not be known whether it was carried out.
	c.outlast(func() {
		if c.try {
			p.enterErr = p.try()
		} else {
			p.enterErr = p.join()
		}
		close(p.entered)
		p.heedNotes()
	})
	switch {
	case c.over:
		return c.ctx.Err()
	case p.isLost(): // which has ended the request too
		return errSessionLost
	case p.enterErr != nil:
		return p.enterErr
	default:
		return p.wait(c.ctx)
	}
}

// join enters the queue.
func (p *entry) join() error {
	ctx := p.session.request()
	// The entry ahead is read before the key is put, and so is not the key itself.
	resp, err := p.enter(p.engine.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(p.key), "=", 0)).
		Then(clientv3.OpGet(p.queue, clientv3.WithLastCreate()...), p.put()))
	if err != nil || resp.Succeeded {
		return err
	}
	found, err := p.engine.client.Get(ctx, p.key, clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	return p.removeLeftover(ctx, found.Kvs)
}

// try enters the queue if it is empty.
func (p *entry) try() error {
	ctx := p.session.request()
	resp, err := p.enter(p.engine.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(p.queue).WithPrefix(), "=", 0)).
		Then(p.put()).
		Else(clientv3.OpGet(p.key), clientv3.OpGet(p.queue, clientv3.WithFirstCreate()...)))
	if err != nil || resp.Succeeded {
		return err
	}
	if mine := resp.Responses[0].GetResponseRange().Kvs; len(mine) > 0 {
		return p.removeLeftover(ctx, mine)
	}
	p.session.tried(p.queue)
	if first := resp.Responses[1].GetResponseRange().Kvs; len(first) > 0 {
		return &cohort.HeldError{Holder: contenderOf(first[0], int64(p.session.lease))}
	}
	return cohort.ErrHeld
}

func (p *entry) put() clientv3.Op {
	return clientv3.OpPut(p.key, p.value.String(), clientv3.WithLease(p.session.lease))
}

// enter has the transaction carried out.
func (p *entry) enter(txn clientv3.Txn) (*clientv3.TxnResponse, error) {
	resp, err := txn.Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		p.session.lose()
		return nil, errSessionLost
	case err != nil:
		return nil, err
	case resp.Succeeded:
		p.revision = resp.Header.Revision
		p.ahead = neighbourOf(resp.Responses[0].GetResponseRange().GetKvs())
	}
	return resp, nil
}

// removeLeftover is for an etcd key that is there already, as when a request arrives long after its sender
// abandoned it. It is removed, and never taken over: a grant on its old revision could have the token of an earlier holder.
func (p *entry) removeLeftover(ctx context.Context, found []*mvccpb.KeyValue) error {
	if len(found) > 0 {
		if err := p.session.removeOrphan(ctx, p.key, found[0].ModRevision); err != nil {
			return err
		}
	}
	return errLeftover
}

// wait waits until no entry is ahead.
func (p *entry) wait(ctx context.Context) error {
	if p.ahead.key == "" {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.gone:
			cancel(errEntryGone)
		case <-ctx.Done():
		}
	}()
	retry := crew.Backoff{}
	for ahead := p.ahead; ahead.key != ""; {
		next, err := p.outlast(ctx, ahead)
		switch {
		case err == nil:
			ahead = next
			retry = crew.Backoff{}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errEntryGone) || !passes(err):
			return err
		default:
			p.engine.note(err)
			if retry.Wait(ctx, ctx) != nil {
				return context.Cause(ctx)
			}
		}
	}
	if p.isLost() {
		return errEntryGone
	}
	return nil
}

// outlast waits until the entry ahead is gone, and returns which is then ahead.
//
// It watches from now on, not from a known revision: etcd serves a watch from a
// revision, even the current one, in rounds that are 100 ms apart. What happened before the
// watch began is seen by looking again once it has. A watch that fails means nothing but that: what is
// true of the queue, and of this client's right to look at it, is found by looking.
func (p *entry) outlast(ctx context.Context, ahead neighbour) (next neighbour, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if ahead.listens {
		if next, err := p.look(ctx, ahead); err != nil || next != ahead { // it can react while the watch begins
			return next, err
		}
	}
	stream := p.session.stream()
	for resp := range p.engine.client.Watch(stream.with(ctx), ahead.key, clientv3.WithCreatedNotify(), clientv3.WithFilterPut()) {
		if err = resp.Err(); err != nil {
			break
		}
		if next, err := p.look(ctx, ahead); err != nil || next != ahead {
			return next, err
		}
	}
	if err == nil {
		err = errWatchEnded
	}
	stream.failed(err)
	if next, lookErr := p.look(ctx, ahead); lookErr != nil || next != ahead {
		return next, lookErr
	}
	return neighbour{}, fmt.Errorf("%w: %w", errWatchEnded, err)
}

// look returns which entry is ahead now, and leaves a note for the one that was.
func (p *entry) look(ctx context.Context, last neighbour) (ahead neighbour, err error) {
	before := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(p.revision-1))
	ops := p.noteFor(last)
	// The condition keeps out a note that arrives when the entry has left, which would stay behind.
	resp, err := p.engine.client.Txn(ctx).If(p.isMine()).Then(append(ops, clientv3.OpGet(p.queue, before...))...).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		p.session.suspect()
		return neighbour{}, err
	case err != nil:
		return neighbour{}, err
	case !resp.Succeeded:
		p.lose()
		p.session.suspect()
		return neighbour{}, errEntryGone
	}
	if len(ops) > 0 {
		p.noteIsLeft = true
	}
	return neighbourOf(resp.Responses[len(ops)].GetResponseRange().Kvs), nil
}

// isMine is true of etcd while the entry is there: this one, and no later one of the same session.
func (p *entry) isMine() clientv3.Cmp {
	if p.revision == 0 {
		return clientv3.Compare(clientv3.Value(p.key), "=", p.value.String())
	}
	return clientv3.Compare(clientv3.CreateRevision(p.key), "=", p.revision)
}

// cleanUp removes what a failed attempt has left in the queue, or may have left.
func (p *entry) cleanUp() {
	_ = p.leaveInTheEnd()
	p.forget()
}

// neverEntered reports whether etcd has refused the entry. It is for when entered is closed.
func (p *entry) neverEntered() bool {
	err := p.enterErr
	return err != nil && (errors.Is(err, cohort.ErrHeld) || errors.Is(err, errLeftover) || errors.Is(err, errSessionLost) || !passes(err))
}

// leaveInTheEnd removes the entry, whatever etcd replies and whenever it can be reached again. If it
// cannot for so long that others wait in vain, it gives the session up: then the lease ends,
// and with it the etcd key.
func (p *entry) leaveInTheEnd() error {
	ctx, cancel := context.WithTimeout(p.session.ctx, cleanUpTTLs*p.engine.ttl)
	defer cancel()
	err := p.leave(ctx, true)
	if err != nil && !errors.Is(err, cohort.ErrLost) {
		p.session.lose()
		return fmt.Errorf("the lease is given up: %w", err)
	}
	return err
}

// cleanUpTTLs is for how many TTLs etcd may refuse to remove an entry before the lease is given up.
const cleanUpTTLs = 3

// leave removes the entry. It returns nil when it did, and ErrLost when the entry had been
// lost before. It tries until etcd confirms, until ctx ends, or until the session
// does, and the entry with it; an error that does not pass ends it too, unless persistent.
func (p *entry) leave(ctx context.Context, persistent bool) error {
	p.leaving.Store(true)
	for retry := (crew.Backoff{}); ; {
		if p.isLost() {
			return cohort.ErrLost
		}
		removed, err := p.tryToLeave(ctx)
		switch {
		case err == nil && removed:
			return nil
		case err == nil, p.isLost():
			return cohort.ErrLost
		case ctx.Err() != nil:
			return fmt.Errorf("%w; before that: %w", ctx.Err(), err)
		case !persistent && !passes(err):
			return err
		}
		p.engine.note(err)
		if retry.Wait(ctx, ctx) != nil && !p.isLost() {
			return fmt.Errorf("%w; before that: %w", ctx.Err(), err)
		}
	}
}

// tryToLeave sends one request to remove the entry, and reports whether it is gone because of us.
func (p *entry) tryToLeave(ctx context.Context) (removed bool, err error) {
	ctx, cancel := p.session.within(ctx)
	defer cancel()
	unsure := p.unsure.Load()
	var also []clientv3.Op
	if p.note != "" {
		also = append(also, clientv3.OpDelete(p.note))
	}
	done, err := p.session.remover.remove(ctx, p.isMine(), append(also, clientv3.OpDelete(p.key)), also)
	switch {
	case err != nil:
		p.unsure.Store(true) // it may have been carried out, or may yet be
		return false, err
	case done:
		return true, nil
	case unsure:
		// An earlier request can have removed it, unless the whole lease was gone by then.
		return p.session.verify(ctx)
	default:
		return false, nil
	}
}

// Grant is a lock in etcd. It implements cohort.Grant and cohort.Recaller.
type Grant struct {
	entry *entry
	turn  *turn

	releasing atomic.Bool
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

var _ cohort.Recaller = (*Grant)(nil)

func newGrant(p *entry, t *turn) *Grant {
	p.whenLost(t.end) // what is lost need not be released before this process contends again
	return &Grant{entry: p, turn: t, released: make(chan struct{})}
}

// Epoch returns the revision at which etcd created the holder's key. Revisions grow
// over the life of a cluster; one that is restored from a backup must be told to begin
// above them (etcdutl snapshot restore --bump-revision).
func (g *Grant) Epoch() uint64 {
	return uint64(g.entry.revision)
}

// Lost is closed when the lease can no longer be trusted: a fifth of the TTL before
// the earliest moment at which it could have run out; as soon as etcd reports that
// it is gone, or that the holder's key was deleted; or when the engine closes. Each call
// compares the deadline with the clock.
func (g *Grant) Lost() <-chan struct{} {
	g.entry.isLost()
	return g.entry.gone
}

// OnWanted implements cohort.Recaller: f is called once, when another process waits for the key or has tried to get it,
// when that can no longer be told, or when the grant is lost; at once, if one of these has happened. A process that
// uses an Engine is noticed at once, one that uses concurrency.Mutex within a second, or within
// another half for each thousand of keys that this process has held for so long. f must not block. A second call of OnWanted calls its f at once.
func (g *Grant) OnWanted(f func()) {
	if f == nil {
		panic("etcdlock: OnWanted with a nil function")
	}
	g.entry.onWanted(f)
}

// Key returns the etcd key that stands for the holder.
func (g *Grant) Key() string {
	return g.entry.key
}

// IsOwner is the condition that a Txn's writes need in order to be carried out only
// while this grant holds the lock, whatever this process believes.
func (g *Grant) IsOwner() clientv3.Cmp {
	return g.entry.isMine()
}

// Release implements cohort.Grant. It returns an error at once when etcd refuses in a way
// that waiting does not mend, such as a permission that was withdrawn. Whatever etcd
// replied, the key is given back in the background until etcd confirms it; if that fails for three TTLs, the
// lease is given up, so that the key is gone at most one TTL later.
func (g *Grant) Release(ctx context.Context) error {
	ctx = ended.Sound(ctx)
	if g.releasing.CompareAndSwap(false, true) {
		err := ctx.Err()
		if err == nil {
			err = g.entry.leave(ctx, false)
		}
		if err == nil || errors.Is(err, cohort.ErrLost) {
			g.finish(err)
			return err
		}
		go func() { g.finish(g.entry.leaveInTheEnd()) }()
		return fmt.Errorf("etcdlock: release %s: %w", keyText(g.turn.key), err)
	}
	select {
	case <-g.released:
		return g.outcome
	case <-ctx.Done():
		return fmt.Errorf("etcdlock: release %s: %w", keyText(g.turn.key), ctx.Err())
	}
}

// finish lets this process contend for the key again, and makes the outcome known.
func (g *Grant) finish(outcome error) {
	if errors.Is(outcome, cohort.ErrLost) {
		g.entry.session.suspect()
	}
	g.entry.forget()
	g.turn.end()
	g.outcome = outcome
	close(g.released)
}
