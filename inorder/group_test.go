package inorder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

var errBad = errors.New("bad")

func TestWorkOfAKeyIsInOrderAndOthersRunBesideIt(t *testing.T) {
	bubbles(t, inorder.Unlimited, func(t *testing.T, g group) {
		got := make([][]int, 50)
		began := time.Now()
		for i := range 500 {
			require.NoError(t, g.Go(t.Context(), keyName(i%50), func(context.Context) error {
				time.Sleep(time.Millisecond)
				got[i%50] = append(got[i%50], i/50)
				return nil
			}))
		}
		require.NoError(t, g.Wait())
		assert.Equal(t, 10*time.Millisecond, time.Since(began))
		for _, of := range got {
			assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, of)
		}
	})
}

func TestAtMostLimitRun(t *testing.T) {
	bubbles(t, 3, func(t *testing.T, g group) {
		var running, most atomic.Int64
		for i := range 100 {
			require.NoError(t, g.Go(t.Context(), keyName(i%10), func(context.Context) error {
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(time.Millisecond)
				running.Add(-1)
				return nil
			}))
		}
		require.NoError(t, g.Wait())
		assert.EqualValues(t, 3, most.Load())
	})
}

func TestGoWaitsForRoomUntilItsContextEnds(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		for range 1 + 2 { // one runs, two wait
			require.NoError(t, g.Go(t.Context(), "a", sleep(time.Second)))
			synctest.Wait()
		}
		assert.False(t, g.TryGo("b", nothing))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.ErrorIs(t, g.Go(ctx, "b", nothing), context.DeadlineExceeded)

		began := time.Now()
		require.NoError(t, g.Go(t.Context(), "b", nothing))
		assert.Equal(t, time.Second-time.Millisecond, time.Since(began), "there is room when the next one begins")
		require.NoError(t, g.Wait())
	}, inorder.WithQueue(2))
}

func TestContextWithoutErrEndsAWait(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
		close(ctx.Ended)
		end := make(chan struct{})
		require.NoError(t, g.Go(t.Context(), "k", func(context.Context) error { <-end; return nil }))
		synctest.Wait()
		require.NoError(t, g.Go(t.Context(), "k", nothing))
		require.ErrorIs(t, g.Go(ctx, "k", func(context.Context) error { panic("there was no room") }), context.Canceled)
		require.ErrorIs(t, g.WaitIdle(ctx), context.Canceled)
		close(end)
		require.NoError(t, g.Wait())
	}, inorder.WithQueue(1))
}

func TestContextWithoutErrEndsAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
		g := inorder.New[string](ctx, 1)
		require.NoError(t, g.Go(t.Context(), "k", func(ctx context.Context) error { <-ctx.Done(); return nil }))
		synctest.Wait()
		close(ctx.Ended)
		require.ErrorIs(t, g.Wait(), context.Canceled)
	})
}

func TestRoomIsGivenInTheOrderOfTheCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := inorder.New[string](t.Context(), 1, inorder.WithQueue(1))
		var order []int
		var calls sync.WaitGroup
		var returned atomic.Int64
		for i := range 10 {
			calls.Go(func() {
				assert.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
					time.Sleep(time.Second)
					order = append(order, i)
					return nil
				}))
				returned.Add(1)
			})
			synctest.Wait()
		}
		require.EqualValues(t, 2, returned.Load(), "the others wait for room")
		calls.Wait()
		require.NoError(t, g.Wait())
		assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, order)
	})
}

func TestFirstErrorStopsTheGroup(t *testing.T) {
	bubbles(t, 2, func(t *testing.T, g group) {
		var ended error
		require.NoError(t, g.Go(t.Context(), "a", func(ctx context.Context) error {
			<-ctx.Done()
			ended = context.Cause(ctx)
			return ctx.Err()
		}))
		require.NoError(t, g.Go(t.Context(), "b", func(context.Context) error { return errBad }))
		require.NoError(t, g.Go(t.Context(), "b", func(context.Context) error {
			t.Error("begun after the failure of its key")
			return nil
		}))
		synctest.Wait()
		err := g.Go(t.Context(), "c", nothing)
		assert.ErrorIs(t, err, inorder.ErrStopped)
		assert.ErrorIs(t, err, errBad)
		assert.False(t, g.TryGo("c", nothing))
		assert.ErrorIs(t, g.WaitIdle(t.Context()), errBad)
		assert.Equal(t, errBad, g.Wait())
		assert.Equal(t, errBad, ended)
	})
}

