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
