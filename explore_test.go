//go:build explore

package keylock

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

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

// A fingerprint is the same for two states of a world that differ in nothing that can
// ever matter. It covers everything that can be reached from the owner and from the
// actors, field by field, with two kinds of exceptions: where objects lie in memory does
// not count, only which of them are the same; and neither does what irrelevant names,
// because no decision depends on it. A field that the code gains one day is covered
// until it is listed as irrelevant, so the explorer may become slow by it, but
// not blind.
type fingerprint struct {
	bytes   []byte
	objects []object // met so far; a pointer is written as its index
	shapes  map[reflect.Type]*shape
	cuts    reflect.Value // that are under way, of the world's table
	watched reflect.Value // grants, likewise
	parts   reflect.Value // queues that are postponed, likewise
	kept    keptCells     // of the world
}

func newFingerprint() *fingerprint { return &fingerprint{shapes: make(map[reflect.Type]*shape)} }

type object struct {
	at unsafe.Pointer
	of reflect.Type // the first field of a struct lies where the struct does
}

// irrelevant are fields that only count, only report, or are blank between requests.
var irrelevant = map[string]map[string]bool{
	"Table": {
		"counts": true, "seq": true, "enough": true, // count
		"arrivals": true,                                             // numbers the tickets as they come, and so do the queues
		"worked":   true,                                             // counts
		"watches":  true,                                             // whether a grant is watched is written where its ticket is met
		"ranking":  true,                                             // only Top looks at it
		"granted":  true, "led": true, "spare": true, "search": true, // blank, as Check says
	},
	"queue":    {"hash": true, "chain": true, "rank": true, "above": true, "below": true, "scan": true, "cut": true}, // where it is in the index, in the ranking and in a search
	"cuts":     {"begun": true},                                                                                      // which queue a cut has seen is written where a queue is met,
	"Cut":      {"number": true, "position": true, "blocked": true},                                                  // and what it keeps of a ticket where that is
	"snapshot": {"at": true, "seen": true},
	"many":     {"search": true}, // likewise
	"Session":  {"node": true},   // of a search that is over
	// Grants and generations are numbered without end. Which ticket is granted is known from its
	// queue, whose next is the first that is not, as Check says; which actor has which grant and
	// generation is written where a token or a reservation is met.
	"Ticket": {"number": true}, "Token": {"seq": true},
	"abandon": {"generation": true, "since": true, "many": true}, "countedReservation": {"generation": true, "since": true, "many": true},
	"acquire": {"generation": true, "since": true, "many": true}, "Reservation": {"generation": true}, "cancelReservation": {"generation": true},
	"owner":      {"meter": true, "tracking": true},                                                                        // counts and times
	"tracked":    {"caller": true, "since": true, "list": true, "prev": true, "next": true, "seq": true},                   // as long as the rules hold
	"slowRecord": {"lasted": true, "queue": true, "seq": true, "caller": true, "lost": true, "holder": true, "held": true}, // what is written
	"Manager":    {"pool": true, "gate": true},                                                                             // the world knows what is in it
	"postponed":  {"at": true},                                                                                             // where a queue is in the list of these
	"passed":     {"until": true},                                                                                          // a ticket says whether it is for it
	// Grants are numbered and times pass.
	"abandonSnapshot": {"at": true, "seen": true},
	"KeyInfo":         {"At": true}, "Entry": {"Seq": true, "Since": true, "Caller": true},
	"actor":  {"name": true, "yield": true, "resume": true, "stop": true, "chosen": true, "did": true},
	"caller": {"w": true, "mate": true},
	// What the word of a cell says is written where a cell, a token or what a caller has seen is met.
	"kept": {"gate": true, "seed": true, "_": true}, "cell": {"word": true, "_": true},
	"keptCaller": {"had": true, "moments": true, "took": true}, // by what the program has done
}

