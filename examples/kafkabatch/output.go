package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// writeTable writes a line for every mode, what it broke first, and then what was seen. Its speed
// is given in multiples of the first one's.
func writeTable(w io.Writer, results []result) error {
	header := []string{"mode", "out of order", "overlaps", "handled", "again", "wall", "speed"}
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{
			r.mode.name,
			strconv.Itoa(r.violations),
			strconv.Itoa(r.overlaps),
			strconv.Itoa(r.handled),
			strconv.Itoa(r.again),
			report.Short(r.wall).String(),
			speed(r, results[0]),
		})
	}
	if err := report.Table(w, header, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, lags(results), conclusion(results))
	return err
}

// lags names the modes that have left records behind.
func lags(results []result) (text string) {
	for _, r := range results {
		if r.lag > 0 {
			text += fmt.Sprintf("%s: %d records are not committed.\n", r.mode.name, r.lag)
		}
	}
	return text
}

// conclusion says in one sentence what was seen; nothing unless there is something to compare.
func conclusion(results []result) string {
	broken, kept, fastest := 0, false, ""
	for _, r := range results {
		switch {
		case !r.mode.ordered:
			broken += r.violations
		case r.mode.suffix != "one-by-one" && r.overlaps+r.violations == 0 && r.handled > 0:
			kept = true
			fastest = speed(r, results[0])
		}
	}
	if broken == 0 || !kept || results[0].mode.suffix != "one-by-one" {
		return ""
	}
	return fmt.Sprintf("Concurrent handling put %d records out of order;\nin order per key it put none, at %s the speed of one by one.\n", broken, fastest)
}

// speed returns how many times as fast as the other a result was, unless one of them did nothing.
func speed(r, other result) string {
	if r.handled == 0 || other.handled == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f×", r.rate()/other.rate())
}

// writePlot draws the results into an SVG file.
func writePlot(name string, results []result) error {
	var groups []string
	var walls, overlaps, violations []float64
	for _, r := range results {
		groups = append(groups, r.mode.suffix)
		walls = append(walls, float64(r.wall.Milliseconds()))
		overlaps = append(overlaps, float64(r.overlaps))
		violations = append(violations, float64(r.violations))
	}
	took, err := report.BarPlot("How long it took", "milliseconds", groups, report.Bars{Values: walls})
	if err != nil {
		return err
	}
	broke, err := report.BarPlot("What went wrong within a key", "records", groups,
		report.Bars{Name: "overlaps", Values: overlaps}, report.Bars{Name: "order violations", Values: violations})
	if err != nil {
		return err
	}
	return report.SaveSVG(name, took, broke)
}
