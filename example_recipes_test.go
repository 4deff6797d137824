package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
)

// What docs/RECIPES.md shows. The recipes for several processes are in package cohort.

// once answers 409 to a request whose Idempotency-Key belongs to one that is being served.
func once(locks *keylock.Manager[string], next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			next.ServeHTTP(w, r)
			return
		}
		err := locks.Do(r.Context(), key, func(ctx context.Context) error {
			next.ServeHTTP(w, r.WithContext(ctx))
			return nil
		})
		switch {
		case errors.Is(err, keylock.ErrQueueFull):
			http.Error(w, "a request with this Idempotency-Key is being served", http.StatusConflict)
		case err != nil: // the server shuts down, or the client has gone
			http.Error(w, "no lock", http.StatusServiceUnavailable)
		}
	})
}

func TestSecondRequestWithAnIdempotencyKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context(), keylock.WithMaxWaiters(0)) // no request waits
		var served atomic.Int64
		server := once(locks, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			served.Add(1)
		}))
		status := func(key string) int {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/payments", nil)
			r.Header.Set("Idempotency-Key", key)
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			return w.Code
		}
		var others sync.WaitGroup
		for _, key := range []string{"a", "b", "", ""} {
			others.Go(func() { assert.Equal(t, http.StatusOK, status(key), key) })
		}
		synctest.Wait()
		assert.Equal(t, http.StatusConflict, status("a"))
		others.Wait()
		assert.Equal(t, http.StatusOK, status("a"), "the first one has ended")
		assert.EqualValues(t, 5, served.Load())
		locks.Close()
		assert.Equal(t, http.StatusServiceUnavailable, status("a"))
	})
}

// refresh rebuilds an index. Of many calls at a time one runs, one waits, and the others need
// not: the one that waits begins later than they came.
func refresh(ctx context.Context, locks *keylock.Manager[string], index string, rebuild func(context.Context) error) error {
	err := locks.Do(ctx, index, rebuild)
	if errors.Is(err, keylock.ErrQueueFull) {
		return nil
	}
	return err
}

func TestOneRunsOneWaitsAndTheOthersTurnAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context(), keylock.WithMaxWaiters(1))
		defer locks.Close()
		var changes, seen, rebuilds int
		var calls sync.WaitGroup
		for range 10 {
			changes++
			calls.Go(func() {
				assert.NoError(t, refresh(t.Context(), locks, "catalog", func(context.Context) error {
					seen = changes
					rebuilds++
					time.Sleep(time.Second)
					return nil
				}))
			})
			synctest.Wait()
		}
		calls.Wait()
		assert.Equal(t, 2, rebuilds)
		assert.Equal(t, 10, seen, "no change is missed")
	})
}

var errTooLong = errors.New("the hold has lasted for too long")

// bounded cancels the work under a lock when it has lasted for half a minute. The lock is
// released when the work returns, and not before.
func bounded(ctx context.Context, locks *keylock.Manager[string], key string, work func(context.Context) error) error {
	return locks.Do(ctx, key, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errTooLong)
		defer cancel()
		return work(ctx)
	})
}

func TestHoldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context())
		defer locks.Close()
		begun := time.Now()
		var next sync.WaitGroup
		next.Go(func() {
			time.Sleep(time.Second)
			lock, err := locks.Acquire(t.Context(), "k")
			assert.NoError(t, err)
			assert.Equal(t, 31*time.Second, time.Since(begun), "when the work has returned")
			lock.Release()
		})
		require.ErrorIs(t, bounded(t.Context(), locks, "k", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second) // cleans up
			return context.Cause(ctx)
		}), errTooLong)
		next.Wait()
	})
}

// waitFree waits until the requests that came before have released the key.
func waitFree(ctx context.Context, locks *keylock.Manager[string], key string) error {
	lock, err := locks.AcquireShared(ctx, key)
	if err != nil {
		return err
	}
	lock.Release()
	return nil
}

func TestWaitUntilAKeyIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context())
		defer locks.Close()
		holder, _ := locks.TryAcquire("k")
		time.AfterFunc(time.Hour, holder.Release)
		begun := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				assert.NoError(t, waitFree(t.Context(), locks, "k"))
				assert.Equal(t, time.Hour, time.Since(begun))
			})
		}
		all.Wait()
		_, free := locks.TryAcquire("k")
		assert.True(t, free)
	})
}

// twoJobs runs two jobs of an hour, one after the other, and prints how long they took.
func twoJobs(lock func(), unlock func()) {
	begun := time.Now()
	var jobs sync.WaitGroup
	for range 2 {
		jobs.Go(func() {
			lock()
			defer unlock()
			time.Sleep(time.Hour)
		})
	}
	jobs.Wait()
	fmt.Println(time.Since(begun))
}

func TestKeysInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[string](t.Context())
		defer locks.Close()
		held := make(chan keylock.Lock[string], 1)
		twoJobs(func() {
			lock, err := locks.Acquire(t.Context(), "k")
			assert.NoError(t, err)
			held <- lock
		}, func() { (<-held).Release() })
	})
}

// In a bubble, time stands still while a goroutine waits for a mutex. The test of this name that the
// test below starts hangs until its time is up.
func TestMutexesInABubble(t *testing.T) {
	if os.Getenv("KEYLOCK_CHILD") == "" {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		byKey := map[string]*sync.Mutex{"k": new(sync.Mutex)}
		twoJobs(byKey["k"].Lock, byKey["k"].Unlock)
	})
}

func TestAnHourPassesInABubbleWithKeysAndNotWithMutexes(t *testing.T) {
	child := func(test string, timeout time.Duration) (string, error) {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.timeout="+timeout.String())
		command.Env = append(os.Environ(), "KEYLOCK_CHILD=1")
		text, err := command.CombinedOutput()
		return string(text), err
	}
	text, err := child("TestKeysInABubble", time.Minute)
	require.NoError(t, err, text)
	assert.Contains(t, text, "2h0m0s\n")

	const where = "sync.Mutex.Lock" // it waits
	timeout := 2 * time.Second
	for text, err = child("TestMutexesInABubble", timeout); !strings.Contains(text, where) && timeout < time.Minute; {
		timeout *= 2 // a busy machine had not got to it
		text, err = child("TestMutexesInABubble", timeout)
	}
	require.Error(t, err)
	assert.Contains(t, text, "panic: test timed out after "+timeout.String())
	assert.Contains(t, text, where)
}
