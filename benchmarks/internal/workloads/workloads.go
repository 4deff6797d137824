// Package workloads says what the peers are measured at.
package workloads

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// A Workload is something that peers can be measured at.
type Workload struct {
	Name    string // the part before a slash is its group
	About   string
	Admits  func(peers.Peer) bool // whether it makes sense for a peer
	Measure func(peers.Peer, Budget) results.Figures
	Heavy   bool // it takes long to set up, so it is measured in fewer rounds
}

// Group is what the workload has in common with those that it is compared with:
// workloads of one group are measured in turns.
func (w Workload) Group() string {
	group, _, _ := strings.Cut(w.Name, "/")
	return group
}

// All are the workloads in the order in which they are measured.
func All() []Workload {
	contended := []Workload{
		distinct(1, "uncontended", "one goroutine, one key"),
		distinct(2, "distinct/2", "2 goroutines, each with its own key"),
		distinct(64, "distinct/64", "64 goroutines, each with its own key"),
		distinct(1000, "distinct/1000", "1,000 goroutines, each with its own key"),
		hot("hot/0us", 0),
		hot("hot/1us", time.Microsecond),
		hot("hot/10us", 10*time.Microsecond),
		hot("hot/100us", 100*time.Microsecond),
		tail("tail"),
	}
	all := slices.Concat(contended, []Workload{
		zipf("zipf"),
		storm("storm"),
		cancelOne("cancel-one/10", 100_000, 10),
		cancelOne("cancel-one/100000", 100_000, 100_000),
		many("many/1", 1),
		many("many/64", 64),
		shared("shared/0us", 0),
		shared("shared/10us", 10*time.Microsecond),
		growth("growth/1000", 1000),
		growth("growth/1000000", 1_000_000),
		memory("memory", 1_000_000, 100_000),
	})
	for _, w := range contended {
		all = append(all, busy(w))
	}
	return append(all, pauses()...)
}

// Matching returns the workloads whose names begin with a match of pattern.
func Matching(pattern string) ([]Workload, error) {
	matches, err := regexp.Compile("^(?:" + pattern + ")")
	if err != nil {
		return nil, err
	}
	var chosen []Workload
	for _, w := range All() {
		if matches.MatchString(w.Name) {
			chosen = append(chosen, w)
		}
	}
	if chosen == nil {
		return nil, fmt.Errorf("no workload begins with %q", pattern)
	}
	return chosen, nil
}

func locks(p peers.Peer) bool   { return !p.Echo && !p.Serial && !p.Spread }
func cancels(p peers.Peer) bool { return locks(p) && p.Context }
func nests(p peers.Peer) bool   { return locks(p) && !p.Striped }

// shares reports whether a peer has a shared mode.
func shares(p peers.Peer) bool {
	l := p.Open()
	defer l.Close()
	_, ok := l.Client().(peers.SharedClient)
	return ok
}

// distinct gives every goroutine its own key.
func distinct(goroutines int, name, about string) Workload {
	return Workload{
		Name:   name,
		About:  about,
		Admits: func(p peers.Peer) bool { return !p.Spread || goroutines > 1 },
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, goroutines)
			defer crew.cancel()
			keys := keys(goroutines)
			return crew.run(budget, func(c *client) {
				c.acquire(keys[c.n])
				c.Unlock()
			}).figures()
		},
	}
}

// crowd is how many goroutines want a hot key.
const crowd = 64

// hot lets a crowd of goroutines want the same key.
func hot(name string, section time.Duration) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("%d goroutines, one key, held %s", crowd, lasting(section)),
		Admits: func(p peers.Peer) bool { return locks(p) || p.Serial && section == 0 },
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, crowd)
			defer crew.cancel()
			if p.Serial {
				return alone(crew, budget)
			}
			crew.hot = true
			turns := turnsFor(section)
			return crew.run(budget, func(c *client) {
				c.acquire(hotKey)
				spin(turns)
				c.Unlock()
			}).fairFigures()
		},
	}
}

func lasting(section time.Duration) string {
	if section == 0 {
		return "for no time"
	}
	return fmt.Sprintf("for %v", section)
}

// alone is hot for a peer that does not wait: all are in the queue, and in the order
// of the queue each frees the key and goes to the end.
func alone(crew *crew, budget Budget) results.Figures {
	for _, c := range crew.clients {
		c.acquire(hotKey)
	}
	rejoin := func(c *client) {
		c.Unlock()
		c.acquire(hotKey)
	}
	return crew.run(budget, rejoin).figures()
}

// zipf draws keys as popular things are drawn: few of them often, most of them rarely.
func zipf(name string) Workload {
	const goroutines = 1000
	return Workload{
		Name:   name,
		About:  "1,000 goroutines, 10,000 keys drawn with Zipf's exponent 1.1",
		Admits: func(p peers.Peer) bool { return locks(p) || p.Spread },
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, goroutines)
			defer crew.cancel()
			draws := zipfDraws()
			return crew.run(budget, func(c *client) {
				c.acquire(draws[(int64(c.n)*61+c.ops)%int64(len(draws))])
				c.Unlock()
			}).figures()
		},
	}
}

// many locks 16 keys at once, or one by one in sorted order where a peer has no way to
// lock many.
func many(name string, goroutines int) Workload {
	about := fmt.Sprintf("%d goroutines, each locks 16 of 10,000 keys", goroutines)
	if goroutines == 1 {
		about = "one goroutine locks 16 of 10,000 keys"
	}
	return Workload{
		Name:   name,
		About:  about,
		Admits: nests,
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, goroutines)
			defer crew.cancel()
			lockers := make([]peers.ManyClient, goroutines)
			for n := range lockers {
				lockers[n] = peers.Many(l)
			}
			batches := batches()
			return crew.run(budget, func(c *client) {
				keys := batches[(int64(c.n)*61+c.ops)%int64(len(batches))]
				if err := lockers[c.n].LockAll(c.ctx, keys); err != nil {
					panic(err)
				}
				lockers[c.n].Unlock()
			}).figures()
		},
	}
}

// shared lets a crowd read the same key, and write it one time in a hundred.
func shared(name string, section time.Duration) Workload {
	return Workload{
		Name:   name,
		About:  fmt.Sprintf("%d goroutines, one key, shared %s, and 1 time in 100 not shared", crowd, lasting(section)),
		Admits: func(p peers.Peer) bool { return locks(p) && shares(p) },
		Measure: func(p peers.Peer, budget Budget) results.Figures {
			l := p.Open()
			defer l.Close()
			crew := newCrew(p, l, crowd)
			defer crew.cancel()
			crew.hot = true
			turns := turnsFor(section)
			return crew.run(budget, func(c *client) {
				if (int64(c.n)+c.ops)%100 == 0 {
					c.acquire(hotKey)
				} else if err := c.Client.(peers.SharedClient).LockShared(c.ctx, hotKey); err != nil {
					panic(err)
				}
				spin(turns)
				c.Unlock()
			}).fairFigures()
		},
	}
}

// busy is a workload while one unrelated goroutine per core burns CPU.
func busy(w Workload) Workload {
	idle := w.Measure
	w.Name = "busy-" + w.Name
	w.About += ", while each core is kept busy"
	w.Measure = func(p peers.Peer, budget Budget) results.Figures {
		budget.Busy = true
		return idle(p, budget)
	}
	return w
}

// background is the context of those who are never cancelled.
var background = context.Background()

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
