// Package programs runs random programs of all verbs on a manager in fake time and
// compares what each caller has, and the reply to each call, with the model after each step.
package programs

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/seed-46f81e6d/keylock/verify/model"
)

func TestMain(m *testing.M) {
	flag.Set("rapid.checks", "3000") // unless the command line says otherwise
	goleak.VerifyTestMain(m)
}

// TestRandomPrograms runs programs that rapid makes up. It prints the shortest one that
// fails as Go, ready to be pasted into TestPrograms.
//
//	go test -C verify ./programs -run=TestRandomPrograms -v -rapid.checks=10000
func TestRandomPrograms(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		p := program{
			maxWaiters:  rapid.IntRange(-1, 2).Draw(t, "maxWaiters"),
			sharedLimit: rapid.IntRange(0, 2).Draw(t, "sharedLimit"),
			watched:     rapid.IntRange(0, 7).Draw(t, "watched"),
			steps:       rapid.SliceOfN(rapid.Custom(drawStep), 1, 60).Draw(t, "steps"),
		}
		// The bubble must not fail rapid's test from within.
		if err := run(outer, p); err != nil {
			t.Fatalf("%v\n%v", err, p)
		}
	})
}

// TestPrograms runs the programs that once failed, and some that reach rare states.
func TestPrograms(t *testing.T) {
	for _, p := range []program{
		{steps: []step{acquire(0), acquire(0), cancel(1), release(0)}},
		{steps: []step{acquire(0), acquire(0), share(0), cancel(1)}},
		{steps: []step{acquire(0, 1), acquire(1, 0), acquire(0), cancel(1), release(0)}},
		{steps: []step{acquire(0).by(1), acquire(1).by(2), acquire(1).by(1), acquire(0).by(2)}},
		{sharedLimit: 1, steps: []step{share(0).by(1), share(0).by(1)}},
		{steps: []step{acquire(0, 1).on(0, -1), share(0), acquire(1), acquire(0), release(0)}},
		{maxWaiters: 1, steps: []step{acquire(0), acquire(0), acquire(0), cancel(1), acquire(0)}},
		{steps: []step{reserve(0), reserve(0), cancel(0), await(1), cancel(1), release(1)}},
		{steps: []step{acquire(0), acquire(0), waitIdle(), shutdown(), acquire(1), release(0), release(1)}},
		{steps: []step{acquire(0), acquire(0), handoff(0), closeAll()}},
		{steps: []step{acquire(0), reserve(0), acquire(0), handoff(0), cancel(1), release(2)}},
		{steps: []step{acquire(0), reserve(0).by(1), acquire(0), handoff(0), closeSession(1), release(2)}},
		{watched: 7, steps: []step{acquire(0), acquire(0), pass(), share(1), pass(), release(0), pass(), release(1)}},
		{steps: []step{acquire(0), share(0), acquire(0, 1), share(0), downgrade(0), release(0), downgrade(1), downgrade(0)}},
		{steps: []step{acquire(0), want(0), acquire(1, 0), want(0), cancel(1), want(0), downgrade(0), share(0), closeAll()}},
	} {
		require.NoError(t, run(t, p), "%v", p)
	}
}

// A program is a list of steps. Each is made when nothing moves any more.
type program struct {
	maxWaiters, sharedLimit int
	watched                 int // which options watch: 1 the callers, 2 the times, 4 the slow log
	steps                   []step
}

func (p program) String() string {
	var steps []string
	for _, s := range p.steps {
		steps = append(steps, s.String())
	}
	return fmt.Sprintf("{maxWaiters: %d, sharedLimit: %d, watched: %d, steps: []step{%s}}",
		p.maxWaiters, p.sharedLimit, p.watched, strings.Join(steps, ", "))
}

// A step is one call. What it is about, it names by number: keys, sessions, and, with
// of, a request, counted from the first.
type step struct {
	verb    string
	keys    []int
	terms   []int // of the keys: -1 is alone, 0 shared, n shared with a limit; nil is what the verb says
	session int
	of      int
}

