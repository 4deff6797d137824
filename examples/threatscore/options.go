package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// Values of -db that are not a URL.
const (
	badger          = "badger"
	privatePostgres = "postgres"
)

// options are the arguments of the command line.
type options struct {
	logs      []string // files to read; "-" is standard input; none: a log is made up
	events    int      // how many events the made-up log has
	db        string   // badger, privatePostgres or a postgres:// URL
	runs      []run    // in this order
	workers   int
	threshold int64
	svg       string // file for the plot; empty: none
}

// parseOptions reads the command line. What is wrong with it is written to stderr.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	opts := options{db: badger}
	modes, transactions := []bool{false, true}, store.Transactions
	flags := flag.NewFlagSet("threatscore", flag.ContinueOnError)
	flags.SetOutput(stderr)
	report.Usage(flags, "Threatscore raises a score per source address for every failed login in sshd's logs, in a\n"+
		"database, by many workers at once: without and with a lock per address. It shows how many\n"+
		"transactions conflict, how long each event takes, and proves every score.")
	flags.Func("log", "read sshd's log from `FILE`, or from standard input if it is -; may be repeated", func(file string) error {
		opts.logs = append(opts.logs, file)
		return nil
	})
	flags.Func("lock", "run with the lock `on`, off or both (default both)", func(mode string) (err error) {
		modes, err = parseModes(mode)
		return err
	})
	flags.Func("db", "keep the scores in `badger`, in postgres (at DATABASE_URL, or else a private server), or at a postgres:// URL (default badger)", func(db string) error {
		opts.db = db
		return checkDB(db)
	})
	kinds := false
	flags.Func("tx", "with PostgreSQL, do transactions of one `KIND`: serializable, repeatable-read, for-update, upsert; or all (default all)", func(kind string) (err error) {
		kinds = true
		transactions, err = parseTransactions(kind)
		return err
	})
	opts.workers = 64
	flags.Var(atLeast[int]{&opts.workers, 1}, "workers", "handle `N` events at once")
	opts.threshold = 100
	flags.Var(atLeast[int64]{&opts.threshold, 0}, "threshold", "block an address whose score is over `N`")
	opts.events = 6000
	flags.Var(atLeast[int]{&opts.events, 1}, "events", "without -log, make up a log with `N` events")
	flags.StringVar(&opts.svg, "svg", "", "write a plot of latencies and retries to `FILE`")

	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q; files are given with -log", flags.Arg(0))
	case kinds && opts.db == badger:
		err = errors.New("-tx is for PostgreSQL; choose it with -db")
	default:
		err = report.Writable(opts.svg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return options{}, err
	}
	if opts.db == badger {
		transactions = []store.Transaction{""}
	}
	for _, transaction := range transactions {
		for _, locked := range modes {
			opts.runs = append(opts.runs, run{transaction, locked})
		}
	}
	return opts, nil
}

func checkDB(db string) error {
	if db == badger || db == privatePostgres || strings.HasPrefix(db, "postgres://") || strings.HasPrefix(db, "postgresql://") {
		return nil
	}
	return errors.New("want badger, postgres or a postgres:// URL")
}

func parseTransactions(kind string) ([]store.Transaction, error) {
	if kind == "all" {
		return store.Transactions, nil
	}
	if slices.Contains(store.Transactions, store.Transaction(kind)) {
		return []store.Transaction{store.Transaction(kind)}, nil
	}
	return nil, fmt.Errorf("want all or one of %q", store.Transactions)
}

func parseModes(mode string) ([]bool, error) {
	switch mode {
	case "on":
		return []bool{true}, nil
	case "off":
		return []bool{false}, nil
	case "both":
		return []bool{false, true}, nil
	}
	return nil, errors.New("want on, off or both")
}

// atLeast is a flag whose value is a whole number not below low.
type atLeast[N int | int64] struct {
	value *N
	low   N
}

func (f atLeast[N]) String() string {
	if f.value == nil { // as the flag package makes one to compare with the default
		return ""
	}
	return strconv.FormatInt(int64(*f.value), 10)
}

func (f atLeast[N]) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, strconv.IntSize)
	if err != nil || n < int64(f.low) {
		return fmt.Errorf("want a whole number of at least %d", f.low)
	}
	*f.value = N(n)
	return nil
}
