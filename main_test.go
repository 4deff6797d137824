package keylock_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Most tests use string keys.
type (
	manager     = *keylock.Manager[string]
	lock        = keylock.Lock[string]
	reservation = keylock.Reservation[string]
)

// bubble runs fn in a synctest bubble with a manager of its own, which ends with it.
// The bubble deadlocks, and the test fails, if anything of the manager is left.
func bubble(t *testing.T, fn func(t *testing.T, m manager), opts ...keylock.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](t.Context(), opts...)
		defer m.Close()
		fn(t, m)
	})
}

// run is bubble as a subtest.
func run(t *testing.T, name string, fn func(t *testing.T, m manager), opts ...keylock.Option) {
	t.Helper()
	t.Run(name, func(t *testing.T) { bubble(t, fn, opts...) })
}

// A call runs on a goroutine of its own. Its results may be read when it is over.
type call struct {
	returned chan struct{}
	lock     lock
	err      error
}

// start makes a call and returns when it waits or is over.
func start(fn func() (lock, error)) *call {
	c := &call{returned: make(chan struct{})}
	go func() {
		defer close(c.returned)
		c.lock, c.err = fn()
	}()
	synctest.Wait()
	return c
}

// over reports whether the call returned, when all goroutines wait.
func (c *call) over() bool {
	synctest.Wait()
	select {
	case <-c.returned:
		return true
	default:
		return false
	}
}

// startErr is start for a call that returns an error only.
func startErr(fn func() error) *call {
	return start(func() (lock, error) { return lock{}, fn() })
}

// startAcquire is start for the most frequent call.
func startAcquire(ctx context.Context, m manager, key string) *call {
	return start(func() (lock, error) { return m.Acquire(ctx, key) })
}

// requireWaits fails when the call is over.
func (c *call) requireWaits(t *testing.T) {
	t.Helper()
	if c.over() {
		t.Fatalf("the call returned, with error %v", c.err)
	}
}

// requireLock fails when the call has not returned a lock, and returns it.
func (c *call) requireLock(t *testing.T) lock {
	t.Helper()
	require.True(t, c.over(), "the call still waits")
	require.NoError(t, c.err)
	require.NotZero(t, c.lock.Seq())
	return c.lock
}

// requireErr fails when the call has not returned the error, with the zero lock.
func (c *call) requireErr(t *testing.T, want error) {
	t.Helper()
	require.True(t, c.over(), "the call still waits")
	require.ErrorIs(t, c.err, want)
	require.Zero(t, c.lock)
}

// requireNil fails when the call has not returned without an error.
func (c *call) requireNil(t *testing.T) {
	t.Helper()
	require.True(t, c.over(), "the call still waits")
	require.NoError(t, c.err)
}

// hold acquires a key that is free.
func hold(t *testing.T, m manager, key string) lock {
	t.Helper()
	l, ok := m.TryAcquire(key)
	require.True(t, ok, "%q is not free", key)
	return l
}

// requireFree fails when the key is held or waited for.
func requireFree(t *testing.T, m manager, key string) {
	t.Helper()
	require.False(t, active(t, m, key), "%q is active", key)
	hold(t, m, key).Release()
}

// active reports whether a key is held or waited for.
func active(t *testing.T, m manager, key string) bool {
	t.Helper()
	info, err := m.Inspect(context.Background(), key)
	require.NoError(t, err)
	return info.Held+info.Waiting > 0
}

// requireBusy fails when the key can be had.
func requireBusy(t *testing.T, m manager, key string) {
	t.Helper()
	_, ok := m.TryAcquire(key)
	require.False(t, ok, "%q was free", key)
}

// statsOf returns the totals of a manager that has not ended, without what is measured.
func statsOf[K comparable](t testing.TB, m *keylock.Manager[K]) keylock.Stats {
	t.Helper()
	s, err := m.Stats(context.Background())
	require.NoError(t, err)
	s.LongestQueue, s.Waits, s.Requests, s.Serving, s.Uptime = 0, keylock.Histogram{}, 0, 0, 0
	return s
}

// cancelled returns a context that is done.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

var watch, bubbleGoroutines = locktest.Watch, locktest.BubbleGoroutines

// sharing wants keys shared, and alone wants them exclusively.
func sharing[K comparable](keys ...K) []keylock.Want[K] { return wants(keylock.Shared, keys) }

func alone[K comparable](keys ...K) []keylock.Want[K] { return wants(keylock.Exclusive, keys) }

func wants[K comparable](mode keylock.Mode, keys []K) (set []keylock.Want[K]) {
	for _, key := range keys {
		set = append(set, keylock.Want[K]{Key: key, Mode: mode})
	}
	return set
}
