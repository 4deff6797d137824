package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/workloads"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// said is what the command prints.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, run(args, &out, io.Discard))
	return out.String()
}

func TestCommandMeasuresAndJudges(t *testing.T) {
	out := said(t, "-point", "1,2", "-rounds", "2", "-time", "2ms")
	assert.Contains(t, out, "\nuncontended: one goroutine, one key\n")
	assert.Contains(t, out, "\npoint 1: ")
	assert.Contains(t, out, "uncontended, keylock / ping-pong: ")
	assert.Contains(t, out, "\npoint 2: ")
	assert.Contains(t, out, "hot/100us, keylock / ")
}

func TestQuickCommandMeasuresEverythingThatIsSetUpQuickly(t *testing.T) {
	out := said(t, "-quick", "-peers", "keylock")
	for _, w := range workloads.All() {
		if w.Heavy {
			assert.NotContains(t, out, "\n"+w.Name+": ")
		} else {
			assert.Contains(t, out, "\n"+w.Name+": ")
		}
	}
}

func TestResultsAreWrittenAndShownAgain(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(file("README.md"), []byte("# x\n<!-- benchmarks -->\n<!-- /benchmarks -->\n"), 0o644))

	measured := said(t, "-quick", "-run", "uncontended", "-peers", "keylock,mutex+fifo",
		"-json", file("run.json"), "-svg", file("plot.svg"), "-md", file("README.md"))
	shown := said(t, "-from", file("run.json"))
	assert.Equal(t, measured, shown)

	readme, err := os.ReadFile(file("README.md"))
	require.NoError(t, err)
	assert.Contains(t, string(readme), "| uncontended |")
	svg, err := os.ReadFile(file("plot.svg"))
	require.NoError(t, err)
	assert.Contains(t, string(svg), "</svg>")
	assert.Contains(t, said(t, "-from", file("run.json"), "-md", "-"), "| uncontended |")
}

func TestListNamesEverything(t *testing.T) {
	out := said(t, "-list")
	for _, w := range workloads.All() {
		assert.Contains(t, out, w.Name+" ")
	}
	for _, p := range peers.All() {
		assert.Contains(t, out, p.Name+" ")
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	for args, complaint := range map[[2]string]string{
		{"-run", "nothing"}:          `no workload begins with "nothing"`,
		{"-peers", "unknown"}:        `no peer is called "unknown"`,
		{"-point", "11"}:             "there is no point 11, only 1 to 10",
		{"-point", "one"}:            `"one" is not the number of a point`,
		{"-quick", "more"}:           `unexpected argument "more"`,
		{"-rounds", "0"}:             "-rounds 0 -time 100ms: want more than 0",
		{"-time", "-1s"}:             "-rounds 9 -time -1s: want more than 0",
		{"-from", "/does/not/exist"}: "no such file",
	} {
		assert.ErrorContains(t, run(args[:], io.Discard, io.Discard), complaint, "%v", args)
	}
}

// step is one measurement of a plan.
type step struct{ workload, peer string }

// recording is a plan of two groups that notes in which order it is carried out.
func recording(steps *[]step) plan {
	workload := func(name string, heavy bool) workloads.Workload {
		return workloads.Workload{
			Name:   name,
			Heavy:  heavy,
			Admits: func(p peers.Peer) bool { return name != "b" || p.Name == "x" },
			Measure: func(p peers.Peer, _ workloads.Budget) results.Figures {
				*steps = append(*steps, step{name, p.Name})
				return results.Figures{results.PerOp: float64(len(*steps))}
			},
		}
	}
	return plan{
		workloads: []workloads.Workload{workload("a/1", false), workload("a/2", false), workload("b", true)},
		peers:     []peers.Peer{{Name: "x"}, {Name: "y"}},
		rounds:    heavyRounds + 2,
	}
}

func TestPeersOfAGroupAreMeasuredInTurns(t *testing.T) {
	var steps []step
	measured, err := recording(&steps).measure(io.Discard, func(*results.Results) error { return nil })
	require.NoError(t, err)
	const light = 4 * (heavyRounds + 2)
	require.Len(t, steps, light+heavyRounds)
	for round := range slices.Chunk(steps[:light], 4) {
		assert.ElementsMatch(t, []step{{"a/1", "x"}, {"a/1", "y"}, {"a/2", "x"}, {"a/2", "y"}}, round)
	}
	assert.Equal(t, slices.Repeat([]step{{"b", "x"}}, heavyRounds), steps[light:])

	assert.Len(t, measured.Rounds(results.Cell{Workload: "a/2", Peer: "y"}), heavyRounds+2)
	assert.Len(t, measured.Rounds(results.Cell{Workload: "b", Peer: "x"}), heavyRounds)
	assert.Empty(t, measured.Rounds(results.Cell{Workload: "b", Peer: "y"}))
}

func TestMeasuringEndsWhenItsResultsCannotBeShown(t *testing.T) {
	var steps []step
	broken := errors.New("broken pipe")
	_, err := recording(&steps).measure(io.Discard, func(*results.Results) error { return broken })
	assert.ErrorIs(t, err, broken)
	assert.Len(t, steps, 4*(heavyRounds+2))
}

// BenchmarkPeers is every workload with every peer, one after the other, for benchstat:
//
//	go test -C benchmarks -run '^$' -bench '/workload=hot/peer=keylock$' -count 10 . >new.txt
//	benchstat -col /peer new.txt
//
// To compare peers use the command, which measures them in turns.
func BenchmarkPeers(b *testing.B) {
	for _, w := range workloads.All() {
		b.Run(label("workload", w.Name), func(b *testing.B) {
			for _, peer := range peers.All() {
				if w.Admits(peer) {
					b.Run(label("peer", peer.Name), func(b *testing.B) {
						measureFor(b, w, peer)
					})
				}
			}
		})
	}
}

// label names a part of a benchmark for benchstat, which splits names at slashes.
func label(key, value string) string {
	return key + "=" + strings.ReplaceAll(value, "/", "-")
}

// fewest operations tell something.
const fewest = 1000

// measureFor measures without the set-up, which b would count, and reports in its place.
func measureFor(b *testing.B, w workloads.Workload, peer peers.Peer) {
	figures := w.Measure(peer, workloads.Budget{Ops: max(int64(b.N), fewest)})
	for metric, figure := range figures {
		b.ReportMetric(figure, string(metric))
	}
}
