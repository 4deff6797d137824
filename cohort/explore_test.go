//go:build explore

package cohort

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"iter"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/ended"
)

var exploreLevel = flag.Int("explore", 1, "how far TestEveryInterleaving goes: 1 takes seconds, 2 some 20 minutes")

// TestEveryInterleaving goes through every order in which the steps of callers, keepers and the engine can come, with
// processes that want one key: it runs the code of keep.go and what notes that a key is wanted, stopping at
// each gate. The local lock and the engine are models of a few lines.
//
//	go test -tags explore ./cohort -run=TestEveryInterleaving -v -explore=2
func TestEveryInterleaving(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // it makes worlds, and hardly keeps anything
	var states, steps int
	for _, s := range scenarios(*exploreLevel) {
		began := time.Now()
		e := explore(s)
		states, steps = states+len(e.known), steps+e.steps
		t.Logf("%v: %d states, %d steps, %v", s, len(e.known), e.steps, time.Since(began))
		require.NoError(t, e.err)
	}
	t.Logf("together: %d states, %d steps", states, steps)
}

// A scenario is what the callers of each process do, and what befalls it.
type scenario struct {
	callers [][]program // by process
	others  []bool      // processes that keep nothing, and whether they try
	room    int         // of each store
	loses   bool        // the first process loses what it holds, once
	closes  bool        // the first process closes its store
	idles   bool        // time passes
}

// program is what one caller does.
type program string

const (
	locks      program = "locks"
	locksTwice program = "locks twice"
	tries      program = "tries, and locks"
	leaves     program = "locks, and may leave" // its context ends at some time
)

func (s scenario) String() string {
	var b strings.Builder
	for i, callers := range s.callers {
		if i > 0 {
			b.WriteString(" / ")
		}
		fmt.Fprint(&b, callers)
	}
	for _, try := range s.others {
		b.WriteString(" / " + map[bool]string{false: "waits", true: "tries"}[try])
	}
	fmt.Fprintf(&b, ", room for %d", s.room)
	for _, event := range []struct {
		happens bool
		text    string
	}{{s.loses, "a loss"}, {s.closes, "a close"}, {s.idles, "time passes"}} {
		if event.happens {
			b.WriteString(", " + event.text)
		}
	}
	return b.String()
}

// scenarios returns what is explored at a level.
func scenarios(level int) (all []scenario) {
	add := func(from, eventsFrom int, callers [][]program, others ...bool) {
		s := scenario{callers: callers, others: others, room: 1}
		if level >= from {
			all = append(all, s)
		}
		if level >= eventsFrom {
			loses, closes, idles, narrow := s, s, s, s
			loses.loses, closes.closes, idles.idles, narrow.room = true, true, true, 0
			all = append(all, loses, closes, idles, narrow)
		}
	}
	const waits, try = false, true
	add(1, 1, [][]program{{locks}}, waits)
	add(1, 1, [][]program{{locks}}, try)
	add(1, 1, [][]program{{locksTwice}})
	add(1, 2, [][]program{{locksTwice}}, waits)
	add(1, 2, [][]program{{locks, locks}}, waits)
	add(1, 3, [][]program{{locks, leaves}}, waits)
	add(1, 3, [][]program{{locks, locks, locks}}, waits)
	add(2, 3, [][]program{{locks, tries}}, try)
	add(2, 3, [][]program{{locks}}, waits, try)
	add(1, 2, [][]program{{locks}, {locks}})
	add(3, 4, [][]program{{locks, locksTwice}}, waits)
	return all
}

// exploration is what came of a scenario.
type exploration struct {
	known map[uint64]bool
	steps int
	err   error
}

// explore replays every order of steps up to the states that are not known yet.
func explore(s scenario) *exploration {
	e := &exploration{known: make(map[uint64]bool)}
	open := [][]int{nil}
	for len(open) > 0 && e.err == nil {
		path := open[len(open)-1]
		open = open[:len(open)-1]
		w := newWorld(s)
		for _, choice := range path {
			e.steps++
			w.goOn(choice)
		}
		for {
			if e.err = cmp.Or(w.broken, w.check()); e.err != nil {
				break
			}
			at := w.fingerprint()
			if e.known[at] {
				break
			}
			e.known[at] = true
			ready := w.ready()
			if len(ready) == 0 {
				e.err = w.checkEnd()
				break
			}
			for _, other := range ready[1:] {
				open = append(open, append(slices.Clone(w.choices), other))
			}
			e.steps++
			w.goOn(ready[0])
		}
		if e.err != nil {
			e.err = fmt.Errorf("%v: %w, after\n\t%s\n%s", s, e.err, w.story(), w.digest())
		}
		w.end()
	}
	return e
}