func acquire(keys ...int) step { return step{verb: "acquire", keys: keys} }
func share(key int) step       { return step{verb: "share", keys: []int{key}} }
func try(keys ...int) step     { return step{verb: "try", keys: keys} }
func tryShare(key int) step    { return step{verb: "tryShare", keys: []int{key}} }
func reserve(keys ...int) step { return step{verb: "reserve", keys: keys} }
func await(of int) step        { return step{verb: "await", of: of} }
func cancel(of int) step       { return step{verb: "cancel", of: of} }
func release(of int) step      { return step{verb: "release", of: of} }
func handoff(of int) step      { return step{verb: "handoff", of: of} }
func downgrade(of int) step    { return step{verb: "downgrade", of: of} }
func want(of int) step         { return step{verb: "want", of: of} }
func closeSession(s int) step  { return step{verb: "closeSession", session: s} }
func waitIdle() step           { return step{verb: "waitIdle"} }
func pass() step               { return step{verb: "pass"} } // of a second
func shutdown() step           { return step{verb: "shutdown"} }
func closeAll() step           { return step{verb: "closeAll"} }

// on is the step, on terms for each of its keys.
func (s step) on(terms ...int) step {
	s.terms = terms
	return s
}

// each are the terms as the model has them.
func (s step) each() (each []model.Terms) {
	for _, n := range s.terms {
		each = append(each, model.Terms{Shared: n >= 0, Limit: max(n, 0)})
	}
	return each
}

// by is the step, made by a session.
func (s step) by(session int) step {
	s.session = session
	return s
}

func (s step) String() string {
	switch {
	case s.keys != nil:
		list := func(n []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(n), " ", ", "), "[]") }
		text := fmt.Sprintf("%s(%s)", s.verb, list(s.keys))
		if s.terms != nil {
			text += fmt.Sprintf(".on(%s)", list(s.terms))
		}
		if s.session != 0 {
			text += fmt.Sprintf(".by(%d)", s.session)
		}
		return text
	case s.verb == "closeSession":
		return fmt.Sprintf("%s(%d)", s.verb, s.session)
	case s.verb == "pass" || s.verb == "waitIdle" || s.verb == "shutdown" || s.verb == "closeAll":
		return s.verb + "()"
	}
	return fmt.Sprintf("%s(%d)", s.verb, s.of)
}

// drawStep makes up a step. Those that end things are rare, so that something is there
// to be ended.
func drawStep(t *rapid.T) step {
	key := func() int { return rapid.IntRange(0, keys-1).Draw(t, "key") }
	keys := func() []int { return rapid.SliceOfNDistinct(rapid.IntRange(0, keys-1), 0, 3, rapid.ID).Draw(t, "keys") }
	of := func() int { return rapid.IntRange(0, 12).Draw(t, "of") }
	session := rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(t, "session")
	switch n := rapid.IntRange(0, 99).Draw(t, "verb"); {
	case n < 14:
		return acquire(key()).by(session)
	case n < 24:
		return share(key()).by(session)
	case n < 28:
		return acquire(keys()...).by(session).named()
	case n < 34:
		return acquire(keys()...).by(session).named().drawn(t)
	case n < 38:
		return try(key()).by(session)
	case n < 41:
		return tryShare(key()).by(session)
	case n < 43:
		return try(keys()...).by(session).named()
	case n < 44:
		return try(keys()...).by(session).named().drawn(t)
	case n < 48:
		return reserve(key()).by(session)
	case n < 50:
		return reserve(keys()...).by(session).named().drawn(t)
	case n < 56:
		return await(of())
	case n < 68:
		return cancel(of())
	case n < 83:
		return release(of())
	case n < 85:
		return pass()
	case n < 88:
		return downgrade(of())
	case n < 91:
		return want(of())
	case n < 94:
		return handoff(of())
	case n < 96:
		return closeSession(1 + session)
	case n < 98:
		return waitIdle()
	case n < 99:
		return shutdown()
	default:
		return closeAll()
	}
}

// drawn is the step on terms that are made up.
func (s step) drawn(t *rapid.T) step {
	if len(s.keys) > 0 {
		s.terms = rapid.SliceOfN(rapid.SampledFrom([]int{-1, 0, 0, 0, 1, 2}), len(s.keys), len(s.keys)).Draw(t, "terms")
	}
	return s
}

// named is the step with a list of keys, also if it is an empty one.
func (s step) named() step {
	if s.keys == nil {
		s.keys = []int{}
	}
	return s
}

const keys = 3
