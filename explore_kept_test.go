//go:build explore

package keylock

import (
	"context"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// TestInterleavingsOfKeptGrants is TestEveryInterleaving for managers that keep grants.
//
//	go test -tags explore . -run=TestInterleavingsOfKeptGrants -v
func TestInterleavingsOfKeptGrants(t *testing.T) { exploreAll(t, keptFamilies) }

// keeps is what the world knows of kept grants.
type keeps struct {
	known  uint64              // grants, when it looked last
	given  map[uint64]bool     // the numbers of all locks that calls have returned
	last   [exploreKeys]uint64 // the number of the last grant of a key that a call has returned
	looked bool                // the owner was on the way to a moment when it looked last
	inTime bool                // Start's context had not ended when the owner began to serve, which takes several steps here
}

// A sight is what a caller has seen of a cell, and the number that it has for a grant.
type sight struct {
	word, number uint64
	late         bool // the grant would come too late
}

// keptScenario is what a scenario says of kept grants.
type keptScenario struct {
	cells int
	warm  bool // there are keys in them
	few   bool // the numbers of each are soon used up
}

func (s keptScenario) String() string {
	if s.few {
		return fmt.Sprintf("%d cells with few numbers; ", s.cells)
	}
	return fmt.Sprintf("%d cells; ", s.cells)
}

// keptCaller is what a caller knows of kept grants.
type keptCaller struct {
	sight   sight
	idles   bool // it is in WaitIdle
	handed  bool // for the partner: a copy of the lock
	copied  Lock[int]
	had     []Lock[int] // that its calls have returned
	moments [][]uint64  // what it has held, one after the other
	took    bool        // what it takes comes too late
}

func (c *keptCaller) idle(is bool) { c.idles = is }
func (c *keptCaller) sends()       { c.sight = sight{} }

// seed is one with which two keys are in two cells, where there are two.
var seed = func() maphash.Seed {
	for {
		seed := maphash.MakeSeed()
		if maphash.Comparable(seed, 0)>>63 == 0 && maphash.Comparable(seed, 1)>>63 == 1 {
			return seed
		}
	}
}()

func (w *world) keepsGrants() bool { return w.m.kept != nil }

// fillCells makes the cells, and fills them with keys that are free, before anything happens.
func (w *world) fillCells() {
	if w.scenario.kept.cells == 0 || w.scenario.observes {
		return
	}
	w.m.kept = newKept(w.o.table, w.o.lifetime, w.scenario.kept.cells)
	k := w.m.kept
	k.seed, k.atOnce = seed, 1
	if w.scenario.kept.few {
		k.numbers = 3
	}
	if !w.scenario.kept.warm {
		return
	}
	for key := range k.cells {
		r := &acquire[int]{want: table.Request[int]{Key: key}, replied: make(chan bool, 1)}
		r.join(w.o)
		k.park(key, nil, r.token)
	}
}

// cell is the gate of a caller's access to a cell.
func (w *world) cell(access string, word, number uint64) {
	c := w.caller()
	late := c.kept.sight.late
	c.kept.sight = sight{word, number, late}
	if !c.straight {
		c.choose(move{label: access})
	}
	c.straight = false
	switch access {
	case "looks at a cell":
		c.kept.sight.late = false
	case "looks whether it may take":
		c.kept.sight.late = w.ctx.err != nil || w.reservedFor(c, word)
	case "takes a kept grant":
		c.kept.took = late
	case "parks":
		if c.reservesStill() {
			panic("a release is seen before a reservation that was made before")
		}
		c.drops(number)
	}
}

// drops notes that the lock with a number is held no longer.
func (c *caller) drops(number uint64) {
	c.holds = slices.DeleteFunc(c.holds, func(h held) bool { return h.token.Seq() == number })
}

// reservesStill reports whether a reservation of the caller, which has returned, was not served yet.
func (c *caller) reservesStill() bool {
	return c.reserved && slices.ContainsFunc(c.w.mail(), func(msg message[int]) bool {
		r, ok := msg.request.(*countedReservation[int])
		return ok && (*acquire[int])(r) == c.reservation.r
	})
}

// reservedFor reports whether a reservation has returned that was not served yet, of the caller or
// for the key of the cell with a word.
func (w *world) reservedFor(c *caller, word uint64) bool {
	if c.reservesStill() {
		return true
	}
	for _, a := range w.actors {
		of, ok := a.memory.(*caller)
		if !ok || !of.reservesStill() {
			continue
		}
		for i := range w.m.kept.cells {
			if cell := &w.m.kept.cells[i]; cell.word.Load() == word && cell.key == of.reservation.r.want.Key {
				return true
			}
		}
	}
	return false
}

// acquired returns how many grants there were.
func (w *world) acquired() uint64 {
	n := w.o.table.Counts().Acquired
	if w.m.kept != nil {
		for i := range w.m.kept.cells {
			if c := &w.m.kept.cells[i]; c.word.Load()&called == 0 {
				n += c.word.Load()>>numberBits - w.numberOf(c.ticket)
			}
		}
	}
	return n
}

// numberOf returns the number of the grant that the table has of a key.
func (w *world) numberOf(holder *table.Ticket[int]) (number uint64) {
	for v := range w.o.table.Of(holder) {
		for e := range v.Entries {
			number = e.Seq
		}
	}
	return number
}

// allCalled reports whether all cells are the owner's.
func (w *world) allCalled() bool {
	if w.m.kept == nil {
		return true
	}
	return !slices.ContainsFunc(w.words(), func(word uint64) bool { return word&called == 0 })
}

// holdsKept reports whether a grant is kept that is held, of which the table does not know.
func (w *world) holdsKept(grant table.Token[int]) bool {
	return slices.ContainsFunc(w.words(), func(word uint64) bool {
		return word>>numberBits == grant.Seq() && word&(called|out) == out
	})
}

// parked returns how many keys are kept that are free.
func (w *world) parked() (n int) {
	for _, word := range w.words() {
		if word&(called|out) == 0 {
			n++
		}
	}
	return n
}

// words returns the words of the cells.
func (w *world) words() (words []uint64) {
	if w.m.kept != nil {
		for i := range w.m.kept.cells {
			words = append(words, w.m.kept.cells[i].word.Load())
		}
	}
	return words
}

// gets checks the number of a lock that a call returns.
func (k *keeps) gets(c *caller, lock Lock[int], want table.Request[int]) {
	c.kept.had = append(c.kept.had, lock)
	if k.given == nil {
		k.given = make(map[uint64]bool)
	}
	if k.given[lock.Seq()] {
		panic(fmt.Sprintf("grant %d is given twice", lock.Seq()))
	}
	k.given[lock.Seq()] = true
	if want.Mode == table.Shared || want.Keys != nil {
		return
	}
	if last := &k.last[want.Key]; lock.Seq() <= *last {
		panic(fmt.Sprintf("grant %d of key %d comes after grant %d", lock.Seq(), want.Key, *last))
	} else {
		*last = lock.Seq()
	}
}

// noteKept notes, after each step, what was granted without the owner.
func (known *keeps) note(w *world) {
	k := w.m.kept
	if k == nil {
		return
	}
	n := w.acquired()
	if n > known.known {
		c, ok := w.running.memory.(*caller)
		if w.last != nil && (ok || known.inTime) {
			*w.last = n // it has looked before Start's context has ended
		}
		if ok && c.kept.took {
			w.broken = fmt.Errorf("%s takes what it must not", c.name)
		}
	}
	known.known = n
	if known.looked && !w.o.looking.looks && !w.o.ended && w.broken == nil {
		w.broken = w.checkMoment()
	}
	known.looked = w.o.looking.looks
	for _, a := range w.actors {
		if c, ok := a.memory.(*caller); ok {
			c.notesHeld()
		}
	}
}

// notesHeld notes what the caller holds, if it is anything new.
func (c *caller) notesHeld() {
	now := make([]uint64, 0, len(c.holds))
	for _, h := range c.holds {
		now = append(now, h.token.Seq())
	}
	slices.Sort(now)
	if len(c.kept.moments) == 0 || !slices.Equal(c.kept.moments[len(c.kept.moments)-1], now) {
		c.kept.moments = append(c.kept.moments, now)
	}
}

// checkMoment checks what the owner knows when it knows of all grants: of each caller the grants
// that it had at one time.
func (w *world) checkMoment() error {
	if !w.allCalled() {
		return fmt.Errorf("the owner looks, and has not called in all")
	}
	for _, a := range w.actors {
		c, ok := a.memory.(*caller)
		if !ok || c.reserved { // a reservation has its grant before the call that returns it
			continue
		}
		live := []uint64{}
		for _, lock := range c.kept.had {
			if lock.token.Live() {
				live = append(live, lock.Seq())
			}
		}
		slices.Sort(live)
		if !slices.ContainsFunc(c.kept.moments, func(m []uint64) bool { return slices.Equal(m, live) }) && len(live) > 0 {
			return fmt.Errorf("%s is shown to have grants %v, and had %v", c.name, live, c.kept.moments)
		}
	}
	return nil
}

// checkKept checks that what is kept is as the table has it.
func (w *world) checkKept() error {
	k := w.m.kept
	if k == nil {
		return nil
	}
	for i := range k.cells {
		c := &k.cells[i]
		if c.word.Load()&called != 0 {
			continue
		}
		if last := c.word.Load()>>numberBits | k.numbers; last > w.lastNumber() {
			return fmt.Errorf("key %d is kept with numbers up to %d, and the table gives those after %d", c.key, last, w.lastNumber())
		}
		var v table.View[int]
		for v = range w.o.table.Of(c.ticket) {
		}
		if v.Key != c.key || v.Held != 1 || v.Waiting != 0 {
			return fmt.Errorf("key %d is kept, and the table has %d holders and %d waiters of key %d", c.key, v.Held, v.Waiting, v.Key)
		}
	}
	if ended.Is(w.m.done) && !w.allCalled() {
		return fmt.Errorf("grants are kept after the end")
	}
	if w.o.idle != nil && !w.waitsIdle() {
		return fmt.Errorf("no grants are kept because of a WaitIdle that is over")
	}
	switch {
	case w.o.ended || !w.atRest():
		return nil
	case k.unserved.Load() != 0:
		return fmt.Errorf("%d requests are never served", k.unserved.Load())
	case w.o.looking.looks || len(w.o.looking.asked) > 0:
		return fmt.Errorf("a question is not answered")
	}
	return nil
}

// lastNumber returns the last number that the table has given or reserved.
func (w *world) lastNumber() uint64 {
	return reflect.ValueOf(w.o.table).Elem().FieldByName("seq").Uint()
}

// waitsIdle reports whether a WaitIdle is not over, or its end is on the way to the owner.
func (w *world) waitsIdle() bool {
	if w.actors[0].moves != nil && w.actors[0].moves[0].label != "serves" {
		return true // the owner is about to hear of it, perhaps
	}
	for _, a := range w.actors {
		if c, ok := a.memory.(*caller); ok && (c.kept.idles || strings.HasSuffix(c.name, "goroutine") && !c.over) {
			return true
		}
	}
	return slices.ContainsFunc(w.mail(), func(msg message[int]) bool {
		_, ends := msg.request.(*waitIdle[int])
		return ends
	})
}

// keptCells are the cells of a world.
type keptCells []cell[int]

func (w *world) cells() keptCells {
	if w.m.kept == nil {
		return nil
	}
	return w.m.kept.cells
}

// keptSpecial is special for the types of kept grants.
func keptSpecial(name string) func(*fingerprint, reflect.Value) bool {
	switch name {
	case "cell":
		return func(f *fingerprint, v reflect.Value) bool {
			c := (*cell[int])(v.Addr().UnsafePointer())
			word := c.word.Load()
			f.number(word & (called | out))
			f.bool(word&called != 0 && c.live(word))
			return false
		}
	case "cellWord": // in a lock: its cell is where its number is, or it is late
		return func(*fingerprint, reflect.Value) bool { return true }
	case "Stats": // who asks checks them
		return func(*fingerprint, reflect.Value) bool { return true }
	case "sight":
		return func(f *fingerprint, v reflect.Value) bool {
			f.sight(*(*sight)(v.Addr().UnsafePointer()))
			return true
		}
	}
	return nil
}

// cellOf returns where the last grant has a number, counted from 1; 0 when there is none.
func (cells keptCells) cellOf(number uint64) uint64 {
	for i := range cells {
		if word := cells[i].word.Load(); number != 0 && word>>numberBits == number {
			return uint64(i + 1)
		}
	}
	return 0
}

// numbers covers how many numbers are left, where they are soon used up.
func (f *fingerprint) numbers(w *world) {
	if !w.scenario.kept.few || w.m.kept == nil {
		return
	}
	f.number(w.lastNumber() & w.m.kept.numbers)
	for _, word := range w.words() {
		f.number(word >> numberBits & w.m.kept.numbers)
	}
}

// sight covers what a caller has seen, as far as it matters: whether it is still so, and which
// grants came before the number.
func (f *fingerprint) sight(s sight) {
	f.bool(s.late)
	f.bool(s.number != 0)
	for i := range f.kept {
		word := f.kept[i].word.Load()
		f.bool(word == s.word)
		f.number(uint64(min(max(int64(word>>numberBits)-int64(s.number), -1), 1) + 1))
	}
}

var (
	acquiresTwice = program{
		name: "acquire twice", cancels: true,
		run: func(c *caller) {
			acquiresAndReleases(table.Request[int]{})(c)
			acquiresAndReleases(table.Request[int]{})(c)
		},
	}
	alternates = program{
		name: "acquire key 0, 1, 0",
		run: func(c *caller) {
			for _, key := range []int{0, 1, 0} {
				acquiresAndReleases(table.Request[int]{Key: key})(c)
			}
		},
	}
	acquiresOtherTwice = program{
		name: "acquire the other key twice",
		run: func(c *caller) {
			acquiresAndReleases(table.Request[int]{Key: 1})(c)
			acquiresAndReleases(table.Request[int]{Key: 1})(c)
		},
	}
	triesOther = program{
		name: "try the other key",
		run:  acquiresAndReleases(table.Request[int]{Key: 1, Try: true}),
	}
	reservesThenAcquires = program{
		name: "reserve, acquire the other key, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			acquiresAndReleases(table.Request[int]{Key: 1})(c)
			c.release(c.Wait(table.Request[int]{}))
		},
	}
	reservesThenReleases = program{
		name: "acquire the other key, reserve, release, wait",
		run: func(c *caller) {
			lock, err := c.acquire(table.Request[int]{Key: 1})
			c.reserve(table.Request[int]{})
			c.release(lock, err)
			c.release(c.Wait(table.Request[int]{}))
		},
	}
	reservesThenTries = program{
		name: "reserve, try, wait",
		run: func(c *caller) {
			c.reserve(table.Request[int]{})
			if _, err := c.acquire(table.Request[int]{Try: true}); err == nil {
				panic("a try has overtaken a reservation")
			}
			c.release(c.Wait(table.Request[int]{}))
		},
	}
	releasesCopy = program{
		name: "acquire, release, and another releases a copy",
		run: func(c *caller) {
			lock, err := c.acquire(table.Request[int]{})
			if err != nil {
				c.kept.handed = true
				return
			}
			c.notesHeld()
			c.drop(lock.token)
			c.kept.copied, c.kept.handed = lock, true
			c.Release(lock)
		},
		partner: func(c, of *caller) {
			c.step("gets a copy", func() bool { return of.kept.handed })
			c.Release(of.kept.copied)
		},
	}
	sharesThenTries = program{
		name: "acquire shared, try", cancels: true, shares: true,
		run: func(c *caller) {
			acquiresAndReleases(table.Request[int]{Mode: table.Shared})(c)
			acquiresAndReleases(table.Request[int]{Try: true})(c)
		},
	}
	closesThenTries = program{
		name: "session acquires shared, closed by another, who tries", shares: true,
		run: func(c *caller) {
			c.session = c.w.m.Session("closed")
			acquiresAndReleases(table.Request[int]{Mode: table.Shared})(c)
		},
		partner: func(c, of *caller) {
			closesSession(c, of)
			c.session = nil
			acquiresAndReleases(table.Request[int]{Try: true})(c)
		},
	}
	shutsDownThenTries = program{
		name: "shutdown, try", ends: true, cancels: true,
		run: func(c *caller) {
			c.checks(c.Shutdown())
			if _, err := c.acquire(table.Request[int]{Try: true}); err == nil {
				panic("a try comes in after Shutdown")
			}
		},
	}
	shutsDownThenInspects = program{
		name: "shutdown, inspect", ends: true, cancels: true,
		run: func(c *caller) {
			c.checks(c.Shutdown())
			if _, err := c.Inspect(); err == nil {
				panic("a manager is looked at that Shutdown has ended, because all its keys are free")
			}
		},
	}
	// Beside a caller that has or wants one lock at a time.
	seesNoWaiter = program{
		name: "inspect, beside one who never waits for itself",
		run: func(c *caller) {
			c.begins(forever, "asks")
			info, err := c.w.m.Inspect(context.Background(), 0)
			if info.Held > 0 && info.Waiting > 0 {
				panic("a call that has returned is said to wait")
			}
			c.ends(table.Token[int]{}, info.Held, reason(err))
			c.checks(err)
		},
	}
	asksStats = program{
		name: "stats", cancels: true,
		run: func(c *caller) { c.checks(c.Stats()) },
	}
	inspects = program{
		name: "inspect",
		run: func(c *caller) {
			_, err := c.Inspect()
			c.checks(err)
		},
	}
	looksAfterwards = program{
		name: "acquire twice, inspect, acquire, stats",
		run: func(c *caller) {
			acquiresTwice.run(c)
			if held, err := c.Inspect(); held > 0 && err == nil {
				panic("a key that is free is said to be held")
			}
			acquiresAndReleases(table.Request[int]{})(c)
			stats, err := c.stats()
			grants := uint64(3)
			if c.w.scenario.kept.warm {
				grants += uint64(c.w.scenario.kept.cells)
			}
			if err == nil && (stats.Acquired != grants || stats.Released != grants || stats.Held != 0 || stats.Keys != 0) {
				panic(fmt.Sprint("Stats are ", stats))
			}
		},
	}
)

