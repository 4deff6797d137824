package results

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJainIndex(t *testing.T) {
	assert.Equal(t, 1.0, JainIndex([]float64{7, 7, 7, 7}))
	assert.Equal(t, 0.25, JainIndex([]float64{0, 0, 9, 0}))
	assert.Equal(t, 0.5, JainIndex([]float64{3, 3, 0, 0}))
	assert.InDelta(t, 36.0/42, JainIndex([]float64{1, 2, 3}), 1e-12)
	assert.Zero(t, JainIndex([]float64{0, 0}))
	assert.Zero(t, JainIndex(nil))
}

func TestSpread(t *testing.T) {
	assert.Equal(t, Spread{5, 5, 5}, spreadOf([]float64{5}))
	assert.Equal(t, 2.0, spreadOf([]float64{9, 1, 2}).Median)
	assert.Equal(t, 2.5, spreadOf([]float64{4, 1, 2, 3}).Median)
	s := spreadOf([]float64{5, 4, 3, 2, 1, 6, 7, 8})
	assert.Equal(t, Spread{2, 4.5, 6}, s)
	assert.InDelta(t, 4/2/4.5, s.Relative(), 1e-12)
	assert.Zero(t, Spread{}.Relative())
}

func example() *Results {
	return &Results{Workloads: []Workload{{
		Name: "hot",
		Peers: []Peer{
			{Name: "a", Rounds: []Figures{{PerOp: 10}, {PerOp: 300}, {PerOp: 30}}},
			{Name: "b", Rounds: []Figures{{PerOp: 5, Jain: 1}, {PerOp: 100}, {PerOp: 10}}},
			{Name: "c", Rounds: []Figures{{Jain: 1}}},
		},
	}}}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	r := example()
	a, b := Cell{"hot", "a"}, Cell{"hot", "b"}
	ratio, ok := r.Ratio(a, b, PerOp)
	require.True(t, ok)
	assert.Equal(t, 3.0, ratio.Median, "of 2, 3 and 3")

	figure, ok := r.Figure(a, PerOp)
	require.True(t, ok)
	assert.Equal(t, 30.0, figure.Median)
}

func TestWhatWasNotMeasuredHasNoFigure(t *testing.T) {
	r := example()
	_, ok := r.Figure(Cell{"hot", "a"}, Jain)
	assert.False(t, ok)
	_, ok = r.Figure(Cell{"cold", "a"}, PerOp)
	assert.False(t, ok)
	_, ok = r.Ratio(Cell{"hot", "a"}, Cell{"hot", "c"}, PerOp)
	assert.False(t, ok)
	assert.Equal(t, []Metric{PerOp, Jain}, r.Workloads[0].Measured())
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	var file bytes.Buffer
	require.NoError(t, example().Write(&file))
	read, err := Read(&file)
	require.NoError(t, err)
	assert.Equal(t, example(), read)

	_, err = Read(bytes.NewBufferString("nonsense"))
	assert.ErrorContains(t, err, "read results")
}
