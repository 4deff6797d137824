package table

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A slowSearch says by brute force whether a request would wait forever: it goes over
// everything again and again until nothing changes.
type slowSearch struct {
	table *Table[int]
	stuck map[*Session[int]]bool
	gets  map[*Ticket[int]]bool // for many keys: whether it gets them, as far as it is known
}

// deadlocks assumes that every session that can go on releases all that it holds.
func (s *slowSearch) deadlocks(r *Request[int], all []*Session[int]) bool {
	s.stuck = make(map[*Session[int]]bool)
	for _, o := range all {
		s.stuck[o] = true
	}
	for q := range s.table.queues.all { // requests for many keys without a session
		for p := q.head; p != nil; p = p.next {
			if p.ticket.session != nil {
				s.stuck[p.ticket.session] = true
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for o, stuck := range s.stuck {
			s.gets = make(map[*Ticket[int]]bool)
			if stuck && !s.waits(o, r) {
				s.stuck[o], changed = false, true
			}
		}
	}
	return s.stuck[r.Session]
}

// waits reports whether a session waits for one that is stuck.
func (s *slowSearch) waits(o *Session[int], r *Request[int]) bool {
	if o == r.Session {
		for _, a := range s.table.blocking(r, nil) {
			if s.blocked(a.queue, nil, a.Terms) {
				return true
			}
		}
	}
	for _, k := range o.waiting {
		for i := range k.entries() {
			if p := &k.entries()[i]; s.blocked(p.queue, p, p.Terms) {
				return true
			}
		}
	}
	return false
}

// blocked reports whether what is stuck before an entry is in its way.
func (s *slowSearch) blocked(q *queue[int], at *entry[int], is Terms) bool {
	barred, held, waiting := 0, int32(0), 0 // entries that are stuck
	blocks := func(is Terms) bool {
		if is.Mode == Exclusive {
			return barred+int(held)+waiting > 0
		}
		return barred > 0 || is.Limit > 0 && (waiting > 0 || held >= is.Limit)
	}
	for p := q.head; p != at; p = p.next {
		blocked := !p.granted() && blocks(p.Terms)
		stuck := s.stuck[p.ticket.session]
		if p.ticket.session == nil {
			stuck = blocked
		}
		gets := p.granted() || !blocked && (p.ticket.many == nil || s.getsAll(p.ticket))
		switch {
		case !stuck:
		case p.Mode == Exclusive || blocked || !gets && p.Limit > 0:
			barred++
		case gets:
			held++
		default:
			waiting++
		}
	}
	return blocks(is)
}

// getsAll reports whether a request for many keys is blocked in none of its queues.
func (s *slowSearch) getsAll(k *Ticket[int]) bool {
	if gets, known := s.gets[k]; known {
		return gets
	}
	gets := true
	for i := range k.entries() {
		p := &k.entries()[i]
		gets = gets && !s.blocked(p.queue, p, p.Terms)
	}
	s.gets[k] = gets
	return gets
}

// real reports whether an edge is there: an entry of the one stands behind one of the other,
// and in conflict with it, or with a request without a session between the two that is.
func (s *slowSearch) real(e WaitEdge[int], r *Request[int], first bool) bool {
	q, _ := s.table.queues.find(e.Key)
	conflict := func(a *entry[int], b Terms) bool {
		return a.Mode == Exclusive || b.Mode == Exclusive || b.Limit > 0 || a.Limit > 0 && !a.granted()
	}
	check := func(at *entry[int], is Terms) bool {
		passed := false // an exclusive one without a session is between the two
		for p := q.head; p != at; p = p.next {
			if p.ticket.session == nil || p.ticket.session.label != e.Blocker || p.granted() != e.Held {
				continue
			}
			passed = conflict(p, is)
			for o := p.next; o != at; o = o.next {
				passed = passed || o.ticket.session == nil && (o.Mode == Exclusive || o.Limit > 0)
			}
			if passed {
				return true
			}
		}
		return false
	}
	if first {
		return slices.ContainsFunc(s.table.blocking(r, nil), func(a asked[int]) bool { return a.queue == q && check(nil, a.Terms) })
	}
	for p := q.next; p != nil; p = p.next {
		if o := p.ticket.session; o != nil && o.label == e.Waiter && check(p, p.Terms) {
			return true
		}
	}
	return false
}

// Many sessions hold and wait for few keys, and each of their requests is also judged by a
// search that is too slow to be wrong.
func TestSearchFindsWhatTheSlowSearchFinds(t *testing.T) {
	refused, longest := 0, 0
	for seed := range uint64(400) {
		setNear(t, 1+seed/4%12, 2+seed%2*6)
		random := rand.New(rand.NewPCG(seed, 7))
		tab := New[int](Config{SharedLimit: int(seed % 4)})
		sessions := make([]*Session[int], 2+random.IntN(12))
		for i := range sessions {
			sessions[i] = NewSession[int](fmt.Sprint("s", i))
		}
		keys := 1 + random.IntN(8)
		var tickets []*Ticket[int]
		var tokens []Token[int]
		slow := slowSearch{table: tab}
		for range 120 {
			r := &Request[int]{Key: random.IntN(keys), Mode: Mode(random.IntN(2))}
			if random.IntN(4) > 0 {
				r.Session = sessions[random.IntN(len(sessions))]
			}
			if random.IntN(6) == 0 {
				r.Keys = []int{random.IntN(keys), random.IntN(keys), random.IntN(keys)}
			}
			if seed%2 == 0 {
				r.Limit = int32(max(0, random.IntN(6)-2))
				each := make(map[int]Terms)
				for _, key := range r.Keys {
					if _, twice := each[key]; !twice {
						each[key] = Terms{Mode: Mode(min(1, random.IntN(4))), Limit: int32(max(0, random.IntN(6)-3))}
					}
					r.Each = append(r.Each, each[key])
				}
			}
			want := r.Session != nil && len(tab.blocking(r, nil)) > 0 && slow.deadlocks(r, sessions)
			var known []WaitEdge[int]
			if want {
				known = tab.cycle(r) // before anything changes; Join finds the same
				for i, e := range known {
					require.True(t, slow.real(e, r, i == 0), "seed %d: edge %d of %+v is not there", seed, i, known)
					require.Equal(t, known[(i+1)%len(known)].Waiter, e.Blocker, "seed %d: %+v", seed, known)
					for _, o := range sessions {
						require.True(t, o.label != e.Waiter || slow.stuck[o], "seed %d: %s can go on: %+v", seed, o.label, known)
					}
				}
				longest = max(longest, len(known))
				refused++
			}
			a := tab.Join(r)
			require.Equal(t, want, a.Outcome == Deadlock, "seed %d: outcome %d", seed, a.Outcome)
			switch a.Outcome {
			case Deadlock:
				require.Equal(t, known, a.Refusal.Cycle)
				require.NotEmpty(t, known)
				require.Equal(t, r.Session.label, known[0].Waiter)
			case Waiting:
				a.Ticket.tag = a.Ticket
				tickets = append(tickets, a.Ticket)
			case Granted:
				tokens = append(tokens, a.Token)
			}
			if random.IntN(8) == 0 && len(tokens) > 0 {
				for _, g := range tab.Release(tokens[random.IntN(len(tokens))]) {
					tokens = append(tokens, g.Token)
					tickets = slices.DeleteFunc(tickets, func(k *Ticket[int]) bool { return k == g.Token.ticket })
				}
			}
			if random.IntN(16) == 0 && len(tickets) > 0 {
				i := random.IntN(len(tickets))
				gone := tickets[i]
				tickets = slices.Delete(tickets, i, i+1)
				for _, g := range tab.Cancel(gone) {
					tokens = append(tokens, g.Token)
					tickets = slices.DeleteFunc(tickets, func(k *Ticket[int]) bool { return k == g.Token.ticket })
				}
			}
			require.NoError(t, tab.Check(), "seed %d", seed)
		}
	}
	t.Logf("%d refused, the longest cycle has %d edges", refused, longest)
	require.Greater(t, refused, 1000)
	require.Greater(t, longest, 3)
}

// What asks again for a key is told so, and not of a longer cycle, however many stand between.
func TestShortestCycleIsReported(t *testing.T) {
	tab := New[int](Config{})
	s := NewSession[int]("s")
	tab.Join(&Request[int]{Key: 1, Session: s})
	for i := range 100 {
		tab.Join(&Request[int]{Key: 1, Session: NewSession[int](fmt.Sprint(i)), Mode: Mode(i % 2)})
	}
	for _, mode := range []Mode{Exclusive, Shared} {
		a := tab.Join(&Request[int]{Key: 1, Session: s, Mode: mode})
		require.Equal(t, Deadlock, a.Outcome)
		assert.Equal(t, []WaitEdge[int]{{Waiter: "s", Key: 1, Blocker: "s", Held: true}}, a.Refusal.Cycle)
	}
}

// setNear changes how far a search looks at first, and how much farther then, until the test ends.
func setNear(t *testing.T, entries, times uint64) {
	t.Helper()
	before, timesBefore := near, farther
	near, farther = entries, times
	t.Cleanup(func() { near, farther = before, timesBefore })
}

// Of what waits for a session and what the session would wait for, the less counts.
func TestSearchLooksAtTheLess(t *testing.T) {
	const n = 60_000
	tab := New[int](Config{})
	own := -1 // the next of the other keys
	hold := func(s *Session[int]) {
		tab.Join(&Request[int]{Key: own, Session: s})
		own--
	}
	prepares := map[string]func(start *Session[int], n int){
		"wait for it": func(start *Session[int], n int) {
			hold(start)
			for range n {
				tab.Join(&Request[int]{Key: own + 1})
			}
		},
		"sessions wait for it": func(start *Session[int], n int) {
			hold(start)
			for key := own + 1; n > 0; n-- {
				s := NewSession[int]("")
				hold(s)
				tab.Join(&Request[int]{Key: key, Session: s})
			}
		},
		"keys are held by it": func(start *Session[int], n int) {
			for range n {
				hold(start)
			}
		},
		"keys are held by one that waits for it": func(start *Session[int], n int) {
			hold(start)
			key, s := own+1, NewSession[int]("")
			for range n {
				hold(s)
			}
			tab.Join(&Request[int]{Key: key, Session: s})
		},
	}
	sessions := make([]*Session[int], n) // each holds a key, and waits for the next
	for i := range sessions {
		sessions[i] = NewSession[int]("")
		tab.Join(&Request[int]{Key: i, Session: sessions[i]})
	}
	for i := range n - 1 {
		tab.Join(&Request[int]{Key: i + 1, Session: sessions[i]})
	}
	wide, wideHolds := NewSession[int]("wide"), own // it waits for very many keys
	hold(wide)
	for range n {
		hold(nil)
		tab.Join(&Request[int]{Key: own + 1, Session: wide})
	}
	for name, prepare := range prepares {
		for _, behind := range []int{1, 100, 1_000, 10_000} {
			start := NewSession[int]("start")
			prepare(start, behind)
			looks := func(key, ahead int) {
				before := tab.worked
				tab.Cancel(tab.Join(&Request[int]{Key: key, Session: start}).Ticket)
				assert.Less(t, tab.worked-before, 100+10*uint64(min(behind, ahead)), "%d %s, and %d are ahead", behind, name, ahead)
			}
			for _, ahead := range []int{1, 100, 1_000, 10_000, n} {
				looks(n-ahead, ahead)
			}
			looks(wideHolds, n)
		}
	}
}

// So many wait for a session that a search looks ahead in these tests until it has seen all.
const veryMany = 50_000

func TestCycleIsFoundThroughWhatWaits(t *testing.T) {
	for name, prepare := range map[string]func(tab *Table[int], start *Session[int]){
		"a request for many keys without a session": func(tab *Table[int], start *Session[int]) {
			tab.Join(&Request[int]{Key: 1, Session: start})
			tab.Join(&Request[int]{Keys: []int{1, 2}})
			waiter := NewSession[int]("waiter")
			tab.Join(&Request[int]{Key: 3, Session: waiter})
			tab.Join(&Request[int]{Key: 2, Session: waiter})
		},
		"the last of very many keys": func(tab *Table[int], start *Session[int]) {
			for i := range veryMany {
				tab.Join(&Request[int]{Key: 10 + i, Session: start})
			}
			waiter := NewSession[int]("waiter")
			tab.Join(&Request[int]{Key: 3, Session: waiter})
			tab.Join(&Request[int]{Key: 10 + veryMany - 1, Session: waiter})
		},
		"one set of very many keys": func(tab *Table[int], start *Session[int]) {
			keys := make([]int, veryMany)
			for i := range keys {
				keys[i] = 10 + i
			}
			tab.Join(&Request[int]{Keys: keys, Session: start})
			waiter := NewSession[int]("waiter")
			tab.Join(&Request[int]{Key: 3, Session: waiter})
			tab.Join(&Request[int]{Key: keys[len(keys)-1], Session: waiter})
		},
		"the last of very many waiters": func(tab *Table[int], start *Session[int]) {
			tab.Join(&Request[int]{Key: 1, Session: start})
			for range veryMany {
				tab.Join(&Request[int]{Key: 1, Session: NewSession[int]("")})
			}
			waiter := NewSession[int]("waiter")
			tab.Join(&Request[int]{Key: 3, Session: waiter})
			tab.Join(&Request[int]{Key: 1, Session: waiter})
		},
		"a session that waits behind a waiter": func(tab *Table[int], start *Session[int]) {
			tab.Join(&Request[int]{Key: 1, Session: NewSession[int]("holder")})
			tab.Join(&Request[int]{Key: 1, Session: start})
			waiter := NewSession[int]("waiter")
			tab.Join(&Request[int]{Key: 3, Session: waiter})
			tab.Join(&Request[int]{Key: 1, Session: waiter})
		},
		"one that waits in a queue before another that was met first": func(tab *Table[int], start *Session[int]) {
			early, middle, late := NewSession[int]("early"), NewSession[int]("middle"), NewSession[int]("late")
			tab.Join(&Request[int]{Key: 1, Session: start})
			tab.Join(&Request[int]{Key: 2, Session: start})
			tab.Join(&Request[int]{Key: 3, Session: middle})
			for _, s := range []*Session[int]{early, middle, late, nil} {
				tab.Join(&Request[int]{Key: 5, Session: s})
			}
			tab.Join(&Request[int]{Key: 1, Session: late})
			tab.Join(&Request[int]{Key: 2, Session: early})
		},
		"a session that holds more than one other waits for": func(tab *Table[int], start *Session[int]) {
			tab.Join(&Request[int]{Key: 1, Session: start})
			waiter, last := NewSession[int]("waiter"), NewSession[int]("last")
			tab.Join(&Request[int]{Key: 2, Session: waiter})
			tab.Join(&Request[int]{Key: 1, Session: waiter})
			tab.Join(&Request[int]{Key: 3, Session: last})
			tab.Join(&Request[int]{Key: 2, Session: last})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tab, start := New[int](Config{}), NewSession[int]("start")
			prepare(tab, start)
			assert.Equal(t, Deadlock, tab.Join(&Request[int]{Key: 3, Session: start}).Outcome)
			assert.NotEqual(t, Deadlock, tab.Join(&Request[int]{Key: 4, Session: start}).Outcome)
		})
	}
}

// readers are n sessions that hold key 1 and wait for key 2, both shared; another session
// is waited for by many of no session, and asks for key 1. There is no cycle.
func readers(n, limit int) func() {
	tab := New[int](Config{SharedLimit: limit})
	writer, starter := NewSession[int]("writer"), NewSession[int]("starter")
	tab.Join(&Request[int]{Key: 2, Session: writer})
	tab.Join(&Request[int]{Key: 3, Session: starter})
	for range veryMany {
		tab.Join(&Request[int]{Key: 3})
	}
	for range n {
		s := NewSession[int]("")
		tab.Join(&Request[int]{Key: 1, Mode: Shared, Session: s})
		tab.Join(&Request[int]{Key: 2, Mode: Shared, Session: s})
	}
	return func() { tab.Cancel(tab.Join(&Request[int]{Key: 1, Session: starter}).Ticket) }
}

// chain is the worst order for a sweep: session i holds key i and waits for key i+1, and only
// the last can go on.
func chain(n int) func() {
	tab := New[int](Config{SharedLimit: n})
	sessions := make([]*Session[int], n)
	for i := range sessions {
		sessions[i] = NewSession[int]("")
		for range n - 1 {
			tab.Join(&Request[int]{Key: i, Mode: Shared})
		}
		tab.Join(&Request[int]{Key: i, Mode: Shared, Session: sessions[i]})
	}
	start := NewSession[int]("start")
	for range n - 1 {
		tab.Join(&Request[int]{Key: -1, Mode: Shared})
	}
	tab.Join(&Request[int]{Key: -1, Mode: Shared, Session: start})
	tab.Join(&Request[int]{Key: -1, Mode: Shared, Session: sessions[n-1]})
	for i := n - 2; i >= 0; i-- {
		tab.Join(&Request[int]{Key: i + 1, Session: sessions[i]})
	}
	return func() { tab.Cancel(tab.Join(&Request[int]{Key: 0, Session: start}).Ticket) }
}

// idlers are n sessions that hold nothing and queue for one key.
func idlers(n int) func() {
	return func() {
		tab := New[int](Config{})
		for range n {
			tab.Join(&Request[int]{Key: 1, Session: NewSession[int]("")})
		}
	}
}

// Eight times as much to look at may take eight times as long and more, because of caches,
// but not 64 times.
func TestSearchIsLinearInWhatItLooksAt(t *testing.T) {
	for name, c := range map[string]struct {
		small, large func()
	}{
		"readers":                    {readers(1000, 0), readers(8000, 0)},
		"readers under a limit":      {readers(1000, 10_000), readers(8000, 10_000)},
		"a row under a limit":        {chain(24), chain(68)}, // 8 times as many entries
		"sessions that hold nothing": {idlers(1000), idlers(8000)},
	} {
		t.Run(name, func(t *testing.T) {
			ratio := 1e9
			for range 10 { // a pause of the machine does not repeat itself
				ratio = min(ratio, float64(took(c.large))/float64(took(c.small)))
			}
			assert.Less(t, ratio, 32.0)
		})
	}
}

func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// A live session has met many that are gone by now, in searches that found them.
func TestSearchKeepsNothing(t *testing.T) {
	type big [64]byte
	tab := New[*big](Config{})
	live := NewSession[*big]("live")
	own := new(big)
	tab.Join(&Request[*big]{Key: own, Session: live})
	tab.Join(&Request[*big]{Key: own, Session: NewSession[*big]("waits for it")})
	var gone []weak.Pointer[Session[*big]]
	var keys []weak.Pointer[big]
	for range 100 {
		func() {
			key, s := new(big), NewSession[*big]("gone")
			gone, keys = append(gone, weak.Make(s)), append(keys, weak.Make(key))
			held := tab.Join(&Request[*big]{Key: key, Session: s})
			waits := tab.Join(&Request[*big]{Key: key, Session: live}) // it searches
			require.Equal(t, Waiting, waits.Outcome)
			require.Equal(t, Deadlock, tab.Join(&Request[*big]{Key: own, Session: s}).Outcome)
			tab.Cancel(waits.Ticket)
			tab.Release(held.Token)
		}()
	}
	runtime.GC()
	for i := range gone {
		require.True(t, gone[i].Value() == nil, "session %d", i)
		require.True(t, keys[i].Value() == nil, "key %d", i)
	}
	runtime.KeepAlive(live)
	runtime.KeepAlive(tab)
}

// The memory of a search that has met much goes back.
func TestSearchGivesMemoryBack(t *testing.T) {
	tab := New[int](Config{})
	s := NewSession[int]("s")
	tab.Join(&Request[int]{Key: 0, Session: s})
	for range veryMany {
		tab.Join(&Request[int]{Key: 0, Session: NewSession[int]("waits for it")})
		tab.Join(&Request[int]{Key: 1, Mode: Shared, Session: NewSession[int]("")})
	}
	before := tab.worked
	require.Equal(t, Waiting, tab.Join(&Request[int]{Key: 1, Session: s}).Outcome)
	require.Greater(t, tab.worked-before, uint64(2*maxKept))
	require.Zero(t, cap(tab.search.nodes))
}
