package etcdlock

import (
	"container/list"
	"context"
	"sync"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// turns lets one contender per key at a time go to etcd, in the order in which they come. It is not a
// keylock.Manager, because its goroutine would have to be scheduled twice in every lock, which is a measurable part of
// one that no other process wants.
type turns struct {
	mu      sync.Mutex
	byKey   map[string]*list.List // of *turn: the first has its turn, the others wait; no key has none
	closing bool
	over    chan struct{} // closed when turns were closed and there are none
	refused chan struct{} // closed by the first refuse
	once    sync.Once
}

// turn is one contender's. It ends once.
type turn struct {
	turns *turns
	key   string
	begun chan struct{} // closed when it begins; nil for one that has begun at once
	place *list.Element // in the queue of the key; nil when the turn has ended; guarded by mu
}

func newTurns() *turns {
	return &turns{byKey: make(map[string]*list.List), over: make(chan struct{}), refused: make(chan struct{})}
}

// take waits until it is the caller's turn; if try is true and it is not now, take returns cohort.ErrHeld.
func (ts *turns) take(ctx context.Context, key string, try bool) (*turn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := ts.enter(key, try)
	if err != nil || t.begun == nil {
		return t, err
	}
	select {
	case <-t.begun:
		return t, nil
	case <-ctx.Done():
		t.end()
		return nil, ctx.Err()
	case <-ts.refused:
		t.end()
		return nil, cohort.ErrClosed
	}
}

func (ts *turns) enter(key string, try bool) (*turn, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := &turn{turns: ts, key: key}
	queue := ts.byKey[key]
	switch {
	case ts.closing:
		return nil, cohort.ErrClosed
	case queue == nil:
		queue = list.New()
		ts.byKey[key] = queue
	case try:
		return nil, cohort.ErrHeld
	default:
		t.begun = make(chan struct{})
	}
	t.place = queue.PushBack(t)
	return t, nil
}

// end ends the turn, or the wait for it, and lets the next contender have it.
func (t *turn) end() {
	ts := t.turns
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.place == nil {
		return
	}
	queue := ts.byKey[t.key]
	first := queue.Front() == t.place
	queue.Remove(t.place)
	t.place = nil
	switch {
	case queue.Len() == 0:
		delete(ts.byKey, t.key)
		if ts.closing && len(ts.byKey) == 0 {
			close(ts.over)
		}
	case first:
		close(queue.Front().Value.(*turn).begun)
	}
}

// close refuses new contenders, and waits until there are none; it returns ctx.Err() when ctx ends first.
func (ts *turns) close(ctx context.Context) error {
	ts.mu.Lock()
	if !ts.closing {
		ts.closing = true
		if len(ts.byKey) == 0 {
			close(ts.over)
		}
	}
	ts.mu.Unlock()
	select {
	case <-ts.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse refuses the contenders that wait for their turns, after close.
func (ts *turns) refuse() { ts.once.Do(func() { close(ts.refused) }) }
