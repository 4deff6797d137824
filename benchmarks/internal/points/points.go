// Package points judges what was measured by what the library set out to reach.
package points

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// A Point is one thing that the library set out to reach.
type Point struct {
	Number    int
	About     string
	Workloads string   // a pattern of those that it needs
	Peers     []string // that it needs; nil for all
	judge     func(*results.Results) []Verdict
}

// A Verdict is what one measurement says about a point.
type Verdict struct {
	What   string
	Figure string
	Goal   string // empty when there is none
	Missed bool
}

// Judge returns the verdicts that the results allow; none when too little of what the
// point needs was measured.
func (p Point) Judge(r *results.Results) []Verdict { return p.judge(r) }

// All are the points by number, from 1.
func All() []Point {
	return []Point{
		{1, "uncontended, against a bare round trip over buffered channels",
			"uncontended", []string{us, "ping-pong"}, roundTrip},
		{2, "a hot key, against the fastest peer that is FIFO and takes a context",
			"hot/", append(rivals(), us), hotKey},
		{3, "distinct keys, against the map of semaphores, and the mutex with FIFO lists",
			"distinct/(64|1000)", []string{us, "semaphores", "mutex+fifo"}, distinctKeys},
		{4, "cancellation",
			"storm|cancel-one", append(rivals(), us), cancellation},
		{5, "16 keys at once, against the fastest FIFO peer that locks them one by one",
			"many", append(rivals(), us), manyKeys},
		{6, "how near the owner comes to the speed of its own table",
			"distinct/(64|1000)|hot/0us", []string{us, "table", "ping-pong"}, ceiling},
		{7, "allocations per operation",
			"", []string{us}, allocations},
		{8, "growth and memory",
			"growth|memory", []string{us, "mutex+fifo"}, growth},
		{9, "under unrelated load, against the same design without tuning",
			"busy-", []string{us, "plain"}, underLoad},
		{10, "what others notice of a call that has much to look at",
			"pause/", []string{us}, pauses},
	}
}

// Numbered returns the point with the given number.
func Numbered(number int) (Point, error) {
	all := All()
	if number < 1 || number > len(all) {
		return Point{}, fmt.Errorf("there is no point %d, only 1 to %d", number, len(all))
	}
	return all[number-1], nil
}

const us = "keylock"

// rivals are the names of the peers that promise as much on a hot key as keylock does.
func rivals() []string {
	var names []string
	for _, p := range peers.All() {
		if p.Rival() && p.Name != us {
			names = append(names, p.Name)
		}
	}
	return names
}

// ours is keylock's cell.
func ours(workload string) results.Cell { return results.Cell{Workload: workload, Peer: us} }

// against compares keylock's cost with a peer's. A goal of 0 is none.
func against(r *results.Results, workload, peer string, goal float64) []Verdict {
	theirs := results.Cell{Workload: workload, Peer: peer}
	ratio, ok := r.Ratio(ours(workload), theirs, results.PerOp)
	if !ok {
		return nil
	}
	v := times(fmt.Sprintf("%s, keylock / %s", workload, peer), ratio, goal)
	if cpu, ok := r.Ratio(ours(workload), theirs, results.CPU); ok {
		v.Figure += fmt.Sprintf(", in CPU time %.2f", cpu.Median)
	}
	return []Verdict{v}
}

// times is the verdict on a ratio.
func times(what string, ratio results.Spread, goal float64) Verdict {
	v := Verdict{
		What:   what,
		Figure: fmt.Sprintf("%.2f times (quartiles %.2f to %.2f)", ratio.Median, ratio.Low, ratio.High),
	}
	if goal > 0 {
		v.Goal = fmt.Sprintf("at most %.2f", goal)
		v.Missed = ratio.Median > goal
	}
	return v
}

// atMost is the verdict on a plain figure.
func atMost(what string, figure float64, unit string, goal float64) Verdict {
	return Verdict{
		What:   what,
		Figure: fmt.Sprintf("%.0f %s", figure, unit),
		Goal:   fmt.Sprintf("at most %.0f", goal),
		Missed: figure > goal,
	}
}

// matching are the names of the measured workloads that begin so.
func matching(r *results.Results, prefix string) []string {
	var names []string
	for _, w := range r.Workloads {
		if strings.HasPrefix(w.Name, prefix) {
			names = append(names, w.Name)
		}
	}
	return names
}

// fastest is the rival with the least cost in a workload; empty when none was measured.
func fastest(r *results.Results, workload string) string {
	var best string
	var least float64
	for _, name := range rivals() {
		cost, ok := r.Figure(results.Cell{Workload: workload, Peer: name}, results.PerOp)
		if ok && (best == "" || cost.Median < least) {
			best, least = name, cost.Median
		}
	}
	return best
}

func roundTrip(r *results.Results) []Verdict {
	return against(r, "uncontended", "ping-pong", 1.25)
}

func hotKey(r *results.Results) (verdicts []Verdict) {
	for _, workload := range matching(r, "hot/") {
		verdicts = append(verdicts, against(r, workload, fastest(r, workload), 1)...)
	}
	return verdicts
}

