// Command threatscore raises a severity score per source address for every authentication event
// in sshd's logs, and blocks an address, once, when its score goes over a threshold.
//
// Many workers do this at once, each event in a transaction that reads, modifies and writes the
// record of its address in a database. When events of one address meet, the database gives up all
// their transactions but one, to be tried again. With a lock per address, taken before the
// transaction and held until it is through, they queue instead. Threatscore runs the same
// events without and with the lock, prints what that did to transactions and latencies, and proves
// every score against a sequential pass.
//
// Usage:
//
//	threatscore [-db badger|postgres|URL] [-tx KIND] [-log FILE]... [-lock on|off|both] [-workers N]
//		[-threshold N] [-events N] [-svg FILE]
//
// The database is Badger, embedded, on disk in a temporary folder, every commit synced. With -db
// postgres it is the PostgreSQL server that DATABASE_URL names; if that is empty, a private one,
// started from the binaries of this machine in a temporary folder. Or -db is the postgres:// URL.
// There, threatscore works in schemas of its own, which it drops, over a connection for each worker,
// and -tx picks the kind of transaction: serializable, repeatable-read, for-update, upsert, or all
// of them. The last two make the database itself let one wait for the other, so that the lock has
// nothing to do.
//
// -log reads a real log, as syslog or the journal writes it, also compressed by gzip; - is standard
// input. Lines that are no event are counted by the reason, and a log of which no line can be read,
// or none is sshd's, is an error. Without -log, threatscore makes a log up, the same in every run,
// with -events events. -svg writes a plot of
// latencies and retries.
//
// Once the log is read, an interrupt (Ctrl-C) or SIGTERM stops the workers after the transactions
// that they are in and says how far they got; what is in the database then is proved, too. A
// second one kills.
//
// The exit status is 0 if all scores are right, 1 if some differ (standard error names the
// addresses) or anything else fails, 2 for wrong arguments, and 130 if it was interrupted and the
// scores so far are right.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	t := threatscore{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, openBadger: store.OpenBadger}
	os.Exit(t.main(context.Background(), os.Args[1:]))
}

// threatscore is the program with what it touches of the world.
type threatscore struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	openBadger     func(dir string) (store.Store, error)
}

// main runs the program with its arguments until it is done, interrupted, or ctx ends, and
// returns the exit status.
func (t threatscore) main(ctx context.Context, args []string) int {
	opts, err := parseOptions(args, t.stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // parseOptions has said why
	}

	err = t.run(ctx, opts)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(t.stderr, "threatscore:", err)
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	return exitFailed
}

func (t threatscore) run(ctx context.Context, opts options) (err error) {
	log, err := t.readLogs(opts)
	if err != nil {
		return err
	}
	showLog(t.stdout, log)

	// From here on there is something to stop cleanly. After the first interrupt the next one
	// is the system's again, and kills.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	db, err := t.database(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()

	var results []result
	for _, run := range opts.runs {
		if ctx.Err() != nil {
			break
		}
		result, err := t.score(ctx, db, log.Events, run, opts)
		if err != nil {
			return err
		}
		results = append(results, result)
	}

	if err := t.show(log.Events, results, opts); err != nil {
		return err
	}
	var wrong error
	for _, result := range results {
		wrong = errors.Join(wrong, verify(log.Events, result, opts.threshold))
	}
	if wrong != nil {
		return wrong
	}
	fmt.Fprintln(t.stdout, "Every score equals that of a sequential pass, and every address over the threshold was blocked once.")
	fmt.Fprint(t.stdout, conclusion(results))
	return interruption(log.Events, results, opts)
}

// errInterrupted says that the program was told to stop, and that all it did until then is right.
var errInterrupted = errors.New("interrupted")

// interruption returns errInterrupted, with how far the last run got, unless every run that was
// asked for handled every event.
func interruption(events []sshlog.Event, results []result, opts options) error {
	if len(results) == 0 {
		return fmt.Errorf("%w before the first event", errInterrupted)
	}
	last := results[len(results)-1]
	if len(results) == len(opts.runs) && last.committed() == len(events) {
		return nil
	}
	return fmt.Errorf("%w after %d of %d events of the run %s; each of them is in the database whole",
		errInterrupted, last.committed(), len(events), last.run)
}

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

// database gives every run an empty store.
type database struct {
	open  func(context.Context, run) (store.Store, error)
	close func() error
}

// database returns the one that was asked for.
func (t threatscore) database(opts options) (database, error) {
	if opts.db == badger {
		return database{t.openTemporary, func() error { return nil }}, nil
	}
	url := opts.db
	if url == privatePostgres {
		url = ""
	}
	server, err := postgres.Open(url)
	if err != nil {
		return database{}, err
	}
	open := func(ctx context.Context, r run) (store.Store, error) {
		return store.OpenPostgres(ctx, server.URL, opts.workers, r.transaction)
	}
	return database{open, server.Close}, nil
}

// openTemporary opens a Badger database that is removed when it is closed.
func (t threatscore) openTemporary(context.Context, run) (store.Store, error) {
	dir, err := os.MkdirTemp("", "threatscore-")
	if err != nil {
		return nil, err
	}
	s, err := t.openBadger(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return temporary{s, dir}, nil
}

// temporary is a store with its folder.
type temporary struct {
	store.Store
	dir string
}

func (s temporary) Close() error { return errors.Join(s.Store.Close(), os.RemoveAll(s.dir)) }

// run is one pass of the workers over all events.
type run struct {
	transaction store.Transaction // empty where the database has but one kind
	locked      bool
}

// String names the run for people.
func (r run) String() string {
	if r.transaction == "" {
		return lockName(r.locked)
	}
	return string(r.transaction) + ", " + lockName(r.locked)
}

func lockName(locked bool) string {
	if locked {
		return "with the lock"
	}
	return "without the lock"
}
