package workloads

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// tail is hot with a clock on every wait.
func tail(name string) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("%d goroutines, one key, with the time that each wait took", crowd),
		Admits: locks,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, crowd)
			defer crew.cancel()
			crew.hot = true
			waits := make([]*hdrhistogram.Histogram, crowd)
			for n := range waits {
				waits[n] = hdrhistogram.New(1, time.Minute.Nanoseconds(), 2)
			}
			timed := func(c *client) {
				asked := time.Now()
				c.acquire(hotKey)
				waited := time.Since(asked)
				c.Unlock()
				if err := waits[c.n].RecordValue(waited.Nanoseconds()); err != nil {
					panic(err) // it took longer than the whole run may
				}
			}
			crew.warmUp(budget, timed)
			for _, h := range waits {
				h.Reset()
			}
			figures := crew.spend(budget, timed).fairFigures()

			all := waits[0]
			for _, h := range waits[1:] {
				all.Merge(h)
			}
			figures[results.P50] = float64(all.ValueAtQuantile(50))
			figures[results.P99] = float64(all.ValueAtQuantile(99))
			figures[results.P999] = float64(all.ValueAtQuantile(99.9))
			return figures
		},
	}
}
