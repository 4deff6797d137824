// Package cohorttest checks that an engine keeps what cohort.Engine promises,
// and offers an engine in memory whose faults a test can script.
//
// An engine's own tests call Run once:
//
//	func TestConformance(t *testing.T) {
//		cohorttest.Run(t, cohorttest.Harness{
//			Engine: func() (cohort.Engine, error) { return etcdlock.New(client) },
//		})
//	}
//
// Tests of code that uses a cohort.Manager need no lock service: they take
// engines from a Store. It works in the bubbles of testing/synctest.
package cohorttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// Harness connects the checks to an engine and to the store behind it.
type Harness struct {
	// Engine returns the engine of one more process; all work on one store.
	Engine func() (cohort.Engine, error)

	// Revoke makes the store drop whatever the engine holds there, behind its
	// back. The checks that need it are left out where it is nil.
	Revoke func(cohort.Engine) error

	// Cut makes the store unreachable for the engine, and Heal reachable again. A Network between
	// them can do both. The checks that need them are left out where they are nil.
	Cut, Heal func(cohort.Engine) error

	// Refuse makes the store refuse the engine's next request of the kind, once: with an error
	// that passes, such as a change of leadership, or for good, such as a permission that
	// is missing. For Wait it breaks the waits in progress, as a connection that is lost after the
	// store has forgotten what happened since they began, or a token that has expired: that always passes.
	// The checks that need it are left out where it is nil.
	Refuse func(e cohort.Engine, call Call, forGood bool) error

	// Delete drops every contender for the key from the store, as a person would who tidies up. The checks
	// that need it are left out where it is nil.
	Delete func(key string) error

	// Late makes the store carry out the engine's next request to enter a queue only after its sender has given it up,
	// and after everything that the sender does to take it back: as a server that was stopped does. The engine sees an
	// error meanwhile. The checks that need it are left out where it is nil.
	Late func(e cohort.Engine) error

	// Pause ends the engine's session at the store, as after a pause of its process: no timer of the engine has run
	// yet. The checks that need it are left out where it is nil.
	Pause func(e cohort.Engine) error

	// Within is how long the checks wait for what must happen: at least as long
	// as the engine may take to notice that its session was revoked, or to clear
	// away what it left. 20 s if it is 0.
	Within time.Duration

	// Quiet is how long the checks wait for what must not happen. 50 ms if it is 0.
	Quiet time.Duration
}

