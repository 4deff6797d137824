package inorder_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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

// The tests of this file are numbered after the bugs that others had in code of this kind; 9 to 15
// concern a consumer of Kafka and are in examples/kafkabatch.

// 1. The goroutine of a key finds its queue empty while the next work is submitted.
func TestPitfall1WorkThatComesAsAQueueEndsStillRuns(t *testing.T) {
	rounds := 1_000_000
	if testing.Short() || locktest.RaceEnabled {
		rounds = 100_000
	}
	over := func(t *testing.T, g group, rounds int) {
		watch(t, func() {
			ran := make(chan struct{}, 1)
			for range rounds {
				if err := g.Go(t.Context(), "a", func(context.Context) error {
					ran <- struct{}{}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
				<-ran // the queue is about to end now
			}
			assert.NoError(t, g.Wait())
		})
	}
	t.Run("New", func(t *testing.T) { over(t, inorder.New[string](t.Context(), 4), rounds) })
	t.Run("Over", func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		over(t, inorder.Over(t.Context(), m, 4), rounds/10)
	})
}

// 2. Work that waits has no goroutine.
func TestPitfall2WaitingWorkHasNoGoroutine(t *testing.T) {
	const n, keys = 100_000, 50
	t.Run("New", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			g := inorder.New[string](ctx, 1, inorder.WithQueue(inorder.Unlimited))
			before := bubbleGoroutines()
			for i := range n {
				require.NoError(t, g.Go(ctx, keyName(i%keys), sleep(time.Hour)))
			}
			assert.Equal(t, before+1, bubbleGoroutines(), "the one that runs")
			cancel()
			g.Wait()
			assert.Equal(t, before, bubbleGoroutines())
		})
	})
	t.Run("Over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			m := keylock.Start[string](context.Background())
			defer m.Close()
			outsider, _ := m.TryAcquire(keyName(0))
			g := inorder.Over(ctx, m, 1, inorder.WithQueue(inorder.Unlimited))
			before := bubbleGoroutines()
			for i := range n {
				require.NoError(t, g.Go(ctx, keyName(i%keys), sleep(time.Hour)))
			}
			assert.Equal(t, before+2, bubbleGoroutines(), "the one that runs, and one for the key that an outsider holds")
			cancel()
			g.Wait()
			assert.Equal(t, before, bubbleGoroutines())
			outsider.Release()
			require.NoError(t, m.WaitIdle(t.Context()), "nothing is left of the group")
		})
	})
}

// 3. Stop and the end of a context with a full queue, and Go from inside.
func TestPitfall3EveryCallReturnsWhenAFullGroupStops(t *testing.T) {
	for _, end := range []string{"Stop", "context", "failure"} {
		bubbles(t, 1, func(t *testing.T, parent group) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			g := parent.Sub(ctx)
			fail := make(chan error, 1)
			require.NoError(t, g.Go(t.Context(), "a", func(ctx context.Context) error {
				select {
				case err := <-fail:
					return err
				case <-ctx.Done():
					return nil
				}
			}))
			for i := range 2 {
				require.NoError(t, g.Go(t.Context(), keyName(i), sleep(time.Hour)))
			}
			var calls sync.WaitGroup
			for range 10 {
				calls.Go(func() { assert.ErrorIs(t, g.Go(context.Background(), "b", nothing), errBad) })
			}
			calls.Go(func() { assert.ErrorIs(t, g.WaitIdle(context.Background()), errBad) })
			synctest.Wait()
			switch end {
			case "Stop":
				g.Stop(errBad)
				fail <- nil
			case "context":
				cancel(errBad)
			case "failure":
				fail <- errBad
			}
			calls.Wait()
			assert.ErrorIs(t, g.Wait(), errBad)
			assert.NoError(t, parent.Wait())
		}, inorder.WithQueue(2))
	}
}

// The end comes while all that fills the queue is of others, and stays.
func TestPitfall3GoReturnsThoughTheQueueStaysFull(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, parent group) {
		g := parent.Sub(t.Context())
		goOn := make(chan struct{})
		for range 3 {
			require.NoError(t, parent.Go(t.Context(), "a", func(context.Context) error { <-goOn; return nil }))
			synctest.Wait()
		}
		var calls sync.WaitGroup
		calls.Go(func() { assert.ErrorIs(t, g.Go(t.Context(), "b", nothing), errBad) })
		synctest.Wait()
		g.Stop(errBad)
		calls.Wait()
		close(goOn)
		assert.ErrorIs(t, g.Wait(), errBad)
		assert.NoError(t, parent.Wait())
	}, inorder.WithQueue(2))
}

