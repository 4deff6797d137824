package keylock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// One key: who holds it, and who waits for it.
func ExampleManager_Inspect() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	locks.Session("billing").Acquire(ctx, "order/42")
	locks.Session("shipping").Reserve("order/42")

	info, err := locks.Inspect(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("held by", info.Holders[0].Session)
	for _, w := range info.Waiters {
		fmt.Printf("%d. %s\n", w.Position, w.Session)
	}
	// Output:
	// held by billing
	// 1. shipping
}

// The totals: what is held and waited for now, and what has happened since Start.
func ExampleManager_Stats() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	locks.Acquire(ctx, "order/42")
	locks.Reserve("order/42")

	stats, err := locks.Stats(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(stats.Keys, "key,", stats.Held, "held,", stats.Waiting, "waiting,", stats.Acquired, "acquired")
	// Output: 1 key, 1 held, 1 waiting, 1 acquired
}

// What to look at first in a manager with many keys.
func ExampleManager_Top() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx, keylock.WithHoldTimes())
	defer locks.Close()
	for _, key := range []string{"a", "b", "b", "c", "c", "c"} {
		locks.Reserve(key)
	}

	top, err := locks.Top(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("longest queue:", top.LongestQueues[0].Key, top.LongestQueues[0].Waiting)
	fmt.Println("oldest hold:", top.OldestHolds[0].Key)
	// Output:
	// longest queue: c 2
	// oldest hold: a
}

// Every key that is held or waited for, at one moment.
func ExampleManager_Snapshot() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	locks.Acquire(ctx, "a")
	locks.Reserve("a")

	keys, err := locks.Snapshot(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, k := range keys {
		fmt.Println(k.Key, k.Held, k.Waiting)
	}
	// Output: a 1 1
}

// A deferred Cancel gives the reservation back on every path that does not wait for it.
func ExampleReservation_Cancel() {
	ctx := context.Background()
	locks := keylock.Start[string](ctx)
	defer locks.Close()

	charge := func(key string, amount int) error {
		reservation := locks.Reserve(key)
		defer reservation.Cancel() // does nothing after Wait
		if amount == 0 {
			return nil
		}
		lock, err := reservation.Wait(ctx)
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	}
	fmt.Println(charge("alice", 0), charge("alice", 10))

	alice, err := locks.Inspect(ctx, "alice")
	fmt.Println(alice.Held, err)
	// Output:
	// <nil> <nil>
	// 0 <nil>
}

// While a lock is held for too long, the log says which one, by which session, and how many
// requests wait for it. With WithCallers it also names the line of code.
func ExampleWithSlowLog() {
	ctx := context.Background()
	log, records := io.Pipe()
	logger := slog.New(slog.NewTextHandler(records, &slog.HandlerOptions{ReplaceAttr: timeless}))
	locks := keylock.Start[string](ctx, keylock.WithSlowLog(logger, 50*time.Millisecond))
	defer locks.Close()

	lock, err := locks.Session("monthly statements").Acquire(ctx, "account/7")
	if err != nil {
		return
	}
	lines := bufio.NewScanner(log)
	lines.Scan()
	fmt.Println(lines.Text())
	lock.Release()
	for lines.Scan() && !strings.Contains(lines.Text(), "ended") {
		// again after twice the time, four times, and so on
	}
	fmt.Println(lines.Text())
	// Output:
	// level=WARN msg="keylock: slow hold" key=account/7 queue=0 grant=1 mode=exclusive session="monthly statements"
	// level=INFO msg="keylock: slow hold ended" key=account/7 outcome=released grant=1 mode=exclusive session="monthly statements"
}

// timeless leaves out what differs from run to run.
func timeless(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == "held" {
		return slog.Attr{}
	}
	return a
}

// A deadlock says which sessions wait for each other, and for which keys.
func ExampleWaitEdge() {
	edge := keylock.WaitEdge[string]{Waiter: "shipping", Key: "order/42", Blocker: "billing", Held: true}
	fmt.Println(edge)
	// Output: session "shipping" waits for key "order/42", held by session "billing"
}