// world is two processes in slow motion: their callers, keepers and what the engine does are coroutines, which stop
// at the gates.
type world struct {
	scenario  scenario
	processes []*process
	queue     []*entry // of the key at the engine; the first has it
	epoch     uint64
	last      Token // of the last holder
	actors    []*actor
	running   *actor
	choices   []int
	trail     []*actor // that made the choices
	labels    []stop   // and where
	broken    error
}

type process struct {
	w       *world
	name    string
	m       *Manager
	holder  *actor            // of the local lock
	passed  map[*actor]*claim // with the local lock
	entered []*actor          // that wait for the local lock, in order
	claims  []*claim
	entries map[*claim]*entry
	clock   time.Duration
	seen    time.Duration
}

// entry is a process in the engine's queue, and its grant.
type entry struct {
	p       *process
	epoch   uint64
	wanted  bool
	f       func()
	lost    chan struct{}
	isLost  bool
	removed bool
}

func (n *entry) Epoch() uint64                 { return n.epoch }
func (n *entry) Lost() <-chan struct{}         { return n.lost }
func (n *entry) Release(context.Context) error { panic("release is called instead") }
func (n *entry) OnWanted(f func()) {
	n.f = f
	if n.wanted {
		n.report()
	}
}

// report calls f, then or later.
func (n *entry) report() {
	n.p.w.start("report to "+n.p.name, func() { n.f() })
}

// want is the engine's report, which comes at any time later.
func (n *entry) want() {
	if n.wanted {
		return
	}
	n.wanted = true
	if n.f != nil {
		n.report()
	}
}

const key = "key"

func newWorld(s scenario) *world {
	w := &world{scenario: s}
	var before *actor
	for i, callers := range s.callers {
		p := &process{w: w, name: string(rune('P' + i)), passed: make(map[*actor]*claim), entries: make(map[*claim]*entry)}
		w.processes = append(w.processes, p)
		p.m = &Manager{options: options{maxHandoffs: 1, maxHold: time.Hour}}
		k := newKeeper(time.Minute, s.room, p.m.listen, p.release)
		k.gate.scheduler = w
		p.m.keeper = k
		w.start(p.name+"'s keeper", p.keeps)
		for j, c := range callers {
			var comes func() bool // of two that do the same it does not matter which comes first
			switch {
			case j > 0 && callers[j-1] == c:
				before := before
				comes = func() bool { return before.entered }
			case j == 0 && i > 0 && slices.Equal(callers, s.callers[i-1]) && !s.loses && !s.closes:
				comes = func() bool { return w.epoch > 0 || len(w.queue) > 0 } // the other process has asked the engine
			}
			before = w.start(fmt.Sprintf("%s's caller %d", p.name, j+1), func() { p.calls(c, comes) })
		}
	}
	for i, try := range s.others {
		other := &process{w: w, name: string(rune('X' + i))}
		w.start(other.name, func() { other.wants(try) })
	}
	p := w.processes[0]
	if s.loses {
		w.start("loss", func() {
			w.step("loses what P holds", func() bool { return len(w.queue) > 0 && w.queue[0].p == p }, nil)
			n := w.queue[0]
			close(n.lost)
			n.isLost = true
			w.remove(n)
			n.want()
		})
	}
	if s.closes {
		w.start("close", func() { p.m.keeper.close() })
	}
	if s.idles {
		w.start("time", func() {
			w.step("time passes", nil, nil)
			for _, p := range w.processes {
				p.clock += 100 * time.Hour
			}
		})
	}
	return w
}

// wants is another process, which keeps nothing.
func (p *process) wants(try bool) {
	w := p.w
	n := &entry{p: p, lost: make(chan struct{})}
	w.step("asks the engine", nil, nil)
	if len(w.queue) > 0 {
		w.queue[0].want()
		if try {
			return
		}
	}
	w.queue = append(w.queue, n)
	w.step("is granted the key", func() bool { return w.queue[0] == n }, nil)
	w.epoch++
	n.epoch = w.epoch
	w.last = Token{n.epoch, 1}
	w.step("gives it back", nil, nil)
	w.remove(n)
}

