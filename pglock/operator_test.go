package pglock_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// Each process shows who it is, also to a try that fails.
func TestInspect(t *testing.T) {
	s := migrated(t)
	conn := s.Connect(t)
	e := newEngine(t, s, s.Addr(), pglock.WithLabel("the first {one}, ü"))
	other := newEngine(t, s, s.Addr())
	held := acquire(t, e, "key")
	holder := cohort.Contender{Process: e.Report().Process, Since: time.UnixMicro(int64(held.Epoch())), Epoch: held.Epoch(), Own: true}
	assert.WithinDuration(t, time.Now(), holder.Since, pgtest.Patience)
	assert.Equal(t, "the first {one}, ü", holder.Process.Label)
	assert.Equal(t, os.Getpid(), holder.Process.PID)
	granted := waits(t, conn, other, "key", 2)
	queue, err := e.Inspect(t.Context(), "key")
	require.NoError(t, err)
	assert.Equal(t, []cohort.Contender{holder, {Process: other.Report().Process}}, queue)

	_, err = other.TryAcquire(t.Context(), "key")
	require.ErrorIs(t, err, cohort.ErrHeld)
	var known *cohort.HeldError
	require.ErrorAs(t, err, &known)
	holder.Own = false
	assert.Equal(t, cohort.HeldError{Key: "key", Holder: holder}, *known)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = e.Inspect(ended, "key")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, e.List(ended, func(string, cohort.Contender) bool { return true }), context.Canceled)
	require.NoError(t, held.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the key").Release(t.Context()))
	_, err = pglock.New(s.Config(t, s.Addr()), pglock.WithLabel(strings.Repeat("x", 200)))
	require.ErrorContains(t, err, "200 bytes")
}

// Listing goes through all keys, each once, page by page.
func TestListOfManyKeys(t *testing.T) {
	s := migrated(t)
	conn := s.Connect(t)
	e, other := newEngine(t, s, s.Addr()), newEngine(t, s, s.Addr())
	const keys = 1500
	for i := range keys {
		acquire(t, e, strconv.Itoa(i))
	}
	long := strings.Repeat("long", 500)
	held := acquire(t, e, long)
	require.NoError(t, acquire(t, e, "free").Release(t.Context()))
	granted := waits(t, conn, other, "0", keys+2)
	seen := make(map[string]cohort.Contender)
	require.NoError(t, other.List(t.Context(), func(key string, first cohort.Contender) bool {
		assert.NotContains(t, seen, key)
		seen[key] = first
		return true
	}))
	assert.Len(t, seen, keys+1)
	assert.Equal(t, held.Epoch(), seen[long[:64]].Epoch, "of a long key, the beginning")
	assert.False(t, seen["0"].Own)
	n := 0
	require.NoError(t, other.List(t.Context(), func(string, cohort.Contender) bool { n++; return n < 10 }))
	assert.Equal(t, 10, n, "it stops when it is told to")
	done, err := other.Break(t.Context(), "0", seen["0"].Epoch)
	require.NoError(t, err)
	require.True(t, done)
	require.NoError(t, receive(t, granted, "the key").Release(t.Context()))
}

// A guard excludes until its transaction has ended: a break waits for it too.
func TestBreakWaitsForAGuard(t *testing.T) {
	s := migrated(t)
	conn := s.Connect(t)
	e, operator := newEngine(t, s, s.Addr()), newEngine(t, s, s.Addr())
	g := acquire(t, e, "key")
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{})
	require.NoError(t, err)
	require.NoError(t, g.Guard(t.Context(), tx))
	ctx, cancel := context.WithCancel(t.Context())
	broken := make(chan error, 1)
	go func() {
		_, err := operator.Break(ctx, "key", g.Epoch())
		broken <- err
	}()
	blocked(t, s.Connect(t), "pglock_break")
	cancel()
	require.ErrorIs(t, receive(t, broken, "the break"), context.Canceled)
	require.NoError(t, tx.Commit(t.Context()))
	_, err = operator.Break(t.Context(), "key", g.Epoch()) // unless the one before was carried out after all
	require.NoError(t, err)
	tx, err = conn.BeginTx(t.Context(), pgx.TxOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, g.Guard(t.Context(), tx), cohort.ErrLost, "from now on it guards nothing")
	require.NoError(t, tx.Rollback(t.Context()))
}
