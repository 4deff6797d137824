package results

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
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
