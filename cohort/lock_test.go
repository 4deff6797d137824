package cohort_test

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// processes returns managers of different processes, which are closed when the test ends.
func processes(t *testing.T, store *cohorttest.Store, n int) (managers []*cohort.Manager, engines []*cohorttest.Engine) {
	for range n {
		e := store.Engine()
		m := cohort.Start(t.Context(), e, cohort.WithMaxHandoffs(1))
		t.Cleanup(func() { assert.NoError(t, m.Close()) })
		managers, engines = append(managers, m), append(engines, e)
	}
	return managers, engines
}

func TestNoKeysOfAClosedManagerAreRefused(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(t.Context(), store.Engine())
	none, err := m.AcquireAll(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Close())
	assert.NoError(t, none.Release())
	_, err = m.AcquireAll(t.Context())
	assert.ErrorIs(t, err, cohort.ErrClosed)
}

// Three processes name overlapping keys in every order, and never wait for each other for good.
func TestAllKeysWithoutDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, _ := processes(t, store, 3)
		names := []string{"a", "b", "c", "d"}
		var inside [4]atomic.Int32
		last := make([]cohort.Token, len(names)) // written by the holder of the key
		done := make(chan error)
		const goroutines, rounds = 4, 50
		for _, m := range managers {
			for range goroutines {
				go func() {
					done <- func() error {
						for range rounds {
							order := rand.Perm(len(names))[:1+rand.IntN(len(names))]
							var keys []string
							for _, i := range order {
								keys = append(keys, names[i])
							}
							held, err := m.AcquireAll(t.Context(), keys...)
							if err != nil {
								return err
							}
							for _, i := range order {
								if inside[i].Add(1) != 1 {
									return errors.New("two are inside")
								}
								token := held.Token(names[i])
								if token.Compare(last[i]) <= 0 {
									return errors.New("the token has not grown")
								}
								last[i] = token
							}
							time.Sleep(time.Millisecond)
							for _, i := range order {
								inside[i].Add(-1)
							}
							if err := held.Release(); err != nil {
								return err
							}
						}
						return nil
					}()
				}()
			}
		}
		for range len(managers) * goroutines {
			require.NoError(t, <-done)
		}
	})
}

func TestAllKeysOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, _ := processes(t, store, 2)
		here, there := managers[0], managers[1]
		last, err := there.Acquire(t.Context(), "c")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failed, err := here.AcquireAll(ctx, "c", "a", "b")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Zero(t, failed)
		assert.Empty(t, failed.Keys())
		require.NoError(t, failed.Release())
		require.Error(t, failed.Context().Err())
		require.NoError(t, here.WaitIdle(t.Context()), "it holds nothing")
		require.NoError(t, last.Release())

		held, err := here.AcquireAll(t.Context(), "c", "a", "b", "a")
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "c"}, held.Keys())
		assert.Positive(t, held.Token("c").Compare(last.Token()))
		assert.Zero(t, held.Token("d"))
		ends := held.Context()
		require.NoError(t, ends.Err())
		require.NoError(t, held.Release())
		require.NoError(t, held.Release(), "again")
		assert.Equal(t, context.Canceled, context.Cause(ends))
		require.Error(t, held.Context().Err())

		none, err := here.AcquireAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, none.Context().Err())
		require.NoError(t, none.Release())
		unasked, err := here.AcquireAll(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, unasked.Release())
		require.Error(t, unasked.Context().Err(), "a context that is asked for after the release")
	})
}

// One key of three is taken away: the context of all ends, and the others are released.
func TestLossOfOneKeyIsTheLossOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, engines := processes(t, store, 2)
		held, err := managers[0].AcquireAll(t.Context(), "a", "b", "c")
		require.NoError(t, err)
		ctx := held.Context()
		broken, err := engines[1].Break(t.Context(), "b", held.Token("b").Epoch)
		require.NoError(t, err)
		require.True(t, broken)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), cohort.ErrLost)
		require.ErrorIs(t, held.Release(), cohort.ErrLost)
		again, err := managers[1].AcquireAll(t.Context(), "a", "b", "c")
		require.NoError(t, err)
		assert.Positive(t, again.Token("b").Compare(held.Token("b")))
		require.NoError(t, again.Release())
	})
}

// A key is lost while the next is waited for: it begins anew, and what it returns is held.
func TestAllKeysBeginAnewAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		t.Cleanup(store.Close)
		managers, engines := processes(t, store, 2)
		ahead, err := managers[1].Acquire(t.Context(), "b")
		require.NoError(t, err)
		granted := make(chan cohort.Locks)
		go func() {
			held, err := managers[0].AcquireAll(t.Context(), "a", "b")
			assert.NoError(t, err)
			granted <- held
		}()
		synctest.Wait()
		queue, err := engines[1].Inspect(t.Context(), "a")
		require.NoError(t, err)
		first := queue[0].Epoch
		broken, err := engines[1].Break(t.Context(), "a", first)
		require.NoError(t, err)
		require.True(t, broken)
		time.Sleep(time.Second)
		queue, err = engines[1].Inspect(t.Context(), "a")
		require.NoError(t, err)
		require.Len(t, queue, 1)
		assert.Greater(t, queue[0].Epoch, first, "it has the first key again")
		require.NoError(t, ahead.Release())
		held := <-granted
		assert.Greater(t, held.Token("a").Epoch, first)
		require.NoError(t, held.Context().Err())
		require.NoError(t, held.Release())
	})
}

// A manager that ends ends the wait.
func TestAllKeysAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		m := cohort.Start(t.Context(), store.Engine())
		require.NoError(t, m.Close())
		_, err := m.AcquireAll(t.Context(), "a", "b")
		require.ErrorIs(t, err, cohort.ErrClosed)
	})
}

// Tokens of one engine grant share its epoch (P7 of the pitfalls): only epoch and
// sequence together tell holders apart.
func TestTokenOrdersByEpochThenSeq(t *testing.T) {
	ascending := []cohort.Token{{}, {1, 1}, {1, 2}, {1, 10}, {2, 1}, {10, 1}, {1 << 40, 3}}
	for i, a := range ascending {
		for j, b := range ascending {
			assert.Equal(t, cmp.Compare(i, j), a.Compare(b), "%v against %v", a, b)
			assert.Equal(t, cmp.Compare(i, j), cmp.Compare(a.String(), b.String()), "%v against %v as text", a, b)
		}
	}
}
