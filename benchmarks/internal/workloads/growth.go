package workloads

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// growth is uncontended on ever other keys, while many keys are held.
func growth(name string, held int) Workload {
	const others = 1 << 16
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("one goroutine, %d keys in turn, while %d others are held", others, held),
		Admits: nests,
		Heavy:  true,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			keys := keys(held + others)
			holders := newHolders(l, keys[:held])
			holders.lock()
			defer holders.unlock()
			crew := newCrew(p, l, 1)
			defer crew.cancel()
			free := keys[held:]
			return crew.run(budget, func(c *client) {
				c.acquire(free[c.ops*stride%others])
				c.Unlock()
			}).figures()
		},
	}
}

// memory is what keys and waiters occupy, and what they leave behind.
func memory(name string, held, waiters int) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("%d keys are held, %d waiters wait for one key, and all leave", held, waiters),
		Admits: nests,
		Heavy:  true,
		Measure: func(p peers.Peer, _ Budget) results.Figures {
			keys := keys(held)
			// The run-time keeps what it needed for goroutines that have ended, so there
			// must have been as many before.
			dry, l := p.Open(), p.Open()
			defer dry.Close()
			defer l.Close()
			perWaiter := bytesPerWaiter(dry, waiters)
			before := liveHeap()
			perKey := bytesPerKey(l, keys)
			bytesPerWaiter(l, waiters)
			left := liveHeap() - before
			return results.Figures{
				results.PerKey:   perKey,
				results.PerWait:  perWaiter,
				results.LeftOver: max(0, left),
			}
		},
	}
}

// bytesPerKey is what a held key occupies beyond the client that holds it.
func bytesPerKey(l peers.Locker, keys []string) float64 {
	holders := newHolders(l, keys)
	defer holders.unlock()
	before := liveHeap()
	holders.lock()
	return (liveHeap() - before) / float64(len(keys))
}

// holders hold one key each.
type holders struct {
	keys    []string
	clients []peers.Client
}

func newHolders(l peers.Locker, keys []string) holders {
	h := holders{keys: keys}
	for range keys {
		h.clients = append(h.clients, l.Client())
	}
	return h
}

func (h holders) lock() {
	for i, c := range h.clients {
		if err := c.Lock(background, h.keys[i]); err != nil {
			panic(err)
		}
	}
}

func (h holders) unlock() {
	for _, c := range h.clients {
		c.Unlock()
	}
}

// bytesPerWaiter is what a waiter occupies beyond a goroutine that is parked already.
func bytesPerWaiter(l peers.Locker, waiters int) float64 {
	free := hold(l, hotKey)
	ctx, cancel := context.WithCancel(background)
	defer cancel()

	var parked, waiting sync.WaitGroup
	begin := make(chan struct{})
	for range waiters {
		client := l.Client()
		parked.Add(1)
		waiting.Go(func() {
			parked.Done()
			<-begin
			if client.Lock(ctx, hotKey) == nil {
				client.Unlock()
			}
		})
	}
	parked.Wait()
	before := liveHeap()
	close(begin)
	settle()
	after := liveHeap()
	free()
	waiting.Wait()
	return (after - before) / float64(waiters)
}

// settle lets every other goroutine run until it parks.
func settle() {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines/runnable:goroutines"},
		{Name: "/sched/goroutines/running:goroutines"},
	}
	for {
		runtime.Gosched()
		metrics.Read(samples)
		if samples[0].Value.Uint64() == 0 && samples[1].Value.Uint64() <= 1 {
			return
		}
	}
}

// liveHeap is what is in use on the heap, in bytes. Two collections empty the pools.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}
