package workloads

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

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
