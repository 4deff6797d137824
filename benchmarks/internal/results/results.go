// Package results keeps what was measured and does the arithmetic on it.
package results

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat"
)

// Results are one run of the bench.
type Results struct {
	Go        string        `json:"go"`
	Platform  string        `json:"platform"`
	CPUs      int           `json:"cpus"`
	Slice     time.Duration `json:"slice_ns"`
	Workloads []Workload    `json:"workloads"`
}

// A Workload is what was measured of it.
type Workload struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Peers []Peer `json:"peers"`
}

// A Peer is what was measured of it in one workload. The rounds of all peers of a
// workload belong together: they were measured one after the other.
type Peer struct {
	Name   string    `json:"name"`
	Rounds []Figures `json:"rounds"`
}

// New returns empty results that name this machine.
func New(slice time.Duration) *Results {
	return &Results{
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs:     runtime.GOMAXPROCS(0),
		Slice:    slice,
	}
}

// Read returns the results that Write has written.
func Read(r io.Reader) (*Results, error) {
	results := new(Results)
	if err := json.NewDecoder(r).Decode(results); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return results, nil
}

// Write writes the results as JSON.
func (r *Results) Write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	return encoder.Encode(r)
}

// A Cell is one peer in one workload.
type Cell struct{ Workload, Peer string }

// Rounds are the measurements of a cell; none when it was not measured.
func (r *Results) Rounds(c Cell) []Figures {
	for _, w := range r.Workloads {
		if w.Name != c.Workload {
			continue
		}
		for _, p := range w.Peers {
			if p.Name == c.Peer {
				return p.Rounds
			}
		}
	}
	return nil
}

// Figure is what was measured of one metric in a cell; false when nothing was.
func (r *Results) Figure(c Cell, metric Metric) (Spread, bool) {
	var values []float64
	for _, figures := range r.Rounds(c) {
		if v, ok := figures[metric]; ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return Spread{}, false
	}
	return spreadOf(values), true
}

// Ratio is how many times the figure of a is that of b. It is taken round by round,
// so that what disturbs the machine for a while disturbs both. It is false where the
// two were not measured in the same rounds.
func (r *Results) Ratio(a, b Cell, metric Metric) (Spread, bool) {
	above, below := r.Rounds(a), r.Rounds(b)
	var ratios []float64
	for i := range min(len(above), len(below)) {
		x, okX := above[i][metric]
		y, okY := below[i][metric]
		if okX && okY && y != 0 {
			ratios = append(ratios, x/y)
		}
	}
	if len(ratios) == 0 {
		return Spread{}, false
	}
	return spreadOf(ratios), true
}

// Measured are the metrics that a workload has, in the order of Metrics.
func (w Workload) Measured() []Metric {
	return slices.DeleteFunc(slices.Clone(Metrics), func(m Metric) bool {
		return !slices.ContainsFunc(w.Peers, func(p Peer) bool {
			return slices.ContainsFunc(p.Rounds, func(f Figures) bool {
				_, ok := f[m]
				return ok
			})
		})
	})
}

// A Metric is the name of one figure, which is also its unit.
type Metric string

// What the workloads measure. In all of them but Jain and Share less is better.
const (
	PerOp    Metric = "ns/op"
	CPU      Metric = "cpu-ns/op" // on all cores; unlike the time it hardly minds a busy neighbour
	Allocs   Metric = "allocs/op"
	Jain     Metric = "jain" // Jain's index of the operations of each goroutine: 1 is perfectly fair, 1/n is one goroutine only
	P50      Metric = "p50-ns"
	P99      Metric = "p99-ns"
	P999     Metric = "p99.9-ns"
	PerKey   Metric = "B/key"
	PerWait  Metric = "B/waiter"
	LeftOver Metric = "B-left"

	Longest      Metric = "longest-ns"       // lock and unlock of others, beside a call
	LongestAlone Metric = "longest-alone-ns" // and without it
	Late         Metric = "late-ns"          // how late a deadline returned
	Share        Metric = "share"            // what others do beside a call, of what they do without: more is better
)

// Metrics are all of them, in the order in which they are shown.
var Metrics = []Metric{PerOp, CPU, Allocs, Jain, P50, P99, P999, PerKey, PerWait, LeftOver, Longest, LongestAlone, Late, Share}

// Figures are what one slice of one workload measured of one peer.
type Figures map[Metric]float64

// JainIndex tells how evenly shares are spread: 1 when all are equal, 1/n when one of n
// has everything. It is 0 for no shares at all.
func JainIndex(shares []float64) float64 {
	var sum, squares float64
	for _, x := range shares {
		sum += x
		squares += x * x
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// A Spread is the median of some measurements and its quartiles.
type Spread struct{ Low, Median, High float64 }

// spreadOf interpolates between the measurements, of which there must be one or more.
func spreadOf(values []float64) Spread {
	values = slices.Sorted(slices.Values(values))
	quantile := func(p float64) float64 {
		if len(values) == 1 {
			return values[0]
		}
		return stat.Quantile(p, stat.LinInterp, values, nil)
	}
	return Spread{quantile(0.25), median(values), quantile(0.75)}
}

// median of sorted values; of an even number the mean of the two in the middle.
func median(values []float64) float64 {
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// Relative is half the distance between the quartiles, as a share of the median.
func (s Spread) Relative() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.High - s.Low) / 2 / s.Median
}
