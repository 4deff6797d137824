package table

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The number of keys goes up and down, over several sizes of the index, and at every step
// each key that is held is found and no other is.
func TestIndexGrowsAndShrinksKeyByKey(t *testing.T) {
	const keys = 100
	table := New[int](Config{})
	held := make(map[int]Token[int])
	random := rand.New(rand.NewPCG(1, 2))
	for _, towards := range []int{keys, 0, 40, 3, keys, 0} {
		for len(held) != towards {
			key := random.IntN(keys)
			token, found := held[key]
			require.Equal(t, found, table.Contains(key), "key %d", key)
			switch {
			case !found && len(held) < towards:
				held[key] = table.Join(&Request[int]{Key: key}).Token
			case found && len(held) > towards:
				table.Release(token)
				delete(held, key)
			}
			require.NoError(t, table.Check())
			require.Equal(t, len(held), table.Counts().Keys)
		}
	}
	require.Len(t, table.lines.buckets, fewestBuckets)
}

func TestIndexTellsKeysWithTheSameHashApart(t *testing.T) {
	x := newIndex[int]()
	_, hash := x.find(2)
	one := &line[int]{key: 1, hash: hash}
	x.add(one)
	l, _ := x.find(2)
	require.Nil(t, l)
	two := &line[int]{key: 2, hash: hash}
	x.add(two)
	l, _ = x.find(2)
	require.Same(t, two, l)
	x.remove(one)
	l, _ = x.find(2)
	require.Same(t, two, l)
}

// Lines come to a bucket and leave it from any place, more of them than it has room for tags.
func TestBucketHasTheTagsOfItsLines(t *testing.T) {
	var b bucket[int]
	var lines []*line[int] // as they stand in the chain
	random := rand.New(rand.NewPCG(1, 2))
	hash := func() uint64 { return random.Uint64N(40) << 57 } // some have the same tag
	for _, towards := range []int{7, 2, 8, 0, 9, 1, 12, 0} {
		for len(lines) != towards {
			if len(lines) < towards {
				l := &line[int]{hash: hash()}
				b.push(l)
				lines = slices.Insert(lines, 0, l)
			} else {
				i := random.IntN(len(lines))
				b.remove(lines[i])
				lines = slices.Delete(lines, i, i+1)
			}
			want := uint64(0)
			for i, l := range lines[:min(len(lines), 8)] {
				want |= (l.hash>>56 | 1) << (8 * i)
			}
			require.Equal(t, want, b.tags)
			l := b.head
			for _, next := range lines {
				require.Same(t, next, l)
				l = l.chain
			}
			require.Nil(t, l)
			for h := range uint64(64) {
				has := slices.ContainsFunc(lines, func(l *line[int]) bool { return l.hash>>57 == h })
				require.Equal(t, has || len(lines) >= 8, b.mayHave(h<<57), "%d among %d lines", h, len(lines))
			}
		}
	}
}

// With at most one line for each bucket chains are short: one as long as this has a chance of
// less than one in 10^20.
func TestIndexChainsAreShort(t *testing.T) {
	tab := New[int](Config{})
	for key := range 10_000 {
		tab.Join(&Request[int]{Key: key})
	}
	longest := 0
	for _, b := range tab.lines.buckets {
		length := 0
		for l := b.head; l != nil; l = l.chain {
			length++
		}
		longest = max(longest, length)
	}
	require.Less(t, longest, 40)
}
