package workloads

import (
	"fmt"
	"math/rand"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	hotKey  = "order/hot"
	warmKey = "order/warm"
)

// keys returns n keys. They are made once, so no workload pays for them.
func keys(n int) []string {
	keysMade.Lock()
	defer keysMade.Unlock()
	for i := len(keysMade.keys); i < n; i++ {
		keysMade.keys = append(keysMade.keys, fmt.Sprintf("order/%d", i))
	}
	return keysMade.keys[:n]
}

var keysMade struct {
	sync.Mutex
	keys []string
}

// manyKeys is how many keys there are to draw from.
const manyKeys = 10_000

// zipfDraws are keys drawn with Zipf's exponent 1.1, the same in every run.
var zipfDraws = sync.OnceValue(func() []string {
	zipf := rand.NewZipf(rand.New(rand.NewSource(1)), 1.1, 1, manyKeys-1)
	keys := keys(manyKeys)
	draws := make([]string, 1<<16)
	for i := range draws {
		draws[i] = keys[zipf.Uint64()]
	}
	return draws
})

// batches are sets of 16 keys, each sorted and without duplicates.
var batches = sync.OnceValue(func() [][]string {
	const size = 16
	random := rand.New(rand.NewSource(1))
	keys := keys(manyKeys)
	batches := make([][]string, 1<<12)
	for i := range batches {
		drawn := make(map[string]bool, size)
		for len(drawn) < size {
			drawn[keys[random.Intn(len(keys))]] = true
		}
		for key := range drawn {
			batches[i] = append(batches[i], key)
		}
		slices.Sort(batches[i])
	}
	return batches
})

// spin is work without memory: the same turns are the same work for every peer.
//
//go:noinline
func spin(turns int) {
	x := uint64(turns) | 1
	for range turns {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	runtime.KeepAlive(x) // or the compiler would see that it is not needed
}

// turnsFor returns how many turns take d on this machine, when nothing disturbs it.
func turnsFor(d time.Duration) int {
	return int(d.Seconds() * turnsPerSecond())
}

var turnsPerSecond = sync.OnceValue(func() float64 {
	const turns = 200_000
	best := time.Duration(1<<63 - 1)
	for range 50 {
		started := time.Now()
		spin(turns)
		best = min(best, time.Since(started))
	}
	return turns / best.Seconds()
})

// burn keeps one goroutine per core busy until the function it returns is called.
func burn() (stop func()) {
	var over atomic.Bool
	var burners sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		burners.Go(func() {
			for !over.Load() {
				spin(1000)
			}
		})
	}
	return func() {
		over.Store(true)
		burners.Wait()
	}
}
