package main

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// A process hangs with a lock. The command shows which, and takes the key away; the process learns of it.
func TestBreakLockOfHangingProcess(t *testing.T) {
	s := pgtest.Start(t)
	require.NoError(t, pglock.Migrate(t.Context(), s.Connect(t)))
	config := s.Config(t, s.Addr())
	engine, err := pglock.New(config, pglock.WithLabel("reports"), pglock.WithTTL(2*time.Second))
	require.NoError(t, err)
	locks := cohort.Start(t.Context(), engine)
	defer locks.Close()
	stuck, err := locks.Acquire(t.Context(), "order/42")
	require.NoError(t, err)

	command := func(args ...string) string {
		var out bytes.Buffer
		require.NoError(t, run(&out, append([]string{"-database", config.ConnString()}, args...)...))
		return out.String()
	}
	assert.Contains(t, command("list"), "order/42")
	assert.Contains(t, command("show", "order/42"), " reports\n")
	epoch := strconv.FormatUint(stuck.Token().Epoch, 10)
	assert.Contains(t, command("break", "order/42", epoch), "is not held with epoch "+epoch+" any more")
	assert.Contains(t, command("show", "order/42"), "is free")
	select {
	case <-stuck.Context().Done():
		require.ErrorIs(t, context.Cause(stuck.Context()), cohort.ErrLost)
	case <-time.After(pgtest.Patience):
		t.Fatal("the holder does not learn of it")
	}
	require.ErrorIs(t, stuck.Release(), cohort.ErrLost)

	require.ErrorIs(t, run(&bytes.Buffer{}, "-database", config.ConnString(), "steal"), lockctl.ErrUsage)
	require.Error(t, run(&bytes.Buffer{}, "-database", "no database"))
	require.Error(t, run(&bytes.Buffer{}, "-database", "postgres://127.0.0.1:1/x", "list"))
}
