package bubble

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/share"
)

var started = keylock.Start[string](context.Background())

var unknown *keylock.Manager[string]

func TestMain(m *testing.M) {
	unknown = start()
	m.Run()
}

func start() *keylock.Manager[string] { return started }

func TestOutside(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	s := m.Session("s")
	synctest.Test(t, func(t *testing.T) {
		lock, err := m.Acquire(t.Context(), "k") // want `the manager m is started on line 25, outside the bubble: its use in the bubble ends the test process`
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		m.TryAcquire("k")
		s.Acquire(t.Context(), "k") // want `the session s is started on line 27`
		use(started)                // want `the manager started is started on line 13`
	})
	var late *keylock.Manager[string]
	late = keylock.Start[string](t.Context())
	body := func(t *testing.T) {
		func() { late.Close() }() // want `the manager late`
	}
	synctest.Test(t, body)
}

func use(*keylock.Manager[string]) {}

func TestInside(t *testing.T) {
	var m *keylock.Manager[string]
	synctest.Test(t, func(t *testing.T) {
		m = keylock.Start[string](t.Context())
		m.TryAcquire("k")
		own := keylock.Start[string](t.Context())
		defer own.Close()
		own.Session("s").Acquire(t.Context(), "k")
		if started == nil || unknown != nil {
			unknown.Close()
		}
	})
}

func helper(t *testing.T, m *keylock.Manager[string]) {
	synctest.Test(t, func(t *testing.T) { m.TryAcquire("k") })
}

func TestGroups(t *testing.T) {
	m := keylock.Start[string](t.Context())
	over := inorder.Over(t.Context(), m, 1)
	own := inorder.New[string](t.Context(), 1)
	synctest.Test(t, func(t *testing.T) {
		over.Wait() // want `the group over is started on line`
		own.Wait()
	})
}

func TestLockerOutside(t *testing.T) {
	m := keylock.Start[string](t.Context())
	l := m.Locker("k")
	synctest.Test(t, func(t *testing.T) {
		l.Lock() // want `the Locker l is started on line \d+, outside the bubble`
		l.Unlock()
		own := keylock.Start[string](t.Context())
		inside := own.Locker("k")
		inside.Lock()
		inside.Unlock()
	})
	answers := share.New[string, int](m)
	synctest.Test(t, func(t *testing.T) {
		answers.Do(t.Context(), "k", nil) // want `the group answers is started on line \d+, outside the bubble`
	})
}

func newLocks(t *testing.T) *keylock.Manager[string] {
	t.Helper()
	m := keylock.Start[string](context.Background())
	t.Cleanup(func() { m.Close() })
	return m
}

// sometimes returns a manager of which it is not known where it was started.
func sometimes(t *testing.T) *keylock.Manager[string] {
	if testing.Short() {
		return nil
	}
	return newLocks(t)
}

func TestHelperOutside(t *testing.T) {
	m, other := newLocks(t), sometimes(t)
	for _, key := range []string{"a", "b"} {
		t.Run(key, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m.TryAcquire(key) // want `the manager m is started on line \d+, outside the bubble`
				other.TryAcquire(key)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		inside := newLocks(t)
		inside.TryAcquire("k")
	})
}

// What starts it may be called in the bubble.
func TestSetup(t *testing.T) {
	var m *keylock.Manager[string]
	setup := func() { m = keylock.Start[string](context.Background()) }
	synctest.Test(t, func(t *testing.T) {
		setup()
		defer m.Close()
		m.Do(t.Context(), "k", nil)
	})
}
