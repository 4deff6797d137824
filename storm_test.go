package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// Thousands of goroutines acquire, reserve, try, hold, cancel, hand off, release and ask
// at random, in real time, until they are through or until one ends the manager. A
// grant that is lost shows as a wait without end, one that is given twice in the
// counters, one that is not ordered after the last in the race detector.
func TestStorm(t *testing.T) {
	goroutines, rounds := 2000, 20
	if locktest.RaceEnabled {
		goroutines, rounds = 500, 15
	}
	// Long queues reach every branch. In short ones the waiter that is cancelled
	// at the moment of a release is often the next.
	shapes := map[string]int{"long queues": 5, "short queues": goroutines / 3}
	ends := map[string]func(s *storm, cancel func()){
		"in peace":            nil,
		"Close":               func(s *storm, _ func()) { assert.NoError(s.t, s.m.Close()) },
		"Shutdown":            func(s *storm, _ func()) { assert.NoError(s.t, s.m.Shutdown(context.Background())) },
		"Start's context end": func(s *storm, cancel func()) { cancel() },
	}
	for _, seed := range []uint64{1, 2, uint64(time.Now().UnixNano())} {
		for shape, keys := range shapes {
			for name, end := range ends {
				t.Run(fmt.Sprintf("%s, %s, seed %d", shape, name, seed), func(t *testing.T) {
					watch(t, 2*time.Minute, func() {
						var all sync.WaitGroup
						for i := range uint64(2) { // managers that know nothing of each other
							all.Go(func() { runStorm(t, seed+i, goroutines/2, rounds, keys/2, end) })
						}
						all.Wait()
					})
				})
			}
		}
	}
}

func runStorm(t *testing.T, seed uint64, goroutines, rounds, keys int, end func(s *storm, cancel func())) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	random := rand.New(rand.NewPCG(seed, 0))
	s := &storm{
		t:       t,
		m:       keylock.Start[int](ctx, [][]keylock.Option{nil, {keylock.WithMaxWaiters(3)}, {keylock.WithMaxWaiters(100)}}[seed%3]...),
		writers: make([]int, keys),
		readers: make([]atomic.Int32, keys),
		prey:    make([]atomic.Pointer[func()], keys),
	}
	calm := int64(goroutines * rounds / (2 + random.IntN(8)))
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(g+1)))
			for range rounds {
				if s.calls.Add(1) == calm && end != nil {
					all.Go(func() {
						end(s, cancel)
						s.ended.Store(true)
					})
				}
				s.call(random)
			}
		})
	}
	all.Wait()
	s.strays.Wait()
	if end != nil {
		<-s.m.Done()
		return
	}
	assert.NoError(t, s.m.WaitIdle(ctx))
	totals := statsOf(t, s.m)
	assert.Equal(t, keylock.Stats{
		Acquired: totals.Acquired, Waited: totals.Waited, Cancelled: totals.Cancelled, Rejected: totals.Rejected,
		Released: totals.Acquired,
	}, totals)
	assert.GreaterOrEqual(t, totals.Acquired, s.granted.Load())
	assert.NoError(t, s.m.Shutdown(ctx))
}

// A storm is what the goroutines that use one manager share.
type storm struct {
	t *testing.T
	m *keylock.Manager[int]

	writers []int                    // inside each key's exclusive lock, which is all that guards it
	readers []atomic.Int32           // inside each key's shared locks
	prey    []atomic.Pointer[func()] // cancels a call that may wait for the key

	calls   atomic.Int64
	granted atomic.Uint64
	ended   atomic.Bool
	strays  sync.WaitGroup // what other goroutines do with a lock or reservation
}

