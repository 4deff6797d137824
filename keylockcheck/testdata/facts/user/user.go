// Package user does not import keylock, and has its locks from package helpers.
package user

import (
	"context"

	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/facts/helpers"
)

func Lost(ctx context.Context, s *helpers.Store[string], x bool) error {
	lock, err := s.Open(ctx, "k") // want `the lock of s.Open on line 11 is not released when the function returns on line 17`
	if err != nil {
		return err
	}
	helpers.Look(lock)
	if x {
		return nil
	}
	helpers.Finish(lock)
	return nil
}

func Looked(s *helpers.Store[string]) {
	lock, ok := s.Try("k") // want `the lock of s.Try on line 24 is not released`
	if ok {
		helpers.LookTwice("got", lock)
	}
	s.Reserve("k")
}

func Right(ctx context.Context, s *helpers.Store[string]) {
	current := s.Current()
	helpers.Look(current)
	if again, err := s.Recursive(ctx, "k", 1); err == nil {
		helpers.Look(again)
	}
	if lock, ok := s.Try("k"); ok {
		helpers.Finish(lock)
	}
}
