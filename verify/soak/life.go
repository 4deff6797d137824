package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
	"github.com/seed-46f81e6d/keylock/verify/verbs"
)

// A life is one manager, from its start to its end, with what its locks guard.
type life struct {
	manager *keylock.Manager[int]
	cancel  context.CancelFunc
	users   sync.WaitGroup

	counters    []int64        // one for each key; plain, because a lock guards them
	total       atomic.Int64   // what they must add up to
	sharers     []atomic.Int64 // for each key, those who read
	sharedLimit int            // how many may, where the requests do not say; 0 is no bound
}

func newLife(keys int) *life {
	ctx, cancel := context.WithCancel(context.Background())
	sharedLimit := rand.IntN(2) * 8
	return &life{
		manager:     keylock.Start[int](ctx, someOptions(sharedLimit)...),
		cancel:      cancel,
		counters:    make([]int64, keys),
		sharers:     make([]atomic.Int64, keys),
		sharedLimit: sharedLimit,
	}
}

// someOptions returns each of the other options or not, as chance will have it. Grants are kept where nothing is
// noted of requests, which would keep them from being so.
func someOptions(sharedLimit int) []keylock.Option {
	bounds := verbs.Bounds(model.State{MaxWaiters: rand.IntN(2) * 1000, SharedLimit: sharedLimit})
	if rand.IntN(2) == 0 {
		return append(bounds, keylock.WithKeptGrants(1<<rand.IntN(16)))
	}
	watch := verbs.Observer{Callers: rand.IntN(2) == 0, HoldTimes: rand.IntN(2) == 0}
	if rand.IntN(2) == 0 {
		watch.SlowLog = slog.New(slog.NewTextHandler(io.Discard, nil))
		watch.SlowAfter = time.Millisecond + rand.N(100*time.Millisecond)
	}
	return append(bounds, watch.Options()...)
}

// limit is the limit that every request has that shares a key; 0 is that of the manager.
func limit(key int) int {
	if key%3 == 1 {
		return 1 + key%5
	}
	return 0
}

// write is what an exclusive holder of a key does with it.
func (l *life) write(key int) {
	before := l.counters[key]
	if rand.IntN(8) == 0 {
		runtime.Gosched() // so that one who should not be in here has time to spoil it
	}
	l.counters[key] = before + 1
	l.total.Add(1)
}

// read is what a shared holder of a key does with it.
func (l *life) read(key int) error {
	most := limit(key)
	if most == 0 {
		most = l.sharedLimit
	}
	defer l.sharers[key].Add(-1)
	if n := l.sharers[key].Add(1); most > 0 && n > int64(most) {
		return fmt.Errorf("key %d has %d shared holders, with a limit of %d", key, n, most)
	}
	before := l.counters[key]
	runtime.Gosched()
	if after := l.counters[key]; after != before {
		return fmt.Errorf("key %d was written to beside a shared holder: %d became %d", key, before, after)
	}
	return nil
}

// end ends the manager in one of the ways that there are, waits until it is not used
// any more, and checks what it has guarded.
func (l *life) end() error {
	switch rand.IntN(4) {
	case 0:
		l.manager.Close()
	case 1:
		l.cancel()
	case 2:
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(10*time.Millisecond))
		defer cancel()
		if err := l.manager.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a shutdown returned %w", err)
		}
		l.manager.Close()
	case 3:
		if err := l.manager.Shutdown(context.Background()); err != nil {
			return fmt.Errorf("a shutdown returned %w", err)
		}
	}
	<-l.manager.Done()
	l.users.Wait()
	l.cancel()
	var sum int64
	for _, n := range l.counters {
		sum += n
	}
	if total := l.total.Load(); sum != total {
		return fmt.Errorf("the counters add up to %d, but were increased %d times: two held a key at once", sum, total)
	}
	return nil
}
