// Package report shows results: as text, as Markdown, as a plot, and as the verdicts
// on what the library promises.
package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// us is the peer that the others are compared with.
const us = "keylock"

// Text writes one table per workload: the medians, and of what costs time the spread
// and how many times keylock's figure each peer's is.
func Text(w io.Writer, r *results.Results) error {
	for _, workload := range r.Workloads {
		if len(workload.Peers) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s: %s\n", workload.Name, workload.About); err != nil {
			return err
		}
		if err := table(w, r, workload); err != nil {
			return err
		}
	}
	return nil
}

func table(w io.Writer, r *results.Results, workload results.Workload) error {
	measured := workload.Measured()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heads := []string{""}
	for _, metric := range measured {
		heads = append(heads, string(metric))
		if compared(metric) {
			heads = append(heads, "±", "/"+us)
		}
	}
	row(t, heads)
	for _, peer := range workload.Peers {
		cell := results.Cell{Workload: workload.Name, Peer: peer.Name}
		fields := []string{peer.Name}
		for _, metric := range measured {
			figure, ok := r.Figure(cell, metric)
			fields = append(fields, optional(ok, number(metric, figure.Median)))
			if compared(metric) {
				spread := fmt.Sprintf("%.0f%%", 100*figure.Relative())
				fields = append(fields, optional(ok, spread), timesUs(r, cell, metric))
			}
		}
		row(t, fields)
	}
	return t.Flush()
}

// compared reports whether a metric is shown with its spread and as a ratio.
func compared(metric results.Metric) bool {
	return metric == results.PerOp || metric == results.CPU
}

func optional(ok bool, text string) string {
	if !ok {
		return "-"
	}
	return text
}

func row(w io.Writer, fields []string) {
	fmt.Fprintln(w, strings.Join(fields, "\t")+"\t")
}

// timesUs is how many times keylock's figure that of cell is, or a dash.
func timesUs(r *results.Results, cell results.Cell, metric results.Metric) string {
	ratio, ok := r.Ratio(cell, results.Cell{Workload: cell.Workload, Peer: us}, metric)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f", ratio.Median)
}

// number shows a figure with as many digits as it deserves.
func number(metric results.Metric, v float64) string {
	switch metric {
	case results.Jain, results.Allocs, results.Share:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.0f", math.Round(v)+0) // plus 0 turns -0 into 0
	}
}