func TestEndOfTheContextStopsTheGroup(t *testing.T) {
	for _, over := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			g := inorder.New[string](ctx, 1)
			if over {
				m := keylock.Start[string](t.Context())
				defer m.Close()
				g = inorder.Over(ctx, m, 1)
			}
			require.NoError(t, g.Go(t.Context(), "a", func(ctx context.Context) error {
				cancel(errBad)
				assert.ErrorIs(t, g.Go(t.Context(), "b", nothing), errBad, "at once, although the watch may come later")
				<-ctx.Done()
				return ctx.Err()
			}))
			for range 10 {
				g.Go(t.Context(), "a", func(context.Context) error {
					t.Error("begun after the end of the context")
					return nil
				})
			}
			assert.Equal(t, errBad, g.Wait())
		})
	}
}

func TestStopLetsRunningWorkEnd(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		ended := false
		require.NoError(t, g.Go(t.Context(), "a", func(ctx context.Context) error {
			err := sleep(time.Second)(ctx)
			ended = err == nil
			return err
		}))
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			t.Error("begun after Stop")
			return nil
		}))
		synctest.Wait()
		g.Stop(nil)
		g.Stop(errBad)
		assert.Equal(t, inorder.ErrStopped, g.Go(t.Context(), "a", nothing))
		assert.Equal(t, inorder.ErrStopped, g.Wait())
		assert.True(t, ended)
	})
}

func TestWaitIdleCountsEverythingAndLetsTheGroupGoOn(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		assert.NoError(t, g.WaitIdle(t.Context()))
		tries := 0
		began := time.Now()
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			if tries++; tries < 3 {
				return inorder.Again(time.Second, errBad)
			}
			return nil
		}))
		require.NoError(t, g.Go(t.Context(), "a", sleep(time.Second)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.ErrorIs(t, g.WaitIdle(ctx), context.DeadlineExceeded)
		assert.NoError(t, g.WaitIdle(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(began))
		require.NoError(t, g.Go(t.Context(), "a", nothing))
		require.NoError(t, g.Wait())
		assert.ErrorIs(t, g.Go(t.Context(), "a", nothing), inorder.ErrStopped)
		require.NoError(t, g.Wait(), "again")
	})
}

func TestKeyFailureStopsItsKeyOnly(t *testing.T) {
	bubbles(t, 2, func(t *testing.T, g group) {
		done := 0
		for i := range 10 {
			require.NoError(t, g.Go(t.Context(), "bad", func(context.Context) error {
				assert.Less(t, i, 3)
				if i == 2 {
					return errBad
				}
				return nil
			}))
			require.NoError(t, g.Go(t.Context(), "good", func(context.Context) error {
				done++
				return nil
			}))
		}
		var failed *inorder.KeyError[string]
		require.ErrorAs(t, g.WaitIdle(t.Context()), &failed)
		assert.Equal(t, inorder.KeyError[string]{Key: "bad", Err: errBad, Dropped: 7}, *failed)
		require.NoError(t, g.Go(t.Context(), "bad", nothing))
		assert.True(t, g.TryGo("bad", nothing))
		require.ErrorAs(t, g.WaitIdle(t.Context()), &failed)
		assert.Equal(t, 9, failed.Dropped)
		assert.Equal(t, 10, done)

		assert.ErrorIs(t, g.Reopen("bad"), errBad)
		assert.NoError(t, g.Reopen("bad"))
		require.NoError(t, g.Go(t.Context(), "bad", func(context.Context) error {
			done++
			return nil
		}))
		require.NoError(t, g.Wait())
		assert.Equal(t, 11, done)
	}, inorder.WithKeyFailures())
}

func TestWaitNamesSixteenFailedKeys(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		for i := range 20 {
			require.NoError(t, g.Go(t.Context(), keyName(i), func(context.Context) error { return errBad }))
		}
		err := g.Wait()
		assert.Equal(t, 16, strings.Count(err.Error(), "0 dropped"))
		assert.ErrorContains(t, err, `key "key-0" failed`)
		assert.ErrorContains(t, err, `key "key-15" failed`)
		assert.ErrorContains(t, err, "4 more keys failed")
	}, inorder.WithKeyFailures())
}

