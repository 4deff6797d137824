package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

func TestLockSparesPostgresItsConflicts(t *testing.T) {
	server := postgrestest.Start(t)
	p := newProgram(t, "")
	svg := filepath.Join(t.TempDir(), "plot.svg")
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-db", server.URL, "-events", "1500", "-svg", svg}), &p.stderr)
	t.Log("\n" + p.stdout.String())
	assert.Contains(t, p.stdout.String(), verified)

	conflicts := func(run string) int {
		n, err := strconv.Atoi(p.row(t, run)[1])
		require.NoError(t, err)
		return n
	}
	for _, transaction := range []string{"serializable", "repeatable-read"} {
		assert.Greater(t, conflicts(transaction+", without the lock"), 300, transaction)
	}
	assert.Zero(t, conflicts("repeatable-read, with the lock"))
	assert.LessOrEqual(t, 50*conflicts("serializable, with the lock"), conflicts("serializable, without the lock"), "at most 2 %")
	for _, transaction := range []string{"for-update", "upsert"} {
		assert.Zero(t, conflicts(transaction+", without the lock"), "the database lets them wait")
		assert.Zero(t, conflicts(transaction+", with the lock"))
	}

	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	for _, text := range []string{"99th percentile", "conflicts retried", "repeatable-read", "with the lock"} {
		assert.Contains(t, string(picture), text)
	}
}

// The workers go on over a server that is killed and started again, twice in a run, and the scores
// are those of a sequential pass.
func TestCrashedServerLosesAndDoublesNoEvent(t *testing.T) {
	server := postgrestest.Start(t)
	for _, locked := range []bool{false, true} {
		t.Run(lockName(locked), func(t *testing.T) {
			db, err := store.OpenPostgres(t.Context(), server.URL, 32, store.Serializable)
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			s := scorer{db: db, threshold: 100}
			if locked {
				s.locks = keylock.Start[netip.Addr](t.Context())
				defer s.locks.Close()
			}

			events := attacks(7, 300)
			for other := range byte(20) {
				events = append(events, attacks(10+other, 30)...)
			}
			var handled atomic.Int64
			var crashing sync.Mutex
			step := func() {
				if n := handled.Add(1); n == int64(len(events)/4) || n == int64(len(events)/2) {
					crashing.Lock()
					defer crashing.Unlock()
					assert.NoError(t, server.Crash()) // while the other workers go on
				}
			}
			outcomes := make([]outcome, len(events))
			require.NoError(t, s.handleAll(t.Context(), events, outcomes, 32, step))

			r := result{run: run{store.Serializable, locked}, outcomes: outcomes}
			assert.Equal(t, len(events), r.committed())
			r.records, err = db.Records(t.Context())
			require.NoError(t, err)
			assert.NoError(t, verify(events, r, s.threshold))
		})
	}
}

func TestPrivateServerIsStartedOnDemand(t *testing.T) {
	postgrestest.Require(t)
	t.Setenv("DATABASE_URL", "")
	p := &program{}
	p.threatscore = threatscore{stdout: &p.stdout, stderr: &p.stderr}
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-db", "postgres", "-tx", "upsert", "-lock", "on", "-events", "50"}), &p.stderr)
	assert.Contains(t, p.stdout.String(), verified)
	assert.Equal(t, "0", p.row(t, "upsert, with the lock")[1])
}

func TestDatabaseURLIsTakenFromTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres:///?host="+t.TempDir())
	p := newProgram(t, everyForm)
	assert.Equal(t, exitFailed, p.main(t.Context(), []string{"-db", "postgres", "-log", "-"}))
	assert.Contains(t, p.stderr.String(), "failed to connect")
}
