package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

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
	default:
		err = report.Writable(opts.svg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
	}
	return opts, err
}
