package fuzz

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// What the programs have found in the manager, each as a test that tells its story.

// No keys, in a request that was new, became no list of keys, which means the one key
// of the request: AcquireAll() locked the zero key.
func TestNoKeysIsNotTheZeroKey(t *testing.T) {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	zero, err := m.Acquire(ctx, "")
	require.NoError(t, err)
	defer zero.Release()

	locks, ok := m.TryAcquireSet()
	assert.True(t, ok, "there is nothing to wait for")
	locks.Release()
	defer m.ReserveSet().Cancel()

	stats, err := m.Stats(ctx)
	require.NoError(t, err)
	assert.Zero(t, stats.Waiting, "nor for a reservation")
}

// A reservation that is granted and not yet waited for is held by its session, and is
// released with it. Wait returned the lock all the same, as if it were still held.
func TestReservationEndsWithItsSession(t *testing.T) {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	s := m.Session("s")
	granted := s.Reserve("key")
	s.Close()
	other, ok := m.TryAcquire("key")
	require.True(t, ok, "the session has released the key")
	defer other.Release()

	lock, err := granted.Wait(ctx)
	assert.ErrorIs(t, err, keylock.ErrClosed)
	assert.Zero(t, lock)
}
