// Package report is how the example programs show what they measured: text tables, a progress
// bar, latency quantiles and SVG plots. It knows nothing of locks or databases.
package report

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Usage makes a flag set begin its help with what the program does.
func Usage(flags *flag.FlagSet, about string) {
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s\n\nUsage of %s:\n", about, flags.Name())
		flags.PrintDefaults()
	}
}

// Writable returns an error if a file could not be written, so that this is noticed before
// the work whose result it should hold. It changes nothing. An empty name is no file.
func Writable(file string) error {
	if file == "" {
		return nil
	}
	_, err := os.Stat(file)
	isNew := os.IsNotExist(err)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if isNew {
		return os.Remove(file)
	}
	return nil
}

// Table writes rows under header to w, the first column aligned to the left and the others to
// the right. A row shorter than the header is filled up with empty cells.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault

	columns := make([]table.ColumnConfig, len(header))
	for i := range columns {
		columns[i] = table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight}
	}
	if len(columns) > 0 {
		columns[0].Align, columns[0].AlignHeader = text.AlignLeft, text.AlignLeft
	}
	t.SetColumnConfigs(columns)

	t.AppendHeader(cells(header))
	for _, row := range rows {
		t.AppendRow(cells(row))
	}
	_, err := fmt.Fprintln(w, t.Render())
	return err
}

func cells(texts []string) table.Row {
	row := make(table.Row, len(texts))
	for i, text := range texts {
		row[i] = text
	}
	return row
}

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

// Progress is a progress bar on a terminal, and nothing anywhere else. Its methods may be called
// from any goroutine.
type Progress struct {
	bar *progressbar.ProgressBar
}

// NewProgress returns a bar on w for total steps of what description names. It draws only if w is
// a terminal, at most ten times a second.
func NewProgress(w io.Writer, description string, total int) *Progress {
	return &Progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetVisibility(isTerminal(w)),
		progressbar.OptionSetDescription(description),
		progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// Step moves the bar on by one.
func (p *Progress) Step() { _ = p.bar.Add(1) } // a bar that cannot be drawn must not stop the work

// Finish takes the bar off the screen, whether it has reached its total or not.
func (p *Progress) Finish() { _ = p.bar.Finish() }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
