//go:build explore

package keylock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// These are what callers do. Each uses the manager rightly, so that it gives back
// whatever it gets, and each does one thing that is hard to get right.
var (
	acquires = program{
		name: "acquire", cancels: true,
		run: acquiresAndReleases(table.Request[int]{}),
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
		run:  acquiresAndReleases(table.Request[int]{Try: true}),
	}
	shares = program{
		name: "acquire shared", cancels: true, shares: true,
		run: acquiresAndReleases(table.Request[int]{Mode: table.Shared}),
	}
	acquiresOther = program{
		name: "acquire the other key", cancels: true,
		run: acquiresAndReleases(table.Request[int]{Key: 1}),
	}
	acquiresAll = program{
		name: "acquire both keys", cancels: true,
		run: acquiresAndReleases(table.Request[int]{Keys: []int{1, 0, 1}}),
	}
	reserves = program{
		name: "reserve, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			c.release(c.Wait(table.Request[int]{}))
			if _, again := c.Wait(table.Request[int]{}); !errors.Is(again, ErrReservationDone) {
				panic(fmt.Sprintf("a second Wait returns %v", again))
			}
		},
		partner: cancelsReservation,
	}
	reservesAgain = program{
		name: "reserve, cancel, reserve, cancel the first again, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			c.old = c.reservation
			c.Cancel(c.old)
			c.reserve(table.Request[int]{})
			c.Cancel(c.old)
			c.release(c.Wait(table.Request[int]{}))
		},
	}
	handsOff = program{
		name: "acquire, hand off", passes: true,
		run: acquiresAndHandsOff(table.Request[int]{}),
	}
	handsOffShared = program{
		name: "acquire shared, hand off", passes: true, shares: true,
		run: acquiresAndHandsOff(table.Request[int]{Mode: table.Shared}),
	}
	downgrades = program{
		name: "acquire, downgrade", cancels: true, shares: true,
		run: acquiresAndDowngrades(table.Request[int]{}),
	}
	downgradesAll = program{
		name: "acquire both keys, downgrade", shares: true,
		run: acquiresAndDowngrades(table.Request[int]{Keys: []int{0, 1}}),
	}
	acquiresSet = program{
		name: "acquire a shared key and one alone", cancels: true, shares: true,
		run: acquiresAndReleases(table.Request[int]{Keys: []int{0, 1}, Each: []table.Terms{{Mode: table.Shared}, {}}}),
	}
	acquiresSetOther = program{
		name: "acquire a key alone and a shared one, downgrade", shares: true,
		run: acquiresAndDowngrades(table.Request[int]{Keys: []int{0, 1}, Each: []table.Terms{{}, {Mode: table.Shared}}}),
	}
	sharesFew = program{
		name: "acquire shared with a limit", cancels: true, shares: true,
		run: acquiresAndReleases(table.Request[int]{Mode: table.Shared, Limit: 1}),
	}
	watches = program{
		name: "acquire, release when it is wanted", cancels: true,
		run: acquiresAndWatches(table.Request[int]{}),
	}
	watchesShared = program{
		name: "acquire shared, release when it is wanted", shares: true,
		run: acquiresAndWatches(table.Request[int]{Mode: table.Shared}),
	}
	does     = program{name: "do", cancels: true, run: func(c *caller) { c.checks(c.Do(0)) }}
	triesAll = program{
		name: "try both keys",
		run:  acquiresAndReleases(table.Request[int]{Keys: []int{0, 1}, Try: true}),
	}
	reservesShared = program{
		name: "reserve shared, wait, cancelled by another", shares: true, cancels: true,
		run:     reservesAndWaits(table.Request[int]{Mode: table.Shared}),
		partner: cancelsReservation,
	}
	reservesAll = program{
		name:    "reserve both keys, wait, cancelled by another",
		run:     reservesAndWaits(table.Request[int]{Keys: []int{0, 1}}),
		partner: cancelsReservation,
	}
	upwards   = program{name: "session from key 0 to key 1", cancels: true, run: inSession(0, 1)}
	downwards = program{name: "session from key 1 to key 0", run: inSession(1, 0)}
	again     = program{
		name: "session with a key twice, closed by another",
		run: func(c *caller) {
			c.session = c.w.m.Session("twice")
			_, first := c.acquire(table.Request[int]{})
			_, second := c.acquire(table.Request[int]{})
			if first == nil && second == nil {
				panic("a session got one key twice")
			}
			c.CloseSession()
		},
		partner: closesSession,
	}
	reservesInSession = program{
		name: "session reserves, waits, closed by another",
		run: func(c *caller) {
			c.session = c.w.m.Session("reserves")
			c.reserve(table.Request[int]{})
			c.release(c.Wait(table.Request[int]{}))
		},
		partner: closesSession,
	}
	cancelsInSession = program{
		name: "session reserves both keys, cancels, closed by another",
		run: func(c *caller) {
			c.session = c.w.m.Session("cancels")
			c.reserve(table.Request[int]{Keys: []int{0, 1}})
			c.Cancel(c.reservation)
		},
		partner: closesSession,
	}
	cancelsOneInSession = program{
		name: "session reserves, cancels, closed by another",
		run: func(c *caller) {
			c.session = c.w.m.Session("cancels")
			c.reserve(table.Request[int]{})
			c.Cancel(c.reservation)
		},
		partner: closesSession,
	}
	closedWhile = []program{
		inClosed("acquires", acquiresAndReleases(table.Request[int]{})),
		inClosed("acquires shared", acquiresAndReleases(table.Request[int]{Mode: table.Shared})),
		inClosed("acquires both keys", acquiresAndReleases(table.Request[int]{Keys: []int{1, 0}})),
		inClosed("tries", acquiresAndReleases(table.Request[int]{Try: true})),
		inClosed("tries shared", acquiresAndReleases(table.Request[int]{Mode: table.Shared, Try: true})),
		inClosed("tries both keys", acquiresAndReleases(table.Request[int]{Keys: []int{0, 1}, Try: true})),
		inClosed("reserves shared, waits", reservesAndWaits(table.Request[int]{Mode: table.Shared})),
		inClosed("reserves both keys, waits", reservesAndWaits(table.Request[int]{Keys: []int{0, 1}})),
		inClosed("does", func(c *caller) { c.checks(c.Do(0)) }),
		inClosed("acquires, hands off", acquiresAndHandsOff(table.Request[int]{})),
	}
	waitsIdle = program{
		name: "wait for idle", cancels: true,
		run: func(c *caller) { c.checks(c.WaitIdle()) },
	}
	looks = program{
		name: "snapshot", cancels: true,
		run: func(c *caller) { c.checks(c.Snapshot()) },
	}
	closes = program{
		name: "close", ends: true,
		run: func(c *caller) { c.Close() },
	}
	shutsDown = program{
		name: "shutdown", ends: true, cancels: true,
		run: func(c *caller) { c.checks(c.Shutdown()) },
	}
)

