package fuzz

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// FuzzTable runs programs on the table.
//
//	go test ./fuzz -run='^$' -fuzz=FuzzTable -fuzztime=30s -fuzzminimizetime=1x
func FuzzTable(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		require.NoError(t, runTable(parse(bytes[:min(len(bytes), maxProgram)])))
	})
}

// TestModelRandomPrograms runs random programs on the table: many short ones, and a
// few that go on for long.
func TestModelRandomPrograms(t *testing.T) {
	limit := 4 * time.Second
	if testing.Short() {
		limit = time.Second
	}
	steps := 0
	for seed, start := uint64(0), time.Now(); time.Since(start) < limit && steps < 600_000; seed++ {
		random := rand.New(rand.NewPCG(seed, 0))
		bytes := make([]byte, maxProgram)
		if seed%64 == 0 {
			bytes = make([]byte, 30*maxProgram)
		}
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		p := parse(bytes)
		require.NoError(t, runTable(p), "seed %d", seed)
		steps += len(p.steps)
	}
	t.Logf("%d steps", steps)
}

// What should come more often stands there more than once.
var tableVerbs = [16]int{
	join, join, join, join, join, join, join, join,
	cancel, release, release, release, releaseAny, handoff, closeSession, other,
}

// A tableRun is a table beside its model.
type tableRun struct {
	table   *table.Table[int]
	model   *model
	tickets map[int]*table.Ticket[int] // of those who wait, by id
	tokens  []table.Token[int]         // all that were given out
	owners  []int                      // whose the tokens are

	sessions [owners]*table.Session[int] // the first is nil, for no session
	closed   [owners]bool
	nextID   int
	cuts     []*cutRun
	watched  map[int]bool // grants, by the number of the token
	handed   *handed      // in the running transition; nil when nothing is
}

// handed is a value that is handed off.
type handed struct {
	key   int
	value any
}

// A cutRun is a cut that is under way: what it should show, and what it has shown.
type cutRun struct {
	cut       *table.Cut[int]
	want, got map[int][]table.Entry
	err       error
}

// label is the label of an owner's session.
func label(owner int) string {
	if owner == 0 {
		return ""
	}
	return fmt.Sprint("s", owner)
}

// runTable returns an error when the table differs from the model, or breaks a rule of its
// own.
func runTable(p program) error {
	config := table.Config{MaxWaiters: p.maxWaiters, SharedLimit: p.sharedLimit}
	if p.parts {
		config.Part = 1
	}
	r := &tableRun{
		table:   table.New[int](config),
		model:   &model{maxWaiters: p.maxWaiters, sharedLimit: p.sharedLimit, follows: p.parts},
		tickets: make(map[int]*table.Ticket[int]),
		watched: make(map[int]bool),
	}
	for owner := 1; owner < owners; owner++ {
		r.sessions[owner] = table.NewSession[int](label(owner))
	}
	for i, s := range p.steps {
		err := r.step(s)
		if err == nil {
			err = r.compare()
		}
		if err != nil {
			return p.error(i, err, func(s step) string { return verbNames[tableVerbs[s.verb]] })
		}
	}
	for r.table.Postponed() {
		if err := cmp.Or(r.granted(r.table.GoOn(1), nil), r.compare()); err != nil {
			return p.error(len(p.steps)-1, err, func(s step) string { return verbNames[tableVerbs[s.verb]] })
		}
	}
	for len(r.cuts) > 0 {
		if err := r.goOn(); err != nil {
			return err
		}
	}
	return nil
}

func (r *tableRun) step(s step) error {
	if s.race && r.table.Postponed() {
		return r.granted(r.table.GoOn(1), nil)
	}
	switch tableVerbs[s.verb] {
	case join:
		return r.join(s)
	case cancel:
		if waiter, ok := pick(r.model.waiters(), s.arg); ok {
			grants := r.table.Cancel(r.tickets[waiter.id])
			delete(r.tickets, waiter.id)
			return r.granted(grants, r.model.leave(waiter))
		}
	case release:
		if holder, ok := pick(r.model.holders(), s.arg); ok {
			return r.release(slices.Index(r.owners, holder.id))
		}
	case releaseAny:
		if len(r.tokens) > 0 {
			return r.release(int(s.arg) % len(r.tokens))
		}
	case handoff:
		if len(r.tokens) > 0 {
			return r.handoff(int(s.arg) % len(r.tokens))
		}
	case closeSession:
		if r.closed[s.owner] || s.arg%4 == 0 { // seldom, or all would be closed half of the time
			return r.close(s.owner)
		}
	case other:
		switch s.arg % 8 {
		case 0:
			return r.cancelled(r.table.CancelAll(), r.model.leaveAll())
		case 1:
			r.table.Reject()
			r.model.counts.Rejected++
		case 2:
			return r.granted(r.table.Release(table.Token[int]{}), nil)
		case 3, 4:
			r.cut()
		case 5, 6:
			return r.goOn()
		case 7:
			if len(r.tokens) == 0 {
				return nil
			}
			if i := int(s.arg) / 16 % len(r.tokens); s.arg/8%2 == 0 {
				return r.downgrade(i)
			} else {
				return r.watch(i)
			}
		}
	}
	return nil
}

