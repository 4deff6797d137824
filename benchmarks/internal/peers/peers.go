// Package peers puts every library under test behind one small interface, each at its
// best documented usage.
package peers

import (
	"context"
	"fmt"
	"strings"
)

// A Peer is one contender.
type Peer struct {
	Name  string
	About string // what it is, for the legend of the table
	Traits
	Open func() Locker
}

// Traits say what a peer promises, and so where it may be compared.
type Traits struct {
	FIFO    bool // grants a key in the order of arrival
	Context bool // a wait ends when its context does
	Striped bool // unrelated keys collide, so no client may hold two keys
	Echo    bool // replies to a request and excludes no client: the price of the message alone
	Serial  bool // is for one goroutine and never waits: the price of the table alone
	Spread  bool // shows something only where there are several keys
	Study   bool // is keylock itself in another way, and no rival
}

// Rival reports whether a peer offers what keylock does on a hot key.
func (t Traits) Rival() bool { return t.FIFO && t.Context && !t.Study }

// A Locker is an opened peer.
type Locker interface {
	Client() Client
	Close()
}

// A Client is what one goroutine locks with. It holds at most one lock at a time, so
// an adapter keeps the grant in the client and allocates nothing for it.
type Client interface {
	Lock(ctx context.Context, key string) error
	Unlock()
}

// A SharedClient can also share a key with others; Unlock ends that too.
type SharedClient interface {
	Client
	LockShared(ctx context.Context, key string) error
}

// A ManyLocker can lock many keys in one step.
type ManyLocker interface {
	Locker
	ManyClient() ManyClient
}

// A ManyClient locks many keys, which are sorted and distinct; Unlock frees them all.
type ManyClient interface {
	LockAll(ctx context.Context, keys []string) error
	Unlock()
}

// All are the peers, in the order in which the tables show them.
func All() []Peer {
	return append([]Peer{
		Keylock,
		KeylockKept,
		KeylockParts,
		Plain,
		FIFO,
		Semaphores,
		Channels,
		Moby,
		KeyMutex,
		RWMutexes,
		PingPong,
		Table,
		Hollywood,
	}, added...)
}

// added holds the second copy of keylock that base.sh makes.
var added []Peer

// Named returns the peers with the given names, separated by commas, or all of them
// for the empty string.
func Named(names string) ([]Peer, error) {
	all := All()
	if names == "" {
		return all, nil
	}
	var chosen []Peer
	for name := range strings.SplitSeq(names, ",") {
		peer, err := find(all, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, peer)
	}
	return chosen, nil
}

func find(peers []Peer, name string) (Peer, error) {
	var known []string
	for _, p := range peers {
		if p.Name == name {
			return p, nil
		}
		known = append(known, p.Name)
	}
	return Peer{}, fmt.Errorf("no peer is called %q; there are %s", name, strings.Join(known, ", "))
}

// Many returns a client of l that locks many keys: in one step where the peer can, and
// one by one otherwise, which cannot deadlock because the keys are sorted.
func Many(l Locker) ManyClient {
	if l, ok := l.(ManyLocker); ok {
		return l.ManyClient()
	}
	return &oneByOne{locker: l}
}

type oneByOne struct {
	locker Locker
	spare  []Client // clients that were used and hold nothing
	held   []Client
}

func (c *oneByOne) LockAll(ctx context.Context, keys []string) error {
	for _, key := range keys {
		one := c.next()
		if err := one.Lock(ctx, key); err != nil {
			c.spare = append(c.spare, one)
			c.Unlock()
			return err
		}
		c.held = append(c.held, one)
	}
	return nil
}

func (c *oneByOne) Unlock() {
	for _, one := range c.held {
		one.Unlock()
	}
	c.spare = append(c.spare, c.held...)
	c.held = c.held[:0]
}

func (c *oneByOne) next() Client {
	n := len(c.spare)
	if n == 0 {
		return c.locker.Client()
	}
	one := c.spare[n-1]
	c.spare = c.spare[:n-1]
	return one
}
