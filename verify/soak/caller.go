package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
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
	var err error
	switch n := c.random.IntN(100); {
	case n < 78:
		err = c.use(ctx, l, l.manager)
	case n < 94:
		err = c.session(ctx, l)
	case n < 96:
		err = c.closedSession(ctx, l)
	default:
		err = c.look(ctx, l)
	}
	if err != nil && !expected(err) {
		c.fail(err)
	}
}

// use makes one of the calls that ask for a lock, and gives back what it gets.
func (c *caller) use(ctx context.Context, l *life, by verbs.Caller) error {
	lock, r, err := c.ask(ctx, l, by)
	if err != nil || lock.Seq() == 0 {
		return err
	}
	return c.hold(l, r, lock)
}

// ask makes one of the calls that ask for a lock. It returns the zero Lock when it did not
// get any.
func (c *caller) ask(ctx context.Context, l *life, by verbs.Caller) (none keylock.Lock[int], r model.Request, err error) {
	r = model.Request{Keys: []int{c.key()}, Shared: c.random.IntN(4) == 0}
	if c.random.IntN(10) == 0 {
		r = distinct(model.Request{Keys: []int{c.key(), c.key(), c.key()}})
	}
	switch n := c.random.IntN(100); {
	case n < 60:
		lock, err := verbs.Acquire(ctx, by, r)
		return lock, r, err
	case n < 72:
		if lock, ok := verbs.Try(by, r); ok {
			return lock, r, nil
		}
		return none, r, nil
	case n < 88:
		reservation := verbs.Reserve(by, r)
		if c.random.IntN(4) == 0 {
			reservation.Cancel()
			return none, r, nil
		}
		lock, err := reservation.Wait(ctx)
		return lock, r, err
	default:
		return none, r, by.Do(ctx, r.Keys[0], func(context.Context) error {
			c.grants.Add(1)
			l.write(r.Keys[:1])
			return nil
		})
	}
}

// hold does what a holder does, and gives the lock back, or hands it off, perhaps twice.
func (c *caller) hold(l *life, r model.Request, lock keylock.Lock[int]) error {
	defer lock.Release()
	if err := c.visit(l, r, lock); err != nil {
		return err
	}
	if c.random.IntN(8) == 0 {
		c.handOff(lock)
	}
	if c.random.IntN(16) == 0 {
		defer lock.Release() // once more does nothing
	}
	return nil
}

// A baton is what is handed off with a lock.
type baton struct{ received atomic.Bool }

// handOff hands a lock off, and reports whether it did.
func (c *caller) handOff(lock keylock.Lock[int]) bool {
	passed := lock.Handoff(new(baton))
	if passed {
		c.handoffs.Add(1)
	}
	return passed
}

// visit does what a holder does.
func (c *caller) visit(l *life, r model.Request, lock keylock.Lock[int]) error {
	c.grants.Add(1)
	if r.Shared {
		return l.read(r.Keys[0])
	}
	l.write(r.Keys)
	if b, ok := lock.Value().(*baton); ok && b.received.Swap(true) {
		return fmt.Errorf("key %d: a value was received twice", r.Keys[0])
	}
	return nil
}

// session takes some locks, one after the other, in whatever order, which must not end in a
// deadlock. It keeps some of them to its end.
func (c *caller) session(ctx context.Context, l *life) error {
	c.sessions.Add(1)
	s := l.manager.Session("soak")
	defer s.Close()
	for range 1 + c.random.IntN(4) {
		lock, r, err := c.ask(ctx, l, s) //keylock:held until the session is closed
		switch {
		case errors.Is(err, keylock.ErrDeadlock):
			c.deadlocks.Add(1)
			return nil
		case err != nil:
			return err
		case lock.Seq() == 0:
		case c.random.IntN(3) == 0:
			err = c.hold(l, r, lock)
		default:
			err = c.visit(l, r, lock)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// closedSession is one that another goroutine closes, so that its locks guard nothing.
func (c *caller) closedSession(ctx context.Context, l *life) error {
	c.sessions.Add(1)
	s := l.manager.Session("closed")
	var other sync.WaitGroup
	defer other.Wait()
	other.Go(func() { s.Close() })
	r := model.Request{Keys: []int{c.key()}, Shared: c.random.IntN(4) == 0}
	lock, err := verbs.Acquire(ctx, s, r)
	if err != nil {
		return err
	}
	if !c.handOff(lock) {
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
		_, err := l.manager.Inspect(ctx, c.key())
		return err
	case 3:
		_, err := l.manager.Top(ctx, 10)
		return err
	case 4:
		_, err := l.manager.Inspect(ctx, c.key())
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