// cut begins a cut, if fewer than two are under way.
func (r *tableRun) cut() {
	if len(r.cuts) == 2 {
		return
	}
	c := &cutRun{want: make(map[int][]table.Entry), got: make(map[int][]table.Entry)}
	for v := range r.table.All() {
		c.want[v.Key] = slices.Collect(v.Entries)
	}
	c.cut = r.table.Cut(func(v table.View[int]) {
		if c.got[v.Key] != nil {
			c.err = fmt.Errorf("the cut shows key %d twice", v.Key)
		}
		c.got[v.Key] = slices.Collect(v.Entries)
	})
	r.cuts = append(r.cuts, c)
}

// goOn shows a little more of the oldest cut, and judges it when it is over.
func (r *tableRun) goOn() error {
	if len(r.cuts) == 0 || r.cuts[0].cut.Next(3) {
		return nil
	}
	c := r.cuts[0]
	c.cut.End()
	r.cuts = r.cuts[1:]
	if c.err == nil && !maps.EqualFunc(c.got, c.want, slices.Equal) {
		c.err = fmt.Errorf("the cut shows %v, when it began there was %v", c.got, c.want)
	}
	return c.err
}

func (r *tableRun) join(s step) error {
	asked := &request{id: r.nextID, keys: s.keys, many: s.many, each: s.each, shared: s.shared, limit: s.limit, session: label(s.owner)}
	r.nextID++
	t := table.Request[int]{Each: s.each, Limit: s.limit, Session: r.sessions[s.owner], Try: s.try, Tag: asked.id}
	if s.many {
		t.Keys = s.keys
	} else if t.Key = s.keys[0]; s.shared {
		t.Mode = table.Shared
	}
	got := r.table.Join(&t)
	if r.model.follows && !r.closed[s.owner] {
		return r.joined(asked, s.try, got)
	}
	var want answer
	if r.closed[s.owner] {
		want.outcome = table.Closed
		r.model.counts.Rejected++
	} else {
		want = r.model.join(asked, s.try)
	}
	if got.Outcome != want.outcome {
		return fmt.Errorf("outcome is %d, want %d", got.Outcome, want.outcome)
	}
	switch got.Outcome {
	case table.Granted:
		return r.granted([]table.Grant[int]{{Tag: asked.id, Token: got.Token}}, []*request{asked})
	case table.Waiting:
		r.tickets[asked.id] = got.Ticket
	case table.Full:
		if got.Refusal.Key != want.key {
			return fmt.Errorf("the queue of key %d is full, want %d", got.Refusal.Key, want.key)
		}
	case table.Deadlock:
		return r.model.cycleError(asked, got.Refusal.Cycle)
	}
	return nil
}

// joined judges what became of a request, where the model follows the table: one that need not
// wait may have to if others that could be granted are postponed.
func (r *tableRun) joined(asked *request, try bool, got table.Answer[int]) error {
	m := r.model
	free := m.grantable(asked, m.present)
	deadlocks := !free && m.deadlocks(asked)
	switch got.Outcome {
	case table.Granted:
		if !free {
			return fmt.Errorf("request %d was granted, which has to wait", asked.id)
		}
		m.present = append(m.present, asked)
		err := r.granted([]table.Grant[int]{{Tag: asked.id, Token: got.Token}}, nil)
		m.counts.Waited--
		return err
	case table.Waiting:
		if try || free && !r.table.Postponed() || deadlocks {
			return fmt.Errorf("request %d waits", asked.id)
		}
		m.present = append(m.present, asked)
		r.tickets[asked.id] = got.Ticket
		return nil
	}
	m.counts.Rejected++
	switch {
	case got.Outcome == table.Deadlock && deadlocks && !try:
		return m.cycleError(asked, got.Refusal.Cycle)
	case got.Outcome == table.Busy && try && (!free || r.table.Postponed()):
		return nil
	case got.Outcome == table.Full && m.maxWaiters != 0 && m.waiting(got.Refusal.Key) >= m.maxWaiters && (!free || r.table.Postponed()):
		return nil
	}
	return fmt.Errorf("outcome of request %d is %d", asked.id, got.Outcome)
}

