package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/page"
)

// A test that needs a second process starts its own binary with childRole set.
const (
	childRole    = "KAFKABATCH_CHILD"
	commandRole  = "command"  // be the command, with the flags given
	consumerRole = "consumer" // be childConsumer, with its arguments
	streamerRole = "streamer" // be childStreamer, with its arguments
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case commandRole:
		main()
	case consumerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childConsumer(ctx, os.Args[1:])
	case streamerRole:
		ctx, cancel := context.WithTimeout(context.Background(), watchdog)
		defer cancel()
		childStreamer(ctx, os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}

func TestPagesShowThisPackage(t *testing.T) {
	page.Check(t, "../../docs/USE_CASES.md", "Kafka")
	page.Check(t, "../README.md", "kafkabatch")
}

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
