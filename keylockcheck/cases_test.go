package keylockcheck_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/correct"
	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/wrong"
)

// correctCases and wrongCases are all functions by their names.
func correctCases() map[string]correct.Func {
	return joined(correct.Before, correct.Traps, correct.After, correct.Unseen)
}
func wrongCases() map[string]wrong.Case { return joined(wrong.Before, wrong.After, wrong.Unseen) }

func joined[V any](parts ...map[string]V) map[string]V {
	all := make(map[string]V)
	for _, part := range parts {
		maps.Copy(all, part)
	}
	return all
}

// The first use of package os/signal starts a goroutine, which must not belong to a bubble.
func init() {
	_, stop := signal.NotifyContext(context.Background(), syscall.SIGUSR2)
	stop()
}

// left is what a function left behind in its manager, and what it returned.
type left struct {
	held, waiting int
	err           error
}

// world is one of the situations in which every function is run.
type world struct {
	name string
	x    bool
	run  func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error
}

// worlds: all keys are free, the context has ended, or the keys are held for longer than
// the context lasts.
func worlds() []world {
	var all []world
	for _, x := range []bool{false, true} {
		all = append(all,
			world{"free", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				return f(ctx)
			}},
			world{"ended", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return f(ctx)
			}},
			world{"held", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				others, err := m.AcquireAll(ctx, "k", "a", "b")
				require.NoError(t, err)
				defer others.Release()
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				return f(ctx)
			}})
	}
	return all
}

// play runs f in a bubble and waits until whatever it began is over. The bubble fails
// when f leaves a goroutine.
func play(t *testing.T, w world, f func(context.Context, *keylock.Manager[string], bool) error) (l left) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		l.err = w.run(context.Background(), t, m, func(ctx context.Context) error { return f(ctx, m, w.x) })
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		stats, err := m.Stats(context.Background())
		require.NoError(t, err)
		l.held, l.waiting = stats.Held, stats.Waiting
	})
	return l
}

func TestCorrectFunctionsLeaveNothingBehind(t *testing.T) {
	for name, f := range correctCases() {
		t.Run(name, func(t *testing.T) {
			granted := false
			for _, w := range worlds() {
				l := play(t, w, func(ctx context.Context, m *keylock.Manager[string], x bool) error {
					err := f(ctx, m, x)
					stats, statsErr := m.Stats(context.Background())
					require.NoError(t, statsErr)
					granted = granted || w.name == "free" && stats.Acquired > 0
					return err
				})
				assert.Zero(t, l.held, "locks held, keys %s, x %t", w.name, w.x)
				assert.Zero(t, l.waiting, "requests waiting, keys %s, x %t", w.name, w.x)
			}
			if name != "OwnManager" && name != "ClosedWhileHeld" && name != "LateRelease" && name != "ManagerReturned" {
				assert.True(t, granted, "never had a lock")
			}
		})
	}
}

// losing are the rules about locks and reservations that are not given back.
var losing = map[string]bool{"dropped": true, "reservation": true, "lostpath": true}

func TestWrongFunctionsShowWhatIsWrong(t *testing.T) {
	for name, c := range wrongCases() {
		t.Run(name, func(t *testing.T) {
			var seen bool
			for _, w := range worlds() {
				l := play(t, w, c.Func)
				if losing[c.Rule] {
					seen = seen || l.held > 0
				} else {
					seen = seen || errors.Is(l.err, wrong.ErrProof)
				}
			}
			assert.True(t, seen, "nothing is wrong with it")
		})
	}
}

func TestWrongFunctionsOutsideABubbleShowWhatIsWrong(t *testing.T) {
	for name, c := range wrong.Outside {
		t.Run(name, func(t *testing.T) {
			m := keylock.Start[string](t.Context())
			defer m.Close()
			before := owners()
			err := c.Func(t.Context(), m, false)
			assert.ErrorIs(t, err, wrong.ErrProof)
			if c.Rule == "neverended" {
				runtime.GC()
				assert.Greater(t, owners(), before, "managers that run")
			}
		})
	}
}

// owners returns how many managers run.
func owners() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("created by github.com/seed-46f81e6d/keylock.Start["))
}
