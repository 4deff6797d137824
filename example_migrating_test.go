package keylock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/share"
)

// What docs/MIGRATING.md shows, before and after.
func TestMigrating(t *testing.T) {
	ctx := t.Context()
	locks := keylock.Start[string](ctx)
	defer locks.Close()
	key, from, to, page, host, name, account := "k", "from", "to", "/news", "api.example.com", "n", "a"

	{
		var mu sync.Mutex
		byKey := make(map[string]*sync.Mutex)
		func() {
			mu.Lock() // guards the map
			lock, ok := byKey[key]
			if !ok {
				lock = new(sync.Mutex)
				byKey[key] = lock // and is never deleted
			}
			mu.Unlock()
			lock.Lock()
			defer lock.Unlock()
		}()
	}
	require.NoError(t, func() error {
		lock, err := locks.Acquire(ctx, key)
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	}())
	func() {
		var byKey sync.Map
		value, _ := byKey.LoadOrStore(key, new(sync.Mutex))
		lock := value.(*sync.Mutex)
		lock.Lock()
		defer lock.Unlock()
	}()
	{
		changed := sync.NewCond(locks.Locker(key))
		changed.L.Lock()
		changed.Broadcast()
		changed.L.Unlock()
	}
	require.NoError(t, func() error {
		lock, err := locks.AcquireSet(ctx, keylock.Want[string]{Key: host, Mode: keylock.Shared, Limit: 4})
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	}())
	require.NoError(t, func() error {
		lock, err := locks.Acquire(ctx, name)
		if err != nil {
			return err
		}
		defer lock.Release()
		return nil
	}())
	require.NoError(t, func() error {
		both, err := locks.AcquireAll(ctx, from, to)
		if err != nil {
			return err
		}
		defer both.Release()
		return nil
	}())
	{
		render := func(context.Context, string) (string, error) { return "news", nil }
		pages := share.New[string, string](locks) // once
		text, err := pages.Do(ctx, page, func(ctx context.Context) (string, error) { return render(ctx, page) })
		require.NoError(t, err)
		require.Equal(t, "news", text)
	}
	func() {
		lock, ok := locks.TryAcquire(page)
		if !ok {
			return // another caller refreshes the page
		}
		defer lock.Release()
	}()
	pay := func(_ context.Context, account string) error {
		_, free := locks.TryAcquire(account)
		require.False(t, free, "it is paid for under the lock")
		return nil
	}
	require.NoError(t, func() error {
		lock, err := locks.Acquire(ctx, account)
		if err != nil {
			return err
		}
		defer lock.Release()
		return pay(ctx, account)
	}())
	{
		err := locks.Do(ctx, account, func(ctx context.Context) error {
			return pay(ctx, account)
		})
		require.NoError(t, err)
	}
	errBusy := errors.New("busy")
	holder, err := locks.Acquire(ctx, key)
	require.NoError(t, err)
	defer holder.Release()
	require.ErrorIs(t, func() error {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		lock, err := locks.Acquire(short, key)
		if errors.Is(err, context.DeadlineExceeded) {
			return errBusy
		}
		lock.Release()
		return err
	}(), errBusy)
}
