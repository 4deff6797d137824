package table

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A picture is what a cut has shown, or what is there now.
type picture map[int]pictured

type pictured struct {
	Held, Waiting int
	Entries       []Entry
}

func (p picture) take(v View[int]) bool {
	_, twice := p[v.Key]
	p[v.Key] = pictured{v.Held, v.Waiting, slices.Collect(v.Entries)}
	return twice
}

func now(tab *Table[int]) picture {
	p := make(picture)
	for v := range tab.All() {
		p.take(v)
	}
	return p
}

// A traffic is random requests, releases and cancellations.
type traffic struct {
	*rand.Rand
	table    *Table[int]
	keys     int
	sessions [4]*Session[int]
	live     []Token[int]
	waiting  map[*Ticket[int]]bool
}

func newTraffic(seed uint64, config Config, keys int) *traffic {
	t := &traffic{Rand: rand.New(rand.NewPCG(seed, 3)), table: New[int](config), keys: keys, waiting: make(map[*Ticket[int]]bool)}
	for i := range t.sessions {
		t.sessions[i] = NewSession[int](string(rune('a' + i)))
	}
	return t
}

// step makes one step. Most of them add while growing, most of them take away otherwise.
func (t *traffic) step(growing bool) {
	add := t.IntN(4) == 0
	if growing {
		add = t.IntN(4) > 0
	}
	switch {
	case add:
		r := &Request[int]{Key: t.IntN(t.keys), Mode: Mode(t.IntN(2))}
		if t.IntN(8) == 0 {
			r.Keys = []int{t.IntN(t.keys), t.IntN(t.keys), t.IntN(t.keys)}
		}
		if t.IntN(3) == 0 {
			r.Session = t.sessions[t.IntN(len(t.sessions))]
		}
		switch a := t.table.Join(r); a.Outcome {
		case Granted:
			t.live = append(t.live, a.Token)
		case Waiting:
			t.waiting[a.Ticket] = true
		}
	case t.IntN(40) == 0:
		i := t.IntN(len(t.sessions))
		for _, k := range t.sessions[i].waiting {
			delete(t.waiting, k)
		}
		_, _, granted := t.table.CloseSession(t.sessions[i])
		t.granted(granted)
		t.sessions[i] = NewSession[int]("next")
	case t.IntN(3) == 0 && len(t.waiting) > 0:
		for k := range t.waiting {
			delete(t.waiting, k)
			t.granted(t.table.Cancel(k))
			break
		}
	case len(t.live) > 0:
		i := t.IntN(len(t.live))
		token := t.live[i]
		t.live = slices.Delete(t.live, i, i+1)
		t.granted(t.table.Release(token))
	}
}

func (t *traffic) granted(grants []Grant[int]) {
	for _, g := range grants {
		delete(t.waiting, g.Token.ticket)
		t.live = append(t.live, g.Token)
	}
}

// Whatever happens while a cut is under way, it shows each key once, as it was when the cut
// began: also where buckets are split and merged meanwhile, and where there are two cuts.
func TestCutShowsOneInstant(t *testing.T) {
	for seed := range uint64(150) {
		traffic := newTraffic(seed, Config{SharedLimit: int(seed % 3)}, []int{3, 20, 400}[seed%3])
		growing := seed%2 == 0
		for range traffic.IntN(800) {
			traffic.step(true)
		}
		type run struct {
			cut       *Cut[int]
			want, got picture
		}
		var runs []*run
		begin := func() {
			r := &run{want: now(traffic.table), got: make(picture)}
			r.cut = traffic.table.Cut(func(v View[int]) { require.False(t, r.got.take(v), "key %d comes twice", v.Key) })
			runs = append(runs, r)
		}
		begin()
		for len(runs) > 0 {
			for range traffic.IntN(8) {
				traffic.step(growing)
			}
			if traffic.IntN(200) == 0 {
				growing = !growing
			}
			if len(runs) < 2 && traffic.IntN(50) == 0 {
				begin()
			}
			i := traffic.IntN(len(runs))
			if r := runs[i]; !r.cut.Next(1 + traffic.IntN(4)) {
				require.Equal(t, r.want, r.got, "seed %d", seed)
				r.cut.End()
				runs = slices.Delete(runs, i, i+1)
			}
			if traffic.IntN(16) == 0 {
				require.NoError(t, traffic.table.Check())
			}
		}
		require.Empty(t, traffic.table.cuts.running)
	}
}