// inSession acquires keys one after the other and keeps them, as far as that does not end
// in a deadlock.
func inSession(keys ...int) func(*caller) {
	return func(c *caller) {
		c.session = c.w.m.Session("steps")
		for _, key := range keys {
			if _, err := c.acquire(table.Request[int]{Key: key}); err != nil {
				c.checks(err)
				break
			}
		}
		c.CloseSession()
	}
}

// inClosed is a program of a session that another closes.
func inClosed(what string, run func(*caller)) program {
	return program{
		name: "session " + what + ", closed by another", cancels: true, shares: strings.Contains(what, "shared"), passes: strings.Contains(what, "hands"),
		run: func(c *caller) {
			c.session = c.w.m.Session("closed")
			run(c)
		},
		partner: closesSession,
	}
}

// acquiresAndReleases makes a call, and gives back what it gets.
func acquiresAndReleases(want table.Request[int]) func(*caller) {
	return func(c *caller) {
		if lock, err := c.acquire(want); err == nil {
			c.Release(lock)
		} else if !want.Try {
			c.checks(err)
		}
	}
}

// acquiresAndHandsOff makes a call, and hands off what it gets, or gives it back.
func acquiresAndHandsOff(want table.Request[int]) func(*caller) {
	return func(c *caller) {
		if lock, err := c.acquire(want); err != nil {
			c.checks(err)
		} else if !c.Handoff(lock) {
			c.Release(lock)
		}
	}
}

// acquiresAndDowngrades makes a call, shares what it gets, and gives it back.
func acquiresAndDowngrades(want table.Request[int]) func(*caller) {
	return func(c *caller) {
		lock, err := c.acquire(want)
		if err != nil {
			c.checks(err)
			return
		}
		c.Downgrade(lock)
		c.step("shares", nil)
		c.Release(lock)
	}
}

