package main

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// name names a run for people.
func name(locked bool) string {
	if locked {
		return "with the lock"
	}
	return "without the lock"
}

// show prints what the runs did, and plots it if there is a file for that.
func show(w io.Writer, results []result, svg string) error {
	results = slices.DeleteFunc(results, func(r result) bool { return len(r.hot) == 0 }) // not come to
	if len(results) == 0 {
		_, err := fmt.Fprintln(w, "Interrupted before the first run had ended, so there is nothing to show.")
		return err
	}
	var table [][]string
	for _, r := range results {
		cold, wait := report.Summarize(latencies(r.cold)), report.Summarize(waits(r.cold))
		table = append(table, []string{
			name(r.locked),
			report.Short(cold.P50).String(),
			report.Short(cold.P99).String(),
			report.Short(wait.P50).String(),
			report.Short(wait.P99).String(),
			fmt.Sprintf("%.0f/s", r.throughput()),
		})
	}
	header := []string{"run", "cold p50", "cold p99", "wait p50", "wait p99", "hot done"}
	if err := report.Table(w, header, table); err != nil {
		return err
	}
	fmt.Fprintln(w, "Wait is what of the cold rows' time was waiting for a connection.")
	if len(results) == 2 {
		without, with := results[0], results[1]
		fmt.Fprintf(w, "With the lock the median of the cold rows is %.0f times lower, at %.2f times the hot row's throughput.\n",
			coldGain(without, with), with.throughput()/without.throughput())
	}
	fmt.Fprintln(w, "Every addition is in the database.")
	if svg == "" {
		return nil
	}
	return plot(svg, results)
}

// coldGain returns how many times lower the median latency of the cold rows is with the lock.
func coldGain(without, with result) float64 {
	return report.Summarize(latencies(without.cold)).P50.Seconds() / report.Summarize(latencies(with.cold)).P50.Seconds()
}

// plot writes an SVG picture of the cold rows' latencies and the hot row's throughput to a file.
func plot(file string, results []result) error {
	var (
		curves     []report.Latencies
		names      []string
		throughput report.Bars
	)
	for _, r := range results {
		curves = append(curves, report.Latencies{Name: name(r.locked), Values: latencies(r.cold)})
		names = append(names, name(r.locked))
		throughput.Values = append(throughput.Values, math.Round(r.throughput()))
	}
	left, err := report.LatencyPlot("latency on the cold rows", curves...)
	if err != nil {
		return err
	}
	left.Y.Label.Text = "% of updates done"
	left.Legend.Left, left.Legend.Top = true, true // the slow curve begins at the bottom right
	left.Legend.XOffs = -left.Legend.XOffs
	right, err := report.BarPlot("throughput of the hot row", "transactions per second", names, throughput)
	if err != nil {
		return err
	}

	return report.SaveSVG(file, left, right)
}