// release releases the i-th token.
func (r *tableRun) release(i int) error {
	grants := r.table.Release(r.tokens[i])
	if holder := r.model.get(r.owners[i]); holder != nil {
		return r.granted(grants, r.model.leave(holder))
	}
	return r.granted(grants, nil)
}

// handoff hands the i-th token off.
func (r *tableRun) handoff(i int) error {
	var grants []table.Grant[int]
	value := fmt.Sprint("from ", i)
	_, alone := r.table.NextWaiter(r.tokens[i])
	if alone {
		grants = r.table.Handoff(r.tokens[i], value)
	}
	holder := r.model.get(r.owners[i])
	if !r.model.follows {
		if holder != nil {
			return r.granted(grants, r.model.handoff(holder, value))
		}
		return r.granted(grants, nil)
	}
	if err := r.handsOff(holder, alone); err != nil {
		return err
	}
	switch {
	case alone != (len(grants) > 0):
		return fmt.Errorf("there is a next waiter, which was not granted")
	case !alone:
		return nil
	}
	r.handed = &handed{holder.keys[0], value}
	r.model.leave(holder)
	err := r.granted(grants, nil)
	r.handed = nil
	r.model.promise(holder.keys[0], value)
	return err
}

// handsOff judges whether there is a next waiter to which a holder can hand off, where the model
// follows. One that is postponed is none: it goes on in any case.
func (r *tableRun) handsOff(holder *request, alone bool) error {
	m := r.model
	if holder == nil || holder.many {
		if alone {
			return fmt.Errorf("a grant that has ended, or is of many keys, has a next waiter")
		}
		return nil
	}
	goesOn, postponed := m.goesOn(holder.keys[0])
	if goesOn && !postponed {
		return nil // one of many keys is postponed, or waits for another one
	}
	want := false
	if first := m.firstBlocked(holder.keys[0]); !postponed && first != nil && !first.many {
		left := m.clone()
		left.leave(left.get(holder.id))
		want = left.grantable(first, left.present[:slices.Index(left.present, left.get(first.id))])
	}
	if alone != want {
		return fmt.Errorf("there is a next waiter: %t, want %t", alone, want)
	}
	return nil
}

// judge compares the values that come with grants.
func (r *tableRun) judge(grants []table.Grant[int]) error {
	of := make(map[int]int) // how many are of the key alone
	for _, g := range grants {
		if w := r.model.get(g.Tag.(int)); !w.many {
			of[w.keys[0]]++
		}
	}
	for _, g := range grants {
		w := r.model.get(g.Tag.(int))
		want, sure := w.value, true
		if r.model.follows {
			switch h := r.handed; {
			case h != nil && !w.many && w.keys[0] == h.key:
				want = h.value
			default: // what was promised to the second may be forgotten by then
				want, sure = w.promised, w.sure && of[w.keys[0]] == 1
			}
		}
		if g.Value != want && (sure || g.Value != nil) {
			return fmt.Errorf("request %d is granted with the value %v, want %v", w.id, g.Value, want)
		}
	}
	return nil
}

// downgrade downgrades the i-th token.
func (r *tableRun) downgrade(i int) error {
	grants := r.table.Downgrade(r.tokens[i])
	if holder := r.model.get(r.owners[i]); holder != nil {
		return r.granted(grants, r.model.downgrade(holder))
	}
	return r.granted(grants, nil)
}

// watch watches the i-th token.
func (r *tableRun) watch(i int) error {
	holder := r.model.get(r.owners[i])
	tag := r.table.Watch(r.tokens[i], i)
	want := holder != nil && !r.model.wanted(holder)
	if (tag == i) != want && (holder == nil || !r.table.Postponed()) {
		return fmt.Errorf("Watch returned %v", tag)
	}
	if tag == i {
		r.watched[i] = true
	}
	return nil
}

// over compares which watches are over.
func (r *tableRun) over() error {
	for _, tag := range r.table.Over() {
		if !r.watched[tag.(int)] {
			return fmt.Errorf("grant %d is not watched, and its watch is over", tag)
		}
		delete(r.watched, tag.(int))
		if holder := r.model.get(r.owners[tag.(int)]); holder != nil && !r.model.wanted(holder) {
			return fmt.Errorf("the watch of grant %d is over for no reason", tag)
		}
	}
	for i := range r.watched {
		if holder := r.model.get(r.owners[i]); holder == nil || r.model.wanted(holder) && !r.table.Postponed() {
			return fmt.Errorf("the watch of grant %d is not over", i)
		}
	}
	return nil
}

