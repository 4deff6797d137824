// Command dashboard starts a busy lock manager with a culprit in it, and shows it: the page of
// package lockhttp at /debug/locks, metrics for Prometheus at /metrics, and the slow log on
// standard error. Open the page and find out who holds the others up.
//
// Usage:
//
//	dashboard [-addr HOST:PORT] [-for DURATION]
//
// It listens on a free port of loopback and prints the address. It runs until it is interrupted,
// or for as long as -for says. The exit status is 0, 1 when it cannot listen, and 2 for wrong
// arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/lockhttp"
	"github.com/seed-46f81e6d/keylock/prom"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the program until ctx ends, and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("dashboard", flag.ContinueOnError)
	flags.SetOutput(stderr)
	report.Usage(flags, "Dashboard starts a busy lock manager with a culprit in it, and serves the page that shows who holds\n"+
		"the others up, and metrics. It prints the addresses, and runs until it is interrupted.")
	addr := flags.String("addr", "127.0.0.1:0", "listen on `HOST:PORT`")
	limit := flags.Duration("for", 0, "end after `DURATION`; 0 is never")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // said by flags
		return 2
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *limit < 0:
		err = errors.New("-for must not be negative")
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return 2
	}
	ctx, cancel := context.WithCancel(ctx)
	if *limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, *limit)
	}
	defer cancel()

	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(stderr, "dashboard:", err)
		return 1
	}
	locks := keylock.Start[string](ctx,
		keylock.WithHoldTimes(),
		keylock.WithCallers(),
		keylock.WithSlowLog(slog.New(slog.NewTextHandler(stderr, nil)), 2*time.Second),
	)
	bank := openBank(ctx, locks)
	server := &http.Server{Handler: handler(locks), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })

	fmt.Fprintf(stdout, "Who holds the others up?  http://%s/debug/locks\n", listener.Addr())
	fmt.Fprintf(stdout, "Metrics for Prometheus:  http://%s/metrics\n", listener.Addr())
	err = server.Serve(listener)
	cancel() // also when serving has failed
	bank.Wait()
	<-locks.Done()
	if !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(stderr, "dashboard:", err)
		return 1
	}
	return 0
}

// handler serves the page and the metrics.
func handler(locks *keylock.Manager[string]) http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prom.NewCollector("accounts", locks))

	mux := http.NewServeMux()
	mux.Handle("/debug/locks", lockhttp.Handler(map[string]lockhttp.Manager{"accounts": lockhttp.Of(locks)}))
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("/{$}", http.RedirectHandler("/debug/locks", http.StatusFound))
	return mux
}
