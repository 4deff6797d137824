package table

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
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
			require.Equal(t, found, table.Look(key).Held > 0, "key %d", key)
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
	require.EqualValues(t, fewestBuckets, table.queues.buckets)
}

// The list of the segments gives memory back when less than a quarter of it is used, unless it is small.
func TestListOfSegmentsGivesMemoryBack(t *testing.T) {
	for _, c := range []struct{ room, used, left int }{
		{shrinkFrom, 2, shrinkFrom},
		{4 * shrinkFrom, shrinkFrom + 1, 4 * shrinkFrom},
		{4 * shrinkFrom, shrinkFrom, 2 * (shrinkFrom - 1)},
	} {
		x := &index[int]{segments: make([][]bucket[int], c.used, c.room), buckets: 1}
		x.segments[c.used-1] = make([]bucket[int], 1)
		x.shrink()
		require.Equal(t, c.left, cap(x.segments))
		require.Len(t, x.segments, c.used)
		require.Zero(t, x.buckets)
	}
}

func TestIndexTellsKeysWithTheSameHashApart(t *testing.T) {
	x := newIndex[int]()
	_, hash := x.find(2)
	one := &queue[int]{key: 1, hash: hash}
	x.add(one)
	q, _ := x.find(2)
	require.Nil(t, q)
	two := &queue[int]{key: 2, hash: hash}
	x.add(two)
	q, _ = x.find(2)
	require.Same(t, two, q)
	x.remove(one)
	q, _ = x.find(2)
	require.Same(t, two, q)
}

// Queues come to a bucket and leave it from any entry, more of them than it has room for tags.
func TestBucketHasTheTagsOfItsLines(t *testing.T) {
	var b bucket[int]
	var queues []*queue[int] // as they stand in the chain
	random := rand.New(rand.NewPCG(1, 2))
	hash := func() uint64 { return random.Uint64N(40) << 57 } // some have the same tag
	for _, towards := range []int{7, 2, 8, 0, 9, 1, 12, 0} {
		for len(queues) != towards {
			if len(queues) < towards {
				q := &queue[int]{hash: hash()}
				b.push(q)
				queues = slices.Insert(queues, 0, q)
			} else {
				i := random.IntN(len(queues))
				b.remove(queues[i])
				queues = slices.Delete(queues, i, i+1)
			}
			want := uint64(0)
			for i, q := range queues[:min(len(queues), 8)] {
				want |= (q.hash>>56 | 1) << (8 * i)
			}
			require.Equal(t, want, b.tags)
			q := b.head
			for _, next := range queues {
				require.Same(t, next, q)
				q = q.chain
			}
			require.Nil(t, q)
			for h := range uint64(64) {
				has := slices.ContainsFunc(queues, func(q *queue[int]) bool { return q.hash>>57 == h })
				require.Equal(t, has || len(queues) >= 8, b.mayHave(h<<57), "%d among %d queues", h, len(queues))
			}
		}
	}
}

// With at most one queue for each bucket chains are short: one as long as this has a chance of
// less than one in 10^20.
func TestIndexChainsAreShort(t *testing.T) {
	tab := New[int](Config{})
	for key := range 10_000 {
		tab.Join(&Request[int]{Key: key})
	}
	longest := 0
	for b := range tab.queues.buckets {
		length := 0
		for q := tab.queues.at(b).head; q != nil; q = q.chain {
			length++
		}
		longest = max(longest, length)
	}
	require.Less(t, longest, 40)
}

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

// What is spare is bounded, and so is how large each of it is.
func TestSpareMemoryIsBounded(t *testing.T) {
	tab := New[int](Config{})
	grants := func(n, keys int) (tokens []Token[int]) {
		for i := range n {
			r := Request[int]{Key: i}
			for key := range keys {
				r.Keys = append(r.Keys, i*keys+key)
			}
			tokens = append(tokens, tab.Join(&r).Token)
		}
		return tokens
	}
	for _, token := range grants(spareMax+1, 0) {
		tab.Release(token)
	}
	assert.Len(t, tab.spare.tickets, spareMax)
	assert.Len(t, tab.spare.queues, spareMax)
	tab.Release(grants(1, spareMany+1)[0])
	assert.Empty(t, tab.spare.many, "it has room for too many")
	tab.Release(grants(1, spareMany)[0])
	assert.Len(t, tab.spare.many, 1)
	for _, token := range grants(spareMany+1, 2) {
		tab.Release(token)
	}
	assert.Len(t, tab.spare.many, spareMany)
}

