package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	gonum "gonum.org/v1/plot"

	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// source is what a sequential pass finds out about an address.
type source struct {
	addr   netip.Addr
	score  int64
	counts [sshlog.Kinds]int64 // how often each kind of event happened
}

// tally is the sequential pass: one event after the other, into a map. It leaves out the events
// that the run did not come to.
func tally(events []sshlog.Event, r result) map[netip.Addr]source {
	sources := make(map[netip.Addr]source)
	for i, e := range events {
		if !r.outcomes[i].committed {
			continue
		}
		s := sources[e.Addr]
		s.addr = e.Addr
		s.score += points(e)
		s.counts[e.Kind] += e.Count
		sources[e.Addr] = s
	}
	return sources
}

// verify returns nil if the database holds for every address what the sequential pass says and
// every address over the threshold was blocked by exactly one transaction, or an error with a
// line for each address where that is not so.
func verify(events []sshlog.Event, r result, threshold int64) error {
	sources := tally(events, r)
	blocks := make(map[netip.Addr]int)
	for i, o := range r.outcomes {
		if o.blocked {
			blocks[events[i].Addr]++
		}
	}

	var wrong []string
	for _, addr := range addresses(sources, r.records) {
		want := store.Record{Score: sources[addr].score, Blocked: sources[addr].score > threshold}
		wantBlocks := 0
		if want.Blocked {
			wantBlocks = 1
		}
		if got := r.records[addr]; got != want || blocks[addr] != wantBlocks {
			wrong = append(wrong, fmt.Sprintf("\n%v: score %d, record blocked: %t, times blocked: %d; sequentially %d, %t, %d",
				addr, got.Score, got.Blocked, blocks[addr], want.Score, want.Blocked, wantBlocks))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s, these addresses differ from a sequential pass:%s", r, strings.Join(wrong, ""))
	}
	return nil
}

// addresses returns all that occur in the pass or in the database, sorted.
func addresses(sources map[netip.Addr]source, records map[netip.Addr]store.Record) []netip.Addr {
	var all []netip.Addr
	for addr := range sources {
		all = append(all, addr)
	}
	for addr := range records {
		if _, known := sources[addr]; !known {
			all = append(all, addr)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// shownKinds are the kinds of events in the order of the columns.
var shownKinds = []sshlog.Kind{
	sshlog.FailedPassword, sshlog.FailedKey, sshlog.InvalidUser, sshlog.AuthFailure, sshlog.TooMany, sshlog.BreakIn,
}

// topBlocked is how many blocked addresses are shown.
const topBlocked = 10

// show prints what the runs did, and plots it if that was asked for.
func (t threatscore) show(events []sshlog.Event, results []result, opts options) error {
	if len(results) == 0 {
		return nil
	}
	if err := showRuns(t.stdout, results); err != nil {
		return err
	}
	if err := showBlocked(t.stdout, events, results[len(results)-1]); err != nil {
		return err
	}
	if opts.svg != "" {
		return plot(opts.svg, results)
	}
	return nil
}

// showLog prints how many lines of a log are events, and what the others are.
func showLog(w io.Writer, log sshlog.Log) {
	fmt.Fprintf(w, "Lines: %d. Events: %d.\n", log.Lines, len(log.Events))
	for _, others := range []struct {
		lines int
		what  string
	}{
		{log.Messages, "of sshd about something else"},
		{log.Programs, "of other programs"},
		{log.Unnamed, "events whose source is not an address"},
		{log.Unreadable, fmt.Sprintf("without a time, a host and a program that can be told apart, the first:\n        %q", log.Unclear)},
		{log.Overlong, "too long to read"},
		{log.Blank, "blank"},
	} {
		if others.lines > 0 {
			fmt.Fprintf(w, "%7d %s\n", others.lines, others.what)
		}
	}
	fmt.Fprintln(w)
}

// showRuns prints a line for each run.
func showRuns(w io.Writer, results []result) error {
	var rows [][]string
	for _, r := range results {
		latency := report.Summarize(r.latencies())
		rows = append(rows, []string{
			r.String(),
			strconv.Itoa(r.conflicts()),
			strconv.Itoa(r.committed()),
			report.Short(r.wall).String(),
			report.Short(latency.P50).String(),
			report.Short(latency.P99).String(),
			report.Short(latency.Max).String(),
		})
	}
	return report.Table(w, []string{"run", "conflicts", "events", "wall", "p50", "p99", "max"}, rows)
}

// conclusion says in one sentence what was seen; nothing unless there are pairs of runs to compare.
func conclusion(results []result) string {
	var conflicts [2]int
	for _, r := range results {
		i := 0
		if r.locked {
			i = 1
		}
		conflicts[i] += r.conflicts()
	}
	if len(results) < 2 || len(results)%2 != 0 {
		return ""
	}
	return fmt.Sprintf("Without the lock %d transactions conflicted and were done again; with it %d.\n", conflicts[0], conflicts[1])
}

// showBlocked prints the blocked addresses with the highest scores.
func showBlocked(w io.Writer, events []sshlog.Event, r result) error {
	blocked := slices.DeleteFunc(slices.Collect(maps.Values(tally(events, r))), func(s source) bool {
		return !r.records[s.addr].Blocked
	})
	slices.SortFunc(blocked, func(a, b source) int {
		return cmp.Or(cmp.Compare(b.score, a.score), a.addr.Compare(b.addr))
	})
	fmt.Fprintf(w, "Blocked addresses: %d. The highest scores:\n", len(blocked))

	var rows [][]string
	for _, s := range blocked[:min(topBlocked, len(blocked))] {
		row := []string{s.addr.String(), strconv.FormatInt(r.records[s.addr].Score, 10)}
		for _, kind := range shownKinds {
			row = append(row, strconv.FormatInt(s.counts[kind], 10))
		}
		rows = append(rows, row)
	}
	return report.Table(w, []string{"address", "score", "password", "key", "user", "PAM", "limit", "break-in"}, rows)
}

// plot writes an SVG picture of latencies and conflicts to a file.
func plot(file string, results []result) error {
	latencies, err := plotLatencies(results)
	if err != nil {
		return err
	}
	conflicts, err := plotBars("conflicts retried", "transactions", results, func(r result) float64 { return float64(r.conflicts()) })
	if err != nil {
		return err
	}

	return report.SaveSVG(file, latencies, conflicts)
}

// plotLatencies draws a curve for each run, or a bar where there would be too many curves.
func plotLatencies(results []result) (*gonum.Plot, error) {
	if len(results) > 2 {
		return plotBars("latency per event, 99th percentile", "milliseconds", results, func(r result) float64 {
			return math.Round(1e3 * report.Summarize(r.latencies()).P99.Seconds())
		})
	}
	var curves []report.Latencies
	for _, r := range results {
		curves = append(curves, report.Latencies{Name: r.String(), Values: r.latencies()})
	}
	return report.LatencyPlot("latency per event", curves...)
}

// plotBars draws a value of each run: a group for each kind of transaction, in the colours of
// without and with the lock.
func plotBars(title, unit string, results []result, value func(result) float64) (*gonum.Plot, error) {
	var (
		groups []string
		series []report.Bars
	)
	for _, r := range results {
		if group := string(r.transaction); !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
		i := slices.IndexFunc(series, func(s report.Bars) bool { return s.Name == lockName(r.locked) })
		if i < 0 {
			i = len(series)
			series = append(series, report.Bars{Name: lockName(r.locked)})
		}
		series[i].Values = append(series[i].Values, value(r))
	}
	return report.BarPlot(title, unit, groups, series...)
}
