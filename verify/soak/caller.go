package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
	"github.com/seed-46f81e6d/keylock/verify/verbs"
)

// A caller is one goroutine that makes calls.
type caller struct {
	*soaking
	random *rand.Rand
	zipf   *rand.Zipf
}

func newCaller(s *soaking) *caller {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	return &caller{soaking: s, random: random, zipf: rand.NewZipf(random, 1.2, 2, uint64(s.keys-1))}
}

func (c *caller) key() int { return int(c.zipf.Uint64()) }

// call makes one call, with all that belongs to it.
func (c *caller) call() {
	l := c.enter()
	defer l.users.Done()
	defer c.calls.Add(1)
	ctx := context.Background()
	if c.random.IntN(3) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.random.IntN(int(20*time.Millisecond))))
		defer cancel()
	}
	r := model.Request{Keys: []int{c.key()}}
	var err error
	switch n := c.random.IntN(100); {
	case n < 45:
		err = c.use(l, r)(verbs.Acquire(ctx, l.manager, r))
	case n < 65:
		r.Shared = true
		err = c.use(l, r)(verbs.Acquire(ctx, l.manager, r))
	case n < 75:
		if lock, ok := verbs.Try(l.manager, r); ok {
			err = c.use(l, r)(lock, nil)
		}
	case n < 83:
		r.Keys = []int{c.key(), c.key(), c.key()}
		err = c.use(l, distinct(r))(verbs.Acquire(ctx, l.manager, r))
	case n < 93:
		reservation := verbs.Reserve(l.manager, r)
		if c.random.IntN(4) == 0 {
			reservation.Cancel()
		} else {
			err = c.use(l, r)(reservation.Wait(ctx))
		}
	case n < 97:
		err = c.session(ctx, l)
	case n < 98:
		err = c.handoff(ctx, l, r)
	default:
		err = c.look(ctx, l)
	}
	if err != nil && !expected(err) {
		c.fail(err)
	}
}

// use returns a function that holds a lock, for what r asked, and releases it.
func (c *caller) use(l *life, r model.Request) func(verbs.Lock, error) error {
	return func(lock verbs.Lock, err error) error {
		if err != nil {
			return err
		}
		defer lock.Release()
		c.grants.Add(1)
		if r.Shared {
			return l.read(r.Keys[0])
		}
		l.write(r.Keys)
		if c.random.IntN(16) == 0 {
			defer lock.Release() // once more does nothing
		}
		return nil
	}
}

// session takes two keys in whatever order, which must not end in a deadlock.
func (c *caller) session(ctx context.Context, l *life) error {
	s := l.manager.Session("soak")
	defer s.Close()
	for range 2 {
		r := model.Request{Keys: []int{c.key()}}
		if _, err := verbs.Acquire(ctx, s, r); err != nil {
			return err
		}
		c.grants.Add(1)
		l.write(r.Keys)
	}
	return nil
}

// handoff passes a lock on, if somebody wants it.
func (c *caller) handoff(ctx context.Context, l *life, r model.Request) error {
	lock, err := l.manager.Acquire(ctx, r.Keys[0])
	if err != nil {
		return err
	}
	c.grants.Add(1)
	l.write(r.Keys)
	if !lock.Handoff("baton") {
		lock.Release()
	}
	return nil
}

// look looks at the manager.
func (c *caller) look(ctx context.Context, l *life) error {
	switch c.random.IntN(50) {
	case 0:
		_, err := l.manager.Snapshot(ctx)
		return err
	case 1:
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond) // it may never be idle
		defer cancel()
		return l.manager.WaitIdle(ctx)
	case 2:
		_, err := l.manager.Contains(ctx, c.key())
		return err
	}
	stats, err := l.manager.Stats(ctx)
	if err == nil && stats.Acquired-stats.Released != uint64(stats.Held) {
		return fmt.Errorf("totals do not add up: %+v", stats)
	}
	return err
}

// distinct is a request without duplicate keys, as they count once.
func distinct(r model.Request) model.Request {
	r.Keys = slices.Clone(r.Keys)
	slices.Sort(r.Keys)
	r.Keys = slices.Compact(r.Keys)
	return r
}

// expected reports whether an error belongs to a soaking.
func expected(err error) bool {
	for _, e := range []error{context.DeadlineExceeded, keylock.ErrClosed, keylock.ErrQueueFull, keylock.ErrDeadlock} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