// Stats is [Manager.Stats].
func (c *caller) Stats() error {
	_, err := c.stats()
	return err
}

func (c *caller) stats() (Stats, error) {
	c.begins(c.ctx, "asks")
	stats, err := c.w.m.Stats(c.ctx)
	if err == nil && stats.Acquired-stats.Released != uint64(stats.Held) {
		panic(fmt.Sprint("Stats are ", stats))
	}
	c.ends(table.Token[int]{}, reason(err))
	return stats, err
}

// Inspect is [Manager.Inspect].
func (c *caller) Inspect() (held int, err error) {
	c.begins(forever, "asks")
	info, err := c.w.m.Inspect(context.Background(), 0)
	c.ends(table.Token[int]{}, info.Held, reason(err))
	return info.Held, err
}

var (
	// cold managers have an empty cell, warm ones have one key in each.
	oneCold = scenario{mailbox: 16, apart: true, kept: keptScenario{cells: 1}}
	oneWarm = scenario{mailbox: 16, apart: true, kept: keptScenario{cells: 1, warm: true}}
	twoWarm = scenario{mailbox: 16, apart: true, kept: keptScenario{cells: 2, warm: true}}
	// fewWarm have two numbers in each cell, and fewCold up to three.
	fewWarm = scenario{mailbox: 16, apart: true, kept: keptScenario{cells: 2, warm: true, few: true}}
	fewCold = scenario{mailbox: 16, apart: true, kept: keptScenario{cells: 1, few: true}}

	onOneKey = []program{acquiresTwice, releasesTwice, releasesCopy, tries, reserves, reservesAgain, reservesThenTries, shares, acquiresAll, handsOff, does, upwards, waitsIdle, looks, inspects}
	few      = []program{acquires, acquiresTwice, tries, releasesTwice}
)

