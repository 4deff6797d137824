package peers

import (
	"context"
	"sync"
)

// Channels is the other usual recipe: a channel of one per key is a lock that a select
// can wait for, and the run-time queues its senders in order.
var Channels = Peer{
	Name:   "channels",
	About:  "a mutex and a map of pooled channels of one, counted references",
	Traits: Traits{FIFO: true, Context: true},
	Open: func() Locker {
		return &channels{entries: make(map[string]*channelEntry)}
	},
}

type channels struct {
	mu      sync.Mutex
	entries map[string]*channelEntry
	pool    sync.Pool // of *channelEntry, empty
}

type channelEntry struct {
	held chan struct{} // full while the key is held
	refs int           // holders and waiters; guarded by channels.mu
}

func (l *channels) lock(ctx context.Context, key string) (*channelEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	e := l.entries[key]
	if e == nil {
		if e, _ = l.pool.Get().(*channelEntry); e == nil {
			e = &channelEntry{held: make(chan struct{}, 1)}
		}
		l.entries[key] = e
	}
	e.refs++
	l.mu.Unlock()

	select { // of one channel: much cheaper than the one below
	case e.held <- struct{}{}:
		return e, nil
	default:
	}
	select {
	case e.held <- struct{}{}:
		return e, nil
	case <-ctx.Done():
		l.leave(key, e)
		return nil, ctx.Err()
	}
}

func (l *channels) leave(key string, e *channelEntry) {
	l.mu.Lock()
	e.refs--
	last := e.refs == 0
	if last {
		delete(l.entries, key)
	}
	l.mu.Unlock()
	if last {
		l.pool.Put(e)
	}
}

func (l *channels) Client() Client { return &channelClient{locks: l} }
func (l *channels) Close()         {}

type channelClient struct {
	locks *channels
	entry *channelEntry
	key   string
}

func (c *channelClient) Lock(ctx context.Context, key string) (err error) {
	c.key = key
	c.entry, err = c.locks.lock(ctx, key)
	return err
}

func (c *channelClient) Unlock() {
	<-c.entry.held
	c.locks.leave(c.key, c.entry)
}
