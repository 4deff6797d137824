package share_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/share"
)

// The test that needs a process to end starts its own binary with childRole set.
const childRole = "SHARE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		panicWithoutCallers()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// bubble runs a test in a synctest bubble, with a group over a manager.
func bubble(t *testing.T, test func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]), opts ...keylock.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background(), opts...)
		defer m.Close()
		test(t, m, share.New[string, int](m))
	})
}

// An outcome is how a call of Do has ended.
type outcome struct {
	value    int
	err      error
	panicked any
}

// start calls Do on a goroutine and returns what it does when it has entered the call.
func start(ctx context.Context, g *share.Group[string, int], key string, fn func(context.Context) (int, error)) <-chan outcome {
	ended := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			o.panicked = recover()
			ended <- o
		}()
		o.value, o.err = g.Do(ctx, key, fn)
	}()
	synctest.Wait()
	return ended
}

// after returns a function that takes so long, whatever its context does.
func after(d time.Duration, value int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		time.Sleep(d)
		return value, nil
	}
}

func never(context.Context) (int, error) { panic("not to be called") }

func TestCallersAtTheSameTimeShareOneRun(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		failed := errors.New("failed")
		for _, want := range []outcome{{value: 7}, {value: 3, err: failed}} {
			first := start(t.Context(), g, "k", func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return want.value, want.err
			})
			second, third := start(t.Context(), g, "k", never), start(t.Context(), g, "k", never)
			assert.Equal(t, want, <-first)
			assert.Equal(t, want, <-second)
			assert.Equal(t, want, <-third)
		}
	})
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		slow := start(t.Context(), g, "slow", after(time.Hour, 1))
		assert.Equal(t, outcome{value: 2}, <-start(t.Context(), g, "k", after(time.Second, 2)))
		assert.Equal(t, outcome{value: 1}, <-slow)
	})
}

func TestCallerAfterTheEndStartsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		for i := range 3 {
			assert.Equal(t, outcome{value: i}, <-start(t.Context(), g, "k", after(time.Second, i)))
			_, free := m.TryAcquire("other" + string(rune(i)))
			assert.True(t, free)
			lock, free := m.TryAcquire("k")
			assert.True(t, free, "a caller that has returned finds the key free")
			lock.Release()
		}
	})
}

// A caller that comes after another one has seen a run end gets the result of a later run.
func TestRunThatHasEndedGivesItsResultToNoLaterCaller(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	g := share.New[string, int64](m)
	var runs, inside, ended atomic.Int64 // ended is the last run that a caller has seen the end of
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 2000 {
				before := ended.Load()
				run, err := g.Do(t.Context(), "k", func(context.Context) (int64, error) {
					assert.EqualValues(t, 1, inside.Add(1), "two run at the same time")
					defer inside.Add(-1)
					runtime.Gosched()
					return runs.Add(1), nil
				})
				if !assert.NoError(t, err) || !assert.Greater(t, run, before) {
					return
				}
				for last := ended.Load(); last < run && !ended.CompareAndSwap(last, run); last = ended.Load() {
				}
			}
		})
	}
	callers.Wait()
	assert.Less(t, runs.Load(), int64(8*2000), "none was shared")
}

func TestCallerThatLeavesDoesNotDisturbTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := start(short, g, "k", func(ctx context.Context) (int, error) {
			time.Sleep(time.Minute)
			_, limited := ctx.Deadline()
			assert.False(t, limited)
			return 7, ctx.Err()
		})
		second := start(t.Context(), g, "k", never)
		begun := time.Now()
		o := <-first
		assert.Equal(t, time.Second, time.Since(begun))
		require.ErrorIs(t, o.err, context.DeadlineExceeded)
		assert.Equal(t, outcome{value: 7}, <-second)
	})
}

