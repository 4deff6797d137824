package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// Two deposits to one account, each a read and a write: under the lock of the account
// none is lost, and other accounts do not wait.
func Example() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	balance := map[string]int{"alice": 100}
	var deposits sync.WaitGroup
	for range 2 {
		deposits.Go(func() {
			lock, err := locks.Acquire(ctx, "alice")
			if err != nil {
				return
			}
			defer lock.Release()
			balance["alice"] += 10
		})
	}
	deposits.Wait()
	fmt.Println(balance["alice"])
	// Output: 120
}

// Goroutines do not start in order. Reserve enters the queues in the order of the loop,
// so the events of each user are handled one after the other, in the order in which
// they came, and those of different users at the same time.
func ExampleManager_Reserve() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	type event struct{ user, what string }
	events := []event{{"ann", "signs up"}, {"bob", "signs up"}, {"ann", "pays"}, {"ann", "leaves"}, {"bob", "pays"}}

	story := map[string]*string{"ann": new(string), "bob": new(string)}
	var work sync.WaitGroup
	for _, e := range events {
		reservation := locks.Reserve(e.user)
		work.Go(func() {
			lock, err := reservation.Wait(ctx)
			if err != nil {
				return
			}
			defer lock.Release()
			*story[e.user] += " " + e.what
		})
	}
	work.Wait()
	fmt.Println("ann" + *story["ann"])
	fmt.Println("bob" + *story["bob"])
	// Output:
	// ann signs up pays leaves
	// bob signs up pays
}

// Do releases the key also when the function panics, and returns its error.
func ExampleManager_Do() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	err := locks.Do(ctx, "invoice/7", func(ctx context.Context) error {
		return errors.New("printer on fire")
	})
	fmt.Println(err)
	// Output: printer on fire
}

// Of several triggers that ask for the same refresh at once, one does the work.
func ExampleManager_TryAcquire() {
	locks := keylock.Start[string](context.Background())
	defer locks.Close()

	refresh := func(page string) {
		lock, ok := locks.TryAcquire(page)
		if !ok {
			fmt.Println("another caller refreshes", page)
			return
		}
		defer lock.Release()
		fmt.Println("refresh", page)
	}

	lock, _ := locks.TryAcquire("/news")
	refresh("/news")
	refresh("/about")
	lock.Release()
	refresh("/news")
	// Output:
	// another caller refreshes /news
	// refresh /about
	// refresh /news
}

// A service that stops refuses new work, gives the work under way some time to finish,
// and then ends.
func ExampleManager_Shutdown() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	stuck, _ := locks.Acquire(ctx, "order/42")

	grace, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := locks.Shutdown(grace); err != nil {
		fmt.Println("still held:", err)
		locks.Close()
	}

	_, err := locks.Acquire(ctx, "order/43")
	fmt.Println(errors.Is(err, keylock.ErrClosed))
	stuck.Release() // harmless
	// Output:
	// still held: keylock: context deadline exceeded
	// true
}

// A consumer hands every message to a goroutine, and commits its offset when all of them
// are through.
func ExampleManager_WaitIdle() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	handled := make(chan string, 3)
	for _, key := range []string{"a", "b", "a"} {
		reservation := locks.Reserve(key)
		go func() {
			lock, err := reservation.Wait(ctx)
			if err != nil {
				return
			}
			defer lock.Release()
			handled <- key
		}()
	}
	if err := locks.WaitIdle(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("commit", len(handled), "messages")
	// Output: commit 3 messages
}

// A bound on the queue of each key turns overload into an error at once, instead of a
// wait that no client has the patience for.
func ExampleWithKeptGrants() {
	ctx := context.Background()
	m := keylock.Start[string](ctx, keylock.WithKeptGrants(1024))
	defer m.Close()

	for range 1000 {
		lock, err := m.Acquire(ctx, "order/42")
		if err != nil {
			return
		}
		lock.Release()
	}
	stats, _ := m.Stats(ctx)
	fmt.Println(stats.Acquired, "grants,", stats.Requests, "requests to the owner")
	// Output: 1000 grants, 2 requests to the owner
}

func ExampleWithMaxWaiters() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx, keylock.WithMaxWaiters(1))
	defer locks.Close()

	holder, waiter := locks.Reserve("report"), locks.Reserve("report")
	defer holder.Cancel()
	defer waiter.Cancel()
	_, err := locks.Acquire(ctx, "report")
	fmt.Println(errors.Is(err, keylock.ErrQueueFull), err)
	// Output: true keylock: queue is full: key "report"
}

// Everything that waits for a lock is visible to a synctest bubble, so a test of code
// that uses locks needs no sleeping: an hour passes at once.
func TestExampleInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context())
		defer locks.Close()
		locks.Reserve("order/42") // holds the key, and is never released

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		_, err := locks.Acquire(ctx, "order/42")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Hour {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
	})
}

