package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/points"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/workloads"
)

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