func distinctKeys(r *results.Results) []Verdict {
	return slices.Concat(
		against(r, "distinct/64", "semaphores", 1),
		against(r, "distinct/1000", "semaphores", 1),
		against(r, "distinct/64", "mutex+fifo", 0),
		against(r, "distinct/1000", "mutex+fifo", 0),
	)
}

func cancellation(r *results.Results) []Verdict {
	verdicts := against(r, "storm", "semaphores", 1)
	if ratio, ok := r.Ratio(ours("cancel-one/100000"), ours("cancel-one/10"), results.PerOp); ok {
		verdicts = append(verdicts, times("one of a key's 100,000 waiters / one of its 10", ratio, 1.25))
	}
	return verdicts
}

func manyKeys(r *results.Results) (verdicts []Verdict) {
	for _, workload := range matching(r, "many/") {
		verdicts = append(verdicts, against(r, workload, fastest(r, workload), 0.5)...)
	}
	return verdicts
}

func ceiling(r *results.Results) (verdicts []Verdict) {
	for _, workload := range []string{"distinct/64", "distinct/1000", "hot/0us"} {
		manager, okManager := r.Figure(ours(workload), results.PerOp)
		table, okTable := r.Figure(results.Cell{Workload: workload, Peer: "table"}, results.PerOp)
		if !okManager || !okTable {
			continue
		}
		figure := fmt.Sprintf("%.0f ns, of which the table alone is %.0f", manager.Median, table.Median)
		rest := manager.Median - table.Median
		if messages, ok := r.Figure(results.Cell{Workload: workload, Peer: "ping-pong"}, results.PerOp); ok {
			figure += fmt.Sprintf(", a bare round trip %.0f", messages.Median)
			rest -= messages.Median
		}
		figure += fmt.Sprintf(", and neither %.0f%%", 100*rest/manager.Median)
		verdicts = append(verdicts, Verdict{What: workload, Figure: figure})
	}
	return verdicts
}

// allocations is about the workload in which there are most.
func allocations(r *results.Results) []Verdict {
	worst, most := "", -1.0
	for _, w := range r.Workloads {
		if allocs, ok := r.Figure(ours(w.Name), results.Allocs); ok && allocs.Median > most {
			worst, most = w.Name, allocs.Median
		}
	}
	if worst == "" {
		return nil
	}
	return []Verdict{{
		What:   "the most, in " + worst,
		Figure: fmt.Sprintf("%.3f", most),
		Goal:   "less than 0.01", // a slice has a few of its own
		Missed: most >= 0.01,
	}}
}

func growth(r *results.Results) (verdicts []Verdict) {
	if ratio, ok := r.Ratio(ours("growth/1000000"), ours("growth/1000"), results.PerOp); ok {
		verdicts = append(verdicts, times("a million keys held / a thousand", ratio, 1.5))
	}
	for _, goal := range []struct {
		metric results.Metric
		what   string
		most   float64
	}{
		{results.PerKey, "bytes per held key", 100},
		{results.PerWait, "bytes per waiter beyond its goroutine", 200},
		{results.LeftOver, "bytes left after a million keys", 1 << 20},
	} {
		if figure, ok := r.Figure(ours("memory"), goal.metric); ok {
			verdicts = append(verdicts, atMost(goal.what, figure.Median, "B", goal.most))
		}
	}
	return verdicts
}

func underLoad(r *results.Results) (verdicts []Verdict) {
	for _, workload := range matching(r, "busy-") {
		verdicts = append(verdicts, against(r, workload, "plain", 1.1)...)
	}
	return verdicts
}

// pauses are about keys that have nothing to do with a call, but for the closed loop of
// sessions, which is about itself.
func pauses(r *results.Results) (verdicts []Verdict) {
	for _, workload := range matching(r, "pause/") {
		share, _ := r.Figure(ours(workload), results.Share)
		longest, ok := r.Figure(ours(workload), results.Longest)
		if !ok {
			goal := map[string]float64{"pause/sessions/4000": 0.3}[workload]
			verdicts = append(verdicts, Verdict{
				What: workload, Figure: fmt.Sprintf("%.2f of what they do without sessions", share.Median),
				Goal: fmt.Sprintf("at least %.1f, and not 0", goal), Missed: share.Median < max(goal, 0.001),
			})
			continue
		}
		alone, _ := r.Figure(ours(workload), results.LongestAlone)
		late, _ := r.Figure(ours(workload), results.Late)
		const ms = 1e6
		verdicts = append(verdicts, Verdict{
			What: workload,
			Figure: fmt.Sprintf("longest lock and unlock %.1f ms (%.1f ms without the call), deadline %.1f ms late, throughput %.2f of what it is without",
				longest.Median/ms, alone.Median/ms, late.Median/ms, share.Median),
			Goal:   "at most 5 ms, at least 0.5",
			Missed: longest.Median > 5*ms || share.Median < 0.5,
		})
	}
	return verdicts
}
