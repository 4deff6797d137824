package report

import (
	"math"
	"slices"
	"time"
)

// Summary describes a set of latencies by the figures that an operator asks for.
type Summary struct {
	P50, P99, Max time.Duration
}

// Summarize returns the quantiles of latencies, which it leaves in their order. Of no latencies
// it returns the zero Summary.
func Summarize(latencies []time.Duration) Summary {
	sorted := slices.Sorted(slices.Values(latencies))
	return Summary{P50: quantile(sorted, 0.50), P99: quantile(sorted, 0.99), Max: quantile(sorted, 1)}
}

// quantile returns the smallest of the sorted latencies that a share q of them does not exceed
// (the nearest rank, so it is always one that was measured).
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// Short rounds d to three significant digits, as a table wants it: 1.234567s becomes 1.23s.
func Short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d.Abs() >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit)
}
