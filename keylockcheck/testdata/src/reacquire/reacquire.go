package reacquire

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"net/url"

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
	again, err := m.AcquireShared(ctx, "k") // want `m.AcquireShared asks for a key that is held here since line 17: it waits for itself until its context ends`
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
		err := s.locks.Do(ctx, o.id, func(context.Context) error { return nil }) // want `held here since line 35`
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
	second, err := s.Acquire(ctx, key) // want `s.Acquire asks for a key that is held here since line 49: it fails with ErrDeadlock`
	first.Release()
	second.Release()
	return err
}

var literal = func(ctx context.Context, m *cohort.Manager) error {
	return m.Do(ctx, "k", func(ctx context.Context) error {
		lock, err := m.Acquire(ctx, "k") // want `held here since line 60`
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
		return m.Do(ctx, key, func(context.Context) error { return nil }) // want `m.Do asks for a key that is held here since line 73`
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

// Keys of which a part changes, or may change elsewhere.

type page struct {
	book string
	n    int
}

func (p *page) turn() { p.n++ }

func (p page) isFirst() bool { return p.n == 0 }

func parts(ctx context.Context, pages *kl.Manager[page], pairs *kl.Manager[[2]int], rows interface{ Scan(...any) error }) {
	none := func(context.Context) error { return nil }
	first, scanned, turned, same := page{"a", 1}, page{"b", 1}, page{"c", 1}, page{"d", 1}
	pages.Do(ctx, first, func(ctx context.Context) error {
		first.n++
		return pages.Do(ctx, first, none)
	})
	pages.Do(ctx, scanned, func(ctx context.Context) error {
		if err := rows.Scan(&scanned.n); err != nil {
			return err
		}
		return pages.Do(ctx, scanned, none)
	})
	pages.Do(ctx, turned, func(ctx context.Context) error {
		turned.turn()
		return pages.Do(ctx, turned, none)
	})
	pages.Do(ctx, same, func(ctx context.Context) error {
		if same.isFirst() || same.n == 3 {
			return nil
		}
		return pages.Do(ctx, same, none) // want `pages.Do asks for a key that is held here`
	})
	pair := [2]int{1, 2}
	pairs.Do(ctx, pair, func(ctx context.Context) error {
		pair[1] = 3
		return pairs.Do(ctx, pair, none)
	})
}

type cursor[K comparable] struct {
	key  K
	rest []K
}

func (c *cursor[K]) next() { c.key, c.rest = c.rest[0], c.rest[1:] }

func walks(ctx context.Context, m *kl.Manager[string], c *cursor[string]) error {
	lock, err := m.Acquire(ctx, c.key)
	if err != nil {
		return err
	}
	defer lock.Release()
	c.next()
	return m.Do(ctx, c.key, nil)
}

type seat struct{ row int }

func replaced(ctx context.Context, m *kl.Manager[int], s *seat) error {
	lock, err := m.Acquire(ctx, s.row)
	if err != nil {
		return err
	}
	defer lock.Release()
	*s = seat{s.row + 1}
	return m.Do(ctx, s.row, nil)
}

type ticket struct{ Number int }

func reads(ctx context.Context, m *kl.Manager[int], t, u *ticket) error {
	lock, err := m.Acquire(ctx, t.Number)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := json.Unmarshal(nil, t); err != nil {
		return err
	}
	if err := m.Do(ctx, t.Number, nil); err != nil {
		return err
	}
	same, err := m.Acquire(ctx, u.Number)
	if err != nil {
		return err
	}
	defer same.Release()
	log.Print(u)
	return m.Do(ctx, u.Number, nil) // want `m.Do asks for a key that is held here`
}

func foreign(ctx context.Context, m *kl.Manager[string], c *http.Cookie, u *url.URL) error {
	lock, err := m.Acquire(ctx, u.Path)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := u.UnmarshalBinary(nil); err != nil {
		return err
	}
	if err := m.Do(ctx, u.Path, nil); err != nil {
		return err
	}
	next, err := m.Acquire(ctx, c.Name)
	if err != nil {
		return err
	}
	defer next.Release()
	return m.Do(ctx, c.Name, nil) // want `m.Do asks for a key that is held here`
}

// What is deferred, or begins on another goroutine, may wait until the lock is released.
func later(ctx context.Context, m *kl.Manager[string]) error {
	none := func(context.Context) error { return nil }
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	go m.Do(ctx, "k", none)
	defer m.Do(ctx, "k", none)
	defer lock.Release()
	return m.Do(ctx, "another", func(context.Context) error {
		go m.Do(ctx, "another", none)
		return nil
	})
}
