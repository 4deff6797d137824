package afterrelease

import (
	"context"
	"log"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func save(ctx context.Context, token cohort.Token) {}

func function(ctx context.Context, m *kl.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	lock.Release()
	if !lock.Handoff(1) { // want `lock.Handoff comes after lock.Release on line 18: it hands nothing off and returns false`
		log.Print("no one waits")
	}
	reserved := m.Reserve("k")
	reserved.Cancel()
	_, err = reserved.Wait(ctx) /* the lock is dropped too */ // want `reserved.Wait comes after reserved.Cancel on line 23: it returns ErrReservationDone`
	return err
}

func generic[K comparable](ctx context.Context, reserved kl.Reservation[K]) {
	lock, err := reserved.Wait(ctx)
	if err != nil {
		lock, err = reserved.Wait(ctx) // want `reserved.Wait comes after reserved.Wait on line 29`
	}
	lock.Release()
}

type server struct{ locks *cohort.Manager }

func (s *server) method(ctx context.Context) error {
	lock, err := s.locks.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	err = lock.Release()
	save(lock.Context(), // want `lock.Context comes after lock.Release on line 43: the context has ended`
		lock.Token()) // want `lock.Token comes after lock.Release on line 43`
	return err
}

var literal = func(lock kl.Lock[int]) {
	lock.Release()
	lock.Handoff(nil) // want `Handoff comes after`
}

// What follows is right.

func looks(lock kl.Lock[string], theirs cohort.Lock) {
	lock.Release()
	lock.Release()
	log.Print(lock.Key(), lock.Seq(), lock.Value())
	if theirs.Release() != nil {
		log.Print(theirs.Token(), context.Cause(theirs.Context()))
	}
}

func sometimes(lock kl.Lock[string], reserved kl.Reservation[string], x bool) {
	if x {
		lock.Release()
		reserved.Cancel()
	}
	lock.Handoff(1)
	use(reserved.Wait(context.Background()))
}

func deferred(ctx context.Context, m *kl.Manager[string]) {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return
	}
	defer lock.Release()
	if lock.Handoff(1) {
		return
	}
	reserved := m.Reserve("k")
	defer reserved.Cancel()
	next, err := reserved.Wait(ctx)
	if err != nil {
		return
	}
	reserved.Cancel()
	next.Release()
	reserved = m.Reserve("k")
	next, _ = reserved.Wait(ctx)
	next.Release()
}

func use(kl.Lock[string], error) {}

func many(ctx context.Context, m *cohort.Manager) error {
	both, err := m.AcquireAll(ctx, "a", "b")
	if err != nil {
		return err
	}
	before := both.Token("a")
	err = both.Release()
	save(ctx, before)
	save(both.Context(), // want `both.Context comes after both.Release on line \d+: the context has ended`
		both.Token("a")) // want `both.Token comes after both.Release`
	log.Print(both.Keys())
	return err
}

func downgraded(lock kl.Lock[string]) {
	lock.Downgrade()
	lock.Release()
	lock.Downgrade() // want `lock.Downgrade comes after lock.Release on line \d+: it keeps nothing, the lock is released`
}

func locker(m *kl.Manager[string]) {
	l := m.Locker("k")
	l.Lock()
	l.Unlock()
	l.Lock()
	l.Unlock()
	l.Unlock() // want `l.Unlock comes after l.Unlock on line \d+: it panics`
}

func variable(ctx context.Context, m *cohort.Manager, save func(cohort.Token) error, logf func(string, ...any)) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	if err := lock.Release(); err != nil {
		logf("%v: %v", lock.Token(), err)
		return err
	}
	return save(lock.Token()) // want `lock.Token comes after lock.Release on line \d+: another holder may have a greater token by now`
}

// A token may be compared and noted at any time.
func compared(ctx context.Context, m *cohort.Manager, last cohort.Token, note func(string, any)) error {
	lock, err := m.Acquire(ctx, "k")
	if err != nil {
		return err
	}
	err = lock.Release()
	if last.Compare(lock.Token()) < 0 {
		attribute("token", lock.Token())
	}
	note("token", lock.Token())
	return err
}

func attribute(key string, value any) {}
