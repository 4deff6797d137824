// Command kafkabatch consumes a Kafka topic, as a member of a consumer group, and handles its
// records in five ways: in batches, one by one; concurrently without a lock; concurrently, where each
// goroutine acquires its record's key; concurrently and in order per key; and so without batches, as
// the records come. It prints what each took, and how often it broke exclusion or order within a key.
//
// Without -brokers it starts a cluster of its own inside the process, on a port of the loopback
// interface, and produces the records. With -brokers, which are spoken to in plain text, it produces
// only when -records says so.
//
// On Ctrl-C it finishes the batch at hand, or what has begun of a stream, commits it, leaves the group
// and prints what it has so far; a second Ctrl-C ends it at once, which costs nothing but that work: it
// is not committed, and comes again.
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