func TestKeyErrorShowsItsKey(t *testing.T) {
	assert.EqualError(t, &inorder.KeyError[int]{Key: 7, Err: errBad}, "inorder: key 7 failed, 0 dropped: bad")
	long := &inorder.KeyError[string]{Key: strings.Repeat("x", 1_000_000), Err: errBad}
	assert.Less(t, len(long.Error()), 500)
	secret := "secret"
	pointer := &inorder.KeyError[*string]{Key: &secret, Err: errBad}
	assert.NotContains(t, pointer.Error(), secret)
}

// Wait closes the parts of a group too, and sees the end of its context before the watch does.
func TestWaitIsForThePartsToo(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		sub := g.Sub(t.Context())
		require.NoError(t, g.Wait())
		assert.Equal(t, inorder.ErrStopped, sub.Go(t.Context(), "a", nothing))
	})
	for range 1000 {
		ctx, cancel := context.WithCancelCause(t.Context())
		g := inorder.New[string](ctx, 1)
		cancel(errBad)
		require.Equal(t, errBad, g.Wait())
	}
}

// Calls that waited for room and gave up at the moment when they got it give it back.
func TestRoomThatIsNotUsedGoesToTheNext(t *testing.T) {
	watch(t, func() {
		for range 2000 {
			g := inorder.New[string](t.Context(), 1, inorder.WithQueue(1))
			goOn := make(chan struct{})
			for range 2 {
				assert.NoError(t, g.Go(t.Context(), "a", func(context.Context) error { <-goOn; return nil }))
			}
			ctx, cancel := context.WithCancel(t.Context())
			var calls sync.WaitGroup
			calls.Go(func() { g.Go(ctx, "b", nothing) })
			calls.Go(func() { assert.NoError(t, g.Go(t.Context(), "c", nothing)) })
			runtime.Gosched()
			go cancel()
			close(goOn)
			calls.Wait()
			assert.NoError(t, g.Wait())
		}
	})
}

func TestSubSharesOrderAndLimitAndNothingElse(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := g.Sub(ctx), g.Sub(t.Context())
		var order []string
		note := func(what string, err error) func(context.Context) error {
			return func(ctx context.Context) error {
				time.Sleep(time.Second)
				order = append(order, what)
				return err
			}
		}
		require.NoError(t, first.Go(t.Context(), "a", note("first", nil)))
		require.NoError(t, second.Go(t.Context(), "a", note("second", nil)))
		require.NoError(t, first.Go(t.Context(), "a", note("dropped", nil)))
		require.NoError(t, second.Go(t.Context(), "a", note("third", errBad)))
		synctest.Wait()
		cancel(context.Canceled)
		assert.Equal(t, context.Canceled, first.Wait())
		assert.Equal(t, errBad, second.Wait())
		assert.NoError(t, g.Wait(), "errors of parts are their own")
		assert.Equal(t, []string{"first", "second", "third"}, order)
	})
}

func TestEndOfTheGroupIsThatOfItsParts(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		sub := g.Sub(t.Context()).Sub(t.Context())
		require.NoError(t, sub.Go(t.Context(), "a", sleep(time.Hour)))
		require.NoError(t, sub.Go(t.Context(), "a", nothing))
		require.NoError(t, g.Go(t.Context(), "b", func(context.Context) error { t.Error("begun after Stop"); return nil }))
		idle, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, g.WaitIdle(idle), context.DeadlineExceeded, "it counts what its parts have")
		go func() {
			time.Sleep(time.Second)
			g.Stop(errBad)
		}()
		assert.Equal(t, errBad, g.Wait())
		assert.Equal(t, errBad, sub.Wait())
		assert.ErrorIs(t, g.Sub(t.Context()).Go(t.Context(), "a", nothing), errBad)
	})
}

// The group hears of the end of one part first. What that one has to try again is dropped, and behind it is
// work of the other, whose end it comes to hear of while it drops that.
func TestPartsEndTogether(t *testing.T) {
	again := func(context.Context) error { return inorder.Again(time.Hour, errBad) }
	bubbles(t, 4, func(t *testing.T, g group) {
		for range 20 { // half of the time it hears of the second part first
			ctx, cancel := context.WithCancel(t.Context())
			parts := []group{g.Sub(ctx), g.Sub(ctx)}
			for i, fn := range []func(context.Context) error{again, nothing} {
				for key := range 4 {
					require.NoError(t, parts[i].Go(ctx, keyName(key), fn))
				}
				synctest.Wait()
			}
			cancel()
			for _, part := range parts {
				assert.Equal(t, context.Canceled, part.Wait())
			}
		}
		assert.NoError(t, g.Wait())
	})
}