// Run runs every check as a subtest of t.
func Run(t *testing.T, h Harness) {
	for _, c := range allChecks() {
		if c.applies(h) {
			t.Run(c.name, func(t *testing.T) {
				if err := c.run(h); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Check runs every check and returns what failed, joined.
func Check(h Harness) error {
	var failed []error
	for _, c := range allChecks() {
		if c.applies(h) {
			failed = append(failed, c.run(h))
		}
	}
	return errors.Join(failed...)
}

// check is one promise of cohort.Engine.
type check struct {
	name    string
	promise string
	engines int // that take part
	needs   func(Harness) bool
	do      func(b *bench) error
}

func allChecks() []check { return slices.Concat(checks, wantedChecks, managerChecks, operatorChecks) }

func (c check) applies(h Harness) bool {
	return c.needs == nil || c.needs(h)
}

// run gives the check its engines, and closes them afterwards.
func (c check) run(h Harness) (err error) {
	if h.Within == 0 {
		h.Within = 20 * time.Second
	}
	if h.Quiet == 0 {
		h.Quiet = 50 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*h.Within)
	defer cancel()
	b := &bench{Harness: h, ctx: ctx, key: c.name + "/key"}
	defer func() {
		for _, e := range b.engines {
			if closeErr := b.close(e); closeErr != nil && err == nil {
				err = fmt.Errorf("%s: closing an engine afterwards: %w", c.name, closeErr)
			}
		}
	}()
	if h.Engine == nil {
		return fmt.Errorf("%s: the Harness has no Engine", c.name)
	}
	for range c.engines {
		e, err := h.Engine()
		if err != nil {
			return fmt.Errorf("%s: no engine: %w", c.name, err)
		}
		b.engines = append(b.engines, e)
	}
	if err := c.do(b); err != nil {
		return fmt.Errorf("%s: %w\n\tpromised: %s", c.name, err, c.promise)
	}
	return nil
}

// bench is what a check works at.
type bench struct {
	Harness
	ctx     context.Context // ends well after Within
	key     string          // of this check alone
	engines []cohort.Engine
}

func (b *bench) close(e cohort.Engine) error {
	ctx, cancel := context.WithTimeout(b.ctx, b.Within)
	defer cancel()
	return e.Close(ctx)
}

// acquire acquires the key, which must be granted within b.Within.
func (b *bench) acquire(e cohort.Engine, key string) (cohort.Grant, error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.Within)
	defer cancel()
	g, err := e.Acquire(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("acquire %q: %w", key, err)
	}
	if g == nil {
		return nil, fmt.Errorf("acquire %q: %w", key, errNeither)
	}
	if g.Epoch() == 0 {
		return nil, fmt.Errorf("the grant of %q has epoch 0", key)
	}
	return g, nil
}

var errNeither = errors.New("neither a grant nor an error was returned")

// release releases the grant, which must be confirmed within b.Within.
func (b *bench) release(g cohort.Grant) error {
	if g == nil {
		return errNeither
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.Within)
	defer cancel()
	if err := g.Release(ctx); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// holds returns an error unless the key is held, as e sees it.
func (b *bench) holds(e cohort.Engine, key string) error {
	ctx, cancel := context.WithTimeout(b.ctx, b.Within)
	defer cancel()
	g, err := e.TryAcquire(ctx, key)
	if err == nil {
		return errors.Join(fmt.Errorf("TryAcquire got %q, which is held", key), b.release(g))
	}
	if !errors.Is(err, cohort.ErrHeld) {
		return fmt.Errorf("TryAcquire of the held %q: %w, not ErrHeld", key, err)
	}
	return nil
}

// lost returns an error unless the grant reports its loss within b.Within.
func (b *bench) lost(g cohort.Grant) error {
	select {
	case <-g.Lost():
		return nil
	case <-time.After(b.Within):
		return errors.New("Lost is still open")
	}
}

// waiter is an Acquire in progress.
type waiter struct {
	cancel  context.CancelFunc
	outcome chan outcome // receives once
}

type outcome struct {
	grant cohort.Grant
	err   error
}

// wait starts an Acquire that goes on until it is granted or cancelled.
func (b *bench) wait(e cohort.Engine, key string) *waiter {
	ctx, cancel := context.WithCancel(b.ctx)
	w := &waiter{cancel, make(chan outcome, 1)}
	go func() {
		g, err := e.Acquire(ctx, key)
		w.outcome <- outcome{g, err}
	}()
	return w
}

// waits returns an error if the Acquire returns while it must not.
func (b *bench) waits(w *waiter) error {
	select {
	case o := <-w.outcome:
		return fmt.Errorf("an Acquire of the held key returned (%v, %v)", o.grant, o.err)
	case <-time.After(b.Quiet):
		return nil
	}
}

// granted returns the grant that the Acquire must get within b.Within.
func (b *bench) granted(w *waiter) (cohort.Grant, error) {
	select {
	case o := <-w.outcome:
		if o.grant == nil && o.err == nil {
			return nil, errNeither
		}
		return o.grant, o.err
	case <-time.After(b.Within):
		return nil, errors.New("a waiter was not granted the key that had become free")
	}
}

// fails returns an error unless the Acquire returns within b.Within with want.
func (b *bench) fails(w *waiter, want error) error {
	select {
	case o := <-w.outcome:
		if o.grant != nil || !errors.Is(o.err, want) {
			return fmt.Errorf("Acquire returned (%v, %v), not %v", o.grant, o.err, want)
		}
		return nil
	case <-time.After(b.Within):
		return fmt.Errorf("Acquire goes on, instead of returning %v", want)
	}
}