// call makes one call at random, and whatever follows from it.
func (s *storm) call(random *rand.Rand) {
	late := s.ended.Load()
	key := random.IntN(len(s.writers))
	ctx, cancel := s.context(random, key)
	defer cancel()
	switch random.IntN(10) {
	case 0, 1, 2:
		l, err := s.m.Acquire(ctx, key)
		assert.NotErrorIs(s.t, err, keylock.ErrReservationDone)
		s.write(random, late, l, err, key)
	case 3:
		r := s.m.Reserve(key)
		s.provoke(random, key, r.Cancel)
		l, err := r.Wait(ctx)
		s.write(random, late, l, err, key)
		r.Cancel() // does nothing now
	case 4:
		s.m.Reserve(key).Cancel()
	case 5:
		if l, ok := s.m.TryAcquire(key); ok {
			s.write(random, late, l, nil, key)
		}
	case 6:
		r := s.m.ReserveSet(sharing(key)...)
		s.provoke(random, key, r.Cancel)
		l, err := r.Wait(ctx)
		s.read(random, late, l, err, key)
	case 7:
		l, err := s.m.AcquireShared(ctx, key)
		assert.NotErrorIs(s.t, err, keylock.ErrReservationDone)
		s.read(random, late, l, err, key)
	case 8:
		other := random.IntN(len(s.writers))
		locks, err := s.m.AcquireAll(ctx, key, other, key)
		if s.got(late, err) {
			s.visit(random, key)
			s.visit(random, other)
			locks.Release()
		}
	case 9:
		totals, err := s.m.Stats(ctx)
		if err == nil {
			assert.Equal(s.t, uint64(totals.Held), totals.Acquired-totals.Released)
			assert.LessOrEqual(s.t, totals.Keys, len(s.writers))
		}
	}
}

// context returns one of every kind that a wait can have.
func (s *storm) context(random *rand.Rand, key int) (context.Context, context.CancelFunc) {
	switch random.IntN(6) {
	case 0:
		return cancelled(), func() {}
	case 1:
		return context.WithTimeout(context.Background(), time.Duration(random.IntN(500))*time.Microsecond)
	case 2, 3:
		ctx, cancel := context.WithCancel(context.Background())
		s.provoke(random, key, cancel)
		return ctx, cancel
	default:
		return context.Background(), func() {}
	}
}

// provoke cancels another's wait: at about once, or when the key changes hands.
func (s *storm) provoke(random *rand.Rand, key int, giveUp func()) {
	if random.IntN(4) == 0 {
		s.strays.Go(giveUp)
	} else {
		s.prey[key].Store(&giveUp)
	}
}

// got reports whether a call has got what it asked for.
func (s *storm) got(late bool, err error) bool {
	if err != nil {
		expected := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
			errors.Is(err, keylock.ErrReservationDone) || errors.Is(err, keylock.ErrQueueFull) || errors.Is(err, keylock.ErrClosed)
		assert.True(s.t, expected, err)
		return false
	}
	assert.False(s.t, late, "a lock was acquired after the end")
	s.granted.Add(1)
	return true
}

// write uses an exclusive lock.
func (s *storm) write(random *rand.Rand, late bool, l keylock.Lock[int], err error, key int) {
	if s.got(late, err) {
		assert.Equal(s.t, key, l.Key())
		s.visit(random, key)
		s.leave(random, l)
	}
	l.Release() // once more, or nothing
}

// visit is a critical section.
func (s *storm) visit(random *rand.Rand, key int) {
	s.writers[key]++
	linger(random)
	assert.Equal(s.t, 1, s.writers[key], "writers inside key %d", key)
	assert.Zero(s.t, s.readers[key].Load(), "readers inside key %d with a writer", key)
	s.writers[key]--
}

// read uses a shared lock.
func (s *storm) read(random *rand.Rand, late bool, l keylock.Lock[int], err error, key int) {
	if s.got(late, err) {
		s.readers[key].Add(1)
		linger(random)
		assert.Zero(s.t, s.writers[key], "writers inside key %d with a reader", key)
		s.readers[key].Add(-1)
		s.leave(random, l)
	}
}

// leave gives a lock back, in any way, while a waiter for it may be cancelled.
func (s *storm) leave(random *rand.Rand, l keylock.Lock[int]) {
	giveUp := s.prey[l.Key()].Swap(nil)
	if giveUp != nil && random.IntN(2) == 0 {
		s.strays.Go(*giveUp)
		giveUp = nil
	}
	switch random.IntN(8) {
	case 0:
		s.strays.Go(l.Release) // and the caller's own, whichever is first
	case 1:
		l.Handoff("value")
	}
	l.Release()
	if giveUp != nil {
		(*giveUp)()
	}
}

// linger holds a lock for a moment.
func linger(random *rand.Rand) {
	for range random.IntN(3) {
		runtime.Gosched()
	}
}
