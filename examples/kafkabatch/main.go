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
	"io"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
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

// settings are what the flags say.
type settings struct {
	brokers    []string // none: start a cluster in process
	topic      string
	group      string // the prefix of the groups' names, one for each mode
	records    int
	keys       int
	partitions int
	batchSize  int
	modes      []mode
	limit      int
	window     int
	work       time.Duration
	failEvery  int
	svg        string
	loads      int // rounds of them; 0: the topic, and no loads
}

// parse reads the flags. It writes help, and what is wrong with the flags, to w.
func parse(args []string, w io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("kafkabatch", flag.ContinueOnError)
	flags.SetOutput(w)
	report.Usage(flags, "Kafkabatch consumes a Kafka topic and handles its records in five ways: one by one, concurrently\n"+
		"without and with a lock, and in order per key in batches and as they come. It shows how often each\n"+
		"broke the order within a key, and how long each took.")
	brokers := flags.String("brokers", "", "comma-separated `addresses` of a cluster (default: one inside this process)")
	flags.StringVar(&s.topic, "topic", "kafkabatch", "`name` of the topic")
	flags.StringVar(&s.group, "group", "kafkabatch", "`prefix` of the consumer groups' names")
	flags.IntVar(&s.records, "records", 6000, "produce `n` records first; none when -brokers is given, unless this is too")
	flags.IntVar(&s.keys, "keys", 50, "`n` keys for the produced records")
	flags.IntVar(&s.partitions, "partitions", 2, "`n` partitions for a new topic")
	flags.IntVar(&s.batchSize, "batch", 500, "poll at most `n` records at once")
	name := flags.String("mode", "all", "the `way` to handle records: "+modeNames()+" or all")
	flags.IntVar(&s.limit, "limit", 1000, "streaming: handle at most `n` records at a time")
	flags.IntVar(&s.window, "window", 5000, "streaming: begin no record of a partition while `n` are not done")
	flags.DurationVar(&s.work, "work", 200*time.Microsecond, "how long the work of one record waits")
	flags.IntVar(&s.failEvery, "fail-every", 0, "fail at every `n`th call of the handler")
	flags.IntVar(&s.loads, "loads", 0, "instead, measure batches and streaming under many loads, in `n` rounds")
	flags.StringVar(&s.svg, "svg", "", "write a plot to this `file`")
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	if *brokers != "" {
		s.brokers = strings.Split(*brokers, ",")
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["brokers"] && !given["records"] {
		s.records = 0
	}
	for _, m := range modes {
		if *name == "all" || *name == m.suffix {
			s.modes = append(s.modes, m)
		}
	}
	err := s.check(flags.Args())
	if err == nil {
		err = report.Writable(s.svg)
	}
	if err == nil && len(s.modes) == 0 {
		err = fmt.Errorf("-mode %q: want %s or all", *name, modeNames())
	}
	if err != nil {
		fmt.Fprintln(w, "kafkabatch:", err)
	}
	return s, err
}

func (s settings) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case s.keys < 1, s.partitions < 1, s.batchSize < 1, s.limit < 1, s.window < 1:
		return errors.New("-keys, -partitions, -batch, -limit and -window must be at least 1")
	case s.partitions > math.MaxInt32:
		return fmt.Errorf("-partitions must be at most %d", math.MaxInt32)
	case s.records < 0, s.failEvery < 0, s.work < 0, s.loads < 0:
		return errors.New("-records, -fail-every, -work and -loads must not be negative")
	}
	return nil
}

// modeNames lists what -mode takes.
func modeNames() string {
	var names []string
	for _, m := range modes {
		names = append(names, m.suffix)
	}
	return strings.Join(names, ", ")
}
