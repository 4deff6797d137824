//go:build explore

package keylock

import (
	"cmp"
	"flag"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

var exploreLevel = flag.Int("explore", 1, "how far TestEveryInterleaving goes: 1 takes seconds, 3 some minutes, 4 hours")

// TestEveryInterleaving lets callers loose on one manager, in every combination of what
// they do and of how the manager ends, and goes through every order in which their
// steps and the owner's can come.
//
//	go test -tags explore . -run=TestEveryInterleaving -v -explore=3 -timeout=40m
func TestEveryInterleaving(t *testing.T) { exploreAll(t, families) }

// exploreAll explores all families of the level.
func exploreAll(t *testing.T, families []family) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small, short-lived and many
	var total explored
	for _, f := range families {
		if f.level > *exploreLevel {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			var count explored
			err := inParallel(func(yield func(func() error) bool) {
				for _, s := range f.scenarios() {
					if !yield(func() error {
						e := explore(s, false)
						count.add(e)
						total.add(e)
						return e.err
					}) {
						return
					}
				}
			})
			t.Log(&count)
			require.NoError(t, err)
		})
	}
	t.Log("together", &total)
}

// TestExplorerLosesNothing compares what is left out with what is there: whatever can be
// the end when every step of every state is taken, can be the end without those that the
// explorer leaves out, and nothing else can.
func TestExplorerLosesNothing(t *testing.T) {
	chosen := []family{
		{1, "", 2, []program{acquires, acquiresAll, handsOff}, []scenario{quiet}},
		{1, "", 1, []program{reserves, again, reservesInSession, cancelsInSession}, []scenario{quiet}},
		{1, "", 1, []program{acquires}, unhurried},
		{2, "", 2, all, []scenario{quiet, onePool}},
		{2, "", 1, all, ending},
		{3, "", 1, all, unhurried},
		{3, "", 3, oneCall, []scenario{quiet}},
		{3, "", 3, []program{acquiresAll, upwards, downwards}, []scenario{quiet}},
	}
	var left, of explored
	err := inParallel(func(yield func(func() error) bool) {
		for _, f := range chosen {
			if f.level > *exploreLevel {
				continue
			}
			for _, s := range f.scenarios() {
				s.remembers = true
				if !yield(func() error {
					full, reduced := explore(s, true), explore(s, false)
					of.add(full)
					left.add(reduced)
					if err := cmp.Or(full.err, reduced.err); err != nil {
						return err
					}
					if !maps.Equal(full.ends, reduced.ends) {
						return fmt.Errorf("%v: it can end in %d ways, of which %d are seen", s, len(full.ends), len(reduced.ends))
					}
					return nil
				}) {
					return
				}
			}
		}
	})
	require.NoError(t, err)
	t.Logf("%v instead of %v", &left, &of)
}

// explored counts what was explored.
type explored struct{ scenarios, states, steps atomic.Int64 }

func (c *explored) add(e *exploration) {
	c.scenarios.Add(1)
	c.states.Add(int64(len(e.known)))
	c.steps.Add(int64(e.steps))
}

func (c *explored) String() string {
	return fmt.Sprintf("%d scenarios, %d states, %d steps", c.scenarios.Load(), c.states.Load(), c.steps.Load())
}

