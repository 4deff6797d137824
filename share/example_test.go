package share_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/share"
)

// Three requests ask for a price at the same time. It is fetched once.
func ExampleGroup() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	prices := share.New[string, int](locks)

	fetch := func(ctx context.Context) (int, error) { // ctx ends when all three requests have
		fmt.Println("fetching")
		time.Sleep(time.Second)
		return 117, nil
	}
	var requests sync.WaitGroup
	for range 3 {
		requests.Go(func() {
			price, err := prices.Do(ctx, "EUR/USD", fetch)
			if price != 117 || err != nil {
				fmt.Println(price, err)
			}
		})
	}
	requests.Wait()
	// Output: fetching
}

// A caller waits no longer than its own context. The work goes on while another one wants it,
// and is cancelled when the last one has left.
func ExampleGroup_Do() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	reports := share.New[string, string](locks)

	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err := reports.Do(short, "2026-11", func(ctx context.Context) (string, error) {
		<-ctx.Done() // the only caller has left
		return "", ctx.Err()
	})
	fmt.Println(errors.Is(err, context.DeadlineExceeded), err)
	// Output: true share: key "2026-11": context deadline exceeded
}

// Without the package: the first caller holds the key and works; the others wait for a shared
// lock and are granted together, with the result. If the first caller's context ends, so does the work of
// all, and they begin again.
func Example_handoff() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	once := func(ctx context.Context, key string, fn func(context.Context) (int, error)) (int, error) {
		for {
			if lock, ok := locks.TryAcquire(key); ok {
				value, err := fn(ctx)
				if err != nil || !lock.Handoff(value) { // nothing to share, or no one waits
					lock.Release()
				}
				return value, err
			}
			lock, err := locks.AcquireShared(ctx, key)
			if err != nil {
				return 0, err
			}
			value, ok := lock.Value().(int)
			lock.Release()
			if ok {
				return value, nil
			}
		}
	}

	var requests sync.WaitGroup
	for range 3 {
		requests.Go(func() {
			price, err := once(ctx, "EUR/USD", func(context.Context) (int, error) {
				time.Sleep(50 * time.Millisecond)
				return 117, nil
			})
			if price != 117 || err != nil {
				fmt.Println(price, err)
			}
		})
	}
	requests.Wait()
	fmt.Println("done")
	// Output: done
}