// keeps is keeper.run.
func (p *process) keeps() {
	k := p.m.keeper
	p.w.running.keeps = true
	for {
		p.w.step("waits", func() bool { return len(k.wake) > 0 || p.seen < p.clock }, nil)
		select {
		case <-k.wake:
		default:
		}
		p.seen = p.clock
		k.round(p.clock)
	}
}

// calls does what a caller does, when it comes.
func (p *process) calls(does program, comes func() bool) {
	p.w.running.comes = comes
	switch does {
	case leaves:
		a := p.w.running
		p.w.start(a.name+"'s context", func() {
			p.w.step("ends", func() bool { return !a.ended }, nil)
			a.done = true
		})
		p.locks(false)
	case locks:
		p.locks(false)
	case locksTwice:
		p.locks(false)
		p.locks(false)
	case tries:
		p.locks(true)
		p.locks(false)
	}
}

// locks is Manager.Acquire or TryAcquire, and Lock.Release.
func (p *process) locks(try bool) {
	w, k, a := p.w, p.m.keeper, p.w.running
	a.calls++
	if try {
		w.step("tries the local lock", a.comes, nil)
		a.entered = true
		if p.holder != nil || len(p.entered) > 0 {
			return
		}
		p.holder = a
	} else {
		w.step("enters the local queue", a.comes, nil)
		a.entered = true
		if p.holder == nil {
			p.holder = a
		} else {
			p.entered = append(p.entered, a)
			w.step("waits for the local lock", func() bool { return p.holder == a || a.done }, nil)
			if p.holder != a {
				p.entered = slices.DeleteFunc(p.entered, func(other *actor) bool { return other == a })
				return
			}
		}
	}
	c := p.passed[a]
	delete(p.passed, a)
	for c == nil {
		kept, returned := k.take(key)
		if returned == nil {
			c = kept
			break
		}
		if try {
			p.unlocks()
			return
		}
		w.step("waits for the return", func() bool { return ended.Is(returned) || a.done }, nil)
		if a.done {
			p.unlocks()
			return
		}
	}
	for {
		if c == nil {
			if c = p.asks(try); c == nil {
				p.unlocks()
				return
			}
		}
		w.step("looks whether it is lost", nil, c)
		if a.done {
			p.abandons(c)
			return
		}
		if !c.isLost() {
			break
		}
		k.forget(c, p.release(c))
		c = nil
	}
	if c.seq.Load() > 0 {
		p.m.listen(c)
	}
	n := p.entries[c]
	token := Token{n.epoch, c.seq.Add(1)}
	if token.Compare(w.last) <= 0 {
		w.fail("token %v after %v", token, w.last)
	}
	w.last = token
	if old := c.wanted.Load(); old != nil && c.seq.Load() > old.seq+1 {
		w.fail("%d holders after it was wanted", c.seq.Load()-old.seq)
	}

	w.step("releases", nil, c)
	if n.removed && !n.isLost {
		w.fail("the key was given back while it was held")
	}
	if p.m.mayHandOff(c) {
		if k.keep(c) {
			p.unlocks()
			return
		}
		if p.handsOff(c) {
			return
		}
	}
	k.forget(c, p.release(c))
	p.unlocks()
}

// abandons is Manager.abandon.
func (p *process) abandons(c *claim) {
	if !p.handsOff(c) {
		p.w.starts(func() {
			p.m.keeper.forget(c, p.release(c))
			p.unlocks()
		})
	}
}

// handsOff is Manager.handOff.
func (p *process) handsOff(c *claim) bool {
	if len(p.entered) == 0 {
		return false
	}
	p.passed[p.entered[0]] = c
	p.unlocks()
	return true
}

func (p *process) unlocks() {
	if len(p.entered) == 0 || p.passed[p.entered[0]] == nil {
		p.w.step("unlocks", nil, nil)
	}
	p.holder = nil
	if len(p.entered) > 0 {
		p.holder, p.entered = p.entered[0], p.entered[1:]
	}
}

// asks is Engine.Acquire or TryAcquire, and what Manager.ask does with the grant.
func (p *process) asks(try bool) *claim {
	w := p.w
	w.step("asks the engine", nil, nil)
	if slices.ContainsFunc(w.queue, func(n *entry) bool { return n.p == p }) {
		w.fail("%s is in the engine's queue already", p.name)
	}
	if len(w.queue) > 0 {
		w.queue[0].want()
		if try {
			return nil
		}
	}
	n := &entry{p: p, lost: make(chan struct{})}
	w.queue = append(w.queue, n)
	w.step("is granted the key", func() bool { return n.isLost || w.queue[0] == n }, nil)
	w.epoch++
	n.epoch = w.epoch
	if len(w.queue) > 1 {
		n.wanted = true
	}
	c := &claim{key: key, grant: n}
	p.claims = append(p.claims, c)
	p.entries[c] = n
	p.m.heed(c)
	return c
}

