package table

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every step of a random history of joins, grants and cancellations is compared with a
// look at all lines.
func TestRankingIsTheOrderOfLengths(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tab := New[int](Config{SharedLimit: 2})
	var waiting []*Ticket[int]
	var held []Token[int]
	granted := func(grants []Grant[int]) {
		for _, g := range grants {
			held = append(held, g.Token)
			for i, k := range waiting {
				if k == g.Token.ticket {
					waiting = append(waiting[:i], waiting[i+1:]...)
					break
				}
			}
		}
	}
	for range 1500 {
		switch n := random.IntN(10); {
		case n < 6:
			r := Request[int]{Key: random.IntN(6), Mode: Mode(random.IntN(2)), Tag: "r"}
			if random.IntN(4) == 0 {
				r.Keys = []int{random.IntN(6), random.IntN(6), random.IntN(6)}
			}
			if a := tab.Join(&r); a.Outcome == Waiting {
				waiting = append(waiting, a.Ticket)
			} else {
				held = append(held, a.Token)
			}
		case n < 9 && len(held) > 0:
			i := random.IntN(len(held))
			token := held[i]
			held = append(held[:i], held[i+1:]...)
			granted(tab.Release(token))
		case n < 10 && len(waiting) > 0:
			i := random.IntN(len(waiting))
			k := waiting[i]
			waiting = append(waiting[:i], waiting[i+1:]...)
			granted(tab.Cancel(k))
		}
		requireRanked(t, tab)
	}
	tab.CancelAll()
	requireRanked(t, tab)
	require.Zero(t, tab.Longest())
}

// requireRanked fails when the ranking is not what a look at all lines says.
func requireRanked(t *testing.T, tab *Table[int]) {
	t.Helper()
	longest, want := 0, map[int]int{}
	for v := range tab.All() {
		longest = max(longest, v.Waiting)
		if v.Waiting > 0 {
			want[v.Key] = v.Waiting
		}
	}
	require.Equal(t, longest, tab.Longest())
	last, got := longest, map[int]int{}
	for v := range tab.Ranked() {
		require.LessOrEqual(t, v.Waiting, last)
		last, got[v.Key] = v.Waiting, v.Waiting
	}
	require.Equal(t, want, got)
}

func TestRankingGivesMemoryBack(t *testing.T) {
	tab := New[int](Config{})
	a := tab.Join(&Request[int]{Key: 1})
	var waiting []*Ticket[int]
	for range 100_000 {
		waiting = append(waiting, tab.Join(&Request[int]{Key: 1}).Ticket)
	}
	for _, k := range waiting {
		tab.Cancel(k)
	}
	tab.Release(a.Token)
	require.LessOrEqual(t, cap(tab.ranking.top), shrinkFrom)
}

func TestWaiterKnowsWhomItWaitsFor(t *testing.T) {
	behind := func(tab *Table[int]) (all []int) {
		for p := range tab.Look(1).Places {
			if p.Seq == 0 {
				all = append(all, p.Behind)
			}
		}
		return all
	}
	modes := []Mode{Shared, Shared, Exclusive, Shared, Shared, Exclusive, Exclusive, Shared}

	tab := New[int](Config{})
	tab.Join(&Request[int]{Key: 1})
	for _, mode := range modes {
		tab.Join(&Request[int]{Key: 1, Mode: mode})
	}
	require.Equal(t, []int{0, 0, 2, 3, 3, 5, 6, 7}, behind(tab))

	limited := New[int](Config{SharedLimit: 3}) // everybody waits for room
	limited.Join(&Request[int]{Key: 1})
	for _, mode := range modes {
		limited.Join(&Request[int]{Key: 1, Mode: mode})
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, behind(limited))
}