// acquiresAndWatches makes a call, and gives back what it gets when another wants it, or
// before.
func acquiresAndWatches(want table.Request[int]) func(*caller) {
	return func(c *caller) {
		lock, err := c.acquire(want)
		if err != nil {
			c.checks(err)
			return
		}
		c.Wanted(lock)
		c.choose(move{label: "needs it no more"}, move{label: "sees that it is wanted", ready: func() bool { return ended.Is(c.wanted) }})
		c.Release(lock)
	}
}

// reservesAndWaits reserves, waits, and gives back what it gets.
func reservesAndWaits(want table.Request[int]) func(*caller) {
	return func(c *caller) {
		c.reserve(want)
		c.release(c.Wait(want))
	}
}

// cancelsReservation is what a partner does with a reservation.
func cancelsReservation(c, of *caller) {
	c.step("gets the reservation", func() bool { return of.reserved })
	of.abandoned = true
	c.Cancel(of.reservation)
}

// closesSession is what a partner does with a session.
func closesSession(c, of *caller) {
	c.session = of.session
	c.CloseSession()
}

// release gives back what a call returned.
func (c *caller) release(lock Lock[int], err error) {
	if c.checks(err); err == nil {
		c.Release(lock)
	}
}

// checks checks that there is a reason for an error.
func (c *caller) checks(err error) {
	var reason bool
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		reason = c.ctx.err != nil
	case errors.Is(err, ErrClosed):
		reason = !c.w.scenario.endless() || c.session != nil && c.session.state.closed.Load()
	case errors.Is(err, ErrReservationDone):
		reason = c.abandoned
	case errors.Is(err, ErrQueueFull):
		reason = c.w.scenario.config.MaxWaiters != 0
	case errors.Is(err, ErrDeadlock):
		reason = c.session != nil
	}
	if !reason {
		panic(fmt.Sprintf("a call returns %q for no reason", err))
	}
}

// A family is every choice of so many callers from a list, each choice in every one of
// some surroundings: on which manager they meet, and who else is there.
type family struct {
	level   int // from which -explore on it is explored
	name    string
	callers int
	from    []program
	around  []scenario
}

var (
	// alone are callers without a partner; oneCall those of them who make a single call
	// and give back what they get. Most are those of which three are let loose together.
	oneCall = []program{acquires, tries, shares, acquiresAll, handsOff}
	alone   = append([]program{reservesAgain, releasesTwice, acquiresOther, upwards, downwards}, oneCall...)
	most    = append([]program{reserves, again, reservesInSession, cancelsInSession}, alone...)
	all     = append([]program{acquiresSet, sharesFew, downgrades, downgradesAll, watches, watchesShared, handsOffShared, does, triesAll, reservesShared, reservesAll}, most...)

	// On one processor requests wander from caller to caller; on several each has its own.
	quiet    = scenario{mailbox: 16, apart: true}
	onePool  = scenario{mailbox: 16}
	observed = scenario{mailbox: 16, apart: true, observes: true}
	logged   = scenario{mailbox: 16, apart: true, observes: true, logs: true}
	full     = scenario{mailbox: 2, apart: true}
	bounded  = []scenario{
		{mailbox: 16, apart: true, config: table.Config{MaxWaiters: table.NoWaiters}},
		{mailbox: 16, apart: true, config: table.Config{MaxWaiters: 1}},
		{mailbox: 16, apart: true, config: table.Config{SharedLimit: 1}},
		{mailbox: 16, apart: true, config: table.Config{SharedLimit: 2}},
	}
	ending = []scenario{
		{mailbox: 1, apart: true, callers: []program{waitsIdle}},
		{mailbox: 1, apart: true, callers: []program{waitsIdle, closes}},
		{mailbox: 16, apart: true, callers: []program{closes}},
		{mailbox: 16, apart: true, callers: []program{shutsDown}},
		{mailbox: 16, apart: true, callers: []program{shutsDown, closes}},
		{mailbox: 16, apart: true, contextEnds: true},
	}
	parted    = scenario{mailbox: 16, apart: true, config: table.Config{Part: 1}} // of those that are granted together each but the first is so later
	unhurried = changed(ending, func(s *scenario) { s.unhurried = true })
	beside    = besideOne(acquires, shares, acquiresAll, handsOff)
)