// release is Manager.giveBack.
func (p *process) release(c *claim) (lost bool) {
	p.w.step("gives it back", nil, c)
	n := p.entries[c]
	if n.isLost {
		return true
	}
	if n.removed {
		p.w.fail("a key was given back twice")
	}
	p.w.remove(n)
	return false
}

func (w *world) remove(n *entry) {
	n.removed = true
	w.queue = slices.DeleteFunc(w.queue, func(other *entry) bool { return other == n })
}

// check looks at what must hold at any time.
func (w *world) check() error {
	for _, p := range w.processes {
		if n := p.m.keeper.kept.Load(); n < 0 {
			return fmt.Errorf("%s keeps %d claims", p.name, n)
		}
		n := 0
		for _, c := range p.claims {
			if c.state.Load() == kept {
				n++
			}
		}
		if n > w.scenario.room {
			return fmt.Errorf("%s keeps %d claims in a store for %d", p.name, n, w.scenario.room)
		}
	}
	return nil
}

// checkEnd looks at what must hold when nothing moves any more.
func (w *world) checkEnd() error {
	for _, a := range w.actors {
		if !a.ended && !a.keeps && a.name != "loss" && a.at.label != "ends" {
			return fmt.Errorf("%s %s, and nothing moves", a.name, a.at.label)
		}
	}
	for i, p := range w.processes {
		k := p.m.keeper
		n := 0
		for _, c := range p.claims {
			in := p.inStore(c)
			switch c.state.Load() {
			case kept:
				n++
				switch {
				case !in:
					return errors.New("a kept claim is not in the store")
				case !c.appointed:
					return errors.New("a kept claim is not in the schedule")
				case c.wanted.Load() != nil:
					return errors.New("a claim is kept that is wanted")
				case i == 0 && w.scenario.closes:
					return errors.New("a claim is kept after the end")
				}
			default:
				if in {
					return errors.New("a claim is in the store that is not kept")
				}
				if entry := p.entries[c]; !entry.removed {
					return errors.New("a claim was not given back")
				}
			}
		}
		if got := k.kept.Load(); got != int64(n) {
			return fmt.Errorf("it counts %d kept claims instead of %d", got, n)
		}
		if k.busy.Load() != 0 || len(k.backlog) > 0 {
			return errors.New("a recall has not ended")
		}
	}
	return nil
}

func (p *process) inStore(c *claim) bool {
	for s := p.m.keeper.bucket(key).Load(); s != nil; s = s.next {
		if s.claim == c {
			return true
		}
	}
	return false
}

// digest is all that the actors share, as text.
func (w *world) digest() string {
	var b strings.Builder
	for _, n := range w.queue {
		fmt.Fprint(&b, n.p.name, n.epoch, n.wanted, " ")
	}
	fmt.Fprint(&b, w.epoch, w.last)
	for _, p := range w.processes {
		k := p.m.keeper
		fmt.Fprintf(&b, "\n%s: kept %d closing %t wake %d busy %d swept %t clock %v %v shy %x", p.name, k.kept.Load(), k.closing.Load(), len(k.wake),
			k.busy.Load(), k.swept, p.clock, p.seen, k.level())
		if p.holder != nil {
			fmt.Fprint(&b, " local ", p.holder.name)
		}
		for _, a := range p.entered {
			fmt.Fprint(&b, " queue ", a.name)
		}
		for c := k.inbox.Load(); c != nil; c = c.next {
			fmt.Fprint(&b, " inbox ", w.number(c))
		}
		for _, a := range k.due {
			fmt.Fprint(&b, " due ", w.number(a.claim), a.at > time.Hour)
		}
		for i, c := range p.claims {
			n := p.entries[c]
			fmt.Fprintf(&b, "\n\t%d: %s seq %d queued %t judged %t skipped %t stored %t in store %t appointed %t lost %t removed %t listens %t", i,
				[]string{"held", "kept", "recalled", "gone"}[c.state.Load()], c.seq.Load(), c.queued.Load(), c.judged, c.skipped, c.stored, p.inStore(c), c.appointed, n.isLost, n.removed, c.listens.Load())
			if want := c.wanted.Load(); want != nil {
				fmt.Fprint(&b, " wanted at ", want.seq)
			}
			for a, passed := range p.passed {
				if passed == c {
					fmt.Fprint(&b, " passed to ", a.name)
				}
			}
		}
	}
	return b.String()
}

