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
	"syscall"

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
