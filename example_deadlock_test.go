package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/seed-46f81e6d/keylock"
)

const (
	philosophers = 5
	meals        = 100
)

// dine has every philosopher eat each meal with the forks on both sides of the plate.
func dine(eat func(name string, left, right int)) {
	var table sync.WaitGroup
	for i := range philosophers {
		table.Go(func() {
			for range meals {
				eat(fmt.Sprintf("philosopher %d", i), i, (i+1)%philosophers)
			}
		})
	}
	table.Wait()
}

// Five philosophers sit at a round table, and each takes the left fork before the right
// one. Sooner or later each holds one and waits for the next. The request that would close
// the circle fails; its philosopher lays the fork down and tries again.
func ExampleManager_Session() {
	ctx := context.Background()
	forks := keylock.Start[int](ctx)
	defer forks.Close()

	var eaten [philosophers]int
	dine(func(name string, left, right int) {
		for {
			philosopher := forks.Session(name)
			_, err := philosopher.Acquire(ctx, left)
			if err == nil {
				_, err = philosopher.Acquire(ctx, right)
			}
			if err == nil {
				eaten[left]++
			}
			philosopher.Close() // lays down what it holds
			if !errors.Is(err, keylock.ErrDeadlock) {
				return
			}
		}
	})
	fmt.Println(eaten)
	// Output: [100 100 100 100 100]
}

// Philosophers who ask for both forks at once need not know the word deadlock.
func ExampleManager_AcquireAll() {
	ctx := context.Background()
	forks := keylock.Start[int](ctx)
	defer forks.Close()

	var eaten [philosophers]int
	dine(func(_ string, left, right int) {
		both, err := forks.AcquireAll(ctx, left, right)
		if err != nil {
			return
		}
		defer both.Release()
		eaten[left]++
	})
	fmt.Println(eaten)
	// Output: [100 100 100 100 100]
}

// Transfers between random accounts, in whichever direction, also to oneself: the sum
// never changes, and no transfer waits forever.
func ExampleManager_AcquireAll_transfer() {
	ctx := context.Background()
	accounts := keylock.Start[int](ctx)
	defer accounts.Close()
	balance := []int{100, 100, 100, 100, 100, 100, 100, 100}

	transfer := func(from, to, amount int) error {
		both, err := accounts.AcquireAll(ctx, from, to)
		if err != nil {
			return err
		}
		defer both.Release()
		balance[from] -= amount
		balance[to] += amount
		return nil
	}

	var bank sync.WaitGroup
	for range 16 {
		bank.Go(func() {
			for range 200 {
				if err := transfer(rand.IntN(8), rand.IntN(8), rand.IntN(50)); err != nil {
					fmt.Println(err)
				}
			}
		})
	}
	bank.Wait()

	sum := 0
	for _, b := range balance {
		sum += b
	}
	fmt.Println(sum)
	// Output: 800
}

// The error names the whole circle.
func ExampleDeadlockError() {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()
	billing, shipping := m.Session("billing"), m.Session("shipping")

	billing.Acquire(ctx, "order/42")
	shipping.Acquire(ctx, "stock/7")
	billing.Reserve("stock/7") // waits for shipping

	_, err := shipping.Acquire(ctx, "order/42")
	fmt.Println(err)

	var deadlock *keylock.DeadlockError[string]
	if errors.As(err, &deadlock) {
		for _, w := range deadlock.Cycle {
			fmt.Println(w.Waiter, "waits for", w.Key)
		}
	}
	// Output:
	// keylock: deadlock: session "shipping" waits for key "order/42", held by session "billing", which waits for key "stock/7", held by session "shipping"
	// shipping waits for order/42
	// billing waits for stock/7
}

// At most four requests per host run at a time.
func ExampleWithSharedLimit() {
	ctx := context.Background()
	hosts := keylock.Start[string](ctx, keylock.WithSharedLimit(4))
	defer hosts.Close()

	for range 5 {
		_, ok := hosts.TryAcquireSet(sharing("example.com")...)
		fmt.Print(ok, " ")
	}
	// Output: true true true true false
}

// Readers share, a writer is alone, and a reader queued behind a writer waits for it.
func ExampleManager_AcquireShared() {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	one, _ := m.AcquireShared(ctx, "config")
	two, _ := m.AcquireShared(ctx, "config")
	writer := m.Reserve("config")
	_, ok := m.TryAcquireSet(sharing("config")...)
	fmt.Println("a third reader passes the writer:", ok)

	one.Release()
	two.Release()
	lock, _ := writer.Wait(ctx)
	fmt.Println("the writer has", lock.Key())
	// Output:
	// a third reader passes the writer: false
	// the writer has config
}

// A holder passes on what it knows, so that the next one need not find out again.
func ExampleLock_Handoff() {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	first, _ := m.Acquire(ctx, "row/1")
	fmt.Println("no waiter:", first.Handoff("version 7"))

	next := m.Reserve("row/1")
	fmt.Println("one waiter:", first.Handoff("version 7"))
	second, _ := next.Wait(ctx)
	fmt.Println("and finds", second.Value())
	second.Release()
	// Output:
	// no waiter: false
	// one waiter: true
	// and finds version 7
}
