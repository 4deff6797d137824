package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

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