// Maps do not shrink, so those of many watches are made anew when few of these are left, once.
func TestMapsOfWatchesAreMadeAnew(t *testing.T) {
	for n, anew := range map[int]bool{8 * fewWatched: false, 8*fewWatched + 1: true} {
		tab := New[int](Config{})
		tokens := make([]Token[int], n)
		for i := range tokens {
			tokens[i] = tab.Join(&Request[int]{Key: i}).Token
			require.Equal(t, i, tab.Watch(tokens[i], i))
		}
		for i, token := range tokens {
			tab.Release(token)
			left, most := n-1-i, n
			if anew && left <= fewWatched {
				most = fewWatched
			}
			if left == 0 {
				most = 0
			}
			require.Equal(t, [2]int{left, most}, [2]int{tab.watches.keys, tab.watches.most})
		}
		require.Len(t, tab.Over(), n)
		require.NoError(t, tab.Check())
	}
}

// What costs in proportion to the keys, or to those who watch, is counted so.
func TestWatchesAreCountedAsWork(t *testing.T) {
	tab := New[int](Config{})
	worked := func(f func()) uint64 {
		before := tab.worked
		f()
		return tab.worked - before
	}
	join := func(key int, mode Mode) Token[int] {
		return tab.Join(&Request[int]{Key: key, Mode: mode}).Token
	}
	three := tab.Join(&Request[int]{Keys: []int{1, 2, 3}}).Token
	assert.EqualValues(t, 3, worked(func() { tab.Watch(three, "three") }))
	var readers []Token[int]
	for range 100 {
		readers = append(readers, join(4, Shared), join(5, Shared))
	}
	for i, token := range readers {
		if i%2 == 0 { // of key 4
			tab.Watch(token, i)
		}
	}
	tab.Release(readers[1])
	assert.Empty(t, tab.Over(), "it was not watched")
	require.NoError(t, tab.Check())
	watched := worked(func() { join(4, Exclusive) })
	assert.EqualValues(t, 100, watched-worked(func() { join(5, Exclusive) }))
	assert.Len(t, tab.Over(), 100)
}

// The index takes away buckets as soon as fewer than half have a queue, and no sooner.
func TestIndexShrinksWhenLessThanHalfIsUsed(t *testing.T) {
	tab := New[int](Config{})
	var tokens []Token[int]
	for key := range 2 * fewestBuckets {
		tokens = append(tokens, tab.Join(&Request[int]{Key: key}).Token)
	}
	release := func() {
		tab.Release(tokens[0])
		tokens = tokens[1:]
	}
	for len(tokens) > fewestBuckets {
		release()
		require.EqualValues(t, 2*fewestBuckets, tab.queues.buckets, "%d are left", len(tokens))
	}
	release()
	require.EqualValues(t, 2*fewestBuckets-1, tab.queues.buckets)
	for len(tokens) > 0 {
		release()
	}
	require.EqualValues(t, fewestBuckets, tab.queues.buckets)
}

// What the index and the ranking keep for later keeps nothing else.
func TestWhatIsKeptForLaterIsEmpty(t *testing.T) {
	tab := New[int](Config{})
	var tokens []Token[int]
	for key := range 3 * segment {
		tokens = append(tokens, tab.Join(&Request[int]{Key: key}).Token)
	}
	for _, token := range tokens {
		tab.Release(token)
	}
	segments := tab.queues.segments
	for _, gone := range segments[len(segments):cap(segments)] {
		assert.Nil(t, gone)
	}

	var waiters []*Ticket[int]
	for key := range spareRanks + 1 {
		for range key + 2 {
			if a := tab.Join(&Request[int]{Key: key}); a.Outcome == Waiting {
				waiters = append(waiters, a.Ticket)
			}
		}
	}
	require.NoError(t, tab.Check())
	for _, k := range waiters {
		tab.Cancel(k)
	}
	assert.Len(t, tab.ranking.spare, spareRanks)
	for _, k := range tab.ranking.spare {
		assert.Equal(t, rank[int]{}, *k)
	}
}

// What a transition returns is forgotten by the next one.
func TestTicketsThatLedAreForgotten(t *testing.T) {
	tab := New[int](Config{})
	first := tab.Join(&Request[int]{Key: 1, Mode: Shared}).Token
	second := tab.Join(&Request[int]{Key: 1, Mode: Shared}).Token
	tab.Release(first)
	require.Equal(t, []*Ticket[int]{second.Ticket()}, tab.Led())
	tab.Release(second)
	for _, k := range tab.led[:cap(tab.led)] {
		assert.Nil(t, k)
	}
}
