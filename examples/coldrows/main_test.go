package main

import (
	"bytes"
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/examples/internal/page"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestColdRowsDoNotWaitForTheHotOneWithTheLock(t *testing.T) {
	server := postgrestest.Start(t)
	var stderr bytes.Buffer
	opts, err := parseOptions([]string{"-rounds=2"}, &stderr)
	require.NoError(t, err)

	without, with := result{locked: false}, result{locked: true}
	for range opts.rounds {
		require.NoError(t, measure(t.Context(), server.URL, &without, opts, io.Discard))
		require.NoError(t, measure(t.Context(), server.URL, &with, opts, io.Discard))
	}

	var stdout bytes.Buffer
	require.NoError(t, show(&stdout, []result{without, with}, ""))
	t.Log("\n" + stdout.String())
	// On an idle machine these are about 100, 100000 and 1. The bounds leave room for a busy one.
	assert.Greater(t, coldGain(without, with), 8.0)
	assert.Greater(t, report.Summarize(waits(without.cold)).P50, 100*report.Summarize(waits(with.cold)).P50)
	assert.Greater(t, with.throughput(), without.throughput()/20)
}

func TestProgramShowsAndPlotsBothRuns(t *testing.T) {
	server := postgrestest.Start(t)
	t.Setenv("DATABASE_URL", server.URL)
	svg := filepath.Join(t.TempDir(), "plot.svg")
	var stdout, stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-rounds=1", "-time=300ms", "-svg", svg}, &stdout, &stderr), &stderr)

	assert.Contains(t, stdout.String(), "│ without the lock")
	assert.Contains(t, stdout.String(), "│ with the lock")
	assert.Contains(t, stdout.String(), "times lower")
	assert.Contains(t, stdout.String(), "Every addition is in the database.")
	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	assert.Contains(t, string(picture), "latency on the cold rows")
	assert.Contains(t, string(picture), "throughput of the hot row")

	t.Run("Interrupted", func(t *testing.T) {
		go func() {
			awaitTransactions(t, server.URL)
			assert.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT)) // what Ctrl-C does
		}()
		var stdout, stderr bytes.Buffer
		assert.Equal(t, 130, run(t.Context(), []string{"-time=10m", "-rounds", strconv.Itoa(math.MaxInt)}, &stdout, &stderr), &stderr)
		assert.Contains(t, stdout.String(), "Every addition is in the database.")
		assert.NotContains(t, stdout.String(), "│ with the lock", "the second run was not begun")
	})

	t.Run("NobodyReads", func(t *testing.T) {
		closed, w := io.Pipe()
		require.NoError(t, closed.Close())
		var stderr bytes.Buffer
		assert.Equal(t, 1, run(t.Context(), []string{"-rounds=1", "-time=100ms"}, w, &stderr))
		assert.Contains(t, stderr.String(), "closed pipe")
	})
}

// awaitTransactions returns when the hot row is being added to.
func awaitTransactions(t *testing.T, url string) {
	conn, err := pgx.Connect(t.Context(), url)
	if !assert.NoError(t, err) {
		return
	}
	defer conn.Close(context.Background())
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for active := 0; active == 0; <-poll.C {
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT n FROM rows%'").Scan(&active)
		if !assert.NoError(t, err) {
			return
		}
	}
}

func TestLostAdditionsAreFound(t *testing.T) {
	server := postgrestest.Start(t)
	table, err := openRows(t.Context(), server.URL, options{pool: 2, cold: 2})
	require.NoError(t, err)
	defer func() { require.NoError(t, table.close()) }()
	for _, row := range []int{hotRow, 1, 1, 2} {
		_, err := table.add(t.Context(), row)
		require.NoError(t, err)
	}
	assert.NoError(t, table.verify(t.Context(), 1, 3))
	assert.EqualError(t, table.verify(t.Context(), 2, 3), "the hot row has 1 of 2, the cold rows 3 of 3: additions are lost")
	assert.ErrorContains(t, table.verify(t.Context(), 1, 4), "the cold rows 3 of 4")
}

func TestMissingServerEndsWithStatusOne(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, 1, run(t.Context(), []string{"-db", "postgres:///?host=" + t.TempDir()}, &stdout, &stderr))
	assert.Contains(t, stderr.String(), "coldrows: preparing PostgreSQL: failed to connect")
	assert.Empty(t, stdout.String())
}

func TestWrongArgumentsEndWithStatusTwo(t *testing.T) {
	for _, args := range [][]string{{"-pool=0"}, {"-pool=4294967297", "-rounds=1", "-time=1ms"}, {"-time=0s"}, {"-rounds=0"}, {"-work=-1s"}, {"-unknown"}, {"file"}} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, 2, run(context.Background(), args, &stdout, &stderr), "%q", args)
		assert.Contains(t, stderr.String(), "-db URL", "the usage is shown")
	}
	var stdout, stderr bytes.Buffer
	assert.Equal(t, 0, run(context.Background(), []string{"-help"}, &stdout, &stderr))
}

func TestPagesShowThisPackage(t *testing.T) {
	page.Check(t, "../../docs/USE_CASES.md", "PostgreSQL: one hot row")
	page.Check(t, "../README.md", "coldrows")
}
