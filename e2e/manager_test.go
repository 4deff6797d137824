package e2e

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// newManager returns a manager as a process has it, closed when the test ends.
func newManager(t testing.TB, client *clientv3.Client, ttl time.Duration, opts ...cohort.Option) *cohort.Manager {
	m := cohort.Start(context.Background(), newEngine(t, client, ttl), opts...)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// awaitWaiting waits until n callers wait within the process.
func awaitWaiting(t *testing.T, m *cohort.Manager, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		stats, err := m.Stats(t.Context())
		return err == nil && stats.Local.Waiting == n
	}, patience, time.Millisecond)
}

func TestP7TheTokenOrdersHoldersOfOneGrant(t *testing.T) {
	client := dial(t, startNode(t))
	resource := counter{client: client, name: "/counter"}
	m := newManager(t, client, 30*time.Second, cohort.WithMaxHandoffs(10))
	var tokens []cohort.Token
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			l, err := m.Acquire(t.Context(), "key")
			if !assert.NoError(t, err) {
				return
			}
			tokens = append(tokens, l.Token()) // nothing else protects it
			_, err = resource.increment(t.Context(), l.Token())
			assert.NoError(t, err)
			assert.NoError(t, l.Release())
		})
	}
	all.Wait()
	shared := 0
	for i := 1; i < len(tokens); i++ {
		assert.Equal(t, 1, tokens[i].Compare(tokens[i-1]), "%v after %v", tokens[i], tokens[i-1])
		if tokens[i].Epoch == tokens[i-1].Epoch {
			shared++
			_, err := resource.increment(t.Context(), tokens[i-1])
			assert.ErrorIs(t, err, errFenced, "the one before, although etcd's lock is the same")
		}
	}
	assert.Greater(t, shared, 20)
}

// While one process has plenty to do, another still gets its turn: after so many
// handoffs, or after so long.
func TestP8HandoffsAreBounded(t *testing.T) {
	client := dial(t, startNode(t))
	for _, bound := range []struct {
		by      string
		options []cohort.Option
	}{
		{"count", []cohort.Option{cohort.WithMaxHandoffs(20), cohort.WithMaxHold(time.Hour)}},
		{"time", []cohort.Option{cohort.WithMaxHandoffs(1 << 30), cohort.WithMaxHold(100 * time.Millisecond)}},
	} {
		t.Run(bound.by, func(t *testing.T) {
			busy := newManager(t, client, 30*time.Second, bound.options...)
			other := newManager(t, client, 30*time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for ctx.Err() == nil {
						if l, err := busy.Acquire(ctx, bound.by); err == nil {
							time.Sleep(100 * time.Microsecond)
							assert.NoError(t, l.Release())
						}
					}
				})
			}
			require.Eventually(t, func() bool {
				stats, err := busy.Stats(t.Context())
				return err == nil && stats.Handoffs > 0
			}, patience, time.Millisecond)
			for range 5 {
				l, err := other.Acquire(t.Context(), bound.by)
				require.NoError(t, err)
				require.NoError(t, l.Release())
			}
			cancel()
			all.Wait()
		})
	}
}

func TestP8LossStopsTheHandoff(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 2*time.Second)
	m := cohort.Start(context.Background(), e)
	defer m.Close()
	held, err := m.Acquire(t.Context(), "key")
	require.NoError(t, err)
	next := make(chan cohort.Lock, 1)
	go func() {
		if l, err := m.Acquire(t.Context(), "key"); assert.NoError(t, err) {
			next <- l
		}
	}()
	awaitWaiting(t, m, 1)
	revoke(t, client, e)
	receive(t, held.Context().Done(), "the notice")
	require.ErrorIs(t, context.Cause(held.Context()), cohort.ErrLost)
	require.ErrorIs(t, held.Release(), cohort.ErrLost)
	l := receive(t, next, "the next holder")
	assert.Greater(t, l.Token().Epoch, held.Token().Epoch, "it acquired anew")
	require.NoError(t, l.Release())
}

// A process is stopped while it holds the lock, and goes on after its lease has ended. Its timers
// are as late as itself: it still writes. Only the token keeps that out.
func TestP12PausedProcess(t *testing.T) {
	node := startNode(t)
	resource := counter{client: dial(t, node), name: "/counter"}
	paused := startWorker(t, "holder", false, node)
	paused.await(t, "holding")
	paused.signal(syscall.SIGSTOP)

	m := newManager(t, resource.client, 30*time.Second)
	l, err := m.Acquire(t.Context(), workerKey) // after the lease of the paused process
	require.NoError(t, err)
	count, err := resource.increment(t.Context(), l.Token())
	require.NoError(t, err)
	assert.Equal(t, 1, count)

	paused.say(t, "write")
	paused.signal(syscall.SIGCONT)
	assert.Equal(t, errFenced.Error(), paused.await(t, "wrote"))
	assert.Equal(t, cohort.ErrLost.Error(), paused.await(t, "told"))
	assert.Equal(t, cohort.ErrLost.Error(), paused.await(t, "released"))
	count, err = resource.increment(t.Context(), l.Token())
	require.NoError(t, err)
	assert.Equal(t, 2, count, "nothing was lost")
	require.NoError(t, l.Release())
	receive(t, paused.exited, "its end")
}

