// Command manyprocesses shows one key shared by several operating-system processes. It
// starts a server of its own, in a temporary folder, and three
// workers, processes that increment one counter in that server under the key "counter". Meanwhile one
// worker is killed and started again, and one is paused for longer than its lease, in the
// middle of an increment. Manyprocesses prints who held the key when, with which tokens, what
// became of the late write, and whether the counter is right. It needs Unix, and about 150 MB in the temporary folder.
//
// Usage:
//
//	manyprocesses [-engine NAME] [-for DURATION]
//
// -engine is the lock service: etcd, which is part of this program and the default; redis, for which
// redis-server must be installed; or postgres, for which PostgreSQL must be.
//
// -for is how long the workers work, 8 s by default and at least 6 s. On a busy machine a short time may not have room for a
// pause that outlasts the lease: then no late write is refused.
//
// The exit status is 0 if no increment was lost or doubled and the tokens grew, 130 if it was interrupted,
// 2 for wrong arguments, else 1. Whatever ends it, no process stays.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// The processes are this program; a variable says what each is.
const (
	serverVariable = "MANYPROCESSES_SERVER" // the engine and a folder; set in the server
	workerVariable = "MANYPROCESSES_WORKER" // the engine and the endpoint; set in the workers
)

// shortest is how long the workers have to work, so that the pause is longer than a lease.
const shortest = 3 * leaseTTL

func main() {
	signal.Ignore(syscall.SIGPIPE) // a failed write is an error like others
	if run, ok := role(); ok {
		exit(run())
	}
	flags := flag.NewFlagSet("manyprocesses", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Manyprocesses shows one key shared by several processes, of which one is killed and one is paused.\nUsage: manyprocesses [-engine NAME] [-for DURATION]")
		flags.PrintDefaults()
	}
	duration := flags.Duration("for", 8*time.Second, fmt.Sprint("how long the workers work, at least ", shortest))
	engine := flags.String("engine", "etcd", "the lock service: "+engines())
	_ = flags.Parse(os.Args[1:])
	switch {
	case services[*engine].serve == nil:
		fmt.Fprintf(os.Stderr, "manyprocesses: -engine %s is unknown: want one of %s\n", *engine, engines())
		os.Exit(2)
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "manyprocesses: unexpected argument %q\n", flags.Arg(0))
		os.Exit(2)
	case *duration < shortest:
		fmt.Fprintf(os.Stderr, "manyprocesses: -for %v is too short: want at least %v\n", *duration, shortest)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := show(ctx, *engine, *duration, os.Stdout)
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "manyprocesses: interrupted")
		os.Exit(130)
	}
	stop()
	exit(err)
}

// role returns what this process is to run, if it is not the one that a person has started.
func role() (run func() error, ok bool) {
	if engine, dir, ok := strings.Cut(os.Getenv(serverVariable), " "); ok {
		// Ctrl-C reaches every process of a terminal: the server ends after those that need it.
		signal.Ignore(os.Interrupt, syscall.SIGTERM)
		return func() error { return services[engine].serve(dir, os.Stdin, os.Stdout) }, true
	}
	if engine, endpoint, ok := strings.Cut(os.Getenv(workerVariable), " "); ok {
		return func() error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return work(ctx, engine, endpoint, os.Stdin, os.Stdout)
		}, true
	}
	return nil, false
}

// self prepares this program as another process.
func self(variable string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), variable)
	cmd.SysProcAttr = dieWithParent()
	return cmd, nil
}

func exit(err error) {
	switch {
	case err == nil:
		os.Exit(0)
	case errors.Is(err, syscall.EPIPE): // the reader of the output has seen enough
	default:
		fmt.Fprintln(os.Stderr, "manyprocesses:", err)
	}
	os.Exit(1)
}

// show runs the whole demonstration.
func show(ctx context.Context, engine string, duration time.Duration, out io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dir, err := os.MkdirTemp("", "manyprocesses")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	endpoint, serverFailed, stopServer, err := startServer(engine, dir)
	if err != nil {
		return err
	}
	defer stopServer()

	story := newStory(&output{out, cancel})
	s := &stage{engine: engine, endpoint: endpoint, story: story}
	defer s.killAll()
	for _, name := range []string{"A", "B", "C"} {
		if err := s.start(name); err != nil {
			return err
		}
	}
	acts := []struct {
		at  time.Duration // in percent of the whole
		act func() error
	}{
		{25, func() error { return s.kill("A") }},
		{40, func() error { return s.start("A") }},
		{50, func() error { return s.pause("B") }},
		{90, func() error { return s.resume("B") }},
		{100, s.stopAll},
	}
	began := time.Now()
	for _, a := range acts {
		select {
		case <-time.After(time.Until(began.Add(duration * a.at / 100))):
		case err := <-serverFailed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := a.act(); err != nil {
			return err
		}
	}
	at, err := services[engine].connect(endpoint)
	if err != nil {
		return err
	}
	defer at.close()
	if err := story.check(ctx, at); err != nil {
		return err
	}
	return context.Cause(ctx) // the last words may not have been heard
}

// output ends everything when it cannot be written to any more.
type output struct {
	to   io.Writer
	fail context.CancelCauseFunc
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		o.fail(err)
	}
	return n, err
}
