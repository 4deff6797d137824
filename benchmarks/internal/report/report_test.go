package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden file")

// The golden file has each report under its name.
func TestReportsLookAsTheyShould(t *testing.T) {
	const golden = "testdata/reports.golden.md"
	var page bytes.Buffer
	for _, report := range []struct {
		name   string
		render func(io.Writer, *results.Results) error
	}{{"Text", Text}, {"Verdicts", Verdicts}, {"Markdown", Markdown}, {"Summary", Summary}} {
		page.WriteString("# " + report.name + "\n\n")
		require.NoError(t, report.render(&page, example()))
		page.WriteString("\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(golden, page.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), page.String())
}

func TestPlotIsAnImage(t *testing.T) {
	var image bytes.Buffer
	require.NoError(t, SVG(&image, example()))
	assert.Contains(t, image.String(), "<svg")
	for _, word := range []string{"uncontended", "hot/0us", "mutex+fifo", "keylock"} {
		assert.Contains(t, image.String(), word)
	}
	assert.NotContains(t, image.String(), "pause", "what is measured of keylock alone")
	require.NoError(t, wellFormed(&image))
}

func TestPlotNeedsKeylock(t *testing.T) {
	r := example()
	r.Workloads = r.Workloads[len(r.Workloads)-1:]
	assert.ErrorContains(t, SVG(io.Discard, r), "nothing to plot: keylock was not measured")
}

func wellFormed(r io.Reader) error {
	decoder := xml.NewDecoder(r)
	for {
		if _, err := decoder.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func TestTablesArePutBetweenTheirMarkers(t *testing.T) {
	page := func(full, summary string) string {
		return "before\n<!-- benchmarks -->\n" + full + "<!-- /benchmarks -->\n" +
			"<!-- benchmarks summary -->\n" + summary + "<!-- /benchmarks summary -->\nafter\n"
	}
	var full, summary bytes.Buffer
	require.NoError(t, Markdown(&full, example()))
	require.NoError(t, Summary(&summary, example()))
	got, err := Insert([]byte(page("old\n", "")), example())
	require.NoError(t, err)
	assert.Equal(t, page(full.String(), summary.String()), string(got))

	again, err := Insert(got, example())
	require.NoError(t, err)
	assert.Equal(t, string(got), string(again))

	_, err = Insert([]byte("no markers"), example())
	assert.ErrorContains(t, err, "neither a line <!-- benchmarks --> nor")
	_, err = Insert([]byte("<!-- benchmarks -->\n"), example())
	assert.ErrorContains(t, err, "no line <!-- /benchmarks -->")
}

// example has something of everything, and goals that are reached and missed.
func example() *results.Results {
	rounds := func(figures ...results.Figures) []results.Figures { return figures }
	cost := func(costs ...float64) (rounds []results.Figures) {
		for _, c := range costs {
			rounds = append(rounds, results.Figures{results.PerOp: c, results.CPU: c * 1.1, results.Allocs: 0})
		}
		return rounds
	}
	hot := func(ns, jain float64) results.Figures {
		return results.Figures{results.PerOp: ns, results.Allocs: 0.004, results.Jain: jain}
	}
	return &results.Results{
		Go: "go1.26", Platform: "linux/amd64", CPUs: 2, Slice: 100 * time.Millisecond,
		Workloads: []results.Workload{
			{Name: "uncontended", About: "one goroutine, one key", Peers: []results.Peer{
				{Name: "keylock", Rounds: cost(440, 460, 450)},
				{Name: "mutex+fifo", Rounds: cost(110, 115, 112)},
				{Name: "semaphores", Rounds: cost(1130, 1160, 1120)},
				{Name: "ping-pong", Rounds: cost(400, 400, 400)},
			}},
			{Name: "hot/0us", About: "64 goroutines, one key", Peers: []results.Peer{
				{Name: "keylock", Rounds: rounds(hot(600, 1), hot(620, 0.999))},
				{Name: "mutex+fifo", Rounds: rounds(hot(500, 0.98), hot(510, 0.97))},
				{Name: "semaphores", Rounds: rounds(hot(900, 1), hot(900, 1))},
				{Name: "moby/locker", Rounds: rounds(hot(80, 0.06), hot(90, 0.07))},
				{Name: "table", Rounds: cost(90, 90)},
			}},
			{Name: "storm", About: "waits are cancelled", Peers: []results.Peer{
				{Name: "keylock", Rounds: cost(1000, 1100)},
				{Name: "semaphores", Rounds: cost(1300, 1300)},
			}},
			{Name: "memory", About: "keys and waiters", Peers: []results.Peer{
				{Name: "keylock", Rounds: rounds(results.Figures{results.PerKey: 96, results.PerWait: 240, results.LeftOver: 185_000})},
				{Name: "mutex+fifo", Rounds: rounds(results.Figures{results.PerKey: 56, results.PerWait: -0.3, results.LeftOver: 55e6})},
			}},
			{Name: "busy-uncontended", About: "one goroutine, one key, busy cores", Peers: []results.Peer{
				{Name: "keylock", Rounds: cost(460, 460)},
				{Name: "plain", Rounds: cost(1100, 1100)},
			}},
			{Name: "pause/top", About: "what others notice", Peers: []results.Peer{
				{Name: "keylock", Rounds: cost(7e6, 7e6)},
			}},
			{Name: "tail", About: "not measured"},
		},
	}
}