func TestFailureOfTheGroupEndsTheContextOfItsParts(t *testing.T) {
	bubbles(t, 2, func(t *testing.T, g group) {
		sub := g.Sub(context.Background())
		require.NoError(t, sub.Go(t.Context(), "a", sleep(time.Hour)))
		require.NoError(t, g.Go(t.Context(), "b", func(context.Context) error { return errBad }))
		began := time.Now()
		assert.Equal(t, errBad, g.Wait())
		assert.Zero(t, time.Since(began))
	})
}

// A part that is stopped, or waited for, is known to its group no longer.
func TestPartsThatAreOverAreForgotten(t *testing.T) {
	g := inorder.New[string](t.Context(), 4)
	before := heap()
	for i := range 20_000 {
		sub := g.Sub(t.Context())
		require.NoError(t, sub.Go(t.Context(), "a", nothing))
		if i%2 == 0 {
			sub.Stop(nil)
		} else {
			require.NoError(t, sub.Wait())
		}
	}
	g.WaitIdle(t.Context())
	assert.Less(t, heap()-before, int64(500_000))
	require.NoError(t, g.Wait())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestBadArguments(t *testing.T) {
	assert.Panics(t, func() { inorder.New[string](t.Context(), 0) })
	var none context.Context
	assert.Panics(t, func() { inorder.New[string](none, 1) })
	assert.Panics(t, func() { inorder.Over[string](t.Context(), nil, 1) })
	assert.Panics(t, func() { inorder.Over(t.Context(), new(keylock.Manager[string]), 1) })
	assert.Panics(t, func() { inorder.WithQueue(0) })
	assert.PanicsWithValue(t, "inorder: nil Option", func() { inorder.New[string](t.Context(), 1, nil) })
	g := inorder.New[any](t.Context(), 1)
	assert.Panics(t, func() { g.Go(t.Context(), "a", nil) })
	assert.Panics(t, func() { g.Go(t.Context(), []int{}, nothing) })
	assert.ErrorIs(t, g.Go(t.Context(), math.NaN(), nothing), keylock.ErrInvalidKey)
	assert.False(t, g.TryGo(math.NaN(), nothing))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, g.Go(ended, "a", nothing), context.Canceled)
	require.NoError(t, g.Wait())
}

func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := make([]int, 500)
		for i := range values {
			values[i] = i
		}
		got := make([][]int, 50)
		key := func(v int) int { return v % 50 }
		began := time.Now()
		require.NoError(t, inorder.Each(t.Context(), 100, slices.Values(values), key, func(_ context.Context, v int) error {
			time.Sleep(time.Millisecond)
			got[key(v)] = append(got[key(v)], v)
			return nil
		}))
		assert.Equal(t, 10*time.Millisecond, time.Since(began))
		for k, of := range got {
			assert.Len(t, of, 10)
			assert.True(t, slices.IsSorted(of), k)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errBad)
		assert.Equal(t, errBad, inorder.Each(ctx, 1, slices.Values(values), key, func(context.Context, int) error {
			t.Error("called although the context has ended")
			return nil
		}))
	})
}

func TestEachThatPanicsLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := false
		assert.PanicsWithValue(t, "no more", func() {
			inorder.Each(t.Context(), 1, func(yield func(int) bool) {
				yield(1)
				synctest.Wait()
				panic("no more")
			}, func(v int) int { return v }, func(ctx context.Context, _ int) error {
				running = true
				defer func() { running = false }()
				<-ctx.Done()
				return nil
			})
		})
		assert.False(t, running)
	})
}

// The failure of a key is one of the call: what runs hears of it.
func TestEachWithABadKeyEndsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		identity := func(v float64) float64 { return v }
		err := inorder.Each(t.Context(), 2, slices.Values([]float64{1, math.NaN()}), identity, func(ctx context.Context, _ float64) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
				t.Error("the context goes on")
			}
			return nil
		})
		assert.Equal(t, keylock.ErrInvalidKey, err)
	})
}

func TestErrorsThatAreNotOnes(t *testing.T) {
	err := inorder.Again(time.Second, errBad)
	assert.ErrorIs(t, err, errBad)
	assert.EqualError(t, err, "inorder: again in 1s: bad")
	bubbles(t, 1, func(t *testing.T, g group) {
		tries := 0
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			if tries++; tries == 1 {
				return fmt.Errorf("wrapped: %w", inorder.Again(-1, nil))
			}
			return nil
		}))
		began := time.Now()
		require.NoError(t, g.Wait())
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 2, tries)
	})
}