var families = []family{
	{1, "two callers of every kind", 2, all, []scenario{quiet}},
	{1, "an old reservation among others", 1, []program{reserves, reservesAgain},
		changed([]scenario{onePool}, func(s *scenario) { s.callers = []program{acquires} })},
	{1, "three callers with one call", 3, oneCall, []scenario{quiet}},
	{1, "three callers with sets and limits", 3, []program{acquiresSet, acquiresSetOther, sharesFew, shares, acquiresOther, handsOff}, []scenario{quiet}},
	{1, "three callers who downgrade", 3, []program{downgrades, downgradesAll, shares, acquires}, []scenario{quiet}},
	{1, "three callers who hear that another waits", 3, []program{watches, watchesShared, shares, acquiresAll, downgrades}, []scenario{quiet}},
	{1, "two callers who downgrade or hear that another waits, at the end", 2, []program{downgrades, watches, acquires}, ending[2:]},
	{1, "a session that watches, closed by another", 1, []program{inClosed("acquires, watches", acquiresAndWatches(table.Request[int]{}))}, beside},
	{1, "three callers who share and hand off", 3, []program{handsOffShared, shares, handsOff}, []scenario{quiet}},
	{1, "three callers who share, granted one by one", 3, []program{acquires, shares, sharesFew, acquiresSet, watchesShared, handsOffShared}, []scenario{parted}},
	{1, "three callers who downgrade or share, granted one by one", 3, []program{downgrades, shares, tries}, []scenario{parted}},
	{1, "a value for those who share, granted one by one", 1, []program{handsOff}, partly(besideOne(shares, handsOffShared, acquires, acquiresSet))},
	{1, "a value for two who share, one of which another ends, granted one by one", 1, []program{handsOff},
		changed(besideOne(reservesShared, closedWhile[1]), func(s *scenario) { s.config, s.callers = parted.config, append(s.callers, shares) })},
	{1, "a value for two who share at the end, granted one by one", 1, []program{handsOff}, partly(ending[2:3])},
	{1, "two who share and one who waits for idle, granted one by one", 1, []program{acquires}, partly(besideOne(waitsIdle))},
	{1, "two who share at the end, granted one by one", 1, []program{acquires}, partly(ending[5:])},
	{1, "two callers at the end", 2, []program{acquires, tries}, ending},
	{1, "two callers with a value at the end", 2, []program{handsOff, acquires}, ending[2:3]},
	{1, "one caller at the end, unhurried", 1, []program{acquires, tries}, unhurried},
	{1, "a session that another closes, and one caller", 1, closedWhile, beside},
	{1, "two callers, tracked", 2, append([]program{upwards, reserves, inClosed("acquires", acquiresAndReleases(table.Request[int]{}))}, oneCall...), []scenario{observed}},
	{1, "two callers, logged", 2, oneCall, []scenario{logged}},
	{1, "one caller at the end, logged", 1, []program{acquires, tries}, changed(ending[2:], func(s *scenario) { s.observes, s.logs = true, true })},
	{1, "three callers, little room in the mailbox", 3, []program{acquires, handsOff}, []scenario{full}},
	{1, "a snapshot", 1, []program{acquires, acquiresAll, handsOff, upwards}, besideOne(looks)},
	{1, "two snapshots", 1, []program{acquires}, changed([]scenario{quiet}, func(s *scenario) { s.callers = []program{looks, looks} })},
	{1, "a snapshot at the end", 1, []program{looks}, ending[2:]},
	{1, "a value for a session that another closes, and one caller", 1, []program{reservesInSession, cancelsOneInSession},
		changed(besideOne(acquires, does, acquiresAll), func(s *scenario) { s.callers = append(s.callers, handsOff) })},
	{1, "a value among others, one pool", 1, []program{handsOff}, changed([]scenario{onePool}, func(s *scenario) { s.callers = []program{acquires, acquires} })},

	{2, "two callers, one pool", 2, all, []scenario{onePool}},
	{2, "two callers, bounds", 2, all, bounded},
	{2, "two callers, little room in the mailbox", 2, all, []scenario{full}},
	{2, "two callers of every kind, tracked", 2, all, []scenario{observed}},
	{2, "two callers, logged, of more kinds", 2, append([]program{upwards, reserves, again}, oneCall...), []scenario{logged}},
	{2, "one caller of every kind at the end, logged", 1, all, changed(ending[2:], func(s *scenario) { s.observes, s.logs = true, true })},
	{2, "a session that another closes at the end", 1, closedWhile, ending[2:]},
	{2, "two callers with one call at the end", 2, append([]program{upwards, does}, oneCall...), ending[2:]},
	{2, "one caller of every kind at the end, unhurried", 1, all, unhurried},
	{2, "a snapshot and two callers", 2, []program{acquires, acquiresAll, handsOff, upwards}, besideOne(looks)},
	{2, "two snapshots and one more", 1, []program{acquiresAll, handsOff}, changed([]scenario{quiet}, func(s *scenario) { s.callers = []program{looks, looks} })},
	{2, "two snapshots at the end", 1, []program{looks}, changed(ending[2:], func(s *scenario) { s.callers = append([]program{looks}, s.callers...) })},
	{2, "two who share and one who looks, granted one by one", 1, []program{acquires}, partly(besideOne(looks))},
	{2, "a value for three who share, one of which another ends, granted one by one", 1, []program{handsOff}, partly(besideOne(reservesShared, closedWhile[1]))},
	{2, "a value for two who share at the end in other ways, granted one by one", 1, []program{handsOff}, partly(ending[3:])},
	{2, "two who share at the end in other ways, granted one by one", 1, []program{acquires, downgrades}, partly(ending[2:5])},
	{2, "a snapshot, little room in the mailbox", 2, []program{acquires, looks}, []scenario{full}},
	{2, "two callers at the end, unhurried", 2, []program{acquires, tries}, unhurried[2:]},

	{3, "three callers alone", 3, alone, []scenario{quiet}},
	{3, "three callers with one call, bounds", 3, oneCall, bounded},
	{3, "three callers, one pool", 3, []program{acquires, tries, handsOff}, []scenario{onePool}},
	{3, "three callers at the end", 3, []program{acquires, tries, acquiresAll}, ending[2:]},
	{3, "two callers alone at the end", 2, alone, ending[2:]},
	{3, "four callers with one call", 4, oneCall, []scenario{quiet}},
	{3, "four callers on two keys", 4, []program{acquires, acquiresAll, upwards, downwards}, []scenario{quiet}},

	{4, "two callers of every kind, logged", 2, all, []scenario{logged}},
	{4, "two callers with one call at the end, unhurried", 2, oneCall, unhurried[2:]},
	{4, "one caller of every kind at the end, logged, little room", 1, all, changed(ending[:2], func(s *scenario) { s.observes, s.logs = true, true })},
	{4, "two snapshots and a session", 1, []program{upwards, again, reserves}, changed([]scenario{quiet}, func(s *scenario) { s.callers = []program{looks, looks} })},
	{4, "three snapshots", 1, []program{acquires, acquiresAll}, changed([]scenario{quiet}, func(s *scenario) { s.callers = []program{looks, looks, looks} })},
	{4, "a session that another closes at the end, little room", 1, closedWhile, ending[:2]},
	{4, "two callers with one call at the end, little room", 2, append([]program{upwards, does}, oneCall...), ending[:2]},
	{4, "two callers at the end, little room, unhurried", 2, []program{acquires, tries}, unhurried[:2]},
	{4, "three callers at the end, little room", 3, []program{acquires, tries, acquiresAll}, ending[:2]},
	{4, "two callers alone at the end, little room", 2, alone, ending[:2]},
	{4, "two callers with one call at the end, little room, unhurried", 2, oneCall, unhurried[:2]},
	{4, "three callers of most kinds", 3, most, []scenario{quiet}},
	{4, "three callers of all kinds", 3, all, []scenario{quiet}},
	{4, "three callers alone, bounds", 3, alone, bounded},
	{4, "four callers alone", 4, alone, []scenario{quiet}},
	{4, "three callers alone at the end", 3, alone, ending},
	{4, "two callers of every kind at the end", 2, all, ending},
	{4, "three callers alone, one pool", 3, alone, []scenario{onePool}},
}

