// Package results keeps what was measured and does the arithmetic on it.
package results

import (
	"slices"

	"gonum.org/v1/gonum/stat"
)

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