// of returns the fingerprint of a world. Callers who do the same are interchangeable, so
// they come in an order that depends only on the state in which they are. Where that is
// not wanted they come in the order in which they are.
func (f *fingerprint) of(w *world, plain bool) uint64 {
	f.bytes, f.objects = f.bytes[:0], f.objects[:0]
	f.cuts = reflect.ValueOf(w.o.table).Elem().FieldByName("cuts").FieldByName("running")
	f.watched = reflect.ValueOf(w.o.table).Elem().FieldByName("watches").FieldByName("tags")
	f.parts = reflect.ValueOf(w.o.table).Elem().FieldByName("postponed").FieldByName("queues")
	f.kept = w.cells()
	f.numbers(w)
	f.roots(w.o, w.ctx)
	if plain {
		for _, a := range w.actors {
			f.roots(a)
		}
		return maphash.Bytes(seed, f.bytes)
	}
	f.actors(w.others)
	for _, same := range w.callers {
		if len(same) > 1 {
			same = slices.Clone(same)
			slices.SortStableFunc(same, func(a, b []*actor) int { return bytes.Compare(f.alone(a), f.alone(b)) })
		}
		for _, actors := range same {
			f.actors(actors)
		}
	}
	return maphash.Bytes(seed, f.bytes)
}

// alone returns what the fingerprint says of actors if they come next.
func (f *fingerprint) alone(actors []*actor) []byte {
	length, objects := len(f.bytes), len(f.objects)
	f.actors(actors)
	said := slices.Clone(f.bytes[length:])
	f.bytes, f.objects = f.bytes[:length], f.objects[:objects]
	return said
}

// actors covers actors; of a caller that no other will ever meet again only what it holds,
// and what it remembers.
func (f *fingerprint) actors(actors []*actor) {
	for _, a := range actors {
		if c, ok := a.memory.(*caller); ok && a.over && c.last() && c.w.scenario.apart {
			f.roots(&c.holds, &c.returned)
			continue
		}
		f.roots(a)
	}
}

// roots covers all that the roots, which are pointers, lead to.
func (f *fingerprint) roots(roots ...any) {
	for _, root := range roots {
		f.value(reflect.ValueOf(root))
	}
}

func (f *fingerprint) number(n uint64) { f.bytes = binary.AppendUvarint(f.bytes, n) }

func (f *fingerprint) bool(b bool) {
	if b {
		f.number(1)
	} else {
		f.number(0)
	}
}

func (f *fingerprint) text(s string) {
	f.number(uint64(len(s)))
	f.bytes = append(f.bytes, s...)
}

func (f *fingerprint) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		f.bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		f.number(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		f.number(v.Uint())
	case reflect.String:
		f.text(v.String())
	case reflect.Pointer:
		f.pointer(v)
	case reflect.Interface:
		if v.IsNil() {
			f.number(0)
			return
		}
		f.text(v.Elem().Type().String())
		f.value(v.Elem())
	case reflect.Slice, reflect.Array:
		f.number(uint64(v.Len()))
		for i := range v.Len() {
			f.value(v.Index(i))
		}
	case reflect.Chan:
		f.channel(v)
	case reflect.Struct:
		f.structure(v)
	case reflect.Func:
		f.bool(v.IsNil())
	default:
		panic("fingerprint: " + v.Type().String())
	}
}

func (f *fingerprint) pointer(v reflect.Value) {
	if v.IsNil() {
		f.number(0)
		return
	}
	o := object{v.UnsafePointer(), v.Type()}
	if i := slices.Index(f.objects, o); i >= 0 {
		f.number(uint64(i) + 2)
		return
	}
	f.objects = append(f.objects, o)
	f.number(1)
	f.value(v.Elem())
}

// channel covers what is in a channel, by taking it out and putting it back; of one
// without room, whether it is closed.
func (f *fingerprint) channel(v reflect.Value) {
	if v.IsNil() {
		f.number(0)
		return
	}
	v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem() // reflect does not receive from unexported fields
	n := v.Len()
	f.number(uint64(n) + 1)
	if v.Cap() == 0 {
		item, _ := v.TryRecv()
		f.bool(item.IsValid())
	}
	for range n {
		item, _ := v.Recv()
		v.Send(item)
		f.value(addressable(item))
	}
}

// addressable returns the value, or a copy of a struct whose fields can be addressed.
func addressable(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Struct {
		return v
	}
	held := reflect.New(v.Type()).Elem()
	held.Set(v)
	return held
}

