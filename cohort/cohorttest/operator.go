package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

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
