// Package report shows results: as text, as Markdown, as a plot, and as the verdicts
// on what the library promises.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// us is the peer that the others are compared with.
const us = "keylock"

// Text writes one table per workload: the medians, the spread of the first figure, and
// how many times keylock's figure each peer's is.
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
	for i, metric := range measured {
		heads = append(heads, string(metric))
		if i == 0 {
			heads = append(heads, "±", "/"+us)
		}
	}
	row(t, heads)
	for _, peer := range workload.Peers {
		cell := results.Cell{Workload: workload.Name, Peer: peer.Name}
		fields := []string{peer.Name}
		for i, metric := range measured {
			figure, ok := r.Figure(cell, metric)
			if !ok {
				fields = append(fields, "-")
				continue
			}
			fields = append(fields, number(metric, figure.Median))
			if i == 0 {
				fields = append(fields, fmt.Sprintf("%.0f%%", 100*figure.Relative()), timesUs(r, cell, metric))
			}
		}
		row(t, fields)
	}
	return t.Flush()
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
	case results.Jain, results.Allocs:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