// Two processes that are always busy with one key get it equally often. Until one of them has heard that the other waits, its
// handoffs are not counted, so that a machine that is busy shifts the shares for a while.
func TestFairnessBetweenTwoProcesses(t *testing.T) {
	node := startNode(t)
	var counts [2]atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for p := range counts {
		m := newManager(t, dial(t, node), 30*time.Second)
		for range 32 {
			all.Go(func() {
				for {
					l, err := m.Acquire(ctx, "hot")
					if err != nil {
						assert.ErrorIs(t, err, context.DeadlineExceeded)
						return
					}
					counts[p].Add(1)
					if !assert.NoError(t, l.Release()) {
						return
					}
				}
			})
		}
	}
	all.Wait()
	a, b := counts[0].Load(), counts[1].Load()
	share := float64(a) / float64(a+b)
	t.Logf("%d and %d: %.1f %%", a, b, 100*share)
	delta := 0.35
	if *goals {
		delta = 0.05
	}
	assert.InDelta(t, 0.5, share, delta)
}

// Within a process, first come, first served, whatever happens at the engine.
func TestOrderWithinAProcess(t *testing.T) {
	client := dial(t, startNode(t))
	m := newManager(t, client, 30*time.Second, cohort.WithMaxHandoffs(3))
	first, err := m.Acquire(t.Context(), "key")
	require.NoError(t, err)
	var order []int
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			l, err := m.Acquire(t.Context(), "key")
			if assert.NoError(t, err) {
				order = append(order, i)
				assert.NoError(t, l.Release())
			}
		})
		awaitWaiting(t, m, i+1)
	}
	require.NoError(t, first.Release())
	all.Wait()
	for i, got := range order {
		assert.Equal(t, i, got)
	}
}

// etcd does not reply: every call returns with its context, Close within its bound, and
// no goroutine stays.
func TestUnreachable(t *testing.T) {
	for _, how := range []struct {
		name    string
		weather weather
	}{{"silent", weather{Silent: true}}, {"refused", weather{Down: true}}} {
		t.Run(how.name, func(t *testing.T) {
			n := newNetwork()
			client := dial(t, n.to(t, "n0", startNode(t)))
			for _, before := range []bool{true, false} {
				if before {
					n.set(func(_, _ string) weather { return how.weather })
				} else {
					n.heal()
				}
				m := newManager(t, client, 4*time.Second, cohort.WithEngineTimeout(time.Second))
				var held cohort.Lock
				if !before {
					var err error
					held, err = m.Acquire(t.Context(), "held")
					require.NoError(t, err)
					n.set(func(_, _ string) weather { return how.weather })
				}
				within := func(bound time.Duration, what string, f func(ctx context.Context)) {
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					defer cancel()
					began := time.Now()
					f(ctx)
					assert.Less(t, time.Since(began), bound+patience/6, what)
				}
				var all sync.WaitGroup
				for i := range 10 {
					all.Go(func() {
						within(200*time.Millisecond, "Acquire", func(ctx context.Context) {
							_, err := m.Acquire(ctx, fmt.Sprint("key", i%3))
							assert.ErrorIs(t, err, context.DeadlineExceeded)
						})
					})
				}
				all.Wait()
				within(200*time.Millisecond, "TryAcquire", func(ctx context.Context) {
					_, err := m.TryAcquire(ctx, "try")
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				})
				within(time.Second, "Release", func(context.Context) {
					if before {
						assert.NoError(t, held.Release())
					} else {
						assert.Error(t, held.Release())
					}
				})
				within(time.Second, "Close", func(context.Context) { _ = m.Close() })
				assert.Eventually(t, func() bool { return ourGoroutines() == "" }, patience, 10*time.Millisecond, "%s", goroutines{})
			}
		})
	}
}

// ourGoroutines returns the stacks that go through our packages, but for this one.
func ourGoroutines() string {
	buffer := make([]byte, 1<<20)
	var ours []string
	for _, stack := range strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(stack, "/keylock.") || strings.Contains(stack, "/keylock/cohort.") || strings.Contains(stack, "/keylock/etcdlock.") {
			ours = append(ours, stack)
		}
	}
	return strings.Join(ours, "\n\n")
}

// goroutines prints ourGoroutines when a test fails.
type goroutines struct{}

func (goroutines) String() string { return ourGoroutines() }