func TestPitfall3WorkThatAddsWorkToAFullGroupIsRefused(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		var errs []error
		require.NoError(t, g.Go(t.Context(), "a", func(ctx context.Context) error {
			for range 3 {
				errs = append(errs, g.Sub(ctx).Go(ctx, "a", nothing))
			}
			return nil
		}))
		require.NoError(t, g.WaitIdle(t.Context()))
		assert.Equal(t, []error{nil, nil, inorder.ErrFull}, errs)
	}, inorder.WithQueue(2))
}

// 4. A function that does not return.
func TestPitfall4GoexitIsAFailure(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, parent group) {
		g := parent.Sub(t.Context())
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			runtime.Goexit()
			return nil
		}))
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			t.Error("begun after the failure of its key")
			return nil
		}))
		ran := false
		require.NoError(t, parent.Go(t.Context(), "a", func(context.Context) error {
			ran = true
			return nil
		}))
		assert.Equal(t, inorder.ErrGoexit, g.Wait())
		require.NoError(t, parent.Wait(), "its slot is free again")
		assert.True(t, ran)
	})
}

func TestPitfall4PanicEndsTheProcess(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, self)
	child.Env = append(os.Environ(), childRole+"=panic")
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 2, exit.ExitCode(), "%s", out)
	assert.Contains(t, string(out), "panic: the original value")
	assert.Contains(t, string(out), "inorder_test.explode", "the original stack")
	assert.NotContains(t, string(out), "successor")
	assert.NotContains(t, string(out), "Wait returned")
}

// panicInWork is the child of that test.
func panicInWork() {
	g := inorder.New[string](context.Background(), 4)
	g.Go(context.Background(), "a", explode)
	g.Go(context.Background(), "a", func(context.Context) error {
		fmt.Println("the successor runs")
		return nil
	})
	g.Wait()
	fmt.Println("Wait returned")
	os.Exit(0)
}

func explode(context.Context) error {
	time.Sleep(10 * time.Millisecond)
	panic("the original value")
}

// 5. Work that is ready already when the work before it fails.
func TestPitfall5NothingPassesAFailedOne(t *testing.T) {
	watch(t, func() {
		passed := 0
		for range 20_000 {
			err := inorder.Each(t.Context(), 4, slices.Values([]int{0, 1, 2, 3}), func(int) string { return "a" },
				func(_ context.Context, i int) error {
					if i == 0 {
						return errBad
					}
					passed++
					return nil
				})
			if err != errBad { // the cause itself, and not an error of the context
				t.Error(err)
				return
			}
		}
		assert.Zero(t, passed)
	})
}

// 6. Work that fails again and again.
func TestPitfall6RetriesDoNotSlowOthersDown(t *testing.T) {
	bubbles(t, 4, func(t *testing.T, g group) {
		bad := make([]int, 50)
		for i := range 50 {
			require.NoError(t, g.Go(t.Context(), "bad-"+keyName(i), func(context.Context) error {
				bad[i]++
				return inorder.Again(time.Second, errBad)
			}))
			require.NoError(t, g.Go(t.Context(), "bad-"+keyName(i), func(context.Context) error {
				t.Error("passed the first of its key")
				return nil
			}))
		}
		time.Sleep(time.Millisecond)
		began, done := time.Now(), 0
		good := g.Sub(t.Context())
		for i := range 500 {
			require.NoError(t, good.Go(t.Context(), keyName(i%50), sleep(time.Millisecond)))
			done++
		}
		require.NoError(t, good.Wait())
		assert.Equal(t, 125*time.Millisecond, time.Since(began), "500 of them at 4 times 1 ms")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, tries := range bad {
			assert.GreaterOrEqual(t, tries, 10)
		}
		g.Stop(errBad)
		assert.Equal(t, errBad, g.Wait())
		tries := slices.Clone(bad)
		time.Sleep(time.Hour)
		assert.Equal(t, tries, bad, "the timers are stopped")
	})
}

