package table

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRankedYieldsTheLongestLinesFirst(t *testing.T) {
	tab := New[int](Config{})
	for key := range 100 {
		for range key%7 + 1 {
			tab.Join(&Request[int]{Key: key})
		}
	}
	require.Equal(t, 6, tab.LongestQueue())
	last, queues := 6, 0
	for v := range tab.Ranked() {
		require.Equal(t, v.Key%7, v.Waiting)
		require.LessOrEqual(t, v.Waiting, last)
		last = v.Waiting
		queues++
	}
	require.Equal(t, 85, queues, "those with a waiter")
	require.NoError(t, tab.Check())
	tab.CancelAll()
	require.Zero(t, tab.LongestQueue())
	require.NoError(t, tab.Check())
}

func TestRankingGivesMemoryBack(t *testing.T) {
	tab := New[int](Config{})
	a := tab.Join(&Request[int]{Key: 1})
	var waiting []*Ticket[int]
	for range 10_000 {
		waiting = append(waiting, tab.Join(&Request[int]{Key: 1}).Ticket)
	}
	for _, k := range waiting {
		tab.Cancel(k)
	}
	tab.Release(a.Token)
	require.Nil(t, tab.ranking.highest)
}

func TestWaiterKnowsWhomItWaitsFor(t *testing.T) {
	behind := func(tab *Table[int]) (all []int) {
		for p := range tab.Look(1).Entries {
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

	limited := New[int](Config{SharedLimit: 3}) // all wait for room
	limited.Join(&Request[int]{Key: 1})
	for _, mode := range modes {
		limited.Join(&Request[int]{Key: 1, Mode: mode})
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, behind(limited))
}
