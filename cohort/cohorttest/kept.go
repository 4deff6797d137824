package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// managerChecks are what a Manager makes of an engine that can tell when a key is wanted, and of a cohort.Asker. They
// pass with an engine that is neither.
var managerChecks = []check{
	{
		name: "kept", engines: 2,
		promise: "a key that is kept comes back without the engine, until another process waits for it or was refused it",
		do: func(b *bench) error {
			g, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			_, tells := g.(cohort.Recaller)
			if err := b.release(g); err != nil || !tells {
				return err
			}
			ctx, cancel := context.WithTimeout(b.ctx, b.Within)
			defer cancel()
			ours := cohort.Start(b.ctx, b.engines[0], cohort.WithKeep(time.Hour, 8))
			theirs := cohort.Start(b.ctx, b.engines[1])
			return errors.Join(b.keptAndRecalled(ctx, ours, theirs), ours.Close(), theirs.Close())
		},
	},
	{
		name: "asked", engines: 2,
		promise: "Ask replies once, with what Acquire and TryAcquire would return, and as soon as they would",
		do: func(b *bench) error {
			asker, can := b.engines[0].(cohort.Asker)
			if !can {
				return nil
			}
			g, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			if err := b.release(g); err != nil {
				return err
			}
			mine, err := b.granted(b.ask(asker, true))
			if err != nil {
				return err
			}
			if got, want := reflect.TypeOf(mine), reflect.TypeOf(g); got != want {
				return errors.Join(fmt.Errorf("the grant is a %v, and that of Acquire a %v", got, want), b.release(mine))
			}
			if err := b.release(mine); err != nil {
				return err
			}
			if g, err = b.acquire(b.engines[1], b.key); err != nil {
				return err
			}
			if err := b.fails(b.ask(asker, true), cohort.ErrHeld); err != nil {
				return err
			}
			cancelled := b.ask(asker, false)
			if err := b.waits(cancelled); err != nil {
				return err
			}
			cancelled.cancel()
			waiter := b.ask(asker, false)
			if err := errors.Join(b.fails(cancelled, context.Canceled), b.waits(waiter), b.release(g)); err != nil {
				return err
			}
			if g, err = b.granted(waiter); err != nil {
				return err
			}
			return errors.Join(b.release(g), b.silent(cancelled), b.silent(waiter))
		},
	},
}

// ask is wait for Ask.
func (b *bench) ask(e cohort.Asker, try bool) *waiter {
	ctx, cancel := context.WithCancel(b.ctx)
	w := &waiter{cancel, make(chan outcome, 2)}
	e.Ask(ctx, b.key, try, func(g cohort.Grant, err error) { w.outcome <- outcome{g, err} })
	return w
}

// silent returns an error if there is another outcome.
func (b *bench) silent(w *waiter) error {
	select {
	case o := <-w.outcome:
		return fmt.Errorf("it replied again: (%v, %v)", o.grant, o.err)
	default:
		return nil
	}
}

// keptAndRecalled has a process keep the key, and another get it: by waiting, and by a try after one that was refused.
func (b *bench) keptAndRecalled(ctx context.Context, ours, theirs *cohort.Manager) error {
	var last cohort.Token
	use := func(acquire func(context.Context, string) (cohort.Lock, error)) error {
		l, err := acquire(ctx, b.key)
		if err != nil {
			return err
		}
		if err := l.Release(); err != nil {
			return err
		}
		if l.Token().Compare(last) <= 0 {
			return fmt.Errorf("token %v after token %v", l.Token(), last)
		}
		last = l.Token()
		return nil
	}
	for _, acquire := range []func(context.Context, string) (cohort.Lock, error){
		theirs.Acquire,
		func(ctx context.Context, key string) (l cohort.Lock, err error) {
			for l, err = theirs.TryAcquire(ctx, key); errors.Is(err, cohort.ErrHeld); l, err = theirs.TryAcquire(ctx, key) {
				time.Sleep(time.Millisecond)
			}
			return l, err
		},
	} {
		for epoch := uint64(0); epoch == 0 || last.Epoch != epoch; { // a key that is given back has another epoch the next time
			epoch = last.Epoch
			if err := use(ours.Acquire); err != nil {
				return fmt.Errorf("until it is kept: %w", err)
			}
		}
		if err := use(acquire); err != nil {
			return fmt.Errorf("another process wants the kept key: %w", err)
		}
	}
	stats, err := ours.Stats(ctx)
	if err == nil && stats.Recalls < 2 {
		err = fmt.Errorf("%d recalls of a key that was wanted twice", stats.Recalls)
	}
	return err
}
