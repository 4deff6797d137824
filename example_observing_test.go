package keylock_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// While a lock is held for too long, the log says which one, by which line of code, and how
// many requests wait for it.
func ExampleWithSlowLog() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, nil))
	locks := keylock.Start[string](ctx, keylock.WithSlowLog(logger, time.Second), keylock.WithCallers())
	defer locks.Close()

	lock, err := locks.Session("monthly statements").Acquire(ctx, "account/7")
	if err != nil {
		return
	}
	time.Sleep(1500 * time.Millisecond)
	lock.Release()
	// The log has, but for the time:
	// level=WARN msg="keylock: slow hold" key=account/7 held=1.000216812s queue=0 grant=1 mode=exclusive session="monthly statements" caller="keylock/example_observing_test.go:22 keylock_test.ExampleWithSlowLog"
	// level=INFO msg="keylock: slow hold ended" key=account/7 held=1.500397104s outcome=released grant=1 mode=exclusive session="monthly statements" caller="keylock/example_observing_test.go:22 keylock_test.ExampleWithSlowLog"
}

// A deadlock says which sessions wait for each other, and for which keys.
func ExampleWaitEdge() {
	edge := keylock.WaitEdge[string]{Waiter: "shipping", Key: "order/42", Blocker: "billing", Held: true}
	fmt.Println(edge)
	// Output: session "shipping" waits for key "order/42", held by session "billing"
}
