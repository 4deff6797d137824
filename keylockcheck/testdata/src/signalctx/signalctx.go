package signalctx

import (
	"context"
	"os"
	"os/signal"
	"time"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func function() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := kl.Start[string](ctx) // want `the signal of line 14 closes the manager at once: the Shutdown on line 18 finds nothing left to drain`
	<-ctx.Done()
	m.Shutdown(context.Background())
}

type server struct{ locks *cohort.Manager }

func (s *server) method(engine cohort.Engine) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	s.locks = cohort.Start(inner, engine) // want `the signal of line 24`
}

func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.locks.Shutdown(ctx)
}

// What follows is right.

func detached() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := kl.Start[string](context.WithoutCancel(ctx))
	<-ctx.Done()
	m.Shutdown(context.Background())
}

// It stops at once, and means to.
func atOnce() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := kl.Start[string](ctx)
	defer m.Close()
}

func derive(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

func unknown() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := kl.Start[string](derive(ctx))
	m.Shutdown(ctx)
}

func parameter(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	m := kl.Start[string](ctx) // want `the signal of line \d+ closes the manager at once`
	<-ctx.Done()
	ctx = context.Background()
	return m.Shutdown(ctx)
}

func overwritten(ctx context.Context, x bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if x {
		ctx = context.WithoutCancel(ctx)
	}
	m := kl.Start[string](ctx)
	<-ctx.Done()
	return m.Shutdown(context.Background())
}

func sometimes(ctx context.Context, x bool) error {
	if x {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
	}
	m := kl.Start[string](ctx)
	<-ctx.Done()
	return m.Shutdown(context.Background())
}
