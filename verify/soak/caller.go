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
	r = c.request()
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
			l.write(r.Keys[0])
			return nil
		})
	}
}

// request returns what a caller asks for: one key, or some of them, each exclusive or shared.
func (c *caller) request() model.Request {
	r := model.Request{Keys: []int{c.key()}}
	sharing := 4 // one in so many
	if c.random.IntN(10) == 0 {
		r = distinct(model.Request{Keys: []int{c.key(), c.key(), c.key()}})
		sharing = 2
	}
	for _, key := range r.Keys {
		terms := model.Terms{}
		if c.random.IntN(sharing) == 0 {
			terms = model.Terms{Shared: true, Limit: limit(key)}
		}
		r.Each = append(r.Each, terms)
	}
	return r
}

// hold does what a holder does, and gives the lock back, or hands it off, perhaps twice.
func (c *caller) hold(l *life, r model.Request, lock keylock.Lock[int]) error {
	defer lock.Release()
	if err := c.visit(l, r, lock); err != nil {
		return err
	}
	if c.random.IntN(16) == 0 {
		if err := c.downgrade(l, r, lock); err != nil {
			return err
		}
	}
	if c.random.IntN(32) == 0 {
		return c.watch(lock)
	}
	if c.random.IntN(8) == 0 {
		c.handOff(lock)
	}
	if c.random.IntN(16) == 0 {
		defer lock.Release() // once more does nothing
	}
	return nil
}

// downgrade makes a lock shared. No other request has its keys exclusively in between.
func (c *caller) downgrade(l *life, r model.Request, lock keylock.Lock[int]) error {
	c.downgrades.Add(1)
	var before []int64
	for _, key := range r.Keys {
		before = append(before, l.counters[key])
	}
	lock.Downgrade()
	for i, key := range r.Keys {
		if err := l.read(key); err != nil {
			return err
		}
		if after := l.counters[key]; after != before[i] {
			return fmt.Errorf("key %d was written to while its holder made it shared: %d became %d", key, before[i], after)
		}
	}
	return nil
}

// watch keeps a lock until another request waits for it, or a moment longer, and hears in any case that its
// grant has ended.
func (c *caller) watch(lock keylock.Lock[int]) error {
	wanted := lock.Wanted()
	select {
	case <-wanted:
		c.wanted.Add(1)
	case <-time.After(time.Duration(c.random.IntN(int(5 * time.Millisecond)))):
	}
	lock.Release()
	select {
	case <-wanted:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("key %d: a holder who asked whether it is wanted does not hear that its grant has ended", lock.Key())
	}
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
	if len(r.Keys) > 1 {
		c.sets.Add(1)
	}
	for _, key := range r.Keys {
		if !r.Of(key).Shared {
			l.write(key)
		} else if err := l.read(key); err != nil {
			return err
		}
	}
	if b, ok := lock.Value().(*baton); ok && r.Plain() && b.received.Swap(true) {
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
	lock, err := verbs.Acquire(ctx, s, c.request())
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
