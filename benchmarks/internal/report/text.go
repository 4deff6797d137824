// Package report shows results: as text, as Markdown, as a plot, and as the verdicts
// on what the library promises.
package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/points"
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

// Summary writes the one table that a reader decides by: what locks cost, here and with
// the two best of the usual recipes that are FIFO and take a context.
func Summary(w io.Writer, r *results.Results) error {
	columns := []string{us, "mutex+fifo", "semaphores"}
	var page bytes.Buffer
	page.WriteString("| nanoseconds for a lock and an unlock | keylock | with kept grants | mutex and FIFO lists | map of semaphores | keylock takes |\n" +
		"|---|---:|---:|---:|---:|---:|\n")
	for _, row := range summarized {
		var cells []string
		for _, peer := range columns {
			figure, ok := r.Figure(results.Cell{Workload: row.workload, Peer: peer}, results.PerOp)
			if !ok {
				break
			}
			cells = append(cells, thousands(figure.Median))
		}
		if len(cells) == len(columns) {
			kept := "–"
			if figure, ok := r.Figure(results.Cell{Workload: row.workload, Peer: "keylock kept"}, results.PerOp); ok {
				kept = thousands(figure.Median)
			}
			cells = slices.Insert(cells, 1, kept)
			fmt.Fprintf(&page, "| %s | %s | %s |\n", row.what, strings.Join(cells, " | "), timesAsLong(r, row.workload, columns[1:]))
		}
	}
	fmt.Fprintf(&page, "\nMedians of %d rounds of %v each on %d shared cores, %s; the last column is how many times as long, the\n"+
		"median of the rounds' ratios, keylock takes without kept grants, against the one and the other.\n", rounds(r), r.Slice, r.CPUs, r.Go)
	_, err := page.WriteTo(w)
	return err
}

// summarized are the rows of the summary.
var summarized = []struct{ workload, what string }{
	{"uncontended", "no contention"},
	{"distinct/64", "64 goroutines, each its own key"},
	{"distinct/1000", "1,000 goroutines, each its own key"},
	{"zipf", "1,000 goroutines, 10,000 keys by Zipf"},
	{"hot/0us", "64 goroutines, one key, held for no time"},
	{"hot/1us", "the same, held for 1 µs"},
	{"hot/10us", "the same, held for 10 µs"},
	{"hot/100us", "the same, held for 100 µs"},
	{"storm", "waits that are cancelled, 64 goroutines"},
	{"many/1", "one goroutine, 16 keys at once"},
	{"many/64", "64 goroutines, each 16 keys at once"},
}

// timesAsLong is how many times the peers' time ours is.
func timesAsLong(r *results.Results, workload string, peers []string) string {
	var texts []string
	for _, peer := range peers {
		ratio, _ := r.Ratio(results.Cell{Workload: workload, Peer: us}, results.Cell{Workload: workload, Peer: peer}, results.PerOp)
		digits := 1
		if ratio.Median < 0.95 {
			digits = 2
		}
		texts = append(texts, fmt.Sprintf("%.*f", digits, ratio.Median))
	}
	return strings.Join(texts, " and ") + " times"
}

// thousands groups the digits of a number.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Verdicts writes what the results say about each point that they say anything about.
func Verdicts(w io.Writer, r *results.Results) error {
	for _, point := range points.All() {
		verdicts := point.Judge(r)
		if len(verdicts) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\npoint %d: %s\n", point.Number, point.About); err != nil {
			return err
		}
		for _, v := range verdicts {
			if _, err := fmt.Fprintf(w, "  %s\n", sentence(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

func sentence(v points.Verdict) string {
	s := v.What + ": " + v.Figure
	switch {
	case v.Goal == "":
		return s
	case v.Missed:
		return s + "; the goal is missed: " + v.Goal
	default:
		return s + "; the goal is reached: " + v.Goal
	}
}
