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
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
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
rounds:
	for range opts.rounds {
		for i := range results {
			if ctx.Err() != nil {
				break rounds
			}
			if err := measure(ctx, server.URL, &results[i], opts, stderr); err != nil {
				return err
			}
		}
	}
	return show(stdout, results, opts.svg)
}

// options are the arguments of the command line.
type options struct {
	db     string        // URL; empty: DATABASE_URL, or else a private server
	rounds int           // of a run without and one with the lock
	time   time.Duration // of each run
	hot    int           // goroutines on the hot row
	cold   int           // goroutines on cold rows
	pool   int           // connections
	work   time.Duration // that a transaction on the hot row does while it has it
	svg    string        // file for the plot; empty: none
}

// parseOptions reads the command line. What is wrong with it is written to stderr.
func parseOptions(args []string, stderr io.Writer) (opts options, err error) {
	flags := flag.NewFlagSet("coldrows", flag.ContinueOnError)
	flags.SetOutput(stderr)
	report.Usage(flags, "Coldrows shows what waiters for one hot row in PostgreSQL do to queries of other rows through the\n"+
		"connection pool, without and with a lock per row that is taken before the connection.")
	flags.StringVar(&opts.db, "db", "", "use the PostgreSQL server at `URL` (default DATABASE_URL, or else a private server)")
	flags.IntVar(&opts.rounds, "rounds", 5, "run so often without and with the lock, in turns")
	flags.DurationVar(&opts.time, "time", 2*time.Second, "how long each run takes")
	flags.IntVar(&opts.hot, "hot", 64, "goroutines on the hot row")
	flags.IntVar(&opts.cold, "cold", 8, "goroutines on cold rows")
	flags.IntVar(&opts.pool, "pool", 8, "connections in the pool")
	flags.DurationVar(&opts.work, "work", 2*time.Millisecond, "how long a transaction on the hot row works while it has that row")
	flags.StringVar(&opts.svg, "svg", "", "write a plot to `FILE`")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}

	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.rounds < 1 || opts.time <= 0 || opts.hot < 1 || opts.cold < 1 || opts.pool < 1 || opts.work < 0:
		err = errors.New("-rounds, -time, -hot, -cold and -pool must be positive, -work must not be negative")
	case opts.pool > math.MaxInt32:
		err = fmt.Errorf("-pool must be at most %d", math.MaxInt32)
	default:
		err = report.Writable(opts.svg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
	}
	return opts, err
}
