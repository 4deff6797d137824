package main

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// A process hangs with a lock. The command shows which, and takes the key away; the process learns of it.
func TestBreakLockOfHangingProcess(t *testing.T) {
	s := redistest.Start(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, DisableCache: true})
	require.NoError(t, err)
	defer client.Close()
	engine, err := redislock.New(rueidisadapter.New(client), redislock.WithLabel("reports"), redislock.WithTTL(20*time.Second))
	require.NoError(t, err)
	locks := cohort.Start(t.Context(), engine)
	defer locks.Close()
	stuck, err := locks.Acquire(t.Context(), "order/42")
	require.NoError(t, err)

	output := func(args ...string) string {
		var out, log bytes.Buffer
		require.Zero(t, command.Run(&out, &log, append([]string{"-url", "redis://" + s.Addr()}, args...)...), "%s", &log)
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
	case <-time.After(redistest.Patience):
		t.Fatal("the holder does not learn of it")
	}
	require.ErrorIs(t, stuck.Release(), cohort.ErrLost)

	require.Equal(t, 2, command.Run(io.Discard, io.Discard, "-url", "redis://"+s.Addr(), "steal"))
	require.Equal(t, 1, command.Run(io.Discard, io.Discard, "-url", "no URL", "list"))
	require.Equal(t, 1, command.Run(io.Discard, io.Discard, "-url", "redis://127.0.0.1:1", "list"))
}
