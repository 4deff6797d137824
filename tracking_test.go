package keylock_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
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
		"TryAcquireShared": func() (func(), string) { l, _ := m.TryAcquireSet(sharing("k")...); return l.Release, line() },
		"TryAcquireAll":    func() (func(), string) { l, _ := m.TryAcquireSet(alone("k", "l")...); return l.Release, line() },
		"Reserve":          func() (func(), string) { r := m.Reserve("k"); return r.Cancel, line() },
		"ReserveShared":    func() (func(), string) { r := m.ReserveSet(sharing("k")...); return r.Cancel, line() },
		"ReserveAll":       func() (func(), string) { r := m.ReserveSet(alone("k", "l")...); return r.Cancel, line() },

		"Session.Acquire":       func() (func(), string) { l, _ := s.Acquire(ctx, "k"); return l.Release, line() },
		"Session.AcquireShared": func() (func(), string) { l, _ := s.AcquireShared(ctx, "k"); return l.Release, line() },
		"Session.AcquireAll":    func() (func(), string) { l, _ := s.AcquireAll(ctx, "k", "l"); return l.Release, line() },
		"Session.TryAcquire":    func() (func(), string) { l, _ := s.TryAcquire("k"); return l.Release, line() },
		"Session.Reserve":       func() (func(), string) { r := s.Reserve("k"); return r.Cancel, line() },
		"Session.ReserveAll":    func() (func(), string) { r := s.ReserveSet(alone("k", "l")...); return r.Cancel, line() },
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

// A go statement has no line of its own on the stack of the goroutine that it starts.
func TestCallerOfAGoStatementIsCalledThat(t *testing.T) {
	m := keylock.Start[string](t.Context(), keylock.WithCallers())
	defer m.Close()
	lock, _ := m.TryAcquire("k")
	go m.Acquire(t.Context(), "k")
	var k keylock.KeyInfo[string]
	require.Eventually(t, func() bool {
		k, _ = m.Inspect(t.Context(), "k")
		return k.Waiting == 1
	}, time.Minute, time.Millisecond)
	assert.Equal(t, "a go statement", k.Waiters[0].Caller.String())
	assert.Empty(t, k.Waiters[0].Caller.Frames())
	lock.Release()
	for _, f := range k.Holders[0].Caller.Frames() {
		assert.NotEqual(t, "runtime.goexit", f.Function)
	}
}

func TestCallerOfACohortIsTheUsersLine(t *testing.T) {
	ctx := t.Context()
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(ctx, store.Engine(), cohort.WithLocal(keylock.WithCallers()))
	defer m.Close()
	var callers []string
	look := func(context.Context) error {
		keys, err := m.Snapshot(ctx)
		require.NoError(t, err)
		callers = append(callers, keys[0].Holders[0].Caller.String())
		return nil
	}
	require.NoError(t, m.Do(ctx, "k", look))
	want := line()
	lock, err := m.Acquire(ctx, "k")
	require.NoError(t, err)
	require.NoError(t, look(ctx))
	require.NoError(t, lock.Release())
	assert.Contains(t, callers[1], "TestCallerOfACohortIsTheUsersLine")
	assert.Contains(t, callers[0], strings.Split(want, ":")[0])
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
