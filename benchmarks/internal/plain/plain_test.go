package plain

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCloseEndsWaitsAndLaterCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Start()
		lock, err := m.Acquire(t.Context(), "key")
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() {
			_, err := m.Acquire(t.Context(), "key")
			ended <- err
		}()
		synctest.Wait()
		require.NoError(t, m.Close())
		assert.ErrorIs(t, <-ended, ErrClosed)
		_, err = m.Acquire(t.Context(), "other")
		assert.ErrorIs(t, err, ErrClosed)
		lock.Release()
	})
}

func TestLockIsReleasedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Start()
		defer m.Close()
		first, err := m.Acquire(t.Context(), "key")
		require.NoError(t, err)
		first.Release()
		second, err := m.Acquire(t.Context(), "key")
		require.NoError(t, err)
		first.Release()

		var granted bool
		go func() {
			third, err := m.Acquire(t.Context(), "key")
			assert.NoError(t, err)
			granted = true
			third.Release()
		}()
		synctest.Wait()
		assert.False(t, granted)
		second.Release()
		synctest.Wait()
		assert.True(t, granted)
	})
}
