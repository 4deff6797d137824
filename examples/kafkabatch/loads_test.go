package main

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Small ones: what runWay verifies is that nothing is lost, doubled or out of order.
func TestLoadsAreHandledInEveryWay(t *testing.T) {
	cluster := startCluster(t)
	small := func(i int, _ *rand.Rand) (int, time.Duration) { return i % 5, time.Duration(i%3) * time.Millisecond }
	for _, l := range []load{{"there", 300, 0, -1, small}, {"coming", 300, 10, 0, small}} {
		var progress bytes.Buffer
		rows, err := runLoad(t.Context(), cluster, l, 1, &progress)
		require.NoError(t, err)
		for _, row := range rows {
			t.Log(row)
		}
		assert.NotEmpty(t, rows)
	}
}

// One key waits for one slow record, at most: that is what streaming is for. The bound leaves room for a
// busy machine.
func TestSlowRecordHoldsUpItsKeyOnly(t *testing.T) {
	cluster := startCluster(t)
	slow := load{"slow", 2000, 0, -1, closedLoads[2].next}
	walls := make(map[string]time.Duration)
	for _, w := range ways() {
		if w.name != "batch 500" && w.name != "streaming 500" {
			continue
		}
		r, err := runWay(t.Context(), cluster, slow, w, w.mode.suffix, 1)
		require.NoError(t, err)
		walls[w.name] = r.wall
		t.Log(w.name, r.wall, "floor", r.floor)
	}
	assert.Less(t, walls["streaming 500"], walls["batch 500"])
}
