// Command kafkabatch consumes a Kafka topic in batches, as a member of a consumer group, and
// handles the records of a batch concurrently, in four ways: one by one; concurrently without a
// lock; concurrently, where each goroutine acquires its record's key; and concurrently, where the
// poll loop reserves the key and the goroutine waits for it. It prints what each took, and how
// often it broke exclusion or order within a key.
//
// Without -brokers it starts a cluster of its own inside the process, on a port of the loopback
// interface, and produces the records. With -brokers, which are spoken to in plain text, it produces
// only when -records says so.
//
// On Ctrl-C it finishes the batch at hand, commits it, leaves the group and prints what it has so
// far; a second Ctrl-C ends it at once, which costs nothing but that batch's work: it is not
// committed, and comes again.
//
// The exit status is 1 if anything fails, if records were left over, or if a mode that promises order
// did not keep it; 2 for wrong arguments; and 130 after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	s, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2) // parse has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second one is not caught
	err = run(ctx, s, os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "kafkabatch: interrupted; what was handled is committed, the rest is still in the topic")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "kafkabatch:", err)
		os.Exit(1)
	}
}