// A request for many keys becomes less blocked by what happens in one queue; the others,
// which have not changed, are still shown as they were.
func TestCutShowsHowBlockedAWaiterWas(t *testing.T) {
	tab := New[int](Config{})
	one := tab.Join(&Request[int]{Key: 1}).Token
	tab.Join(&Request[int]{Key: 2})
	tab.Join(&Request[int]{Keys: []int{1, 2}})
	want, got := now(tab), make(picture)
	cut := tab.Cut(func(v View[int]) { got.take(v) })
	defer cut.End()
	tab.Release(one)
	for cut.Next(1) {
	}
	assert.Equal(t, want, got)
	assert.Equal(t, 2, got[2].Entries[1].Blocked)
	assert.Equal(t, 1, now(tab)[2].Entries[1].Blocked)
}

// A cut that was ended is not shown anything, and costs nothing.
func TestEndedCutIsShownNothing(t *testing.T) {
	tab := New[int](Config{})
	tokens := make([]Token[int], 10)
	for i := range tokens {
		tokens[i] = tab.Join(&Request[int]{Key: i}).Token
	}
	seen := 0
	cut := tab.Cut(func(View[int]) { seen++ })
	other := make(picture)
	cut2 := tab.Cut(func(v View[int]) { other.take(v) })
	tab.Release(tokens[0])
	require.Equal(t, 1, seen)
	cut.End()
	cut.End()
	require.False(t, cut.Next(100))
	tab.Release(tokens[1])
	for cut2.Next(3) {
	}
	require.Equal(t, 1, seen)
	require.Len(t, other, 10)
	cut2.End()
	require.Empty(t, tab.cuts.running)
}

// Many holders and waiters are counted, but only the first are shown.
func TestOnlyTheFirstAreShown(t *testing.T) {
	tab := New[int](Config{})
	for range Shown + 10 {
		tab.Join(&Request[int]{Key: 1, Mode: Shared})
	}
	for range Shown + 20 {
		tab.Join(&Request[int]{Key: 1})
	}
	seen := now(tab)[1]
	assert.Equal(t, Shown+10, seen.Held)
	assert.Equal(t, Shown+20, seen.Waiting)
	require.Len(t, seen.Entries, 2*Shown)
	assert.EqualValues(t, Shown, seen.Entries[Shown-1].Seq)
	assert.Equal(t, Entry{Keys: 1, Blocked: 1}, seen.Entries[Shown])
	assert.Equal(t, Shown-1, seen.Entries[2*Shown-1].Behind)
	assert.Len(t, slices.Collect(tab.Look(1).First(3)), 6)
}

// Cuts are numbered, and the numbers begin anew long before they run out.
func TestNumbersOfCutsBeginAnew(t *testing.T) {
	tab := New[int](Config{})
	tab.Join(&Request[int]{Key: 1})
	all := func() []int {
		seen := make(picture)
		cut := tab.Cut(func(v View[int]) { seen.take(v) })
		defer cut.End()
		for cut.Next(1) {
		}
		return slices.Sorted(maps.Keys(seen))
	}
	require.Equal(t, []int{1}, all())
	tab.cuts.begun = mostCuts
	tab.Join(&Request[int]{Key: 2})
	require.Equal(t, []int{1, 2}, all())
	require.EqualValues(t, 1, tab.cuts.begun)
	require.Equal(t, []int{1, 2}, all())
}

// A step of a cut ends when it has shown about as many holders and waiters as it was told to, and what changes
// a queue counts as work what it shows before.
func TestWhatACutShowsIsCounted(t *testing.T) {
	const keys, waiters = 100, 20
	tab := New[int](Config{})
	tokens := make([]Token[int], keys)
	for key := range tokens {
		tokens[key] = tab.Join(&Request[int]{Key: key}).Token
		for range waiters {
			tab.Join(&Request[int]{Key: key})
		}
	}
	release := func() uint64 {
		before := tab.worked
		tab.Release(tokens[0])
		tokens = tokens[1:]
		return tab.worked - before
	}
	alone := release()
	c := tab.Cut(func(View[int]) {})
	assert.EqualValues(t, 1+waiters, release()-alone)
	assert.True(t, c.Next(keys), "a key costs more than one")
	c.End()
}

// keeps is a Keeper that has granted what it keeps up to a number.
type keeps uint64

func (k keeps) CallIn(uint64) Called { return Called{Number: uint64(k), Held: true} }

// What is called in changes, so a cut that has not seen it is shown it before.
func TestCutIsShownAKeptKeyBeforeItIsCalledIn(t *testing.T) {
	tab := New[int](Config{})
	tab.SetKeeper(keeps(5))
	k := tab.Join(&Request[int]{Key: 1}).Token.Ticket()
	tab.Keep(k, 7)
	var seen []uint64
	c := tab.Cut(func(v View[int]) {
		for e := range v.Entries {
			seen = append(seen, e.Seq)
		}
	})
	tab.CallIn(k)
	for c.Next(100) {
	}
	c.End()
	assert.Equal(t, []uint64{1}, seen)
	assert.EqualValues(t, 5, k.Entry().Seq)
}