func TestPitfall6RetriesTakeNoRoom(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		for i := range 10 {
			require.NoError(t, g.Go(t.Context(), keyName(i), func(context.Context) error { return inorder.Again(time.Second, errBad) }))
			synctest.Wait()
		}
		time.Sleep(10*time.Second + time.Millisecond)
		require.NoError(t, g.Go(t.Context(), "a", sleep(time.Millisecond)))
		synctest.Wait()
		assert.True(t, g.TryGo("a", nothing))
		assert.True(t, g.TryGo("a", nothing))
		assert.False(t, g.TryGo("a", nothing), "two wait, as many as may")
		g.Stop(errBad)
		assert.Equal(t, errBad, g.Wait())
	}, inorder.WithQueue(2))
}

// 7. A key that always has more work.
func TestPitfall7HotKeyTakesItsTurn(t *testing.T) {
	bubbles(t, 1, func(t *testing.T, g group) {
		var order []string
		note := func(key string) {
			require.NoError(t, g.Go(t.Context(), key, func(context.Context) error {
				time.Sleep(time.Second)
				order = append(order, key)
				return nil
			}))
		}
		for range 10 {
			note("hot")
		}
		for i := range 3 {
			note(keyName(i))
			note(keyName(i))
		}
		require.NoError(t, g.Wait())
		assert.Equal(t, []string{"hot", "key-0", "key-1", "key-2", "hot", "key-0", "key-1", "key-2", "hot"}, order[:9])
	})
}

// 8. Other users of the keys.
func TestPitfall8OutsidersHaveTheirTurnAfterOneWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		g := inorder.Over(t.Context(), m, 4)
		for i := range 20 {
			require.NoError(t, g.Go(t.Context(), keyName(i%2), sleep(time.Second)))
		}
		synctest.Wait()
		for range 3 {
			began := time.Now()
			lock, err := m.Acquire(t.Context(), keyName(0))
			require.NoError(t, err)
			assert.LessOrEqual(t, time.Since(began), time.Second)
			lock.Release()
			began = time.Now()
			both, err := m.AcquireAll(t.Context(), keyName(0), keyName(1))
			require.NoError(t, err)
			assert.LessOrEqual(t, time.Since(began), time.Second)
			both.Release()
		}
		require.NoError(t, g.Wait())
	})
}

func TestPitfall8ManagerIsNotIdleBetweenTwoWorks(t *testing.T) {
	m := keylock.Start[string](context.Background())
	defer m.Close()
	watch(t, func() {
		for range 100 {
			g := inorder.Over(t.Context(), m, 4)
			left := atomic.Int64{}
			left.Store(100)
			first := make(chan struct{})
			for range 100 {
				assert.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
					<-first
					left.Add(-1)
					return nil
				}))
			}
			close(first)
			assert.NoError(t, m.WaitIdle(t.Context()))
			assert.Zero(t, left.Load())
			assert.NoError(t, g.Wait())
		}
	})
}

func TestPitfall8ClosedManagerFailsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		g := inorder.Over(t.Context(), m, 4)
		sub := g.Sub(t.Context())
		for i := range 100 {
			require.NoError(t, sub.Go(t.Context(), keyName(i%10), sleep(time.Second)))
			require.NoError(t, g.Go(t.Context(), keyName(i%10), sleep(time.Second)))
		}
		time.Sleep(time.Millisecond)
		m.Close()
		assert.ErrorIs(t, g.Wait(), keylock.ErrClosed)
		assert.ErrorIs(t, sub.Wait(), keylock.ErrClosed)
	})
	synctest.Test(t, func(t *testing.T) { // with failures by key
		m := keylock.Start[string](context.Background())
		m.Close()
		g := inorder.Over(t.Context(), m, 4, inorder.WithKeyFailures())
		require.NoError(t, g.Go(t.Context(), "a", nothing))
		assert.ErrorIs(t, g.Wait(), keylock.ErrClosed)
	})
}

