// Command manyprocesses shows one key shared by several operating-system processes. It
// starts an etcd server of its own, on loopback and in a temporary folder, and three
// workers, processes that increment one counter in etcd under the key "counter". Meanwhile one
// worker is killed and started again, and one is paused for longer than its lease, in the
// middle of an increment. Manyprocesses prints who held the key when, with which tokens, what
// became of the late write, and whether the counter is right.
//
// Usage:
//
//	manyprocesses [-for DURATION]
//
// -for is how long the workers work, 8 s by default.
//
// The exit status is 0 if no increment was lost or doubled and the tokens grew, else 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if endpoint := os.Getenv(workerVariable); endpoint != "" {
		exit(work(ctx, endpoint, os.Stdin, os.Stdout))
	}
	duration := flag.Duration("for", 8*time.Second, "how long the workers work")
	flag.Parse()
	exit(show(ctx, *duration, os.Stdout))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "manyprocesses:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// show runs the whole demonstration.
func show(ctx context.Context, duration time.Duration, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "manyprocesses")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	endpoint, stopEtcd, err := startEtcd(dir)
	if err != nil {
		return err
	}
	defer stopEtcd()

	story := newStory(out)
	s := &stage{endpoint: endpoint, story: story}
	defer s.killAll()
	for _, name := range []string{"A", "B", "C"} {
		if err := s.start(name); err != nil {
			return err
		}
	}
	acts := []struct {
		at  time.Duration // in percent of the whole
		act func() error
	}{
		{25, func() error { return s.kill("A") }},
		{40, func() error { return s.start("A") }},
		{50, func() error { return s.pause("B") }},
		{90, func() error { return s.resume("B") }},
		{100, s.stopAll},
	}
	began := time.Now()
	for _, a := range acts {
		select {
		case <-time.After(time.Until(began.Add(duration * a.at / 100))):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := a.act(); err != nil {
			return err
		}
	}
	return story.check(ctx, endpoint)
}
