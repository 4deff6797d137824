package table_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// heap is how much of it is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// join makes a request that must have the outcome.
func join(t *testing.T, tab *table.Table[int], r table.Request[int], want table.Outcome) table.Answer[int] {
	t.Helper()
	a := tab.Join(&r)
	if a.Outcome != want { // much cheaper than require, and called very often
		t.Fatalf("outcome is %d, want %d", a.Outcome, want)
	}
	return a
}

// TestMemoryOfBurstGoesBack makes many keys, many waiters, and many entries of one request, and
// wants the heap back afterwards, also while a few keys that came before the burst, and
// a few that came with it, are still held.
func TestMemoryOfBurstGoesBack(t *testing.T) {
	const (
		burst = 100_000
		few   = 10
		slack = 1 << 20
	)
	session := table.NewSession[int]("lives on")
	bursts := map[string]func(t *testing.T, tab *table.Table[int], base int){
		"keys": func(t *testing.T, tab *table.Table[int], base int) {
			tokens := make([]table.Token[int], burst)
			for i := range tokens {
				tokens[i] = join(t, tab, table.Request[int]{Key: base + i}, table.Granted).Token
			}
			for _, token := range tokens[few:] {
				tab.Release(token)
			}
		},
		"holders who watch": func(t *testing.T, tab *table.Table[int], base int) {
			tokens := make([]table.Token[int], burst)
			for i := range tokens {
				tokens[i] = join(t, tab, table.Request[int]{Key: base + i}, table.Granted).Token
				require.NotNil(t, tab.Watch(tokens[i], i))
			}
			for _, token := range tokens[few:] {
				tab.Release(token)
			}
			require.Len(t, tab.Over(), burst-few)
		},
		"waiters who are granted": func(t *testing.T, tab *table.Table[int], base int) {
			holder := join(t, tab, table.Request[int]{Key: base}, table.Granted).Token
			for range burst {
				join(t, tab, table.Request[int]{Key: base}, table.Waiting)
			}
			for range burst {
				holder = tab.Release(holder)[0].Token
			}
		},
		"waiters who are granted together": func(t *testing.T, tab *table.Table[int], base int) {
			holder := join(t, tab, table.Request[int]{Key: base}, table.Granted).Token
			for range burst {
				join(t, tab, table.Request[int]{Key: base, Mode: table.Shared}, table.Waiting)
			}
			tokens := make([]table.Token[int], 0, burst)
			for grants := tab.Release(holder); len(grants) > 0; grants = tab.GoOn(burst) {
				for _, g := range grants {
					tokens = append(tokens, g.Token)
				}
			}
			require.False(t, tab.Postponed())
			require.Len(t, tokens, burst)
			for _, token := range tokens[few:] {
				tab.Release(token)
			}
		},
		"waiters who are cancelled": func(t *testing.T, tab *table.Table[int], base int) {
			join(t, tab, table.Request[int]{Key: base}, table.Granted)
			tickets := make([]*table.Ticket[int], burst)
			for i := range tickets {
				tickets[i] = join(t, tab, table.Request[int]{Key: base}, table.Waiting).Ticket
			}
			for _, ticket := range tickets {
				tab.Cancel(ticket)
			}
		},
		"waiters who are all cancelled": func(t *testing.T, tab *table.Table[int], base int) {
			join(t, tab, table.Request[int]{Key: base}, table.Granted)
			for range burst {
				join(t, tab, table.Request[int]{Key: base}, table.Waiting)
			}
			require.Len(t, tab.CancelAll(), burst)
		},
		"keys of one request": func(t *testing.T, tab *table.Table[int], base int) {
			keys := make([]int, burst)
			for i := range keys {
				keys[i] = base + i
			}
			tab.Release(join(t, tab, table.Request[int]{Keys: keys}, table.Granted).Token)
		},
		"requests of a session that lives on": func(t *testing.T, tab *table.Table[int], base int) {
			tokens := make([]table.Token[int], burst+burst/2)
			for i := range tokens {
				tokens[i] = join(t, tab, table.Request[int]{Key: base + i, Session: session}, table.Granted).Token
			}
			for _, token := range tokens {
				tab.Release(token)
			}
		},
		"requests for a few keys each": func(t *testing.T, tab *table.Table[int], base int) {
			tokens := make([]table.Token[int], burst/few)
			for i := range tokens {
				keys := make([]int, few)
				for j := range keys {
					keys[j] = base + i*few + j
				}
				tokens[i] = join(t, tab, table.Request[int]{Keys: keys}, table.Granted).Token
			}
			for _, token := range tokens {
				tab.Release(token)
			}
		},
	}
	for name, run := range bursts {
		t.Run(name, func(t *testing.T) {
			tab := table.New[int](table.Config{})
			for i := range few {
				join(t, tab, table.Request[int]{Key: -1 - i}, table.Granted)
			}
			before := heap()
			for i := range 2 { // what one burst leaves behind, the next might add to
				run(t, tab, i*burst)
				assert.LessOrEqual(t, heap()-before, int64(slack), "bytes retained after burst %d", i+1)
			}
			require.NoError(t, tab.Check())
			runtime.KeepAlive(tab)
			runtime.KeepAlive(session)
		})
	}
}