// What the manager refuses has failed; only what comes after it is dropped.
func TestPitfall8RefusedKeyCountsWhatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background(), keylock.WithMaxWaiters(1))
		defer func() { m.Close() }()
		outside, err := m.Acquire(t.Context(), "a")
		require.NoError(t, err)
		defer outside.Release()
		ahead := m.Reserve("a")
		defer ahead.Cancel()
		g := inorder.Over(t.Context(), m, 1, inorder.WithKeyFailures())
		require.NoError(t, g.Go(t.Context(), "b", sleep(time.Hour)))
		for range 3 {
			require.NoError(t, g.Go(t.Context(), "a", nothing))
		}
		require.NoError(t, g.Go(t.Context(), "c", nothing))
		var failed *inorder.KeyError[string]
		err = g.Wait()
		require.ErrorIs(t, err, keylock.ErrQueueFull)
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, "a", failed.Key)
		assert.Equal(t, 2, failed.Dropped)
	})
}

// Stop comes at any moment of the way from one work to the next: when Wait has returned, nothing of the
// group holds a key or waits for one.
func TestPitfall8NothingIsHeldAfterWait(t *testing.T) {
	m := keylock.Start[string](context.Background())
	defer m.Close()
	watch(t, func() {
		for i := range 20_000 {
			g := inorder.Over(t.Context(), m, 1+i%2)
			sub := g.Sub(t.Context())
			for range 3 {
				assert.NoError(t, sub.Go(t.Context(), "a", nothing))
			}
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				for range i % 7 {
					runtime.Gosched()
				}
				sub.Stop(errBad)
			}()
			if i%3 == 0 {
				<-stopped
			}
			g.Wait()
			lock, free := m.TryAcquire("a")
			if !free {
				t.Error("the key is held")
				return
			}
			lock.Release()
			<-stopped
		}
	})
}

// The same when all that the group has left waits for another try.
func TestPitfall8NothingIsHeldAfterWaitForRetries(t *testing.T) {
	m := keylock.Start[string](context.Background())
	defer m.Close()
	watch(t, func() {
		for i := range 3000 {
			g := inorder.Over(t.Context(), m, 1+i%4)
			for key := range 32 {
				assert.NoError(t, g.Go(t.Context(), keyName(key), func(context.Context) error {
					return inorder.Again(time.Hour, errBad)
				}))
			}
			for range i % 7 {
				runtime.Gosched()
			}
			g.Stop(nil)
			g.Wait()
			stats, err := m.Stats(t.Context())
			assert.NoError(t, err)
			if stats.Held > 0 {
				t.Error("a key is held")
				return
			}
		}
	})
}

// The same with an outsider who gets the key in between, and keeps it until Wait has returned.
func TestPitfall8WaitDoesNotWaitForOutsiders(t *testing.T) {
	m := keylock.Start[string](context.Background())
	defer m.Close()
	watch(t, func() {
		for i := range 5000 {
			g := inorder.Over(t.Context(), m, 1)
			begun, reserved := make(chan struct{}), make(chan struct{})
			assert.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
				close(begun)
				<-reserved
				return nil
			}))
			assert.NoError(t, g.Go(t.Context(), "a", nothing))
			<-begun
			outsider := m.Reserve("a")
			go func() {
				close(reserved)
				for range i % 5 {
					runtime.Gosched()
				}
				g.Stop(errBad)
			}()
			g.Wait()
			lock, err := outsider.Wait(t.Context())
			assert.NoError(t, err)
			lock.Release()
		}
	})
}

func TestRetryReleasesTheLockMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		g := inorder.Over(t.Context(), m, 4)
		tries := 0
		require.NoError(t, g.Go(t.Context(), "a", func(context.Context) error {
			if tries++; tries == 1 {
				return inorder.Again(time.Minute, errBad)
			}
			return nil
		}))
		synctest.Wait()
		lock, ok := m.TryAcquire("a")
		require.True(t, ok)
		time.Sleep(time.Hour)
		assert.Equal(t, 1, tries)
		lock.Release()
		require.NoError(t, g.Wait())
		assert.Equal(t, 2, tries)
	})
}

