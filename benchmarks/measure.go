package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/points"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/workloads"
)

// A plan says what is measured, and how often.
type plan struct {
	workloads []workloads.Workload
	peers     []peers.Peer
	rounds    int
	slice     time.Duration
}

// heavyRounds is how often a workload is measured at most that takes long to set up.
const heavyRounds = 5

// measure carries out the plan. Workloads of one group and all their peers are
// measured in turns, in another order in each round, so that whatever disturbs the
// machine disturbs all of them. After each group it calls done with what it has of it.
func (p plan) measure(progress io.Writer, done func(*results.Results) error) (*results.Results, error) {
	measured := results.New(p.slice)
	for first := 0; first < len(p.workloads); {
		last := first + 1
		for last < len(p.workloads) && p.workloads[last].Group() == p.workloads[first].Group() {
			last++
		}
		group := results.New(p.slice)
		group.Workloads = p.measureGroup(p.workloads[first:last], progress)
		if err := done(group); err != nil {
			return nil, err
		}
		measured.Workloads = append(measured.Workloads, group.Workloads...)
		first = last
	}
	return measured, nil
}

func (p plan) measureGroup(group []workloads.Workload, progress io.Writer) []results.Workload {
	measured := make([]results.Workload, len(group))
	type cell struct{ workload, peer int }
	var cells []cell
	admitted := make([][]peers.Peer, len(group))
	rounds := p.rounds
	for i, w := range group {
		measured[i] = results.Workload{Name: w.Name, About: w.About}
		if w.Heavy {
			rounds = min(rounds, heavyRounds)
		}
		for _, peer := range p.peers {
			if w.Admits(peer) {
				cells = append(cells, cell{i, len(admitted[i])})
				admitted[i] = append(admitted[i], peer)
				measured[i].Peers = append(measured[i].Peers, results.Peer{Name: peer.Name})
			}
		}
	}
	for round := range rounds {
		rand.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for _, c := range cells {
			w, peer := group[c.workload], admitted[c.workload][c.peer]
			fmt.Fprintf(progress, "\r\x1b[Kround %d of %d: %s, %s", round+1, rounds, w.Name, peer.Name)
			runtime.GC() // no peer pays for another's garbage
			figures := w.Measure(peer, workloads.Budget{Time: p.slice})
			of := &measured[c.workload].Peers[c.peer]
			of.Rounds = append(of.Rounds, figures)
		}
	}
	fmt.Fprint(progress, "\r\x1b[K")
	return measured
}

// A choice says what is measured, as it stands on the command line.
type choice struct {
	workloads string // an expression
	peers     string // names
	points    string // numbers
}

// plan makes a plan of what was chosen. Points say which workloads and peers they need,
// where the other two say nothing.
func (o options) plan() (plan, error) {
	c, err := o.choice.resolve()
	if err != nil {
		return plan{}, err
	}
	p := plan{rounds: o.rounds, slice: o.slice}
	if p.workloads, err = workloads.Matching(c.workloads); err != nil {
		return plan{}, err
	}
	if o.quick {
		p.workloads = slices.DeleteFunc(p.workloads, func(w workloads.Workload) bool { return w.Heavy })
	}
	p.peers, err = peers.Named(c.peers)
	return p, err
}

// resolve replaces the points by the workloads and peers that they need.
func (c choice) resolve() (choice, error) {
	if c.points == "" {
		return c, nil
	}
	var patterns, names []string
	for number := range strings.SplitSeq(c.points, ",") {
		n, err := strconv.Atoi(number)
		if err != nil {
			return c, fmt.Errorf("%q is not the number of a point", number)
		}
		point, err := points.Numbered(n)
		if err != nil {
			return c, err
		}
		patterns = append(patterns, point.Workloads)
		names = append(names, point.Peers...)
	}
	if c.workloads == "" {
		c.workloads = strings.Join(patterns, "|")
	}
	if c.peers == "" {
		slices.Sort(names)
		c.peers = strings.Join(slices.Compact(names), ",")
	}
	return c, nil
}