// What is kept for its next use is bounded by its size, too: a key may be an array of thousands of bytes.
func TestMemoryOfBurstOfLargeKeysGoesBack(t *testing.T) {
	type large [16 << 10]byte
	tab := table.New[large](table.Config{})
	before := heap()
	tokens := make([]table.Token[large], 1000)
	for i := range tokens {
		r := &table.Request[large]{Key: large{byte(i), byte(i >> 8)}}
		tokens[i] = tab.Join(r).Token
	}
	for _, token := range tokens {
		tab.Release(token)
	}
	require.True(t, tab.Idle())
	assert.LessOrEqual(t, heap()-before, int64(1<<20))
	runtime.KeepAlive(tab)
}

// TestSteadyStateAllocatesNothing runs each way through the table once, so that it has what
// it needs, and then again.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	sixtyFour := make([]int, 64) // the most that are kept of one request
	for i := range sixtyFour {
		sixtyFour[i] = i
	}
	exclusive := &table.Request[int]{Key: 1}
	shared := &table.Request[int]{Key: 1, Mode: table.Shared}
	many := &table.Request[int]{Keys: []int{1, 2, 3}}
	try := &table.Request[int]{Key: 1, Try: true}
	most := &table.Request[int]{Keys: sixtyFour}
	var tab *table.Table[int]
	ways := map[string]func(){
		"grant and release": func() {
			tab.Release(tab.Join(exclusive).Token)
		},
		"wait, handoff and release": func() {
			first := tab.Join(exclusive)
			tab.Join(exclusive)
			tab.Release(tab.Release(first.Token)[0].Token)
		},
		"wait and cancel": func() {
			first := tab.Join(exclusive)
			tab.Cancel(tab.Join(exclusive).Ticket)
			tab.Release(first.Token)
		},
		"refusal": func() {
			first := tab.Join(exclusive)
			tab.Join(try)
			tab.Release(first.Token)
		},
		"many keys": func() {
			first := tab.Join(many)
			tab.Cancel(tab.Join(many).Ticket)
			tab.Release(first.Token)
		},
		"the most keys": func() {
			tab.Release(tab.Join(most).Token)
		},
		"share": func() {
			first := tab.Join(shared)
			tab.Release(tab.Join(shared).Token)
			tab.Release(first.Token)
		},
	}
	for name, way := range ways {
		tab = table.New[int](table.Config{})
		assert.Zero(t, testing.AllocsPerRun(1000, way), name)
		require.NoError(t, tab.Check())

		// The second time is enough. The runtime may allocate meanwhile, but not always.
		second := math.Inf(1)
		for range 10 {
			tab = table.New[int](table.Config{})
			second = min(second, testing.AllocsPerRun(1, way))
		}
		assert.Zero(t, second, "%s: the second time", name)
	}

	// Nor does a queue allocate because it is long.
	tab = table.New[int](table.Config{})
	for range 10_000 {
		tab.Join(exclusive)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { tab.Cancel(tab.Join(exclusive).Ticket) }), "at the end of a long queue")
}

// Memory goes back in a few steps, and not with every key that leaves.
func TestShrinkingSeldomAllocates(t *testing.T) {
	tab := table.New[int](table.Config{})
	tokens := make([]table.Token[int], 20_000)
	for i := range tokens {
		tokens[i] = join(t, tab, table.Request[int]{Key: i}, table.Granted).Token
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, token := range tokens {
		tab.Release(token)
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, after.Mallocs-before.Mallocs, uint64(200))
}

// What a request was tagged with is told with its grant, and the next transition forgets it.
func TestTagIsForgottenAfterTheGrantWasTold(t *testing.T) {
	type big [1 << 10]byte
	tab := table.New[int](table.Config{})
	first := join(t, tab, table.Request[int]{Key: 1}, table.Granted).Token
	forgotten := func() weak.Pointer[big] {
		tag := new(big)
		join(t, tab, table.Request[int]{Key: 1, Tag: tag}, table.Waiting)
		return weak.Make(tag)
	}()
	second := tab.Release(first)[0].Token
	tab.Release(second)
	runtime.GC()
	assert.True(t, forgotten.Value() == nil)
	runtime.KeepAlive(tab)
}

// TestCancelCostsTheSameInALongQueue compares a long queue with one 128 times shorter. A
// cancellation that walked the queue would cost about as much more; the bound leaves room for
// caches and for a busy machine.
func TestCancelCostsTheSameInALongQueue(t *testing.T) {
	const (
		short   = 1 << 7
		long    = short << 7
		tooMuch = 32.0
	)
	ratio := perCancel(t, long, 1) / perCancel(t, short, long/short)
	for range 4 { // a pause of the machine does not repeat itself
		ratio = min(ratio, perCancel(t, long, 1)/perCancel(t, short, long/short))
	}
	assert.Less(t, ratio, tooMuch)
}

// perCancel returns the nanoseconds of one cancellation, where all waiters of a queue are cancelled in
// random order.
func perCancel(t *testing.T, waiters, rounds int) float64 {
	random := rand.New(rand.NewPCG(1, 2))
	var took time.Duration
	for range rounds {
		tab := table.New[int](table.Config{})
		join(t, tab, table.Request[int]{Key: 1}, table.Granted)
		tickets := make([]*table.Ticket[int], waiters)
		for i := range tickets {
			tickets[i] = join(t, tab, table.Request[int]{Key: 1}, table.Waiting).Ticket
		}
		random.Shuffle(waiters, func(i, j int) { tickets[i], tickets[j] = tickets[j], tickets[i] })
		start := time.Now()
		for _, ticket := range tickets {
			tab.Cancel(ticket)
		}
		took += time.Since(start)
	}
	return float64(took) / float64(rounds*waiters)
}
