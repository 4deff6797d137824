package fixes

import (
	"context"
	"log"

	"github.com/seed-46f81e6d/keylock"
)

func dropped(ctx context.Context, m *keylock.Manager[string]) error {
	_, err := m.Acquire(ctx, "k") // want `dropped`
	if err != nil {
		return err
	}
	log.Print("held")
	return nil
}

func droppedTry(ctx context.Context, m *keylock.Manager[string], lock int) error {
	_, ok := m.TryAcquire("k") // want `dropped`
	if !ok {
		return nil
	}
	log.Print("held", lock)
	return nil
}

// Nothing is changed where it might change more: in a loop or a branch, without a check
// that leaves the function, and where more stands on the line.
func notDropped(ctx context.Context, m *keylock.Manager[string]) (err error) {
	for range 3 {
		_, err := m.Acquire(ctx, "a") // want `dropped`
		if err != nil {
			return err
		}
	}
	if _, ok := m.TryAcquire("b"); ok { // want `dropped`
		return nil
	}
	_, first := m.Acquire(ctx, "c") // want `dropped`
	log.Print(first)
	_, second := m.Acquire(ctx, "d") // want `dropped`
	if second != nil {
		log.Print(second)
	}
	_, err = m.Acquire(ctx, "e") // want `dropped`
	return err
}

func reserved(ctx context.Context, m *keylock.Manager[string], x bool) error {
	reserved := m.Reserve("k") // want `neither`
	if x {
		return nil
	}
	lock, err := reserved.Wait(ctx)
	lock.Release()
	return err
}

func reservedInLoop(ctx context.Context, m *keylock.Manager[string], x bool) {
	for range 2 {
		reserved := m.Reserve("k") // want `neither`
		if x {
			continue
		}
		reserved.Cancel()
	}
	func() { reserved := m.Reserve("k"); _ = reserved }() // want `neither`
	func() {
		reserved := m.Reserve("k") /* want `neither`,
		and nothing is inserted into a comment */
		_ = reserved
	}()
}

func lost(ctx context.Context, m *keylock.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k") // want `not released`
	if err != nil {
		return err
	}
	log.Print(lock.Key())
	return nil
}

// Something releases it on one path.
func lostSomewhere(ctx context.Context, m *keylock.Manager[string], x bool) error {
	lock, err := m.Acquire(ctx, "k") // want `not released`
	if err != nil {
		return err
	}
	if x {
		lock.Release()
	}
	return nil
}

func lostInLiteral(ctx context.Context, m *keylock.Manager[string]) func() {
	return func() {
		lock, ok := m.TryAcquire("k") // want `not released`
		if !ok {
			return
		}
		log.Print(lock.Key())
	}
}

func neverEnded() {
	m := keylock.Start[string](context.Background()) // want `nothing ends`
	log.Print(m.TryAcquire("k"))
}

func neverEndedInBranch(x bool) {
	if x {
		m := keylock.Start[string](context.Background()) // want `nothing ends`
		log.Print(m.TryAcquire("k"))
	}
}

// The lines of a generated file are not where they are said to be.
//
//line fixes.y:3
func generated(ctx context.Context, m *keylock.Manager[string]) error {
	lock, err := m.Acquire(ctx, "k") // want `not released`
	if err != nil {
		return err
	}
	log.Print(lock.Key())
	return nil
}