// besideOne returns a scenario for each program, in which another caller runs it.
func besideOne(programs ...program) (scenarios []scenario) {
	for _, p := range programs {
		s := quiet
		s.callers = []program{p}
		scenarios = append(scenarios, s)
	}
	return scenarios
}

// partly returns scenarios in which two more callers share, and are granted one after the other.
func partly(scenarios []scenario) []scenario {
	return changed(scenarios, func(s *scenario) {
		s.config = parted.config
		s.callers = append(slices.Clone(s.callers), shares, shares)
	})
}

// scenarios returns what a family consists of.
func (f family) scenarios() (scenarios []scenario) {
	for chosen := range combinations(f.callers, f.from) {
		scenarios = append(scenarios, changed(f.around, func(s *scenario) {
			s.callers = append(slices.Clone(chosen), s.callers...)
		})...)
	}
	return scenarios
}

// changed returns scenarios with a change.
func changed(scenarios []scenario, change func(*scenario)) []scenario {
	scenarios = slices.Clone(scenarios)
	for i := range scenarios {
		change(&scenarios[i])
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

// check returns an error when the world is in a state that the guarantees exclude.
func (w *world) check() error {
	if w.broken != nil {
		return w.broken
	}
	if err := w.o.table.Check(); err != nil {
		return err
	}
	for _, r := range w.requests {
		messages := 1
		switch {
		case !slices.Contains(w.taken, r):
			messages = 0
		case r.early:
			messages = 2
		}
		if len(r.replied) > messages {
			return fmt.Errorf("a request was answered twice")
		}
	}
	for _, check := range []func() error{w.checkExclusion, w.checkWanted, w.checkGifts, w.checkLast, w.checkTracking, w.checkSlowLog, w.checkDeadlines, w.checkKept} {
		if err := check(); err != nil {
			return err
		}
	}
	if w.atRest() {
		return w.checkEnd()
	}
	return nil
}

// checkExclusion looks at what the callers have, whatever the table says: also after
// the manager has ended no call may have what another holds.
func (w *world) checkExclusion() error {
	var exclusive, shared [exploreKeys]int
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, h := range c.holds {
			want := h.want
			if want.Keys == nil {
				want.Keys = []int{want.Key}
			}
			for i, key := range want.Keys {
				mode := want.Mode
				if want.Each != nil {
					mode = want.Each[i].Mode
				}
				switch {
				case slices.Contains(want.Keys[:i], key):
				case mode == table.Shared:
					shared[key]++
				default:
					exclusive[key]++
				}
			}
		}
	}
	limit := w.scenario.config.SharedLimit
	for key, n := range exclusive {
		if n > 1 || n > 0 && shared[key] > 0 || limit > 0 && shared[key] > limit {
			return fmt.Errorf("key %d is held by %d exclusively and by %d shared", key, n, shared[key])
		}
	}
	return nil
}

const exploreKeys = 2

// checkWanted checks that one who holds hears that a request waits for it, or that its grant
// has ended, as soon as it is so and not before.
func (w *world) checkWanted() error {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		switch {
		case !ok || c.wanted == nil:
		case ended.Is(c.wanted) && !c.isWanted:
			return fmt.Errorf("%s hears that its lock is wanted, which it is not", c.name)
		case !ended.Is(c.wanted) && w.isWanted(c.asked):
			return fmt.Errorf("%s does not hear that its lock is wanted", c.name)
		}
	}
	return nil
}

