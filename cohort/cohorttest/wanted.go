package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// wantedChecks are the promises of cohort.Recaller. They pass with an engine whose grants are none.
var wantedChecks = []check{
	{
		name: "wanted by a waiter", engines: 2,
		promise: "a grant counts as wanted when another process waits for the key, and not always",
		do: func(b *bench) error {
			return b.wantedBy(func() (cleanUp func() error, err error) {
				theirs := b.wait(b.engines[1], b.key)
				return func() error {
					theirs.cancel()
					return b.fails(theirs, context.Canceled)
				}, nil
			})
		},
	},
	{
		name: "wanted by a try", engines: 2,
		promise: "a grant counts as wanted when a TryAcquire of another process was refused",
		do: func(b *bench) error {
			return b.wantedBy(func() (cleanUp func() error, err error) {
				return func() error { return nil }, b.holds(b.engines[1], b.key)
			})
		},
	},
	{
		name: "wanted before the grant", engines: 3,
		promise: "a grant counts as wanted when another process has come to wait before it",
		do: func(b *bench) error {
			first, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			second := b.wait(b.engines[1], b.key)
			if err := b.waits(second); err != nil {
				return err
			}
			third := b.wait(b.engines[2], b.key)
			if err := errors.Join(b.waits(third), b.release(first)); err != nil {
				return err
			}
			g, last, err := b.grantedFirst(second, third)
			if err != nil {
				return err
			}
			wanted, can := watch(g)
			if can {
				if err := b.hears(wanted); err != nil {
					return err
				}
			}
			if err := b.release(g); err != nil {
				return err
			}
			if g, err = b.granted(last); err != nil {
				return err
			}
			return b.release(g)
		},
	},
	{
		name: "wanted when lost", engines: 1,
		needs:   func(h Harness) bool { return h.Revoke != nil },
		promise: "a grant counts as wanted when it is lost",
		do: func(b *bench) error {
			g, wanted, err := b.unwanted()
			if err != nil || wanted == nil {
				return err
			}
			if err := b.Revoke(b.engines[0]); err != nil {
				return err
			}
			if err := errors.Join(b.hears(wanted), b.lost(g)); err != nil {
				return err
			}
			if err := g.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release returned %v, not ErrLost", err)
			}
			return nil
		},
	},
}

// grantedFirst returns the grant of the first of two in the queue, and the other. On a machine that is busy, which of them
// comes first does not follow from which was started first.
func (b *bench) grantedFirst(one, two *waiter) (g cohort.Grant, other *waiter, err error) {
	select {
	case o := <-one.outcome:
		return o.grant, two, o.err
	case o := <-two.outcome:
		return o.grant, one, o.err
	case <-time.After(b.Within):
		return nil, nil, errors.New("none of two waiters was granted the key that had become free")
	}
}

// wantedBy checks that the first engine learns of another process that comes.
func (b *bench) wantedBy(comes func() (cleanUp func() error, err error)) error {
	g, wanted, err := b.unwanted()
	if err != nil || wanted == nil {
		return err
	}
	cleanUp, err := comes()
	if err != nil {
		return err
	}
	if err := errors.Join(b.hears(wanted), cleanUp()); err != nil {
		return err
	}
	if b.reported(wanted) {
		return errors.New("it was reported twice")
	}
	return b.release(g)
}

// reported reports whether a key is reported to be wanted before the time that shows that nothing happens is over. It
// looks once more at the end: on a busy machine both may have come before it looks at all.
func (b *bench) reported(wanted <-chan struct{}) bool {
	select {
	case <-wanted:
		return true
	case <-time.After(b.Quiet):
		return len(wanted) > 0
	}
}

// unwanted acquires the key until it is not wanted, and returns what receives when it is; nil
// if the engine cannot tell.
func (b *bench) unwanted() (cohort.Grant, <-chan struct{}, error) {
	for began := time.Now(); time.Since(began) < b.Within; {
		g, err := b.acquire(b.engines[0], b.key)
		if err != nil {
			return nil, nil, err
		}
		wanted, can := watch(g)
		if !can {
			return nil, nil, b.release(g)
		}
		if !b.reported(wanted) {
			return g, wanted, nil
		}
		if err := b.release(g); err != nil { // wanted without a reason, as by an engine that has only begun to listen
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("a key counts as wanted again and again, but no other process wants it")
}

// watch returns what receives whenever the grant is reported to be wanted, and false if the engine cannot tell.
func watch(g cohort.Grant) (<-chan struct{}, bool) {
	r, can := g.(cohort.Recaller)
	if !can {
		return nil, false
	}
	wanted := make(chan struct{}, 2)
	r.OnWanted(func() { wanted <- struct{}{} })
	return wanted, true
}

func (b *bench) hears(wanted <-chan struct{}) error {
	select {
	case <-wanted:
		return nil
	case <-time.After(b.Within):
		return errors.New("the holder does not learn that its key is wanted")
	}
}

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
