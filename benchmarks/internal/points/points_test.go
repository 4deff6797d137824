package points

import (
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

// TestPointsAreJudgedByWhatTheyAskFor measures for each point what it says it needs, with
// made-up figures, and expects a verdict.
func TestPointsAreJudgedByWhatTheyAskFor(t *testing.T) {
	for i, point := range All() {
		assert.Equal(t, i+1, point.Number)
		r := measured(t, point, 100)
		verdicts := point.Judge(r)
		require.NotEmpty(t, verdicts, point.About)
		for _, v := range verdicts {
			assert.NotEmpty(t, v.Figure, v.What)
		}
		assert.Empty(t, point.Judge(new(results.Results)), point.About)
	}
}

// measured are results in which every figure of every peer is the same.
func measured(t *testing.T, point Point, figure float64) *results.Results {
	chosen, err := workloads.Matching(point.Workloads)
	require.NoError(t, err)
	named, err := peers.Named(strings.Join(point.Peers, ","))
	require.NoError(t, err)
	r := new(results.Results)
	for _, w := range chosen {
		workload := results.Workload{Name: w.Name}
		for _, p := range named {
			if w.Admits(p) {
				figures := make(results.Figures)
				for _, metric := range results.Metrics {
					figures[metric] = figure
				}
				workload.Peers = append(workload.Peers, results.Peer{Name: p.Name, Rounds: []results.Figures{figures}})
			}
		}
		r.Workloads = append(r.Workloads, workload)
	}
	return r
}

func TestEqualCostReachesAGoalOfOneAndMissesAGoalOfOneHalf(t *testing.T) {
	all := All()
	for _, v := range all[1].Judge(measured(t, all[1], 100)) {
		assert.False(t, v.Missed, v.What)
	}
	for _, v := range all[4].Judge(measured(t, all[4], 100)) {
		assert.True(t, v.Missed, v.What)
	}
}

func TestRivalsAreThoseThatPromiseAsMuch(t *testing.T) {
	assert.Equal(t, []string{"mutex+fifo", "semaphores", "channels"}, rivals())
}

func TestFastestRivalIsTheCheapest(t *testing.T) {
	cost := func(name string, ns float64) results.Peer {
		return results.Peer{Name: name, Rounds: []results.Figures{{results.PerOp: ns}}}
	}
	r := &results.Results{Workloads: []results.Workload{{Name: "hot/0us", Peers: []results.Peer{
		cost("keylock", 1), cost("moby/locker", 2), cost("mutex+fifo", 9), cost("channels", 7), cost("plain", 3),
	}}}}
	assert.Equal(t, "channels", fastest(r, "hot/0us"))
	assert.Empty(t, fastest(r, "hot/1us"))
}

func TestPointsAreFoundByNumber(t *testing.T) {
	point, err := Numbered(8)
	require.NoError(t, err)
	assert.Equal(t, 8, point.Number)
	for _, number := range []int{0, 11} {
		_, err := Numbered(number)
		assert.ErrorContains(t, err, "only 1 to 10")
	}
}
