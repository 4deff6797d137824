package reacquire

import (
	"context"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/inorder"
	"github.com/seed-46f81e6d/keylock/share"
)

func function(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	again, err := m.AcquireShared(ctx, "k") // want `m.AcquireShared asks for a key that is held here since line 13: it waits for itself until its context ends`
	again.Release()
	return err
}

type order struct{ id int }

type server struct {
	locks *kl.Manager[int]
	now   order
}

func (s *server) method(ctx context.Context, o order) error {
	if lock, ok := s.locks.TryAcquire(o.id); ok {
		err := s.locks.Do(ctx, o.id, func(context.Context) error { return nil }) // want `held here since line 31`
		lock.Release()
		return err
	}
	return nil
}

func generic[K comparable](ctx context.Context, m *kl.Manager[K], key K) error {
	s := m.Session("s")
	defer s.Close()
	if _, err := s.Acquire(ctx, key); err != nil {
		return err
	}
	first, err := s.Acquire(ctx, key)
	if err != nil {
		return err
	}
	second, err := s.Acquire(ctx, key) // want `s.Acquire asks for a key that is held here since line 45: it fails with ErrDeadlock`
	first.Release()
	second.Release()
	return err
}

var literal = func(ctx context.Context, m *cohort.Manager) error {
	return m.Do(ctx, "k", func(ctx context.Context) error {
		lock, err := m.Acquire(ctx, "k") // want `held here since line 56`
		if err != nil {
			return err
		}
		return lock.Release()
	})
}

// A group over a manager holds the manager's lock of the key while it runs work.
func group(ctx context.Context, m *kl.Manager[string], key string) error {
	all := inorder.Over(ctx, m, 4)
	part := all.Sub(ctx)
	part.Go(ctx, key, func(ctx context.Context) error {
		return m.Do(ctx, key, func(context.Context) error { return nil }) // want `m.Do asks for a key that is held here since line 69`
	})
	own := inorder.New[string](ctx, 4)
	own.Go(ctx, key, func(ctx context.Context) error {
		return m.Do(ctx, key, func(context.Context) error { return nil })
	})
	all.TryGo(key, func(ctx context.Context) error {
		return m.Do(ctx, "another", func(context.Context) error { return nil })
	})
	return all.Wait()
}

// What follows is right, or not certain.

func others(ctx context.Context, m, n *kl.Manager[string], s *kl.Session[string], key, other string) error {
	lock, err := m.Acquire(ctx, key)
	if err != nil {
		return err
	}
	defer lock.Release()
	for _, f := range []func() (kl.Lock[string], error){} {
		f()
	}
	if again, ok := m.TryAcquire(key); ok {
		again.Release()
	}
	a, err := m.Acquire(ctx, other)
	a.Release()
	b, err := n.Acquire(ctx, key)
	b.Release()
	c, err := s.Acquire(ctx, key)
	c.Release()
	return err
}

func released(ctx context.Context, m *kl.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if x {
		lock.Release()
	}
	again, err := m.Acquire(ctx, "k")
	again.Release()
	return err
}

func changed(ctx context.Context, m *kl.Manager[int], o *order) {
	lock, err := m.Acquire(ctx, o.id)
	if err != nil {
		return
	}
	defer lock.Release()
	key := 1
	first, err := m.Acquire(ctx, key)
	if err != nil {
		return
	}
	defer first.Release()
	key++
	second, err := m.Acquire(ctx, key)
	second.Release()
}

func (s *server) next(ctx context.Context) {
	lock, err := s.locks.Acquire(ctx, s.now.id)
	if err != nil {
		return
	}
	defer lock.Release()
	s.now = order{2}
	s.locks.Do(ctx, s.now.id, nil)
}

func readers(ctx context.Context, m *kl.Manager[string]) {
	a, err := m.AcquireShared(ctx, "k")
	if err != nil {
		return
	}
	defer a.Release()
	b, err := m.AcquireShared(ctx, "k")
	b.Release()
}

func many(ctx context.Context, m *cohort.Manager, key string) error {
	both, err := m.AcquireAll(ctx, "a", key)
	if err != nil {
		return err
	}
	defer both.Release()
	if _, err := m.TryAcquire(ctx, "a"); err == nil {
		return nil
	}
	if err := m.Do(ctx, "b", nil); err != nil {
		return err
	}
	return m.Do(ctx, key, nil) // want `m.Do asks for a key that is held here`
}

func sets(ctx context.Context, m *kl.Manager[string], s *kl.Session[string], mode kl.Mode) error {
	both, err := m.AcquireSet(ctx, kl.Want[string]{"a", kl.Exclusive, 0}, kl.Want[string]{Key: "b", Mode: kl.Shared})
	if err != nil {
		return err
	}
	defer both.Release()
	b, err := m.AcquireShared(ctx, "b")
	b.Release()
	b, err = m.AcquireSet(ctx, kl.Want[string]{Key: "b", Mode: mode}) // it may be shared
	b.Release()
	a, err := m.AcquireShared(ctx, "a") // want `m.AcquireShared asks for a key that is held here`
	a.Release()
	l := m.Locker("b")
	l.Lock() // want `l.Lock asks for a key that is held here since line \d+: it waits for itself forever`
	l.Unlock()
	return err
}

func downgraded(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	lock.Downgrade()
	again, err := m.AcquireShared(ctx, "k")
	again.Release()
	again, err = m.Reserve("k").Wait(ctx) // want `m.Reserve\("k"\).Wait asks for a key that is held here`
	again.Release()
	return err
}

func shared(ctx context.Context, m *kl.Manager[string]) error {
	answers := share.New[string, int](m)
	_, err := answers.Do(ctx, "k", func(ctx context.Context) (int, error) {
		return answers.Do(ctx, "k", nil) // want `answers.Do asks for a key that is held here`
	})
	return err
}

func closed(ctx context.Context, m *kl.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	defer lock.Release()
	m.Shutdown(ctx)
	again, err := m.Acquire(ctx, "k") // ErrClosed
	again.Release()
	return err
}