// keptEnding is how a manager ends that keeps grants.
func keptEnding(s scenario) []scenario {
	return changed(ending, func(end *scenario) { end.kept = s.kept })
}

var keptFamilies = []family{
	{1, "one caller looks afterwards", 1, []program{looksAfterwards}, []scenario{oneCold, oneWarm, twoWarm}},
	{1, "two callers on one key", 2, onOneKey, []scenario{oneWarm}},
	{1, "two callers who downgrade or hear that another waits", 2, []program{watches, watchesShared, downgrades, acquiresTwice, releasesCopy}, []scenario{oneWarm}},
	{1, "two callers on one key at the end", 1, few, keptEnding(oneWarm)},
	{1, "two callers on one key at the end of Start's context", 2, []program{tries, releasesTwice, acquires}, keptEnding(oneWarm)[5:]},
	{1, "one who looks at another, who leaves, and comes again", 1, []program{sharesThenTries, closesThenTries},
		changed([]scenario{oneWarm}, func(s *scenario) { s.callers = []program{seesNoWaiter} })},
	{1, "one who leaves before the owner knows of it, and comes again", 1, []program{sharesThenTries}, // it does not wait for a reply, because a question is before it
		changed([]scenario{oneWarm}, func(s *scenario) { s.callers = []program{seesNoWaiter, seesNoWaiter} })},
	{1, "one caller after a shutdown that it does not wait for", 1, []program{shutsDownThenTries, shutsDownThenInspects}, []scenario{oneWarm}},
	{1, "two keys and one cell", 2, []program{acquiresTwice, acquiresOtherTwice, alternates, triesOther, reservesThenAcquires, reservesThenReleases}, []scenario{oneCold}},
	{1, "two keys and two cells", 2, []program{alternates, triesOther, reservesThenAcquires, asksStats, looks}, []scenario{twoWarm}},
	{1, "two keys and two cells, with many keys", 2, []program{alternates, reservesThenReleases, acquiresAll, downwards, looks, waitsIdle}, []scenario{twoWarm}},
	{1, "two keys and two cells with few numbers", 2, []program{acquiresTwice, alternates}, []scenario{fewWarm}},
	{1, "two keys and one cell with few numbers", 2, []program{acquiresTwice, acquiresOtherTwice}, []scenario{fewCold}},
	{3, "three callers on one key", 3, []program{tries, releasesTwice, reservesThenTries}, []scenario{oneWarm}},
	{3, "three callers on two keys and one cell", 3, []program{tries, acquiresOther, acquiresTwice}, []scenario{oneCold}},
	{1, "a question among two callers", 1, []program{asksStats}, changed([]scenario{twoWarm}, func(s *scenario) { s.callers = []program{alternates, triesOther} })},
}