// inParallel does the work on all processors, until some of it fails.
func inParallel(work iter.Seq[func() error]) error {
	var workers sync.WaitGroup
	failed := make(chan error, runtime.GOMAXPROCS(0))
	next := make(chan func() error)
	for range cap(failed) {
		workers.Go(func() {
			for do := range next {
				if err := do(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	func() {
		defer close(next)
		for do := range work {
			select {
			case next <- do:
			case err := <-failed:
				failed <- err
				return
			}
		}
	}()
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// A scenario is what is explored: who calls what, on which manager.
type scenario struct {
	config      table.Config
	mailbox     int // room in it
	callers     []program
	contextEnds bool // Start's, at any time
	apart       bool // each caller has a pool of its own, as if on a processor of its own
	remembers   bool // callers remember what their calls returned
	observes    bool // the manager has the options that track requests
	logs        bool // and a slow log
	kept        keptScenario
	unhurried   bool // callers stop also between sending and looking whether the manager has ended
}

// endless reports whether nothing can end the manager.
func (s scenario) endless() bool {
	for _, p := range s.callers {
		if p.ends {
			return false
		}
	}
	return !s.contextEnds
}

// passes reports whether any program hands off a lock.
func (s scenario) passes() bool {
	return slices.ContainsFunc(s.callers, func(p program) bool { return p.passes })
}

// shares reports whether a lock can have several holders.
func (s scenario) shares() bool {
	return slices.ContainsFunc(s.callers, func(p program) bool { return p.shares })
}

func (s scenario) String() string {
	var names []string
	for _, p := range s.callers {
		names = append(names, p.name)
	}
	if s.contextEnds {
		names = append(names, "the end of Start's context")
	}
	return fmt.Sprintf("%s; room for %d requests; %v%+v", strings.Join(names, " | "), s.mailbox, s.kept, s.config)
}

// A program is what one caller does.
type program struct {
	name    string
	run     func(*caller)
	partner func(c, of *caller) // what another goroutine does with what the caller made
	cancels bool                // its context may end at any time
	ends    bool                // the manager
	passes  bool                // hands off a lock
	shares  bool                // its lock
}

// An exploration goes through the states of a scenario. A state is the way to it: what
// lies in memory cannot be copied, but it can be made again. So it goes on from a state
// as far as that leads to a new one, and makes again only what it has left aside.
type exploration struct {
	scenario scenario
	full     bool                // take every step of every state, and take no two states for one
	shortest bool                // breadth first, so that what it finds it finds by a shortest way
	nodes    []node              // the steps that it has met
	todo     []int32             // those that it has not taken
	known    map[uint64]struct{} // fingerprints; of ten million states two collide once in 400,000 times
	ends     map[uint64]struct{} // those of states in which nothing more is possible
	steps    int
	err      error

	print *fingerprint
}

// A node is a step, as the last one of a way.
type node struct {
	before      int32 // the step before it, or none
	actor, move uint8
}

const none = -1

func explore(s scenario, full bool) *exploration {
	e := &exploration{scenario: s, full: full}
	if e.run(); e.err != nil {
		again := &exploration{scenario: s, full: full, shortest: true}
		if again.run(); again.err != nil {
			return again
		}
	}
	return e
}

func (e *exploration) run() {
	e.known, e.ends = make(map[uint64]struct{}), make(map[uint64]struct{})
	e.print = newFingerprint()
	e.follow(newWorld(e.scenario), none)
	for len(e.todo) > 0 && e.err == nil {
		var next int32
		if e.shortest {
			next, e.todo = e.todo[0], e.todo[1:]
		} else {
			next, e.todo = e.todo[len(e.todo)-1], e.todo[:len(e.todo)-1]
		}
		e.follow(e.replay(next), next)
	}
}

// follow goes on from the state to which a step has led, until it meets a known one.
func (e *exploration) follow(w *world, last int32) {
	defer w.stop()
	for {
		e.steps++
		if err := w.check(); err != nil {
			e.err = fmt.Errorf("%v:\n%s%w", e.scenario, e.story(last), err)
			return
		}
		steps := w.steps(e.full)
		if len(steps) != 1 || e.full { // or there is nothing to choose, so it is not worth to be remembered
			print := e.print.of(w, e.full)
			if _, known := e.known[print]; known {
				return
			}
			e.known[print] = struct{}{}
			if len(steps) == 0 {
				e.ends[e.print.of(w, false)] = struct{}{}
				return
			}
		}
		for i, s := range steps {
			s.before = last
			if e.nodes = append(e.nodes, s); i > 0 || e.shortest {
				e.todo = append(e.todo, int32(len(e.nodes)-1))
			}
		}
		if e.shortest {
			return
		}
		last = int32(len(e.nodes) - len(steps))
		w.take(steps[0])
	}
}

// replay makes a state again.
func (e *exploration) replay(i int32) *world {
	w := newWorld(e.scenario)
	for _, n := range e.way(i) {
		w.take(n)
	}
	return w
}

// way returns the steps that lead to a state.
func (e *exploration) way(i int32) []node {
	var way []node
	for ; i != none; i = e.nodes[i].before {
		way = append(way, e.nodes[i])
	}
	slices.Reverse(way)
	return way
}

// story tells the way to a state, a line for each step.
func (e *exploration) story(i int32) string {
	var b strings.Builder
	w := newWorld(e.scenario)
	defer w.stop()
	for _, n := range e.way(i) {
		a := w.actors[n.actor]
		a.did = a.moves[n.move].label
		w.take(n)
		fmt.Fprintf(&b, "  %s %s\n", a.name, a.did)
	}
	return b.String()
}

// steps returns the steps to go on with: all that are possible, or, unless they are
// wanted in full, those of one actor alone whose next move is its own. What the others do
// before it they can do after it as well.
func (w *world) steps(full bool) []node {
	var steps []node
	for i, a := range w.actors {
		own := !full && a.aside()
		if own {
			steps = steps[:0]
		}
		for j, m := range a.moves {
			if m.possible() {
				steps = append(steps, node{actor: uint8(i), move: uint8(j)})
			}
		}
		if own {
			break
		}
	}
	return steps
}

// take takes a step.
func (w *world) take(n node) {
	a := w.actors[n.actor]
	a.chosen = int(n.move)
	defer func() {
		if r := recover(); r != nil {
			w.broken = fmt.Errorf("%s panics: %v", a.name, r)
		}
	}()
	w.resume(a)
}

// resume lets an actor go on to its next stop.
func (w *world) resume(a *actor) {
	w.running = a
	a.resume()
	w.note()
}

// stop ends the coroutines.
func (w *world) stop() {
	for _, a := range w.actors {
		w.running = a
		a.stop()
	}
	if w.timer != nil && w.o.tracking.slow.timer != nil {
		w.o.tracking.slow.timer.Stop()
	}
}