func TestWorkIsCancelledWhenTheLastCallerHasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		begun := time.Now()
		var cancelled time.Duration
		work := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			cancelled = time.Since(begun)
			return 0, ctx.Err()
		}
		var all []<-chan outcome
		why := errors.New("the client has gone")
		for i := range 3 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(3-i)*time.Second, why)
			defer cancel()
			all = append(all, start(ctx, g, "k", work))
		}
		for _, ended := range all {
			o := <-ended
			require.ErrorIs(t, o.err, context.DeadlineExceeded)
			require.ErrorIs(t, o.err, why)
			assert.EqualError(t, o.err, `share: key "k": context deadline exceeded: the client has gone`)
		}
		synctest.Wait()
		assert.Equal(t, 3*time.Second, cancelled)
		require.NoError(t, m.WaitIdle(t.Context()))
	})
}

// A run that is cancelled may go on for a while. The next one waits for it, and for nothing else.
func TestCancelledRunAndTheNextNeverOverlap(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		require.Error(t, (<-start(short, g, "k", after(time.Minute, 1))).err)
		assert.Equal(t, time.Second, time.Since(begun))
		second := start(t.Context(), g, "k", after(time.Second, 2))
		third := start(t.Context(), g, "k", never)
		assert.Equal(t, outcome{value: 2}, <-second, "not the result of the cancelled run")
		assert.Equal(t, outcome{value: 2}, <-third)
		assert.Equal(t, time.Minute+time.Second, time.Since(begun))
	})
}

func TestLastCallerThatLeavesAQueueLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		lock, _ := m.TryAcquire("k")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, (<-start(short, g, "k", never)).err, context.DeadlineExceeded)
		synctest.Wait()
		stats, err := m.Stats(t.Context())
		require.NoError(t, err)
		assert.Zero(t, stats.Waiting)
		lock.Release()
	})
}

func TestContextThatHasEndedStartsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, (<-start(ctx, g, "k", never)).err, context.Canceled)
	})
}

type valueKey struct{}

func TestContextWithoutErrEndsAWait(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	lock, _ := m.TryAcquire("k")
	defer lock.Release()
	ctx := locktest.EarlyContext{Context: t.Context(), Ended: make(chan struct{})}
	close(ctx.Ended)
	_, err := share.New[string, int](m).Do(ctx, "k", func(context.Context) (int, error) { return 1, nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestFunctionHasTheValuesOfTheFirstCaller(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		ctx := context.WithValue(t.Context(), valueKey{}, 7)
		assert.Equal(t, outcome{value: 7}, <-start(ctx, g, "k", func(ctx context.Context) (int, error) {
			return ctx.Value(valueKey{}).(int), nil
		}))
	})
}

func TestOtherUsersOfTheManagerAreKeptOut(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		lock, _ := m.TryAcquire("k")
		time.AfterFunc(time.Second, lock.Release)
		begun := time.Now()
		run := start(t.Context(), g, "k", after(time.Second, 1))
		require.NoError(t, m.Do(t.Context(), "k", func(context.Context) error { return nil }))
		assert.Equal(t, 2*time.Second, time.Since(begun))
		<-run
	})
}

func TestPanicReachesEveryCaller(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		fire := errors.New("printer on fire")
		first := start(t.Context(), g, "k", func(context.Context) (int, error) {
			time.Sleep(time.Second)
			panic(fire)
		})
		second := start(t.Context(), g, "k", never)
		for _, ended := range []<-chan outcome{first, second} {
			p, ok := (<-ended).panicked.(*share.PanicError)
			require.True(t, ok)
			assert.Equal(t, fire, p.Value)
			require.ErrorIs(t, p, fire)
			assert.Contains(t, p.Error(), "printer on fire")
			assert.Contains(t, p.Error(), "TestPanicReachesEveryCaller", "the stack")
		}
		assert.Equal(t, outcome{value: 2}, <-start(t.Context(), g, "k", after(0, 2)), "the key is free")
	})
}

func TestPanicThatIsNoErrorUnwrapsToNone(t *testing.T) {
	assert.NoError(t, (&share.PanicError{Value: "text"}).Unwrap())
}

