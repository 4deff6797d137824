// Package correct holds functions that use keylock as they should: none may be reported.
// Each is also run, and must leave no lock held and no reservation waiting.
//
// The functions of before.go were written before the analyzers were, from the
// documentation only.
package correct

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-46f81e6d/keylock"
)

// A Func is one of the functions. It uses the keys "k", "a" and "b"; x picks a branch.
type Func = func(ctx context.Context, m *keylock.Manager[string], x bool) error

var errOdd = errors.New("odd")

// work stands for what a lock protects.
func work(n uint64) error {
	if n == 0 {
		return errors.New("no lock")
	}
	return nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("correct: %w", err)
}

func bad(err error) bool { return err != nil }
