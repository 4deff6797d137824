//go:build !race

package keylock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// These are what callers do. Each uses the manager rightly, so that it gives back
// whatever it gets, and each does one thing that is hard to get right.
var (
	acquires = program{
		name: "acquire", cancels: true,
		run: func(c *caller) { c.release(c.acquire(table.Request[int]{})) },
	}
	releasesTwice = program{
		name: "acquire, release twice",
		run: func(c *caller) {
			lock, _ := c.acquire(table.Request[int]{})
			c.Release(lock)
			c.Release(lock)
		},
	}
	tries = program{
		name: "try",
		run: func(c *caller) {
			if lock, ok := c.try(table.Request[int]{}); ok {
				c.Release(lock)
			}
		},
	}
	shares = program{
		name: "acquire shared", cancels: true,
		run: func(c *caller) { c.release(c.acquire(table.Request[int]{Mode: table.Shared})) },
	}
	acquiresOther = program{
		name: "acquire the other key", cancels: true,
		run: func(c *caller) { c.release(c.acquire(table.Request[int]{Key: 1})) },
	}
	acquiresAll = program{
		name: "acquire both keys", cancels: true,
		run: func(c *caller) { c.release(c.acquire(table.Request[int]{Keys: []int{1, 0, 1}})) },
	}
	reserves = program{
		name: "reserve, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			c.release(c.Wait())
			if _, again := c.Wait(); !errors.Is(again, ErrReservationDone) {
				panic(fmt.Sprintf("a second Wait returns %v", again))
			}
		},
		partner: func(c, of *caller) {
			c.step("gets the reservation", func() bool { return of.reserved })
			of.abandoned = true
			c.Cancel(of.reservation)
		},
	}
	reservesAgain = program{
		name: "reserve, cancel, reserve, cancel the first again, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			c.old = c.reservation
			c.Cancel(c.old)
			c.reserve(table.Request[int]{})
			c.Cancel(c.old)
			c.release(c.Wait())
		},
	}
	handsOff = program{
		name: "acquire, hand off",
		run: func(c *caller) {
			if lock, err := c.acquire(table.Request[int]{}); err == nil && !c.HandOff(lock, "baton") {
				c.Release(lock)
			}
		},
	}
	upwards   = program{name: "session from key 0 to key 1", cancels: true, run: inSession(0, 1)}
	downwards = program{name: "session from key 1 to key 0", run: inSession(1, 0)}
	again     = program{
		name: "session with a key twice, closed by another",
		run: func(c *caller) {
			c.session = &Session[int]{m: c.w.m, s: table.NewSession[int]("twice")}
			_, first := c.acquire(table.Request[int]{Session: c.session.s})
			_, second := c.acquire(table.Request[int]{Session: c.session.s})
			if first == nil && second == nil {
				panic("a session got one key twice")
			}
			c.CloseSession()
		},
		partner: func(c, of *caller) {
			c.step("gets the session", func() bool { return of.session != nil })
			c.session = of.session
			of.holds, of.robbed = nil, true
			c.CloseSession()
		},
	}
	waitsIdle = program{
		name: "wait for idle", cancels: true,
		run: func(c *caller) { c.returns(c.WaitIdle()) },
	}
	closes = program{
		name: "close", ends: true,
		run: func(c *caller) { c.Close() },
	}
	shutsDown = program{
		name: "shutdown", ends: true, cancels: true,
		run: func(c *caller) { c.returns(c.Shutdown()) },
	}
)

// inSession acquires keys one after the other and keeps them, as far as that does not end
// in a deadlock.
func inSession(keys ...int) func(*caller) {
	return func(c *caller) {
		c.session = &Session[int]{m: c.w.m, s: table.NewSession[int]("steps")}
		for _, key := range keys {
			if _, err := c.acquire(table.Request[int]{Key: key, Session: c.session.s}); err != nil {
				c.returns(err)
				break
			}
		}
		c.CloseSession()
	}
}

// release gives back what a call returned.
func (c *caller) release(lock Lock[int], err error) {
	if c.returns(err); err == nil {
		c.Release(lock)
	}
}

// returns checks that there is a reason for an error.
func (c *caller) returns(err error) {
	var reason bool
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		reason = c.ctx.err != nil
	case errors.Is(err, ErrClosed):
		reason = !c.w.scenario.endless()
	case errors.Is(err, ErrReservationDone):
		reason = c.abandoned
	case errors.Is(err, ErrQueueFull):
		reason = c.w.scenario.config.MaxWaiters > 0
	case errors.Is(err, ErrDeadlock):
		reason = c.session != nil
	}
	if !reason {
		panic(fmt.Sprintf("a call returns %q for no reason", err))
	}
}

// scenariosOf returns all scenarios of n callers, of which one may be somebody who ends
// the manager or waits until it is idle, and those of n+1 callers who make one call
// each. Some of them come with a partner, and on top of that contexts end.
func scenariosOf(n int) []scenario {
	var scenarios []scenario
	add := func(callers []program, around ...scenario) {
		for _, s := range around {
			s.callers = append(slices.Clone(callers), s.callers...)
			scenarios = append(scenarios, s)
		}
	}
	plain := scenario{mailbox: 16}
	quiet := []scenario{
		plain,
		{mailbox: 16, config: table.Config{MaxWaiters: 1}},
		{mailbox: 16, config: table.Config{SharedLimit: 1}},
	}
	endings := []scenario{
		{mailbox: 1, callers: []program{waitsIdle}},
		{mailbox: 16, callers: []program{closes}},
		{mailbox: 16, callers: []program{shutsDown}},
		{mailbox: 16, contextEnds: true},
	}
	callers := []program{
		acquires, releasesTwice, tries, shares, acquiresOther, acquiresAll,
		reserves, reservesAgain, handsOff, upwards, downwards, again,
	}
	for chosen := range combinations(n, callers) {
		add(chosen, quiet...)
	}
	for chosen := range combinations(n+1, []program{acquires, tries, shares, acquiresAll, handsOff}) {
		add(chosen, plain)
	}
	for chosen := range combinations(2, []program{acquires, tries}) { // one waits, however small n is
		add(chosen, endings...)
	}
	for chosen := range combinations(n, []program{acquires, tries}) {
		for _, s := range endings {
			s.unhurried = true
			add(chosen, s)
		}
	}
	add([]program{acquires, reserves}, plain) // who reserves has to wait
	add([]program{acquires, reservesAgain}, plain)
	for chosen := range combinations(n-1, callers) {
		add(chosen, endings...)
		add(append(chosen, waitsIdle, closes), scenario{mailbox: 1})
		add(append(chosen, shutsDown, closes), scenario{mailbox: 16})
	}
	return scenarios
}

// combinations yields every choice of n programs, in no particular order, each as often
// as one likes.
func combinations(n int, from []program) iter.Seq[[]program] {
	return func(yield func([]program) bool) {
		var choose func(chosen, from []program) bool
		choose = func(chosen, from []program) bool {
			if len(chosen) == n {
				return yield(chosen)
			}
			for i, p := range from {
				if !choose(append(chosen, p), from[i:]) {
					return false
				}
			}
			return true
		}
		choose(nil, from)
	}
}
