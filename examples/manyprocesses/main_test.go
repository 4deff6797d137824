package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(workerVariable); endpoint != "" { // the workers are this program, which is the test here
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		exit(work(ctx, endpoint, os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

func TestShowTellsWhatHappenedAndCountsRight(t *testing.T) {
	var out bytes.Buffer
	err := show(t.Context(), 8*time.Second, &out)
	t.Log("\n" + out.String())
	require.NoError(t, err)
	for _, told := range []string{
		"A is killed", "B is paused while it holds the key", "B goes on", "B writes at last: refused",
		"C holds the key", "Late writes refused: 1.", "No increment was lost or doubled",
	} {
		assert.Contains(t, out.String(), told)
	}
}