// checkGifts checks that a value that was handed off is received by one call, or by several
// that share the lock. That none is lost is checked at the end.
func (w *world) checkGifts() error {
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, g := range c.gave {
			if g.over && !g.passed && (g.received > 0 || g.cancelled) {
				return fmt.Errorf("%s has kept a value that was received", c.name)
			}
			if g.received > 1 && !w.scenario.shares() {
				return fmt.Errorf("a value of %s was received %d times", c.name, g.received)
			}
		}
	}
	return nil
}

// checkLast checks that nothing is granted after the end of Start's context, and that no
// request is accepted when the manager is closed to new ones.
func (w *world) checkLast() error {
	if w.last != nil && w.acquired() != *w.last {
		return fmt.Errorf("a lock was granted after Start's context had ended")
	}
	if w.joined != nil && w.joins() != *w.joined {
		return fmt.Errorf("a request came in after the manager was closed to new ones")
	}
	return nil
}

// mayTakeLong reports whether a message may keep the owner for long.
func mayTakeLong(msg message[int]) bool {
	switch r := msg.request.(type) {
	case *question[int], *closeSession[int], *releaseAll[int], closing[int]:
		return true
	case *acquire[int]:
		return r.long
	case *downgrade[int]:
		return r.long
	case *abandon[int]:
		return r.long
	}
	return false
}

