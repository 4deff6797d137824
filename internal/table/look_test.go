package table_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

func TestWaiterKnowsInHowManyOfItsLinesSomebodyIsInItsWay(t *testing.T) {
	tab := table.New[int](table.Config{})
	one := join(t, tab, table.Request[int]{Key: 1}, table.Granted).Token
	two := join(t, tab, table.Request[int]{Key: 2}, table.Granted).Token
	k := join(t, tab, table.Request[int]{Keys: []int{1, 2, 3}}, table.Waiting).Ticket
	assert.Equal(t, table.Entry{Keys: 3, Blocked: 2}, k.Entry())
	tab.Release(one)
	assert.Equal(t, table.Entry{Keys: 3, Blocked: 1}, k.Entry())
	tab.Release(two)
	assert.Equal(t, table.Entry{Seq: 3, Keys: 3}, k.Entry())
}

// A caller that looks at keys, or at the entries in one queue, stops when it has seen enough.
func TestLookingStopsWhenToldTo(t *testing.T) {
	tab := table.New[int](table.Config{})
	first := tab.Join(&table.Request[int]{Keys: []int{1, 2, 3}}).Token.Ticket()
	var k *table.Ticket[int]
	for range 2 {
		k = tab.Join(&table.Request[int]{Keys: []int{1, 2, 3}}).Ticket
	}
	for _, views := range []func(func(table.View[int]) bool){tab.All(), tab.Ranked(), tab.Of(k), tab.Firsts(first)} {
		seen := 0
		for v := range views { // to go on panics
			for range v.Entries {
				seen++
				break
			}
			break
		}
		require.Equal(t, 1, seen)
	}
}

// However many hold a key already, a writer that leaves the queue has all the readers behind it granted.
func TestAllReadersBehindAWriterAreGranted(t *testing.T) {
	for _, holders := range []int{1, 10, 100, 1000} {
		tab := table.New[int](table.Config{})
		for range holders {
			join(t, tab, table.Request[int]{Key: 1, Mode: table.Shared}, table.Granted)
		}
		writer := join(t, tab, table.Request[int]{Key: 1}, table.Waiting).Ticket
		for range 50 {
			join(t, tab, table.Request[int]{Key: 1, Mode: table.Shared}, table.Waiting)
		}
		last := join(t, tab, table.Request[int]{Key: 1}, table.Waiting).Ticket
		require.Len(t, tab.Cancel(writer), 50, "%d holders", holders)
		require.NoError(t, tab.Check())
		tab.Cancel(last)
	}
}

// A request for many keys waits only if none of its queues is full, however many they are.
func TestBoundHoldsForAnyNumberOfKeys(t *testing.T) {
	for _, keys := range []int{1, 2, 7, 8, 9, 100} {
		tab := table.New[int](table.Config{MaxWaiters: 1})
		many := make([]int, keys)
		for i := range many {
			many[i] = i
		}
		last := many[keys-1]
		join(t, tab, table.Request[int]{Key: last}, table.Granted)
		join(t, tab, table.Request[int]{Key: last}, table.Waiting)
		a := join(t, tab, table.Request[int]{Keys: many}, table.Full)
		require.Equal(t, last, a.Refusal.Key, "%d keys", keys)
		require.Equal(t, 1, tab.Counts().Keys)
	}
}

// Where nothing may wait, the key that is named is one that is in the way, and not one that could be shared.
func TestRefusalNamesAKeyThatIsInTheWay(t *testing.T) {
	tab := table.New[int](table.Config{MaxWaiters: table.NoWaiters})
	join(t, tab, table.Request[int]{Key: 1, Mode: table.Shared}, table.Granted)
	join(t, tab, table.Request[int]{Key: 2}, table.Granted)
	shared := table.Terms{Mode: table.Shared}
	a := join(t, tab, table.Request[int]{Keys: []int{1, 2}, Each: []table.Terms{shared, shared}}, table.Full)
	assert.Equal(t, 2, a.Refusal.Key)
}

// A key is blocked while a waiter has to wait for it, and not for others or only until it is its turn to go on; and
// of those that share a key one is the first.
func TestBlockedAndFirst(t *testing.T) {
	tab := table.New[int](table.Config{Part: 1})
	join(t, tab, table.Request[int]{Key: 1}, table.Granted)
	join(t, tab, table.Request[int]{Keys: []int{1, 2}}, table.Waiting)
	writer := join(t, tab, table.Request[int]{Key: 3}, table.Granted).Token
	for range 5 {
		join(t, tab, table.Request[int]{Key: 3, Mode: table.Shared}, table.Waiting)
	}
	blocked := func() map[int]bool {
		keys := make(map[int]bool)
		for v := range tab.All() {
			keys[v.Key] = v.Blocked()
		}
		return keys
	}
	require.Equal(t, map[int]bool{1: true, 2: false, 3: true}, blocked())
	first := tab.Release(writer)
	require.True(t, tab.Postponed())
	require.Equal(t, map[int]bool{1: true, 2: false, 3: false}, blocked())
	assert.True(t, first[0].Token.Ticket().First())
	assert.False(t, tab.GoOn(1)[0].Token.Ticket().First())
	join(t, tab, table.Request[int]{Key: 4}, table.Granted)
	assert.False(t, blocked()[4])
}
