package workloads

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

// A scene is a manager in a state in which a call has much to look at.
type scene struct {
	manager *keylock.Manager[string]
	call    func() // may be called again and again
	prepare func() // is called before, while others are not; with it the call is made once
}

// pause measures what others notice of a call: four goroutines lock and unlock keys that
// have nothing to do with it, and a fifth waits for a key with a deadline of 10 ms. A call
// begins 10 ms after they do and 10 ms after the one before it, or when that has returned.
// Before, they do the same without calls.
func pause(name, about string, n int, set func(n int) scene) Workload {
	return Workload{
		Name:   "pause/" + name,
		About:  about,
		Admits: isUs,
		Heavy:  true,
		Measure: func(_ peers.Peer, budget Budget) results.Figures {
			s := set(n)
			defer s.manager.Close()
			atLeast := max(2*budget.Time, 20*time.Millisecond)
			alone := beside(s.manager, func() { time.Sleep(atLeast) })
			calls := 0
			var took time.Duration
			if s.prepare != nil {
				s.prepare()
				runtime.GC() // of what was prepared, or it comes while others are measured
			}
			with := beside(s.manager, func() {
				time.Sleep(between)
				for begun := time.Now(); time.Since(begun) < atLeast && (calls == 0 || s.prepare == nil); {
					start := time.Now()
					s.call()
					took += time.Since(start)
					calls++
					time.Sleep(between - time.Since(start))
				}
			})
			return results.Figures{
				results.PerOp:        float64(took.Nanoseconds()) / float64(calls),
				results.Longest:      float64(with.longest),
				results.LongestAlone: float64(alone.longest),
				results.Late:         float64(with.late),
				results.Share:        with.rate / alone.rate,
			}
		},
	}
}

// between is the time from the beginning of one call to that of the next.
const between = 10 * time.Millisecond

func isUs(p peers.Peer) bool { return p.Name == peers.Keylock.Name }

// noticed is what others noticed.
type noticed struct {
	longest, late time.Duration
	rate          float64
}

// beside runs a function, and others beside it.
func beside(m *keylock.Manager[string], run func()) noticed {
	const others = 4
	ctx := context.Background()
	var over atomic.Bool
	var all sync.WaitGroup
	var ops [others]int
	var longest [others]time.Duration
	for i := range others {
		key := "unrelated " + strconv.Itoa(i)
		all.Go(func() {
			for !over.Load() {
				asked := time.Now()
				lock, err := m.Acquire(ctx, key)
				if err != nil {
					panic(err)
				}
				lock.Release()
				longest[i] = max(longest[i], time.Since(asked))
				ops[i]++
			}
		})
	}
	var n noticed
	held, err := m.Acquire(ctx, "held")
	if err != nil {
		panic(err)
	}
	all.Go(func() {
		for !over.Load() {
			const patience = 10 * time.Millisecond
			asked := time.Now()
			ctx, cancel := context.WithTimeout(ctx, patience)
			if lock, err := m.Acquire(ctx, "held"); err == nil {
				lock.Release()
			}
			cancel()
			n.late = max(n.late, time.Since(asked)-patience)
		}
	})
	started := time.Now()
	run()
	took := time.Since(started)
	over.Store(true)
	all.Wait()
	held.Release()
	for i := range others {
		n.rate += float64(ops[i]) / took.Seconds()
		n.longest = max(n.longest, longest[i])
	}
	return n
}

// pauses are the scenes in which a call has most to look at, in full size.
func pauses() []Workload {
	return []Workload{
		pause("snapshot", "Snapshot of 1,000,000 keys", 1_000_000, heldKeys),
		pause("images", "Snapshot of 200 keys with 1,000 holders and 1,000 waiters each, while every one changes", 200, images),
		pause("cycle", "Acquire of a session; 16,000 others hold its key together and wait for another one", 16_000, readers),
		pause("deep", "Acquire of a session that 100 others wait for, before 64,000 that hold and wait, each for the next", 64_000, chain),
		pause("queue", "20,000 sessions join the queue of one key, and leave it", 20_000, joiners),
		pause("row", "Acquire of a session under WithSharedLimit(400), before a row of 400 sessions", 400, row),
		pause("top", "Top(2) beside a key with 1,000,000 shared holders", 1_000_000, sharers),
		pause("page", "the page of lockhttp with 300,000 waiters and their callers", 300_000, page),
		pause("keys", "the page of lockhttp with 1,000 keys of 1 MiB", 1_000, hugeKeys),
		pause("readers", "a release that grants 100,000 reservations that share", 100_000, readersBehind),
		pause("woken", "a release that grants and wakes 100,000 readers", 100_000, readersWoken),
		pause("abandoned", "the end of a context with which 100,000 calls wait for a key", 100_000, abandoned),
		closedLoop("sessions/4000", 4000),
		closedLoop("sessions/16000", 16_000),
	}
}

