// Package lockctl is what the commands etcdlocks, redislocks and pglocks have in common: they list the locks at an
// engine, and take one away from a process that hangs.
//
//	redislocks list            every key that is held or waited for, with its holder
//	redislocks show KEY        who holds the key and who waits for it
//	redislocks break KEY EPOCH takes the key from the holder with that epoch
//
// The holder whose lock is broken may go on to write until it learns of it, with a token that is smaller than
// that of the next holder: see [cohort.Operator]. That is as safe as the resource's look at tokens.
package lockctl

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// ErrUsage is in the error for arguments that are not understood.
var ErrUsage = errors.New("usage: " + usage)

const usage = "list | show KEY | break KEY EPOCH"

// most is how many keys list shows.
const most = 10_000

// A Command is a program that calls [Run] with an engine of its own.
type Command struct {
	Name string

	// Flags defines the flags that say where the engine is. What it returns connects to it, once they are parsed,
	// and is called with a context that ends after -timeout.
	Flags func(*flag.FlagSet) Connect
}

// Connect returns an engine, and what ends the connection to it.
type Connect func(context.Context) (engine cohort.Operator, end func(), err error)

// Main runs the command with the arguments of the process, and exits.
func (c Command) Main() { os.Exit(c.Run(os.Stdout, os.Stderr, os.Args[1:]...)) }

// Run runs the command with these arguments. It writes what it finds to out, its usage when it is asked for it by
// -h, too, and errors to log. It returns the code to exit with: 0 if all went well, 2 if the arguments are not
// understood, and 1 for any other error.
func (c Command) Run(out, log io.Writer, args ...string) (code int) {
	err := c.run(out, args)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrUsage):
		_, _ = fmt.Fprintf(log, "%s: %v\n%[1]s -h shows the flags\n", c.Name, err)
		return 2
	}
	_, _ = fmt.Fprintf(log, "%s: %v\n", c.Name, err)
	return 1
}

func (c Command) run(out io.Writer, args []string) error {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Run reports the error
	connect := c.Flags(flags)
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for the engine")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(out)
		_, err = fmt.Fprintf(out, "usage: %s [flags] %s\n", c.Name, usage)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w; %w", err, ErrUsage)
	case *timeout <= 0:
		return fmt.Errorf("-timeout %v: want more than 0; %w", *timeout, ErrUsage)
	}
	do, err := parse(flags.Args())
	if err != nil {
		return err // without a look at the engine
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	engine, end, err := connect(ctx)
	if err != nil {
		return err
	}
	defer end()
	return do(ctx, engine, out)
}

// Run carries out the command that args are, and writes what it finds to out. It returns an error that is [ErrUsage]
// for other arguments, one that says what happened if break found no grant with that epoch, and else the engine's.
// A key that has spaces, quotes or control characters is written, and may be given, as Go quotes it.
func Run(ctx context.Context, engine cohort.Operator, out io.Writer, args ...string) error {
	do, err := parse(args)
	if err != nil {
		return err
	}
	return do(ctx, engine, out)
}

// parse returns what args ask for.
func parse(args []string) (do func(context.Context, cohort.Operator, io.Writer) error, err error) {
	var words [3]string
	copy(words[:], args)
	command, key, epoch := words[0], words[1], words[2]
	if strings.HasPrefix(key, `"`) {
		unquoted, err := strconv.Unquote(key)
		if err != nil {
			return nil, fmt.Errorf("the key %s: %w; %w", key, err, ErrUsage)
		}
		key = unquoted
	}
	switch {
	case command == "list" && len(args) == 1:
		return list, nil
	case command == "show" && len(args) == 2:
		return func(ctx context.Context, engine cohort.Operator, out io.Writer) error {
			return showQueue(ctx, engine, out, key)
		}, nil
	case command == "break" && len(args) == 3:
		number, err := strconv.ParseUint(epoch, 10, 64)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("the epoch %q is no number that list shows: %w", epoch, ErrUsage)
		}
		return func(ctx context.Context, engine cohort.Operator, out io.Writer) error {
			return breakLock(ctx, engine, out, key, number)
		}, nil
	default:
		return nil, ErrUsage
	}
}

func list(ctx context.Context, engine cohort.Operator, out io.Writer) error {
	type line struct {
		key   string
		first cohort.Contender
	}
	var lines []line
	more := false
	err := engine.List(ctx, func(key string, first cohort.Contender) bool {
		more = len(lines) == most
		if !more {
			lines = append(lines, line{key, first})
		}
		return !more
	})
	if err != nil {
		return err
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.key, b.key) })
	table := newTable(out, "KEY", "EPOCH", "SINCE", "PROCESS")
	for _, l := range lines {
		table.row(text(l.key), number(l.first.Epoch), since(l.first.Since), process(l.first.Process))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more {
		_, err = fmt.Fprintf(out, "and more than these %d\n", most)
	}
	return err
}

func showQueue(ctx context.Context, engine cohort.Operator, out io.Writer, key string) error {
	queue, err := engine.Inspect(ctx, key)
	if err != nil {
		return err
	}
	if len(queue) == 0 {
		_, err := fmt.Fprintf(out, "%s is free\n", text(key))
		return err
	}
	table := newTable(out, "", "EPOCH", "SINCE", "PROCESS")
	for i, c := range queue {
		role := "waits"
		if i == 0 && c.Epoch > 0 { // the first of a queue waits, too, where nothing is granted yet
			role = "holds"
		}
		table.row(role, number(c.Epoch), since(c.Since), process(c.Process))
	}
	return table.Flush()
}

func breakLock(ctx context.Context, engine cohort.Operator, out io.Writer, key string, epoch uint64) error {
	done, err := engine.Break(ctx, key, epoch)
	if err != nil {
		return err
	}
	if !done {
		return fmt.Errorf("%s is not held with epoch %d any more; nothing was changed", text(key), epoch)
	}
	_, err = fmt.Fprintf(out, "%s was held with epoch %d, and is not any more; its holder learns of it at its next renewal\n", text(key), epoch)
	return err
}

// table aligns columns.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(header...)
	return t
}

func (t table) row(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }

// text returns a key as it can be given again, and shows nothing invisible.
func text(key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r == '"' || r == '\'' || r == '\\' || r <= ' ' || r >= 127
	})
	if plain {
		return key
	}
	return strconv.QuoteToASCII(key)
}

func number(epoch uint64) string {
	if epoch == 0 {
		return "-"
	}
	return strconv.FormatUint(epoch, 10)
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func process(p cohort.Process) string {
	name := p.String()
	if name == "" {
		return "unknown"
	}
	return show.Bare(&name)
}
