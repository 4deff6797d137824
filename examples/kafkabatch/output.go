package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// writeTable writes a line for every mode. Its speed is given in multiples of the first one's.
func writeTable(w io.Writer, results []result) error {
	header := []string{"mode", "wall", "speed", "handled", "handled again", "overlaps", "order violations", "lag at the end"}
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{
			r.mode.name,
			report.Short(r.wall).String(),
			speed(r, results[0]),
			strconv.Itoa(r.handled),
			strconv.Itoa(r.again),
			strconv.Itoa(r.overlaps),
			strconv.Itoa(r.violations),
			strconv.FormatInt(r.lag, 10),
		})
	}
	return report.Table(w, header, rows)
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
