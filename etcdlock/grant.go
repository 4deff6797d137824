package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

// Grant is a lock in etcd. It implements cohort.Grant.
type Grant struct {
	entry *entry
	turn  keylock.Lock[string]
	spare func() bool // stops the loss of the session from ending the turn

	releasing atomic.Bool
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

func newGrant(p *entry, turn keylock.Lock[string]) *Grant {
	return &Grant{
		entry:    p,
		turn:     turn,
		spare:    context.AfterFunc(p.session.ctx, turn.Release), // nobody need wait for the release of what is lost
		released: make(chan struct{}),
	}
}

// Epoch returns the revision at which etcd created the holder's key. Revisions grow
// over the life of a cluster; one that is restored from a backup must be told to begin
// above them (etcdutl snapshot restore --bump-revision).
func (g *Grant) Epoch() uint64 {
	return uint64(g.entry.revision)
}

// Lost is closed when the lease can no longer be trusted: a fifth of the TTL before
// the earliest moment at which it could have run out, as soon as etcd says that
// it is gone, or when the engine closes.
func (g *Grant) Lost() <-chan struct{} {
	return g.entry.session.ctx.Done()
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

// Release implements cohort.Grant. While etcd cannot be reached, the key is given back
// in the background until the lease has ended.
func (g *Grant) Release(ctx context.Context) error {
	if g.releasing.CompareAndSwap(false, true) {
		sent := ctx.Err() == nil
		if sent {
			if err := g.entry.leave(ctx, false); err == nil || ctx.Err() == nil {
				g.finish(err)
				return err
			}
		}
		go func() { g.finish(g.entry.leave(g.entry.session.ctx, sent)) }()
	}
	select {
	case <-g.released:
		return g.outcome
	case <-ctx.Done():
		return fmt.Errorf("etcdlock: release %s: %w", g.entry.key, ctx.Err())
	}
}

// finish ends the turn in this process and makes the outcome known.
func (g *Grant) finish(outcome error) {
	if errors.Is(outcome, cohort.ErrLost) {
		g.entry.session.suspect()
	}
	g.spare()
	g.turn.Release()
	g.outcome = outcome
	close(g.released)
}
