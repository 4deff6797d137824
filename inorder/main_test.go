package inorder_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// A test that needs a process to end starts its own binary with childRole set.
const childRole = "INORDER_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childRole) == "panic" {
		panicInWork()
	}
	goleak.VerifyTestMain(m)
}

type group = *inorder.Group[string]

// bubbles runs fn in a synctest bubble, with a group that has keys of its own and with one over a
// manager.
func bubbles(t *testing.T, limit int, fn func(t *testing.T, g group), opts ...inorder.Option) {
	t.Helper()
	t.Run("New", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { fn(t, inorder.New[string](t.Context(), limit, opts...)) })
	})
	t.Run("Over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := keylock.Start[string](context.Background())
			defer func() { m.Close() }()
			fn(t, inorder.Over(t.Context(), m, limit, opts...))
		})
	})
}

// watch runs work that must end within a minute.
func watch(t *testing.T, work func()) {
	t.Helper()
	locktest.Watch(t, time.Minute, work)
}

var bubbleGoroutines = locktest.BubbleGoroutines

// sleep returns work that takes so long, or until its context ends.
func sleep(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func nothing(context.Context) error { return nil }

func keyName(i int) string { return fmt.Sprintf("key-%d", i) }

// exit ends the goroutine, as t.FailNow does.
func exit() { runtime.Goexit() }