func heldKeys(n int) scene {
	m := keylock.Start[string](context.Background())
	for i := range n {
		m.TryAcquire(strconv.Itoa(i)) //keylock:held until the scene is over
	}
	return scene{manager: m, call: func() {
		if keys, err := m.Snapshot(context.Background()); err != nil || len(keys) < n {
			panic(err)
		}
	}}
}

func readers(n int) scene {
	m := keylock.Start[string](context.Background())
	m.Session("writer").TryAcquire("second") //keylock:held until the scene is over
	starter := m.Session("starter")
	starter.TryAcquire("own")                //keylock:held until the scene is over
	m.Session("waits for it").Reserve("own") //keylock:held until the scene is over
	for range n {
		s := m.Session("")
		s.TryAcquireSet(sharing("first")...) //keylock:held until the scene is over
		s.ReserveSet(sharing("second")...)   //keylock:held until the scene is over
	}
	return scene{manager: m, call: func() {
		starter.Reserve("first").Cancel()
		m.Stats(context.Background())
	}}
}

// images are keys whose queues are as long as is shown, so that each is copied in full when it
// changes while a Snapshot is under way.
func images(n int) scene {
	const shown = 1000
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	var last []keylock.Reservation[string]
	for i := range n {
		key := strconv.Itoa(i)
		for range shown {
			m.TryAcquireSet(sharing(key)...) //keylock:held until the scene is over
		}
		for range shown - 1 {
			m.Reserve(key) //keylock:held until the scene is over
		}
		last = append(last, m.Reserve(key))
	}
	return scene{manager: m, call: func() {
		var all sync.WaitGroup
		all.Go(func() {
			if keys, err := m.Snapshot(ctx); err != nil || len(keys) < n {
				panic(err)
			}
		})
		for i := range last {
			last[i].Cancel()
			last[i] = m.Reserve(strconv.Itoa(i))
		}
		all.Wait()
	}}
}

// chain is the longest way that a search for a cycle can go: a session for each key, which
// waits for the key of the next.
func chain(n int) scene {
	m := keylock.Start[string](context.Background())
	sessions := make([]*keylock.Session[string], n)
	for i := range sessions {
		sessions[i] = m.Session("")
		sessions[i].TryAcquire(strconv.Itoa(i)) //keylock:held until the scene is over
	}
	for i := range n - 1 {
		sessions[i].Reserve(strconv.Itoa(i + 1)) //keylock:held until the scene is over
	}
	start := m.Session("start")
	start.TryAcquire("own") //keylock:held until the scene is over
	for range 100 {
		m.Session("waits for it").Reserve("own") //keylock:held until the scene is over
	}
	return scene{manager: m, call: func() {
		start.Reserve("0").Cancel()
		m.Stats(context.Background())
	}}
}

func readersBehind(n int) scene {
	m := keylock.Start[string](context.Background())
	readers := make([]keylock.Reservation[string], n)
	return scene{manager: m, call: func() {
		writer, ok := m.TryAcquire("shared")
		if !ok {
			panic("the last turn has left a lock")
		}
		for i := range readers {
			readers[i] = m.ReserveSet(sharing("shared")...)
		}
		writer.Release()
		for _, r := range readers {
			r.Cancel()
		}
		m.Stats(context.Background())
	}}
}

// readersWoken is readersBehind with goroutines that wait. The call is over when all of them have
// released.
func readersWoken(n int) scene {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	var writer keylock.Lock[string]
	var all sync.WaitGroup
	prepare := func() {
		var err error
		if writer, err = m.Acquire(ctx, "shared"); err != nil {
			panic(err)
		}
		startWaiters(m, n, &all, func() {
			lock, err := m.AcquireShared(ctx, "shared")
			if err != nil {
				panic(err)
			}
			lock.Release()
		})
	}
	return scene{manager: m, prepare: prepare, call: func() {
		writer.Release()
		all.Wait()
		m.Stats(ctx)
	}}
}

// startWaiters starts goroutines that ask and wait, a few at a time, because very many that start
// at once keep others from running, with or without locks.
func startWaiters(m *keylock.Manager[string], n int, all *sync.WaitGroup, ask func()) {
	const atOnce = 64
	for i := range n {
		all.Go(ask)
		for i%atOnce == atOnce-1 || i == n-1 {
			if s, err := m.Stats(context.Background()); err != nil || s.Waiting > i {
				break
			}
			runtime.Gosched()
		}
	}
}