// checkDeadlines checks that a call whose context may end does not listen to it only while
// nothing that may take long is before its own request.
func (w *world) checkDeadlines() error {
	if w.keepsGrants() { // a caller stops between its look for what may take long and its request
		return nil
	}
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok || c.context == nil || c.context.endless || c.over || slices.ContainsFunc(c.moves, move.possible) {
			continue
		}
		mail := w.mail()
		own := slices.IndexFunc(mail, func(msg message[int]) bool {
			return msg.request != nil && slices.Contains(c.met, any(msg.request))
		})
		if own < 0 || slices.ContainsFunc(mail[:own], mayTakeLong) {
			return fmt.Errorf("%s does not look at its context: %s waits for others", c.name, c.moves[0].label)
		}
	}
	return nil
}

// checkTracking checks that what the options ask for is noted of those who wait and of those
// who hold, and of no others.
func (w *world) checkTracking() error {
	t := w.o.tracking
	if t == nil {
		return nil
	}
	counts := w.o.table.Counts()
	for _, list := range []struct {
		ages *ages[int]
		want int
	}{{&t.waits, counts.Waiting}, {&t.grants, counts.Held}} {
		n := 0
		for s := range list.ages.oldest {
			if n++; s.list != list.ages || s.ticket == nil {
				return fmt.Errorf("what is tracked is not where it says")
			}
		}
		if n != list.want {
			return fmt.Errorf("%d requests are tracked, of %d: %+v", n, list.want, counts)
		}
	}
	return nil
}

// checkSlowLog checks that what was logged is noted of what goes on, of one wait for each key,
// and of nothing that is over; and that the owner will look again while anything goes on.
func (w *world) checkSlowLog() error {
	if w.timer == nil {
		return nil
	}
	t, logged := w.o.tracking, 0
	for s := range t.waits.oldest {
		if s.told == nil {
			continue
		}
		if logged++; !s.told.wait || t.slow.waiting[s.told.key] != s.told {
			return fmt.Errorf("a wait that was logged is not known to the slow log")
		}
	}
	for s := range t.grants.oldest {
		if s.told != nil && s.told.wait {
			return fmt.Errorf("a hold is known to the slow log as a wait")
		}
	}
	if logged != len(t.slow.waiting) {
		return fmt.Errorf("the slow log knows %d waits, of which %d go on", len(t.slow.waiting), logged)
	}
	if counts := w.o.table.Counts(); t.slow.timer == nil && !w.o.ended && counts.Waiting+counts.Held > 0 {
		return fmt.Errorf("the slow log does not look again")
	}
	return nil
}

// atRest reports whether nothing more happens, unless something from outside does.
func (w *world) atRest() bool {
	for _, a := range w.actors {
		for _, m := range a.moves {
			if !m.outside && m.possible() {
				return false
			}
		}
	}
	return true
}

// checkEnd checks that nothing was left behind. All callers give back what they get, so the manager is as it was, or has ended.
func (w *world) checkEnd() error {
	owner := w.actors[0]
	for _, a := range w.actors {
		if !a.over && !a.moves[0].outside && a != owner {
			return fmt.Errorf("%s waits forever: never %s", a.name, a.moves[0].label)
		}
	}
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok {
			continue
		}
		for _, g := range c.gave {
			interrupted := w.o.ended && (g.cancelled || g.closed)
			if g.passed && g.received == 0 && !g.dropped && !interrupted {
				return fmt.Errorf("a value of %s was lost", c.name)
			}
		}
	}
	if w.o.ended != owner.over {
		return fmt.Errorf("the owner stopped before it was done: never %s", owner.moves[0].label)
	}
	if w.o.ended {
		return nil
	}
	counts := w.o.table.Counts()
	parked := w.parked()
	switch {
	case counts.Keys != parked || counts.Held != parked || counts.Waiting != 0:
		return fmt.Errorf("something was left in the table: %+v", counts)
	case len(w.o.snapshots) > 0:
		return fmt.Errorf("%d snapshots were not ended", len(w.o.snapshots))
	case w.o.idle != nil:
		return fmt.Errorf("a call still waits for a moment that has come")
	case len(w.taken) > 0:
		return fmt.Errorf("%d of %d requests did not come back", len(w.taken), len(w.requests))
	}
	return nil
}