// panicWithoutCallers lets a function panic that has no caller any more, and would end well.
func panicWithoutCallers() {
	m := keylock.Start[string](context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	_, _ = share.New[string, int](m).Do(ctx, "k", func(ctx context.Context) (int, error) {
		cancel()
		<-ctx.Done()
		panic("printer on fire")
	})
	time.Sleep(time.Minute)
}

func TestPanicThatNoCallerWouldSeeEndsTheProcess(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childRole+"=panic")
	text, err := child.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", text)
	assert.Equal(t, 2, exit.ExitCode())
	assert.Contains(t, string(text), "printer on fire")
	assert.Contains(t, string(text), "panicWithoutCallers", "the stack of the function")
}

func TestGoexitIsNotSuccess(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		first := start(t.Context(), g, "k", func(context.Context) (int, error) {
			time.Sleep(time.Second)
			runtime.Goexit()
			return 1, nil
		})
		second := start(t.Context(), g, "k", never)
		require.ErrorIs(t, (<-first).err, share.ErrGoexit)
		require.ErrorIs(t, (<-second).err, share.ErrGoexit)
		assert.Equal(t, outcome{value: 2}, <-start(t.Context(), g, "k", after(0, 2)), "the key is free")
	})
}

func TestWhatTheManagerRefusesIsReturned(t *testing.T) {
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		m.Reserve("k")
		require.ErrorIs(t, (<-start(t.Context(), g, "k", never)).err, keylock.ErrQueueFull)
		m.Close()
		require.ErrorIs(t, (<-start(t.Context(), g, "k", never)).err, keylock.ErrClosed)
	}, keylock.WithMaxWaiters(0))
}

func TestBadKeyFailsInItsOwnCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[any](t.Context())
		defer m.Close()
		g := share.New[any, int](m)
		_, err := g.Do(t.Context(), math.NaN(), never)
		require.ErrorIs(t, err, keylock.ErrInvalidKey)
		assert.Panics(t, func() { _, _ = g.Do(t.Context(), []int{1}, never) })
		value, err := g.Do(t.Context(), "k", after(0, 7))
		require.NoError(t, err)
		assert.Equal(t, 7, value)
	})
}

// What no program means panics at once, in the caller, and the process is not ended by another goroutine.
func TestMisusePanicsInTheCaller(t *testing.T) {
	assert.PanicsWithValue(t, "share: New with a nil manager", func() { share.New[string, int](nil) })
	assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() {
		share.New[string, int](new(keylock.Manager[string]))
	})
	var zero share.Group[string, int]
	assert.PanicsWithValue(t, "share: a Group must be made by New", func() { _, _ = zero.Do(t.Context(), "k", never) })
	bubble(t, func(t *testing.T, m *keylock.Manager[string], g *share.Group[string, int]) {
		var none context.Context
		misuse := func() {
			assert.PanicsWithValue(t, "share: Do with a nil function", func() { _, _ = g.Do(t.Context(), "k", nil) })
			assert.PanicsWithValue(t, "share: nil context", func() { _, _ = g.Do(none, "k", never) })
		}
		misuse()
		first := start(t.Context(), g, "k", after(time.Second, 7))
		misuse() // also where the function would not be used
		assert.Equal(t, outcome{value: 7}, <-first)
	})
}

// Callers come and leave at random. Each gets a result of a run that it was there for, or its context's
// error after its context has ended; no two runs overlap; nothing is left.
func TestStormOfCallers(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	g := share.New[int, int](m)
	var inside [4]atomic.Int64
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 500 {
				key := rand.N(len(inside))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(300))*time.Microsecond)
				value, err := g.Do(ctx, key, func(work context.Context) (int, error) {
					assert.EqualValues(t, 1, inside[key].Add(1))
					defer inside[key].Add(-1)
					select {
					case <-time.After(time.Duration(rand.N(200)) * time.Microsecond):
						return key, nil
					case <-work.Done():
						return -1, work.Err()
					}
				})
				if err == nil {
					assert.Equal(t, key, value)
				} else {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Error(t, ctx.Err())
				}
				cancel()
			}
		})
	}
	callers.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, m.WaitIdle(ctx))
}
