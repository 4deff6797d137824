package inorder_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
)

type order struct {
	customer string
	item     string
}

var orders = []order{{"ann", "tea"}, {"bob", "ink"}, {"ann", "cup"}, {"ann", "jam"}, {"bob", "pen"}}

// A basket holds what customers have bought. The slices need no mutex: the work of one customer
// is done in order, one after another. The map is not written once it is made.
type basket map[string]*[]string

func newBasket(orders []order) basket {
	b := make(basket)
	for _, o := range orders {
		b[o.customer] = new([]string)
	}
	return b
}

func (b basket) put(_ context.Context, o order) error {
	*b[o.customer] = append(*b[o.customer], o.item)
	return nil
}

// A batch is handled concurrently, and each customer's orders in order.
func ExampleEach() {
	bought := newBasket(orders)
	customer := func(o order) string { return o.customer }

	err := inorder.Each(context.Background(), 16, slices.Values(orders), customer, bought.put)

	fmt.Println(*bought["ann"], *bought["bob"], err)
	// Output: [tea cup jam] [ink pen] <nil>
}

// Events are handled as they come. Go waits while 1,000 of them wait for their turn, so a slow
// handler slows the source down and does not fill the memory.
func ExampleNew() {
	bought := newBasket(orders)
	events := make(chan order, len(orders))
	for _, o := range orders {
		events <- o
	}
	close(events)

	ctx := context.Background()
	g := inorder.New[string](ctx, 16, inorder.WithQueue(1000))
	for event := range events {
		err := g.Go(ctx, event.customer, func(ctx context.Context) error {
			return bought.put(ctx, event)
		})
		if err != nil {
			break // Wait says why
		}
	}
	err := g.Wait()

	fmt.Println(*bought["ann"], *bought["bob"], err)
	// Output: [tea cup jam] [ink pen] <nil>
}

// Jobs work on accounts that requests lock too. A request waits for the job that runs, and never
// for all the jobs of its account.
func ExampleOver() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	balance := 0 // of the account "ann", and guarded by its lock

	jobs := inorder.Over(ctx, locks, 16)
	for range 100 {
		err := jobs.Go(ctx, "ann", func(context.Context) error {
			balance += 2
			return nil
		})
		if err != nil {
			break
		}
	}
	err := locks.Do(ctx, "ann", func(context.Context) error { // a request
		balance++
		return nil
	})

	fmt.Println(errors.Join(err, jobs.Wait()), balance)
	// Output: <nil> 201
}

// A failing account does not hold up the others. What it had in the queue is dropped and counted.
func ExampleWithKeyFailures() {
	ctx := context.Background()
	g := inorder.New[string](ctx, 16, inorder.WithKeyFailures())
	for _, o := range orders {
		g.Go(ctx, o.customer, func(context.Context) error {
			if o.customer == "ann" {
				return errors.New("account is closed")
			}
			fmt.Println(o.customer, o.item)
			return nil
		})
	}
	err := g.WaitIdle(ctx)
	fmt.Println(err)
	var failed *inorder.KeyError[string]
	if errors.As(err, &failed) {
		g.Reopen(failed.Key) // the cause is gone: what comes from now on is handled
	}
	g.Go(ctx, "ann", func(context.Context) error {
		fmt.Println("ann is back")
		return nil
	})
	fmt.Println(g.Wait())
	// Output:
	// bob ink
	// bob pen
	// inorder: key "ann" failed, 2 dropped: account is closed
	// ann is back
	// <nil>
}

// A service that is down for a moment is asked again. The order of the customer stays, and other
// customers use the slot meanwhile. What fails too often is put aside.
func ExampleAgain() {
	const tries = 3
	handle := func(o order) error {
		if o.item == "cup" {
			return errors.New("no cups")
		}
		fmt.Println("sent", o.item)
		return nil
	}
	ctx := context.Background()
	g := inorder.New[string](ctx, 1)
	for _, o := range orders {
		if o.customer != "ann" {
			continue
		}
		failures := 0
		g.Go(ctx, o.customer, func(context.Context) error {
			err := handle(o)
			if err == nil {
				return nil
			}
			if failures++; failures < tries {
				return inorder.Again(time.Duration(failures)*time.Millisecond, err)
			}
			fmt.Println("put aside:", o.item)
			return nil
		})
	}
	fmt.Println(g.Wait())
	// Output:
	// sent tea
	// put aside: cup
	// sent jam
	// <nil>
}

// A server handles the lines of one request in order with those of other requests, and answers
// when its own are done.
func ExampleGroup_Sub() {
	ctx := context.Background()
	g := inorder.New[string](ctx, 16)
	bought := newBasket(orders)
	serve := func(request context.Context, lines []order) error {
		part := g.Sub(request)
		for _, o := range lines {
			if err := part.Go(request, o.customer, func(ctx context.Context) error { return bought.put(ctx, o) }); err != nil {
				break
			}
		}
		return part.Wait()
	}

	fmt.Println(serve(ctx, orders[:3]))
	fmt.Println(serve(ctx, orders[3:]))

	fmt.Println(*bought["ann"], *bought["bob"], g.Wait())
	// Output:
	// <nil>
	// <nil>
	// [tea cup jam] [ink pen] <nil>
}

// A server that stops lets running work end, for a second at most, and begins nothing more.
func ExampleGroup_Stop() {
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	g := inorder.New[string](ctx, 1)
	begun, stopping := make(chan struct{}), make(chan struct{})
	g.Go(ctx, "ann", func(context.Context) error {
		close(begun)
		<-stopping
		fmt.Println("done")
		return nil
	})
	g.Go(ctx, "ann", func(context.Context) error {
		fmt.Println("never begun")
		return nil
	})
	<-begun

	g.Stop(errors.New("the server stops"))
	close(stopping)
	time.AfterFunc(time.Second, cut)

	fmt.Println(g.Wait())
	// Output:
	// done
	// the server stops
}

// A consumer commits what is done. Two customers' records are in one partition; the second
// record is done before the first.
func ExampleTracker() {
	var partition inorder.Tracker
	ctx := context.Background()
	g := inorder.New[string](ctx, 16)
	var first, second sync.WaitGroup
	first.Add(1)
	second.Add(1)
	for offset, customer := range []string{"ann", "bob"} {
		mark, err := partition.Track(int64(offset))
		if err != nil {
			log.Fatal(err)
		}
		g.Go(ctx, customer, func(context.Context) error {
			if customer == "ann" {
				first.Wait() // a slow one
				return mark.DoneIf(nil)
			}
			defer second.Done()
			return mark.DoneIf(nil)
		})
	}
	second.Wait()
	next, ok := partition.Next()
	fmt.Println(next, ok, "open:", partition.Open(), "span:", partition.Span())

	first.Done()
	fmt.Println(g.Wait())
	next, ok = partition.Next()
	fmt.Println(next, ok, "open:", partition.Open(), "span:", partition.Span())
	// Output:
	// 0 true open: 1 span: 2
	// <nil>
	// 2 true open: 0 span: 0
}
