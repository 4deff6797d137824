//go:build !race

// A world has one goroutine at a time, so there is no race to detect in it, and the
// detector makes it ten times slower.

package keylock

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

var exploreCallers = flag.Int("explore", 1, "how many callers of every kind TestEveryInterleaving combines")

// TestEveryInterleaving lets callers loose on one manager, in every combination of what
// they do and of how the manager ends, and goes through every order in which their
// steps and the owner's can come.
//
//	go test . -run=TestEveryInterleaving -v -explore=2
func TestEveryInterleaving(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small, short-lived and many
	scenarios := scenariosOf(*exploreCallers)
	start := time.Now()
	var states, steps atomic.Int64
	var workers sync.WaitGroup
	failed := make(chan error, runtime.GOMAXPROCS(0))
	next := make(chan scenario)
	for range cap(failed) {
		workers.Go(func() {
			for s := range next {
				e := explore(s)
				states.Add(int64(len(e.nodes)))
				steps.Add(int64(e.steps))
				if e.err != nil {
					failed <- e.err
					return
				}
			}
		})
	}
	func() {
		defer close(next)
		for _, s := range scenarios {
			select {
			case next <- s:
			case err := <-failed:
				failed <- err
				return
			}
		}
	}()
	workers.Wait()
	t.Logf("%d scenarios, %d states, %d steps, %v",
		len(scenarios), states.Load(), steps.Load(), time.Since(start).Round(time.Millisecond))
	select {
	case err := <-failed:
		require.NoError(t, err)
	default:
	}
}

// A scenario is what is explored: who calls what, on which manager.
type scenario struct {
	config      table.Config
	mailbox     int // room in it
	callers     []program
	contextEnds bool // Start's, at any time
	unhurried   bool // callers stop also between sending and looking whether the manager has ended
}

// endless reports whether nobody can end the manager.
func (s scenario) endless() bool {
	for _, p := range s.callers {
		if p.ends {
			return false
		}
	}
	return !s.contextEnds
}

func (s scenario) String() string {
	var names []string
	for _, p := range s.callers {
		names = append(names, p.name)
	}
	if s.contextEnds {
		names = append(names, "the end of Start's context")
	}
	return fmt.Sprintf("%s; room for %d requests; %+v", strings.Join(names, " | "), s.mailbox, s.config)
}

// A program is what one caller does.
type program struct {
	name    string
	run     func(*caller)
	partner func(c, of *caller) // what another goroutine does with what the caller made
	cancels bool                // its context may end at any time
	ends    bool                // the manager
}

// An exploration goes through the states of a scenario, breadth first, so that what it
// finds it finds by a shortest way. A state is the way to it: what lies in memory
// cannot be copied, but it can be made again.
type exploration struct {
	scenario scenario
	nodes    []node
	known    map[uint64]struct{} // fingerprints; of ten million states two collide once in 400,000 times
	steps    int
	err      error

	print *fingerprint
}

// A node is a state, as the last step of the way to it.
type node struct {
	before      int32 // the state before it
	actor, move uint8
}

func explore(s scenario) *exploration {
	e := &exploration{scenario: s, known: make(map[uint64]struct{}), print: newFingerprint()}
	w := newWorld(s)
	e.visit(w, node{before: -1})
	w.stop()
	for i := 0; i < len(e.nodes) && e.err == nil; i++ {
		e.expand(int32(i))
	}
	return e
}

// expand takes every step that can be taken from a state.
func (e *exploration) expand(i int32) {
	w := e.replay(i)
	for _, next := range w.enabled() {
		if w == nil {
			w = e.replay(i)
		}
		next.before = i
		w.take(next)
		e.steps++
		e.visit(w, next)
		w.stop()
		w = nil
		if e.err != nil {
			return
		}
	}
	if w != nil {
		w.stop()
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
	for ; e.nodes[i].before >= 0; i = e.nodes[i].before {
		way = append(way, e.nodes[i])
	}
	for i, j := 0, len(way)-1; i < j; i, j = i+1, j-1 {
		way[i], way[j] = way[j], way[i]
	}
	return way
}

// visit checks a state, unless it is known.
func (e *exploration) visit(w *world, n node) {
	roots := []any{w.o, &w.spare, w.ctx}
	for _, a := range w.actors {
		roots = append(roots, a)
	}
	print := e.print.of(roots...)
	if _, known := e.known[print]; known {
		return
	}
	e.known[print] = struct{}{}
	e.nodes = append(e.nodes, n)
	if err := w.check(); err != nil {
		e.err = fmt.Errorf("%v:\n%s%w", e.scenario, e.story(int32(len(e.nodes)-1)), err)
	}
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

// enabled returns the steps that can be taken.
func (w *world) enabled() []node {
	var steps []node
	for i, a := range w.actors {
		for j, m := range a.moves {
			if m.ready == nil || m.ready() {
				steps = append(steps, node{actor: uint8(i), move: uint8(j)})
			}
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
	a.resume()
	w.settle()
}

// stop ends the coroutines.
func (w *world) stop() {
	for _, a := range w.actors {
		a.stop()
	}
	*w.m = Manager[int]{} // sync.Pool remembers where its pools are, and would keep the whole world
}
