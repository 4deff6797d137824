package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/points"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// Markdown writes everything: tables of the cost, the allocations and whatever else was
// measured, each with a column per peer; who the peers are; and the verdicts.
func Markdown(w io.Writer, r *results.Results) error {
	var page bytes.Buffer
	columns := columns(r)
	fmt.Fprintf(&page, "Nanoseconds per operation, medians of up to %d rounds of %v each on %s, %s, %d cores. "+
		"In brackets how many times keylock's figure that is, the median of the rounds' ratios.\n",
		rounds(r), r.Slice, r.Go, r.Platform, r.CPUs)
	grid(&page, r, columns, []results.Metric{results.PerOp}, func(c results.Cell, m results.Metric) string {
		figure, ok := r.Figure(c, m)
		if !ok {
			return ""
		}
		if c.Peer == us {
			return number(m, figure.Median)
		}
		return fmt.Sprintf("%s (%s)", number(m, figure.Median), timesUs(r, c, m))
	})
	plain := func(c results.Cell, m results.Metric) string {
		figure, ok := r.Figure(c, m)
		if !ok {
			return ""
		}
		return number(m, figure.Median)
	}
	page.WriteString("\nAllocations per operation.\n")
	grid(&page, r, columns, []results.Metric{results.Allocs}, plain)
	page.WriteString("\nFairness by Jain's index, waits in nanoseconds, memory in bytes.\n")
	grid(&page, r, columns, []results.Metric{
		results.Jain, results.P50, results.P99, results.P999, results.PerKey, results.PerWait, results.LeftOver,
	}, plain)
	legend(&page, r, columns)
	verdicts(&page, r)
	_, err := page.WriteTo(w)
	return err
}

// columns are the peers that were measured, in the usual order.
func columns(r *results.Results) []string {
	var names []string
	for _, peer := range peers.All() {
		if slices.ContainsFunc(r.Workloads, func(w results.Workload) bool {
			return len(r.Rounds(results.Cell{Workload: w.Name, Peer: peer.Name})) > 0
		}) {
			names = append(names, peer.Name)
		}
	}
	return names
}

// contests are the workloads in which peers are compared. What others notice of a call of
// keylock's is measured of it alone, and stands in the verdicts.
func contests(r *results.Results) []results.Workload {
	return slices.DeleteFunc(slices.Clone(r.Workloads), func(w results.Workload) bool {
		return strings.HasPrefix(w.Name, "pause/")
	})
}

// rounds is how often the workload was measured that was measured most often.
func rounds(r *results.Results) (most int) {
	for _, w := range r.Workloads {
		for _, p := range w.Peers {
			most = max(most, len(p.Rounds))
		}
	}
	return most
}

// grid writes one table with a row per workload and metric and a column per peer,
// without the rows and columns in which there is nothing.
func grid(w io.Writer, r *results.Results, columns []string, metrics []results.Metric, show func(results.Cell, results.Metric) string) {
	type line struct {
		head  string
		cells []string
	}
	var lines []line
	filled := make([]bool, len(columns))
	for _, workload := range contests(r) {
		for _, metric := range workload.Measured() {
			if !slices.Contains(metrics, metric) {
				continue
			}
			l := line{head: workload.Name}
			if len(metrics) > 1 {
				l.head += ", " + string(metric)
			}
			for i, peer := range columns {
				text := show(results.Cell{Workload: workload.Name, Peer: peer}, metric)
				filled[i] = filled[i] || text != ""
				l.cells = append(l.cells, text)
			}
			lines = append(lines, l)
		}
	}
	keep := func(cells []string) []string {
		var kept []string
		for i, cell := range cells {
			if filled[i] {
				kept = append(kept, cell)
			}
		}
		return kept
	}
	heads := keep(columns)
	fmt.Fprintf(w, "\n| workload | %s |\n|---|%s\n", strings.Join(heads, " | "), strings.Repeat("---:|", len(heads)))
	for _, l := range lines {
		fmt.Fprintf(w, "| %s | %s |\n", l.head, strings.Join(keep(l.cells), " | "))
	}
}

// legend says what the names in the tables mean.
func legend(w io.Writer, r *results.Results, columns []string) {
	fmt.Fprintln(w)
	for _, workload := range r.Workloads {
		fmt.Fprintf(w, "- `%s`: %s\n", workload.Name, workload.About)
	}
	fmt.Fprintln(w)
	for _, peer := range peers.All() {
		if slices.Contains(columns, peer.Name) {
			fmt.Fprintf(w, "- **%s**: %s\n", peer.Name, peer.About)
		}
	}
}

// verdicts lists what is said about each point.
func verdicts(w io.Writer, r *results.Results) {
	fmt.Fprintln(w)
	for _, point := range points.All() {
		verdicts := point.Judge(r)
		if len(verdicts) == 0 {
			continue
		}
		fmt.Fprintf(w, "- %s\n", point.About)
		for _, v := range verdicts {
			fmt.Fprintf(w, "  - %s\n", sentence(v))
		}
	}
}

// places are what a page may ask for: what is written stands between the lines
// <!-- NAME --> and <!-- /NAME -->.
var places = []struct {
	name   string
	render func(io.Writer, *results.Results) error
}{
	{"benchmarks", Markdown},
	{"benchmarks summary", Summary},
}

// Insert returns page with what it marks a place for; an error when it marks none.
func Insert(page []byte, r *results.Results) ([]byte, error) {
	var found bool
	for _, place := range places {
		begins, ends := []byte("<!-- "+place.name+" -->\n"), []byte("<!-- /"+place.name+" -->\n")
		before, rest, ok := bytes.Cut(page, begins)
		if !ok {
			continue
		}
		_, after, ok := bytes.Cut(rest, ends)
		if !ok {
			return nil, fmt.Errorf("the page has no line %s", bytes.TrimSpace(ends))
		}
		var content bytes.Buffer
		if err := place.render(&content, r); err != nil {
			return nil, err
		}
		page, found = slices.Concat(before, begins, content.Bytes(), ends, after), true
	}
	if !found {
		return nil, errors.New("the page has neither a line <!-- benchmarks --> nor <!-- benchmarks summary -->")
	}
	return page, nil
}