func (f *fingerprint) structure(v reflect.Value) {
	s := f.shapeOf(v.Type())
	if len(s.fields) == 0 {
		return
	}
	if s.comparable && v.IsZero() { // as most are
		f.number(0)
		return
	}
	f.number(1)
	if s.special != nil && s.special(f, v) {
		return
	}
	for _, i := range s.fields {
		f.value(v.Field(i))
	}
}

// A shape is what the fingerprint knows of a struct type.
type shape struct {
	fields     []int // those that matter
	comparable bool
	// special covers what the fields do not say, and reports whether nothing else matters;
	// nil when there is no such thing.
	special func(*fingerprint, reflect.Value) bool
}

func (f *fingerprint) shapeOf(t reflect.Type) *shape {
	if s, known := f.shapes[t]; known {
		return s
	}
	name, _, _ := strings.Cut(t.Name(), "[")
	s := &shape{comparable: t.Comparable(), special: special(name)}
	for i := range t.NumField() {
		if field := t.Field(i).Name; !irrelevant[name][field] {
			s.fields = append(s.fields, i)
		}
	}
	f.shapes[t] = s
	return s
}

// special returns what there is to say of a type beside its fields.
func special(name string) func(*fingerprint, reflect.Value) bool {
	switch name {
	case "Token": // grant numbers are not used again, so all tokens of ended grants are alike
		return func(f *fingerprint, v reflect.Value) bool {
			token := (*table.Token[int])(v.Addr().UnsafePointer())
			live, cell := token.Live(), f.kept.cellOf(token.Seq())
			f.bool(live)
			f.number(cell)
			return !live && cell == 0
		}
	case "Reservation":
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*Reservation[int])(v.Addr().UnsafePointer())
			return f.turn(r.r, r.generation)
		}
	case "cancelReservation":
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*cancelReservation[int])(v.Addr().UnsafePointer())
			return f.turn(r.acquire, r.generation)
		}
	case "queue":
		return func(f *fingerprint, v reflect.Value) bool {
			for i := range f.cuts.Len() {
				f.bool(f.cuts.Index(i).Elem().FieldByName("number").Uint() > v.FieldByName("cut").Uint())
			}
			return false
		}
	case "Ticket":
		return func(f *fingerprint, v reflect.Value) bool {
			f.bool(f.watched.MapIndex(v.Addr()).IsValid())
			for i := range f.parts.Len() {
				if with := f.parts.Index(i).FieldByName("passed"); !with.FieldByName("value").IsNil() && !v.FieldByName("granted").Bool() {
					f.bool(v.FieldByName("number").Uint() <= with.FieldByName("until").Uint())
				}
			}
			for i := range f.cuts.Len() {
				if kept := f.cuts.Index(i).Elem().FieldByName("blocked").MapIndex(v.Addr()); kept.IsValid() {
					f.number(uint64(kept.Int()) + 1)
				}
			}
			return false
		}
	case "Pointer": // an atomic one
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*atomic.Pointer[acquire[int]])(v.Addr().UnsafePointer()).Load()
			f.value(reflect.ValueOf(r))
			return true
		}
	case "index":
		return func(f *fingerprint, v reflect.Value) bool { f.index(v); return true }
	}
	return keptSpecial(name)
}

// index covers the queues, in the order of their keys. In which bucket they are is chance.
func (f *fingerprint) index(v reflect.Value) {
	var queues []reflect.Value
	segments := v.FieldByName("segments")
	for i := range segments.Len() {
		for j := range segments.Index(i).Len() {
			for l := segments.Index(i).Index(j).FieldByName("head"); !l.IsNil(); l = l.Elem().FieldByName("chain") {
				queues = append(queues, l)
			}
		}
	}
	key := func(l reflect.Value) int64 { return l.Elem().FieldByName("key").Int() }
	slices.SortFunc(queues, func(a, b reflect.Value) int { return cmp.Compare(key(a), key(b)) })
	f.number(uint64(len(queues)))
	for _, l := range queues {
		f.pointer(l)
	}
}

// turn covers how far a reservation's request is ahead of it, and reports whether they
// have nothing to do with each other any more.
func (f *fingerprint) turn(r *acquire[int], generation uint64) bool {
	if r == nil {
		f.number(0)
		return true
	}
	ahead := min(r.generation.Load()-generation, 2)
	f.number(1 + ahead)
	return ahead == 2
}