// After a burst of keys, of failed keys and of parts no memory of them stays with a group that goes on.
func TestBurstLeavesNoMemory(t *testing.T) {
	if locktest.RaceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	const n, kept = 20_000, 128 << 10
	always := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	watch(t, func() {
		g := inorder.New[string](t.Context(), 1, inorder.WithQueue(inorder.Unlimited), inorder.WithKeyFailures())
		keyOf := keyName
		burst := func(fn func(context.Context) error) {
			goOn := make(chan struct{})
			assert.NoError(t, g.Go(t.Context(), "first", func(context.Context) error { <-goOn; return nil }))
			for i := range n {
				if err := g.Go(t.Context(), keyOf(i), fn); err != nil {
					t.Error(err)
				}
			}
			close(goOn)
		}
		for name, run := range map[string]func(){
			"keys": func() { burst(nothing) },
			"a big key": func() {
				keyOf = func(i int) string { return strings.Repeat("k", i/(n-1)<<20) + keyName(i) }
				burst(nothing)
				keyOf = keyName
			},
			"failed keys": func() {
				burst(always(errBad))
				assert.Error(t, g.WaitIdle(t.Context()))
				for i := range n {
					if err := g.Reopen(keyName(i)); err == nil {
						t.Error("reopened a key that has not failed")
					}
				}
			},
			"parts": func() {
				parts := make([]group, n)
				for i := range parts {
					parts[i] = g.Sub(context.Background()) // one that can end would keep memory itself
				}
				for _, part := range parts {
					assert.NoError(t, part.Wait())
				}
			},
		} {
			before := heap()
			run()
			assert.NoError(t, g.WaitIdle(t.Context()))
			assert.Less(t, heap()-before, int64(kept), name)
		}
		assert.NoError(t, g.Wait())
	})
}

// A million works wait, at 24 bytes each besides their closures, and go through. Each key that has work
// takes 110 bytes more at most: how much depends on how full the map of the keys happens to be, which
// is at its worst after it has grown, as it has for a million.
func TestAMillionWait(t *testing.T) {
	if locktest.RaceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	const n = 1_000_000
	for _, keys := range []int{50, n} {
		t.Run(fmt.Sprint(keys, " keys"), func(t *testing.T) {
			watch(t, func() {
				names := make([]string, keys)
				for i := range names {
					names[i] = keyName(i)
				}
				g := inorder.New[string](t.Context(), 1, inorder.WithQueue(inorder.Unlimited))
				goOn := make(chan struct{})
				assert.NoError(t, g.Go(t.Context(), "first", func(context.Context) error { <-goOn; return nil }))
				ran := 0
				fn := func(context.Context) error { ran++; return nil }
				before, goroutines := heap(), runtime.NumGoroutine()
				for i := range n {
					if err := g.Go(t.Context(), names[i%keys], fn); err != nil {
						t.Error(err)
					}
				}
				each := float64(heap()-before) / n
				t.Logf("%.1f bytes for each that waits", each)
				assert.LessOrEqual(t, each, 24.5+110*float64(keys)/n)
				assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+1)
				runtime.KeepAlive(names)
				close(goOn)
				assert.NoError(t, g.Wait())
				assert.Equal(t, n, ran)
			})
		})
	}
}

func TestGroupThatNoFunctionMadePanicsWithASentence(t *testing.T) {
	ctx := context.Background()
	fn := func(context.Context) error { return nil }
	for _, g := range []*inorder.Group[string]{nil, new(inorder.Group[string])} {
		for name, call := range map[string]func(){
			"Go":       func() { _ = g.Go(ctx, "k", fn) },
			"TryGo":    func() { g.TryGo("k", fn) },
			"Sub":      func() { g.Sub(ctx) },
			"WaitIdle": func() { _ = g.WaitIdle(ctx) },
			"Wait":     func() { _ = g.Wait() },
			"Stop":     func() { g.Stop(nil) },
			"Reopen":   func() { _ = g.Reopen("k") },
		} {
			assert.PanicsWithValue(t, "inorder: a Group must be made by New, Over or Sub", call, name)
		}
	}
}

func TestEachPanicsForANilFunction(t *testing.T) {
	seq, key := slices.Values([]int{1}), func(int) int { return 0 }
	fn := func(context.Context, int) error { return nil }
	for name, call := range map[string]func(){
		"seq": func() { inorder.Each(t.Context(), 1, nil, key, fn) },
		"key": func() { inorder.Each[int](t.Context(), 1, seq, nil, fn) },
		"fn":  func() { inorder.Each(t.Context(), 1, seq, key, nil) },
	} {
		assert.PanicsWithValue(t, "inorder: nil function", call, name)
	}
}
