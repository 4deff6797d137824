package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
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

// operatorChecks are the promises of cohort.Inspector, of cohort.HeldError and of cohort.Operator, which pass with an
// engine that is none, and of a Manager that acquires many keys.
var operatorChecks = []check{
	{
		name: "many keys", engines: 2,
		promise: "two managers that acquire the same keys in opposite orders both get them, and each key's tokens grow",
		do: func(b *bench) error {
			keys := []string{b.key + "/a", b.key + "/b", b.key + "/c"}
			outcomes := make(chan error, 2)
			var last [3]atomic.Pointer[cohort.Token]
			for i, e := range b.engines {
				m := cohort.Start(b.ctx, e, cohort.WithMaxHandoffs(0))
				mine := slices.Clone(keys)
				if i == 1 {
					slices.Reverse(mine)
				}
				go func() {
					ctx, cancel := context.WithTimeout(b.ctx, b.Within)
					defer cancel()
					outcomes <- errors.Join(takeTurns(ctx, m, mine, keys, &last), m.Close())
				}()
			}
			return errors.Join(<-outcomes, <-outcomes)
		},
	},
	{
		name: "shown", engines: 2,
		promise: "Inspect, List and a failed try show the same holder, and who waits behind it",
		do: func(b *bench) error {
			g, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			theirs := b.wait(b.engines[1], b.key)
			err = errors.Join(b.waits(theirs), b.shown(g), b.listed(g), b.named(g), b.release(g))
			if err != nil {
				return err
			}
			if g, err = b.granted(theirs); err != nil {
				return err
			}
			if err := b.release(g); err != nil {
				return err
			}
			if e, ok := b.engines[0].(cohort.Inspector); ok {
				queue, err := e.Inspect(b.ctx, b.key)
				if err != nil || len(queue) > 0 {
					return fmt.Errorf("Inspect of a free key returned (%v, %v)", queue, err)
				}
			}
			return b.listed(nil)
		},
	},
	{
		name: "broken", engines: 3,
		promise: "Break takes a key from the holder that it is told, and from no later one; the next has a greater epoch, and the holder learns of it",
		do: func(b *bench) error {
			operator, ok := b.engines[2].(cohort.Operator)
			if !ok {
				return nil
			}
			stuck, err := b.acquire(b.engines[0], b.key)
			if err != nil {
				return err
			}
			other, err := b.acquire(b.engines[0], b.key+" of the same process")
			if err != nil {
				return err
			}
			next := b.wait(b.engines[1], b.key)
			if err := b.waits(next); err != nil {
				return err
			}
			if done, err := operator.Break(b.ctx, b.key, stuck.Epoch()+1); err != nil || done {
				return fmt.Errorf("Break with an epoch that no grant has returned (%v, %v)", done, err)
			}
			if err := b.waits(next); err != nil {
				return err
			}
			if done, err := operator.Break(b.ctx, b.key, stuck.Epoch()); err != nil || !done {
				return fmt.Errorf("Break returned (%v, %v)", done, err)
			}
			g, err := b.granted(next)
			if err != nil {
				return err
			}
			if g.Epoch() <= stuck.Epoch() {
				return fmt.Errorf("epoch %d after epoch %d, which was broken", g.Epoch(), stuck.Epoch())
			}
			if done, err := operator.Break(b.ctx, b.key, stuck.Epoch()); err != nil || done {
				return fmt.Errorf("Break of a grant that was broken before returned (%v, %v)", done, err)
			}
			if err := b.lost(stuck); err != nil {
				return fmt.Errorf("the holder whose lock was broken: %w", err)
			}
			if err := stuck.Release(b.ctx); !errors.Is(err, cohort.ErrLost) {
				return fmt.Errorf("Release of a lock that was broken returned %w, not ErrLost", err)
			}
			return errors.Join(b.holds(b.engines[0], b.key), b.release(other), b.release(g))
		},
	},
}

// shown returns an error unless Inspect shows that the first engine has the grant, and that another contender waits.
func (b *bench) shown(g cohort.Grant) error {
	for i, e := range b.engines {
		e, ok := e.(cohort.Inspector)
		if !ok {
			continue
		}
		var queue []cohort.Contender
		for began := time.Now(); len(queue) < 2 && time.Since(began) < b.Within; time.Sleep(time.Millisecond) { // the other may not have joined yet
			var err error
			if queue, err = e.Inspect(b.ctx, b.key); err != nil {
				return fmt.Errorf("Inspect: %w", err)
			}
		}
		if len(queue) != 2 || queue[0].Epoch != g.Epoch() || queue[0].Own != (i == 0) || queue[1].Own != (i == 1) {
			return fmt.Errorf("Inspect returned %v for the grant with epoch %d and one that waits, to engine %d", queue, g.Epoch(), i)
		}
		if queue[0].Process == (cohort.Process{}) || queue[1].Process == (cohort.Process{}) {
			return fmt.Errorf("Inspect does not know which processes they are: %v", queue)
		}
	}
	return nil
}

// listed returns an error unless List has the key with the grant, or has it not if that is nil.
func (b *bench) listed(g cohort.Grant) error {
	e, ok := b.engines[len(b.engines)-1].(cohort.Operator)
	if !ok {
		return nil
	}
	var found []cohort.Contender
	err := e.List(b.ctx, func(key string, first cohort.Contender) bool {
		if key == b.key {
			found = append(found, first)
		}
		return true
	})
	switch {
	case err != nil:
		return fmt.Errorf("List: %w", err)
	case g == nil && len(found) == 0, g != nil && len(found) == 1 && found[0].Epoch == g.Epoch():
		return nil
	case g == nil:
		return fmt.Errorf("List has a free key, with %v", found)
	default:
		return fmt.Errorf("List has %v for the grant with epoch %d", found, g.Epoch())
	}
}

// named returns an error if a try that fails names another holder than the one with the grant, or describes it
// differently from Inspect.
func (b *bench) named(g cohort.Grant) error {
	got, err := b.engines[1].TryAcquire(b.ctx, b.key)
	if err == nil {
		return errors.Join(errors.New("TryAcquire got a key that is held"), b.release(got))
	}
	var held *cohort.HeldError
	if !errors.As(err, &held) {
		return nil
	}
	if held.Key != b.key || held.Holder.Epoch != g.Epoch() || held.Holder.Own {
		return fmt.Errorf("the failed try says %+v of the grant with epoch %d", held, g.Epoch())
	}
	if e, ok := b.engines[1].(cohort.Inspector); ok {
		queue, err := e.Inspect(b.ctx, b.key)
		if err != nil || len(queue) == 0 || held.Holder.Process != queue[0].Process || !held.Holder.Since.Equal(queue[0].Since) {
			return fmt.Errorf("the failed try says that %+v holds the key, and Inspect returned (%+v, %v)", held.Holder, queue, err)
		}
	}
	return nil
}

// takeTurns acquires the keys some times.
func takeTurns(ctx context.Context, m *cohort.Manager, mine, keys []string, last *[3]atomic.Pointer[cohort.Token]) error {
	for range 5 {
		held, err := m.AcquireAll(ctx, mine...)
		if err != nil {
			return fmt.Errorf("AcquireAll: %w", err)
		}
		for i, key := range keys {
			token := held.Token(key)
			if before := last[i].Swap(&token); before != nil && token.Compare(*before) <= 0 {
				return errors.Join(fmt.Errorf("token %v of %q after %v", token, key, *before), held.Release())
			}
		}
		if err := held.Release(); err != nil {
			return fmt.Errorf("release of all keys: %w", err)
		}
	}
	return nil
}
