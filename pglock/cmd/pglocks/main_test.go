package main

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// A process hangs with a lock. The command shows which, and takes the key away; the process learns of it.
func TestBreakLockOfHangingProcess(t *testing.T) {
	s := pgtest.Start(t)
	require.NoError(t, pglock.Migrate(t.Context(), s.Connect(t)))
	config := s.Config(t, s.Addr())
	engine, err := pglock.New(config, pglock.WithLabel("reports"), pglock.WithTTL(20*time.Second))
	require.NoError(t, err)
	locks := cohort.Start(t.Context(), engine)
	defer locks.Close()
	stuck, err := locks.Acquire(t.Context(), "order/42")
	require.NoError(t, err)

	output := func(args ...string) string {
		var out, log bytes.Buffer
		require.Zero(t, command.Run(&out, &log, append([]string{"-database", config.ConnString()}, args...)...), "%s", &log)
		return out.String()
	}
	assert.Contains(t, output("list"), "order/42")
	assert.Contains(t, output("show", "order/42"), " reports\n")
	epoch := strconv.FormatUint(stuck.Token().Epoch, 10)
	assert.Contains(t, output("break", "order/42", epoch), "was held with epoch "+epoch+", and is not any more")
	assert.Contains(t, output("show", "order/42"), "is free")
	select {
	case <-stuck.Context().Done():
		require.ErrorIs(t, context.Cause(stuck.Context()), cohort.ErrLost)
	case <-time.After(pgtest.Patience):
		t.Fatal("the holder does not learn of it")
	}
	require.ErrorIs(t, stuck.Release(), cohort.ErrLost)

	require.Equal(t, 2, command.Run(io.Discard, io.Discard, "-database", config.ConnString(), "steal"))
	require.Equal(t, 1, command.Run(io.Discard, io.Discard, "-database", "no database", "list"))
	require.Equal(t, 1, command.Run(io.Discard, io.Discard, "-database", "postgres://127.0.0.1:1/x", "list"))
}