// close closes the session of an owner, or begins a new one when it is closed.
func (r *tableRun) close(owner int) error {
	switch {
	case owner == 0:
		return nil
	case r.closed[owner]:
		r.closed[owner] = false
		r.sessions[owner] = table.NewSession[int](label(owner))
		return nil
	}
	r.closed[owner] = true
	for _, w := range r.model.waiters() {
		w.sure = false // what it leaves one after the other may be forgotten in between
	}
	tags, _, grants := r.table.CloseSession(r.sessions[owner])
	cancelled, granted := r.model.closeSession(label(owner))
	if err := r.cancelled(tags, cancelled); err != nil {
		return err
	}
	return r.granted(grants, granted)
}

// cancelled compares whose waits were ended.
func (r *tableRun) cancelled(tags []any, cancelled []*request) error {
	var got, want []int
	for _, tag := range tags {
		got = append(got, tag.(int))
		delete(r.tickets, tag.(int))
	}
	for _, gone := range cancelled {
		want = append(want, gone.id)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("cancelled %v, want %v", got, want)
	}
	return nil
}

// granted compares the grants of one transition. They come with the next numbers, in the
// order in which the table lists them; of two that share a key the earlier request comes
// first.
func (r *tableRun) granted(grants []table.Grant[int], want []*request) error {
	for _, g := range grants {
		if w := r.model.get(g.Tag.(int)); r.model.follows {
			if err := r.model.follow(w); err != nil {
				return err
			}
			want = append(want, w)
		}
	}
	if len(grants) != len(want) {
		return fmt.Errorf("%d were granted, want %d", len(grants), len(want))
	}
	if err := r.judge(grants); err != nil {
		return err
	}
	next := uint64(len(r.tokens)) + 1
	for _, g := range grants {
		i := slices.IndexFunc(want, func(w *request) bool { return w.id == g.Tag.(int) })
		if i < 0 {
			return fmt.Errorf("request %d was granted, which should wait", g.Tag)
		}
		if g.Token.Seq() != next {
			return fmt.Errorf("grant %d has the number %d", next, g.Token.Seq())
		}
		want[i].seq = next
		next++
		delete(r.tickets, want[i].id)
		r.tokens = append(r.tokens, g.Token)
		r.owners = append(r.owners, want[i].id)
	}
	return r.model.inOrder(want)
}

// inOrder returns an error when of two grants for one key the later request has the earlier
// number. The requests are in the order in which they came.
func (m *model) inOrder(granted []*request) error {
	for i, later := range granted {
		for _, earlier := range granted[:i] {
			meet := slices.ContainsFunc(later.keys, func(key int) bool { return m.meet(earlier, later, key) })
			if meet && earlier.seq >= later.seq {
				return fmt.Errorf("request %d was granted before request %d", later.id, earlier.id)
			}
		}
	}
	return nil
}

// meet says whether a later request may not pass an earlier one for a key.
func (m *model) meet(earlier, later *request, key int) bool {
	if !slices.Contains(earlier.keys, key) || !slices.Contains(later.keys, key) {
		return false
	}
	one, two := m.terms(earlier, key), m.terms(later, key)
	return !earlier.many || one.Mode == table.Exclusive || two.Mode == table.Exclusive || one.Limit > 0 || two.Limit > 0
}

// compare compares all that can be seen.
func (r *tableRun) compare() error {
	if err := r.table.Check(); err != nil {
		return err
	}
	if err := r.over(); err != nil {
		return err
	}
	r.model.expire()
	if r.model.isBehind() && !r.table.Postponed() {
		return fmt.Errorf("one waits that could be granted, and none is postponed")
	}
	if got, want := r.table.Counts(), r.model.totals(); got != want {
		return fmt.Errorf("counts are %+v, want %+v", got, want)
	}
	queues := r.model.queues()
	got := make(map[int][]table.Entry)
	for queue := range r.table.All() {
		for p := range queue.Entries {
			got[queue.Key] = append(got[queue.Key], table.Entry{Seq: p.Seq, Mode: p.Mode, Label: p.Label})
		}
	}
	if !maps.EqualFunc(got, queues, slices.Equal) {
		return fmt.Errorf("queues are %v, want %v", got, queues)
	}
	for key := range keys {
		v := r.table.Look(key)
		if want := len(queues[key]); v.Held+v.Waiting != want {
			return fmt.Errorf("Look(%d) is %+v", key, v)
		}
	}
	if want := len(queues) == 0; r.table.Idle() != want {
		return fmt.Errorf("Idle is %t", !want)
	}
	for i, token := range r.tokens {
		if want := r.model.get(r.owners[i]) != nil; token.Live() != want {
			return fmt.Errorf("grant %d: Live is %t", token.Seq(), !want)
		}
	}
	return nil
}
