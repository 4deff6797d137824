package keylock_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// line names the line that calls it, as a Caller does.
func line() string {
	_, file, line, _ := runtime.Caller(1)
	dir, name := filepath.Split(file)
	return fmt.Sprintf("%s/%s:%d ", filepath.Base(dir), name, line)
}

func TestCallerIsTheUsersLine(t *testing.T) {
	ctx := t.Context()
	m := keylock.Start[string](ctx, keylock.WithCallers())
	defer m.Close()
	s := m.Session("job")
	seen := func() string { // in a Do
		k, err := m.Inspect(ctx, "k")
		require.NoError(t, err)
		require.Len(t, k.Holders, 1)
		return k.Holders[0].Caller.String()
	}
	var inDo string
	look := func(context.Context) error { inDo = seen(); return nil }

	calls := map[string]func() (release func(), want string){
		"Acquire":          func() (func(), string) { l, _ := m.Acquire(ctx, "k"); return l.Release, line() },
		"AcquireShared":    func() (func(), string) { l, _ := m.AcquireShared(ctx, "k"); return l.Release, line() },
		"AcquireAll":       func() (func(), string) { l, _ := m.AcquireAll(ctx, "k", "l"); return l.Release, line() },
		"TryAcquire":       func() (func(), string) { l, _ := m.TryAcquire("k"); return l.Release, line() },
		"TryAcquireShared": func() (func(), string) { l, _ := m.TryAcquireShared("k"); return l.Release, line() },
		"TryAcquireAll":    func() (func(), string) { l, _ := m.TryAcquireAll("k", "l"); return l.Release, line() },
		"Reserve":          func() (func(), string) { r := m.Reserve("k"); return r.Cancel, line() },
		"ReserveShared":    func() (func(), string) { r := m.ReserveShared("k"); return r.Cancel, line() },
		"ReserveAll":       func() (func(), string) { r := m.ReserveAll("k", "l"); return r.Cancel, line() },

		"Session.Acquire":       func() (func(), string) { l, _ := s.Acquire(ctx, "k"); return l.Release, line() },
		"Session.AcquireShared": func() (func(), string) { l, _ := s.AcquireShared(ctx, "k"); return l.Release, line() },
		"Session.AcquireAll":    func() (func(), string) { l, _ := s.AcquireAll(ctx, "k", "l"); return l.Release, line() },
		"Session.TryAcquire":    func() (func(), string) { l, _ := s.TryAcquire("k"); return l.Release, line() },
		"Session.Reserve":       func() (func(), string) { r := s.Reserve("k"); return r.Cancel, line() },
		"Session.ReserveAll":    func() (func(), string) { r := s.ReserveAll("k", "l"); return r.Cancel, line() },
	}
	for name, call := range calls {
		release, want := call()
		assert.Contains(t, seen(), want, name)
		release()
	}

	for _, do := range []func() (string, error){
		func() (string, error) { return line(), m.Do(ctx, "k", look) },
		func() (string, error) { return line(), s.Do(ctx, "k", look) },
	} {
		want, err := do()
		require.NoError(t, err)
		assert.Contains(t, inDo, want)
	}
}

func TestCallerTellsWhoCalledTheHelper(t *testing.T) {
	m := keylock.Start[string](t.Context(), keylock.WithCallers())
	defer m.Close()
	helper := func() keylock.Lock[string] { l, _ := m.TryAcquire("k"); return l }
	_, want := helper(), line()
	k, err := m.Inspect(t.Context(), "k")
	require.NoError(t, err)
	frames := k.Holders[0].Caller.Frames()
	require.GreaterOrEqual(t, len(frames), 2)
	assert.Contains(t, frames[0].Function, "TestCallerTellsWhoCalledTheHelper.func1")
	assert.True(t, strings.HasSuffix(frames[1].Function, "TestCallerTellsWhoCalledTheHelper"))
	assert.Contains(t, want, fmt.Sprintf(":%d ", frames[1].Line))
}

func TestCallerIsEmptyWhenOff(t *testing.T) {
	m := keylock.Start[string](t.Context(), keylock.WithHoldTimes())
	defer m.Close()
	m.TryAcquire("k")
	k, err := m.Inspect(t.Context(), "k")
	require.NoError(t, err)
	assert.Empty(t, k.Holders[0].Caller.String())
	assert.Nil(t, k.Holders[0].Caller.Frames())
}
