package fifo

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWaitersMayLeaveAnywhereInTheLine(t *testing.T) {
	for leaver := range 3 {
		synctest.Test(t, func(t *testing.T) {
			l := New()
			require.NoError(t, l.Lock(t.Context(), "key"))
			var granted []int
			cancels := make([]context.CancelFunc, 3)
			for n := range cancels {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				cancels[n] = cancel
				go func() {
					if l.Lock(ctx, "key") == nil {
						granted = append(granted, n)
						l.Unlock("key")
					}
				}()
				synctest.Wait()
			}
			cancels[leaver]()
			synctest.Wait()
			l.Unlock("key")
			synctest.Wait()
			assert.Equal(t, map[int][]int{0: {1, 2}, 1: {0, 2}, 2: {0, 1}}[leaver], granted)
			assert.Empty(t, l.lines)
		})
	}
}

func TestContextThatIsDoneNeverLocks(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := New()
	assert.ErrorIs(t, l.Lock(ctx, "key"), context.Canceled)
	assert.Empty(t, l.lines)
}

func TestNothingIsLeftOfAStorm(t *testing.T) {
	l := New()
	var crowd sync.WaitGroup
	for range 8 {
		crowd.Go(func() {
			for range 1000 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				if l.Lock(ctx, "key") == nil {
					l.Unlock("key")
				}
			}
		})
	}
	crowd.Wait()
	assert.Empty(t, l.lines)
}