func abandoned(n int) scene {
	m := keylock.Start[string](context.Background())
	m.TryAcquire("hot") //keylock:held until the scene is over
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	prepare := func() {
		startWaiters(m, n, &all, func() { m.Acquire(ctx, "hot") }) //keylock:held never: the key is held until ctx ends
	}
	return scene{manager: m, prepare: prepare, call: func() {
		cancel()
		all.Wait()
		m.Stats(context.Background())
	}}
}

func joiners(n int) scene {
	m := keylock.Start[string](context.Background())
	m.Session("holder").TryAcquire("hot") //keylock:held until the scene is over
	waiters := make([]keylock.Reservation[string], n)
	return scene{manager: m, call: func() {
		for i := range waiters {
			waiters[i] = m.Session("").Reserve("hot")
		}
		for _, w := range waiters {
			w.Cancel()
		}
		m.Stats(context.Background())
	}}
}

// row is the worst order for a search that goes over all sessions again and again.
func row(n int) scene {
	m := keylock.Start[string](context.Background(), keylock.WithSharedLimit(n))
	sessions := make([]*keylock.Session[string], n)
	for i := range sessions {
		sessions[i] = m.Session("")
		for range n - 1 {
			m.TryAcquireSet(sharing(strconv.Itoa(i))...) //keylock:held until the scene is over
		}
		sessions[i].TryAcquireSet(sharing(strconv.Itoa(i))...)
	}
	start := m.Session("start")
	for range n - 1 {
		m.TryAcquireSet(sharing("last")...) //keylock:held until the scene is over
	}
	start.TryAcquireSet(sharing("last")...) //keylock:held until the scene is over
	sessions[n-1].ReserveSet(sharing("last")...)
	for i := n - 2; i >= 0; i-- {
		sessions[i].Reserve(strconv.Itoa(i + 1))
	}
	return scene{manager: m, call: func() {
		start.Reserve("0").Cancel()
		m.Stats(context.Background())
	}}
}

func sharers(n int) scene {
	m := keylock.Start[string](context.Background(), keylock.WithHoldTimes())
	for range n {
		m.TryAcquireSet(sharing("shared")...) //keylock:held until the scene is over
	}
	m.TryAcquire("another") //keylock:held until the scene is over
	m.Reserve("shared")     //keylock:held until the scene is over
	return scene{manager: m, call: func() { m.Top(context.Background(), 2) }}
}

func page(n int) scene {
	m := keylock.Start[string](context.Background(), keylock.WithCallers())
	m.TryAcquire("hot") //keylock:held until the scene is over
	for range n {
		m.Reserve("hot") //keylock:held until the scene is over
	}
	return scene{manager: m, call: func() { get(m) }}
}

func hugeKeys(n int) scene {
	m := keylock.Start[string](context.Background(), keylock.WithHoldTimes())
	for i := range n {
		m.TryAcquire(strconv.Itoa(i) + strings.Repeat("x", 1<<20)) //keylock:held until the scene is over
	}
	return scene{manager: m, call: func() { get(m) }}
}

func get(m *keylock.Manager[string]) {
	w := httptest.NewRecorder()
	lockhttp.Handler(map[string]lockhttp.Manager{"locks": lockhttp.Of(m)}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		panic(w.Body.String())
	}
}

// closedLoop compares goroutines that want one key in a session of their own with those that
// have none.
func closedLoop(name string, goroutines int) Workload {
	return Workload{
		Name:   "pause/" + name,
		About:  strconv.Itoa(goroutines) + " goroutines lock and unlock one key, each in its session; share is of what they do without",
		Admits: isUs,
		Heavy:  true,
		Measure: func(_ peers.Peer, budget Budget) results.Figures {
			slice := max(5*budget.Time, 20*time.Millisecond)
			plain, sessions := loop(goroutines, false, slice), loop(goroutines, true, slice)
			return results.Figures{results.PerOp: 1e9 / max(sessions, 1), results.Share: sessions / max(plain, 1)}
		},
	}
}

// loop returns how many times in a second a key is locked.
func loop(goroutines int, sessions bool, slice time.Duration) float64 {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()
	var over atomic.Bool
	var ops atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		acquire := m.Acquire
		if sessions {
			acquire = m.Session("").Acquire
		}
		all.Go(func() {
			for !over.Load() {
				lock, err := acquire(ctx, "hot")
				if err != nil {
					panic(err)
				}
				lock.Release()
				ops.Add(1)
			}
		})
	}
	for ops.Load() < int64(goroutines) { // all wait at once before anything is measured
		time.Sleep(time.Millisecond)
	}
	before, started := ops.Load(), time.Now()
	time.Sleep(slice)
	rate := float64(ops.Load()-before) / time.Since(started).Seconds()
	over.Store(true)
	all.Wait()
	return rate
}

// sharing wants a key shared.
func sharing[K comparable](key K) []keylock.Want[K] {
	return []keylock.Want[K]{{Key: key, Mode: keylock.Shared}}
}
