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
