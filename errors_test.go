package keylock_test

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// An account is locked by its address, and changed only under its lock.
type account struct {
	seen   map[int]bool
	secret string
}

// A part holds a pointer further inside.
type part struct {
	n  int
	of any
}

// While a holder writes what its key points to, texts of the key are made everywhere. Reading
// it there would be a race, and with a map in it the end of the process.
func TestTextsOfKeysDoNotReadWhatAHolderWrites(t *testing.T) {
	a := &account{seen: map[int]bool{}, secret: "hunter2"}
	for name, key := range map[string]any{"a pointer": a, "in a struct": part{1, a}, "in an array": [2]any{1, part{2, a}}} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			m := keylock.Start[any](ctx, keylock.WithMaxWaiters(1), keylock.WithCallers(),
				keylock.WithSlowLog(slog.New(slog.NewTextHandler(io.Discard, nil)), time.Millisecond))
			defer m.Close()
			mine, yours := m.Session("mine"), m.Session("yours")
			lock, ok := mine.TryAcquire(key)
			require.True(t, ok)
			_, ok = yours.TryAcquire("other")
			require.True(t, ok)
			waiting := yours.Reserve(key)

			over := make(chan struct{})
			go func() {
				defer close(over)
				for i, end := 0, time.Now().Add(30*time.Millisecond); time.Now().Before(end); i++ {
					a.seen[i%1000] = true
				}
			}()
			var texts []any
			for range 100 {
				_, full := m.Acquire(ctx, key)
				_, deadlock := mine.Acquire(ctx, "other")
				info, err := m.Inspect(ctx, key)
				require.NoError(t, err)
				texts = []any{full, deadlock, info, waiting, lock, m, mine}
				for _, of := range texts {
					assert.NotContains(t, fmt.Sprintf("%v %+v %s", of, of, of), "hunter2")
				}
			}
			require.ErrorIs(t, texts[0].(error), keylock.ErrQueueFull)
			require.ErrorIs(t, texts[1].(error), keylock.ErrDeadlock)
			<-over
		})
	}
}

func TestDeadlockNamesKeysAndSessions(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	cycle := func(labels ...string) error {
		sessions := make([]*keylock.Session[int], len(labels))
		for i, label := range labels {
			sessions[i] = m.Session(label)
			t.Cleanup(func() { sessions[i].Close() })
			_, ok := sessions[i].TryAcquire(i)
			require.True(t, ok)
		}
		for i, s := range sessions[1:] {
			s.Reserve((i + 2) % len(labels))
		}
		_, err := sessions[0].Acquire(t.Context(), 1)
		require.ErrorIs(t, err, keylock.ErrDeadlock)
		for _, s := range sessions {
			s.Close()
		}
		return err
	}
	assert.EqualError(t, cycle("a", ""), `keylock: deadlock: session "a" waits for key 1, held by an unlabelled session, which waits for key 0, held by session "a"`)
	assert.Contains(t, cycle("a\nb", "\u202e").Error(), `session "a\nb" waits for key 1, held by session "\u202e"`)

	huge := strings.Repeat("x", 1<<20)
	assert.Less(t, len(cycle(huge, huge, huge).Error()), 3000)
	long := cycle(make([]string, 1000)...).Error()
	assert.Less(t, len(long), 1000)
	assert.Contains(t, long, "; 991 more waits; an unlabelled session waits for key 0, held by an unlabelled session")
	for n := 2; n < 12; n++ {
		text := cycle(make([]string, n)...).Error()
		assert.Equal(t, n <= 9, strings.Count(text, "waits for") == n, text)
	}
}