// level returns what is known of how shy the key is, without the hash, which differs from run to run.
func (k *keeper) level() uint64 {
	word, _ := k.shyness(key)
	return word.Load() % (1 << (skipBits + levelBits))
}

// number numbers the claims; 0 is none.
func (w *world) number(c *claim) uint64 {
	for i, p := range w.processes {
		for j, other := range p.claims {
			if c == other {
				return uint64(10*i + j + 1)
			}
		}
	}
	return 0
}

// story returns what was done.
func (w *world) story() string {
	var b strings.Builder
	for i, a := range w.trail {
		fmt.Fprintf(&b, "%s %s", a.name, w.labels[i].label)
		if c := w.labels[i].claim; c != nil {
			fmt.Fprintf(&b, " (%d)", w.number(c))
		}
		b.WriteString("\n\t")
	}
	return b.String()
}

// fingerprint tells states apart: by what is shared, and by the steps that each actor has made since
// it last forgot everything. It does not matter in which order actors came, nor what those did that have ended.
func (w *world) fingerprint() uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, w.digest())
	sum := h.Sum64()
	for _, a := range w.actors {
		if !a.ended {
			h.Reset()
			fmt.Fprint(h, a.name, a.done, a.calls, a.history, a.at.label, w.number(a.at.claim))
			sum += h.Sum64()
		}
	}
	return sum
}

// An actor is a goroutine.
type actor struct {
	name    string
	yield   func(stop) bool
	next    func() (stop, bool)
	stop    func()
	at      stop
	ended   bool
	keeps   bool        // it is a keeper
	comes   func() bool // nil for at any time
	entered bool        // it has been in the local queue
	done    bool        // its context has ended
	calls   int         // that it has begun
	history uint64      // the steps since the last one that says all there is to know
}

// stop is where an actor waits to go on.
type stop struct {
	label string
	claim *claim      // nil for none
	ready func() bool // nil for always
}

type unwinding struct{}

// start starts an actor, which goes on to its first gate.
func (w *world) start(name string, run func()) *actor {
	a := &actor{name: name}
	a.next, a.stop = iter.Pull(func(yield func(stop) bool) {
		defer func() {
			if r := recover(); r != nil && r != (unwinding{}) {
				w.broken = cmp.Or(w.broken, fmt.Errorf("%s panics: %v", name, r))
			}
		}()
		a.yield = yield
		run()
	})
	w.actors = append(w.actors, a)
	w.resume(a)
	return a
}

func (w *world) resume(a *actor) {
	before := w.running
	w.running = a
	at, ok := a.next()
	a.at, a.ended = at, !ok
	w.running = before
}

var labels = maphash.MakeSeed() // of the hashes of labels

// step stops the running actor before a step.
func (w *world) step(label string, ready func() bool, c *claim) {
	a := w.running
	switch label {
	case "waits", "takes one out of the inbox", "releases", "looks whether it is lost":
		a.history = 0
	}
	if !a.yield(stop{label, c, ready}) {
		panic(unwinding{})
	}
	a.history = (a.history ^ maphash.String(labels, label)) * 1099511628211
	a.history = (a.history ^ w.number(c)) * 1099511628211
	if a.keeps { // which goes through a list that it has read at once
		for _, p := range w.processes {
			for s := p.m.keeper.bucket(key).Load(); s != nil; s = s.next {
				a.history = (a.history ^ w.number(s.claim)) * 1099511628211
			}
		}
	}
}

func (w *world) before(access string, c *claim) { w.step(access, nil, c) }

func (w *world) starts(run func()) { w.start(w.running.name+"'s goroutine", run) }

// ready returns which actors can go on.
func (w *world) ready() (ready []int) {
	for i, a := range w.actors {
		if !a.ended && (a.at.ready == nil || a.at.ready()) {
			ready = append(ready, i)
		}
	}
	return ready
}

func (w *world) goOn(i int) {
	a := w.actors[i]
	w.choices = append(w.choices, i)
	w.trail = append(w.trail, a)
	w.labels = append(w.labels, a.at)
	w.resume(a)
}

func (w *world) fail(format string, args ...any) {
	w.broken = cmp.Or(w.broken, fmt.Errorf(format, args...))
}

// end ends every actor.
func (w *world) end() {
	for _, a := range w.actors {
		a.stop()
	}
}