// What a group is for, in fake time, where nothing but the waits counts: 6,000 works of 50 keys, in
// batches of 500 with a barrier, and as they come with a window of 500.
func TestGroupSparesTheBarrier(t *testing.T) {
	type job struct {
		key   int
		takes time.Duration
	}
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		job            func(i int) job
		floor, barrier time.Duration
	}{
		"every one takes 1 ms": {func(i int) job { return job{i % 50, ms} }, 120 * ms, 120 * ms},
		"one in 500 takes 100 ms": {func(i int) job {
			if i%500 == 250 {
				return job{i / 500 % 5, 100 * ms}
			}
			return job{i % 50, ms}
		}, 417 * ms, 12 * 109 * ms},
		"one key takes 20 ms": {func(i int) job { // no way makes a slow key faster
			if i%50 == 0 {
				return job{0, 20 * ms}
			}
			return job{i % 50, ms}
		}, 2400 * ms, 2400 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				jobs := make([]job, 6000)
				perKey := make(map[int]time.Duration)
				for i := range jobs {
					jobs[i] = test.job(i)
					perKey[jobs[i].key] += jobs[i].takes
				}
				floor := time.Duration(0)
				for _, takes := range perKey {
					floor = max(floor, takes)
				}
				key := func(j job) int { return j.key }
				do := func(_ context.Context, j job) error { time.Sleep(j.takes); return nil }

				began := time.Now()
				for batch := range slices.Chunk(jobs, 500) {
					require.NoError(t, inorder.Each(t.Context(), 1000, slices.Values(batch), key, do))
				}
				barrier := time.Since(began)

				began = time.Now()
				g := inorder.New[int](t.Context(), 1000, inorder.WithQueue(500))
				for _, j := range jobs {
					require.NoError(t, g.Go(t.Context(), j.key, func(ctx context.Context) error { return do(ctx, j) }))
				}
				require.NoError(t, g.Wait())
				streaming := time.Since(began)

				t.Log("floor", floor, "barrier", barrier, "streaming", streaming)
				assert.LessOrEqual(t, streaming, floor+floor/10)
				assert.LessOrEqual(t, streaming, barrier)
				assert.GreaterOrEqual(t, barrier, test.barrier)
				if test.barrier > 2*test.floor {
					assert.LessOrEqual(t, streaming, barrier/2)
				}
			})
		})
	}
}

// The same for work that comes while other work is done, ten in a millisecond for two seconds, and one
// key of 50 that takes 4 ms: what the other keys feel of it.
func TestGroupSparesOtherKeysTheSlowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type job struct {
			key   int
			came  time.Time
			takes time.Duration
		}
		const n = 20_000
		come := func() <-chan job {
			jobs := make(chan job, n)
			go func() {
				defer close(jobs)
				random := rand.New(rand.NewPCG(1, 7))
				for i := range n {
					if i%10 == 0 {
						time.Sleep(time.Millisecond)
					}
					j := job{random.IntN(50), time.Now(), time.Millisecond}
					if j.key == 0 {
						j.takes = 4 * time.Millisecond
					}
					jobs <- j
				}
			}()
			return jobs
		}
		var mu sync.Mutex
		var waits []time.Duration // of the other keys
		do := func(_ context.Context, j job) error {
			time.Sleep(j.takes)
			if j.key != 0 {
				mu.Lock()
				waits = append(waits, time.Since(j.came))
				mu.Unlock()
			}
			return nil
		}
		p99 := func() time.Duration {
			defer func() { waits = nil }()
			slices.Sort(waits)
			return waits[len(waits)*99/100]
		}

		jobs := come()
		for j := range jobs {
			batch := []job{j}
			for len(batch) < 500 && len(jobs) > 0 {
				batch = append(batch, <-jobs)
			}
			require.NoError(t, inorder.Each(t.Context(), 1000, slices.Values(batch), func(j job) int { return j.key }, do))
		}
		barrier := p99()

		g := inorder.New[int](t.Context(), 1000, inorder.WithQueue(500))
		for j := range come() {
			require.NoError(t, g.Go(t.Context(), j.key, func(ctx context.Context) error { return do(ctx, j) }))
		}
		require.NoError(t, g.Wait())
		streaming := p99()

		t.Log("p99 of the other keys: barrier", barrier, "streaming", streaming)
		assert.LessOrEqual(t, streaming, barrier/5)
	})
}
