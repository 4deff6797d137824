package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

// Keys are kept in this process, and recalled by the server's notices: for a waiter, and for a try that was refused.
func TestKeptKeysAreRecalled(t *testing.T) {
	t.Parallel()
	s := migrated(t)
	ttl := pglock.WithTTL(2 * time.Minute) // so that nothing is repaired by time
	ours := cohort.Start(t.Context(), newEngine(t, s, s.Addr(), ttl), cohort.WithKeep(time.Minute, 8))
	defer ours.Close()
	theirs := cohort.Start(t.Context(), newEngine(t, s, s.Addr(), ttl))
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), pgtest.Patience)
	defer cancel()
	use := func(m *cohort.Manager) cohort.Token {
		l, err := m.Acquire(ctx, "key")
		require.NoError(t, err)
		require.NoError(t, l.Release())
		return l.Token()
	}
	keep := func() (last cohort.Token) {
		require.Eventually(t, func() bool {
			last = use(ours)
			info, err := ours.Inspect(ctx, "key")
			return assert.NoError(t, err) && info.Claim.State == cohort.ClaimKept
		}, pgtest.Patience, time.Millisecond, "the key is kept")
		return last
	}
	kept := keep()
	used := use(ours)
	assert.Equal(t, cohort.Token{Epoch: kept.Epoch, Seq: kept.Seq + 1}, used, "without the server")

	taken := use(theirs)
	assert.Equal(t, 1, taken.Compare(used))

	again := keep()
	assert.Equal(t, 1, again.Compare(taken))
	tries := 0
	require.Eventually(t, func() bool {
		tries++
		l, err := theirs.TryAcquire(ctx, "key")
		if err != nil {
			return !assert.ErrorIs(t, err, cohort.ErrHeld)
		}
		return assert.NoError(t, l.Release())
	}, pgtest.Patience, time.Millisecond, "a try gets the key")
	assert.Greater(t, tries, 1)
	stats, err := ours.Stats(ctx)
	require.NoError(t, err)
	assert.Equal(t, uint64(2), stats.Recalls)
}