// A connection holds the lock of an upload as long as it may send more. When the client comes
// back on another connection, the first one hears of it and stops, instead of being waited
// for until it times out.
func ExampleLock_Wanted() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	lock, err := locks.Acquire(ctx, "upload/7")
	if err != nil {
		log.Fatal(err)
	}
	resumed := make(chan struct{})
	go func() {
		defer close(resumed)
		locks.Do(ctx, "upload/7", func(context.Context) error {
			fmt.Println("the second connection goes on")
			return nil
		})
	}()
	select {
	case <-lock.Wanted():
		fmt.Println("the first connection stops")
	case <-time.After(time.Minute): // the client has sent nothing for so long
	}
	lock.Release()
	<-resumed
	// Output:
	// the first connection stops
	// the second connection goes on
}

// A configuration is written by one and then read by many. The writer goes on reading what it
// has written: between its writing and its reading no other writer is granted.
func ExampleLock_Downgrade() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	config := map[string]string{}
	lock, err := locks.Acquire(ctx, "config")
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release()
	config["color"] = "blue"
	lock.Downgrade()

	reader, err := locks.AcquireShared(ctx, "config") // does not wait
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Release()
	fmt.Println(config["color"])
	// Output: blue
}

// Paths: work on a file shares all folders above it, so that these are not removed or renamed
// meanwhile, and other files can be worked on at the same time.
func ExampleManager_AcquireSet() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	// lockPath locks a path, and shares the folders above it.
	lockPath := func(path string) (keylock.Lock[string], error) {
		set := []keylock.Want[string]{{Key: path}}
		for i, c := range path {
			if c == '/' && i < len(path)-1 {
				set = append(set, keylock.Want[string]{Key: path[:max(i, 1)], Mode: keylock.Shared})
			}
		}
		return locks.AcquireSet(ctx, set...)
	}
	for _, path := range []string{"/docs/a.txt", "/docs/b.txt"} { // both at once
		lock, err := lockPath(path)
		if err != nil {
			log.Fatal(err)
		}
		defer lock.Release()
	}
	for _, folder := range []string{"/docs", "/"} {
		_, ok := locks.TryAcquire(folder)
		fmt.Println(folder, "can be removed:", ok)
	}
	// Output:
	// /docs can be removed: false
	// / can be removed: false
}

// Each host has a limit of its own, which may change while requests run.
func ExampleManager_AcquireSet_limit() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	limit := map[string]int{"api.example.com": 2, "slow.example.com": 1}
	call := func(host string) bool {
		_, ok := locks.TryAcquireSet(keylock.Want[string]{Key: host, Mode: keylock.Shared, Limit: limit[host]})
		return ok
	}
	fmt.Println(call("api.example.com"), call("api.example.com"), call("api.example.com"))
	fmt.Println(call("slow.example.com"), call("slow.example.com"))
	limit["slow.example.com"] = 2
	fmt.Println(call("slow.example.com"))
	// Output:
	// true true false
	// true false
	// true
}

// A sync.Cond on a key.
func ExampleManager_Locker() {
	locks := keylock.Start[string](context.Background())
	defer locks.Close()

	ready := false
	changed := sync.NewCond(locks.Locker("order/42"))
	go func() {
		changed.L.Lock()
		defer changed.L.Unlock()
		ready = true
		changed.Broadcast()
	}()
	changed.L.Lock()
	for !ready {
		changed.Wait()
	}
	changed.L.Unlock()
	fmt.Println("ready")
	// Output: ready
}

// byName is what gocron, CertMagic and tusd ask for, up to the signatures: Lock and Unlock by
// name. Each name is one holder at a time.
type byName struct {
	locks *keylock.Manager[string]
	held  sync.Map // of keylock.Lock, by name
}

// Lock returns the error of Acquire: that of the context, or ErrClosed.
func (b *byName) Lock(ctx context.Context, name string) error {
	lock, err := b.locks.Acquire(ctx, name)
	if err == nil {
		b.held.Store(name, lock)
	}
	return err
}

// Unlock returns an error when the name is not locked, as after a first Unlock. One that comes
// later, when another caller holds the name, frees the lock of that caller: a name does not say
// whose it is. After Close it only forgets.
func (b *byName) Unlock(_ context.Context, name string) error {
	lock, held := b.held.LoadAndDelete(name)
	if !held {
		return fmt.Errorf("unlock of %q, which is not locked", name)
	}
	lock.(keylock.Lock[string]).Release()
	return nil
}

// An adapter for interfaces that lock and unlock by name.
func ExampleManager_byName() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	var names interface {
		Lock(context.Context, string) error
		Unlock(context.Context, string) error
	} = &byName{locks: locks}

	fmt.Println(names.Lock(ctx, "certificate"), names.Unlock(ctx, "certificate"))
	fmt.Println(names.Unlock(ctx, "certificate"))
	names.Lock(ctx, "certificate")
	locks.Close()
	fmt.Println(names.Unlock(ctx, "certificate"), names.Lock(ctx, "certificate"))
	// Output:
	// <nil> <nil>
	// unlock of "certificate", which is not locked
	// <nil> keylock: closed
}
