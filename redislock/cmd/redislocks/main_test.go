package main

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
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
	engine, err := redislock.New(rueidisadapter.New(client), redislock.WithLabel("reports"), redislock.WithTTL(2*time.Second))
	require.NoError(t, err)
	locks := cohort.Start(t.Context(), engine)
	defer locks.Close()
	stuck, err := locks.Acquire(t.Context(), "order/42")
	require.NoError(t, err)

	command := func(args ...string) string {
		var out bytes.Buffer
		require.NoError(t, run(&out, append([]string{"-url", "redis://" + s.Addr()}, args...)...))
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
	case <-time.After(redistest.Patience):
		t.Fatal("the holder does not learn of it")
	}
	require.ErrorIs(t, stuck.Release(), cohort.ErrLost)

	require.ErrorIs(t, run(&bytes.Buffer{}, "-url", "redis://"+s.Addr(), "steal"), lockctl.ErrUsage)
	require.Error(t, run(&bytes.Buffer{}, "-url", "no URL"))
	require.Error(t, run(&bytes.Buffer{}, "-url", "redis://127.0.0.1:1", "list"))
}
