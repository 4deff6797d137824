// Command coldrows shows what one hot row does to the queries of other rows, in PostgreSQL, with a
// connection pool.
//
// Many goroutines add to one row, the hot one, each in a transaction that locks the row with SELECT
// FOR UPDATE, works for a moment and updates it. A few others add to rows of their own, cold ones,
// ten times a second, by a single UPDATE. A waiter for the hot row has a transaction open, so it
// occupies a connection of the pool: soon all connections wait for that row, and the goroutines
// of the cold rows wait for a connection. With a lock per row, taken before the connection, all but
// one of the goroutines of the hot row wait without one.
//
// Coldrows runs without and with the lock, in turns. It prints how long the cold rows took, how much
// of that was waiting for a connection, and how many transactions the hot row got through, and
// proves that every addition is in the database.
//
// Usage:
//
//	coldrows [-db URL] [-rounds N] [-time DURATION] [-hot N] [-cold N] [-pool N]
//		[-work DURATION] [-svg FILE]
//
// Without -db it takes the PostgreSQL server that DATABASE_URL names; if that is empty, a private
// one, started from the binaries of this machine in a temporary folder. Its table is in a schema
// of its own, which it drops.
//
// An interrupt (Ctrl-C) or SIGTERM ends the run at hand, and what there is by then is shown and proved;
// a second one kills. The exit status is 0, 1 if an addition is lost or anything fails, 2 for wrong
// arguments, and 130 if it was interrupted.
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

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // parseOptions has said why
	}

	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next one kills

	if err := compare(ctx, opts, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "coldrows:", err)
		return 1
	}
	if ctx.Err() != nil {
		return 130
	}
	return 0
}

// compare runs without and with the lock and shows both. It returns early, without an error, when
// ctx ends.
func compare(ctx context.Context, opts options, stdout, stderr io.Writer) (err error) {
	server, err := postgres.Open(opts.db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	results := []result{{locked: false}, {locked: true}}
	for range opts.rounds {
		for i := range results {
			if ctx.Err() != nil {
				break
			}
			if err := measure(ctx, server.URL, &results[i], opts, stderr); err != nil {
				return err
			}
		}
	}
	return show(stdout, results, opts.svg)
}
