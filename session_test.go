package keylock_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// Close ends a grant that is on its way to its caller. Only the Wait of a reservation used to
// look: every other call returned a lock that another holder had by then.
func TestNoCallReturnsALockOfAClosedSession(t *testing.T) {
	type session = *keylock.Session[string]
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the grant is there before its caller runs
	for name, call := range map[string]func(context.Context, session) error{
		"Acquire":       func(ctx context.Context, s session) error { _, err := s.Acquire(ctx, "k"); return err },
		"AcquireShared": func(ctx context.Context, s session) error { _, err := s.AcquireShared(ctx, "k"); return err },
		"AcquireAll":    func(ctx context.Context, s session) error { _, err := s.AcquireAll(ctx, "k", "l"); return err },
		"Wait":          func(ctx context.Context, s session) error { _, err := s.Reserve("k").Wait(ctx); return err },
		"Do": func(ctx context.Context, s session) error {
			return s.Do(ctx, "k", func(context.Context) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := keylock.Start[string](context.Background())
			defer m.Close()
			for range 20 {
				s := m.Session("s")
				first := hold(t, m, "k")
				inside, result := false, make(chan error)
				go func() {
					err := call(t.Context(), s)
					assert.False(t, err == nil && inside, "a lock beside another holder")
					result <- err
				}()
				// With one processor the owner and this loop can keep it between them for minutes:
				// each wakes the other as what runs next.
				for statsOf(t, m).Waiting == 0 {
					runtime.Gosched()
				}
				first.Release()
				require.NoError(t, s.Close())
				mine, err := m.Acquire(t.Context(), "k")
				require.NoError(t, err)
				inside = true
				if err = <-result; err != nil { // nil when it was quicker than Close
					require.ErrorIs(t, err, keylock.ErrClosed)
				}
				mine.Release()
			}
		})
	}
}

func TestTryOfAClosedSessionFails(t *testing.T) {
	bubble(t, func(t *testing.T, m manager) {
		s := m.Session("s")
		require.NoError(t, s.Close())
		_, ok := s.TryAcquire("k")
		assert.False(t, ok)
		_, ok = s.TryAcquireSet(alone("k", "l")...)
		assert.False(t, ok)
		requireFree(t, m, "k")
	})
}
