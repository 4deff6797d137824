package cohort_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

func TestProcessIsReadAsItWasWritten(t *testing.T) {
	this, err := cohort.ThisProcess("a label: {with} words")
	require.NoError(t, err)
	assert.NotEmpty(t, this.Host)
	assert.NotZero(t, this.PID)
	for _, p := range []cohort.Process{this, {}, {Label: "label"}, {Host: "host", PID: 1}, {Label: "a b:1", Host: "fe80::1", PID: 4242}} {
		assert.Equal(t, p, cohort.ParseProcess(p.String()), "%q", p.String())
	}
	assert.Equal(t, "web-3:4242 checkout", cohort.Process{Label: "checkout", Host: "web-3", PID: 4242}.String())
	for _, other := range []string{"some text", ":1", "host:", "host:0 x", "host:x y"} {
		assert.Equal(t, cohort.Process{Label: other}, cohort.ParseProcess(other))
	}
	for label, want := range map[string]string{
		strings.Repeat("x", 129): "129 bytes",
		"\xff":                   "not UTF-8",
		"two\nlines":             "control characters",
	} {
		_, err := cohort.ThisProcess(label)
		require.ErrorContains(t, err, want)
	}
}

// A try that fails says who holds the key, wherever that is.
func TestFailedTryNamesTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		here := cohort.Start(t.Context(), store.Engine())
		there := cohort.Start(t.Context(), store.Engine())
		defer here.Close()
		defer there.Close()
		began := time.Now()
		held, err := there.Acquire(t.Context(), "key")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		try := func(m *cohort.Manager) cohort.Contender {
			_, err := m.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, cohort.ErrHeld)
			var named *cohort.HeldError
			require.ErrorAs(t, err, &named)
			assert.Equal(t, "key", named.Key)
			require.ErrorContains(t, err, "held by process 2 since "+began.Format("2006-01-02T15:04:05"))
			return named.Holder
		}
		holder := cohort.Contender{Process: cohort.Process{Label: "process 2"}, Since: began, Epoch: held.Token().Epoch}
		assert.Equal(t, holder, try(here))
		holder.Own = true
		assert.Equal(t, holder, try(there))

		// While this process waits for the key, only the engine knows.
		waiting := make(chan cohort.Lock, 1)
		go func() {
			l, err := here.Acquire(t.Context(), "key")
			assert.NoError(t, err)
			waiting <- l
		}()
		synctest.Wait()
		_, err = here.TryAcquire(t.Context(), "key")
		require.Equal(t, cohort.ErrHeld, err)
		snapshot, err := here.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, snapshot, 1)
		holder.Own = false
		require.Len(t, snapshot[0].Engine, 2)
		assert.Equal(t, holder, snapshot[0].Engine[0], "a waiter sees what it waits for")
		snapshot, err = there.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, snapshot, 1)
		assert.Nil(t, snapshot[0].Engine, "who holds it does not ask")

		require.NoError(t, held.Release())
		require.NoError(t, (<-waiting).Release())
	})
}

// A Snapshot does not wait for an engine that cannot be reached for longer than its timeout.
func TestSnapshotOutlastsTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		engine := store.Engine()
		there := cohort.Start(t.Context(), store.Engine())
		here := cohort.Start(t.Context(), engine, cohort.WithEngineTimeout(time.Second))
		defer here.Close()
		defer there.Close()
		for _, key := range []string{"a", "b", "c"} {
			_, err := there.Acquire(t.Context(), key)
			require.NoError(t, err)
			go func() { _, _ = here.Acquire(t.Context(), key) }()
		}
		synctest.Wait()
		engine.Cut()
		began := time.Now()
		snapshot, err := here.Snapshot(t.Context())
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(began))
		require.Len(t, snapshot, 3)
		for _, k := range snapshot {
			require.Error(t, k.EngineErr)
			assert.Equal(t, cohort.ClaimWaiting, k.Claim.State)
		}
		engine.Heal()
	})
}
