// Package wrong holds functions that misuse keylock: each must be reported, by the rule
// that its entry names. Each is also run, and must show what is wrong with it.
//
// The functions of before.go were written before the analyzers were, from the
// documentation only.
package wrong

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/seed-46f81e6d/keylock"
)

// A Func is one of the functions. It uses the keys "k", "a" and "b"; x picks a branch.
//
// A function that loses a lock or a reservation leaves it behind when it returns, for
// one x at least. The others return ErrProof, wrapped, when they have seen what is wrong.
type Func = func(ctx context.Context, m *keylock.Manager[string], x bool) error

// A Case is a Func and the rule that reports it.
type Case struct {
	Rule string
	Func Func
}

// ErrProof says that the misuse showed.
var ErrProof = errors.New("misuse seen")

var errOdd = errors.New("odd")

// work stands for what the lock of key protects. It sees whether the key is locked.
func work(m *keylock.Manager[string], key string) error {
	if info, err := m.Inspect(context.Background(), key); err == nil && info.Held == 0 {
		return fmt.Errorf("%w: %q is not locked", ErrProof, key)
	}
	return nil
}

func held(m *keylock.Manager[string]) int {
	stats, err := m.Stats(context.Background())
	if err != nil {
		return 0
	}
	return stats.Held
}

func show(what ...any) { fmt.Fprintln(io.Discard, what...) }
