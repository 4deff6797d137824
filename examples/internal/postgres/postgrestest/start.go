// Package postgrestest gives tests a private PostgreSQL server.
package postgrestest

import (
	"errors"
	"os"
	"testing"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
)

// Start returns a private server that is closed when the test is over. Where PostgreSQL is not
// installed it ends the test as Require does.
func Start(t testing.TB) *postgres.Server {
	t.Helper()
	Require(t)
	s, err := postgres.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Require ends the test where PostgreSQL is not installed: it is skipped, saying so; in CI, it
// fails.
func Require(t testing.TB) {
	t.Helper()
	require(t, postgres.Installed(), os.Getenv("CI") == "true")
}

func require(t testing.TB, err error, ci bool) {
	t.Helper()
	switch {
	case err == nil:
	case ci || !errors.Is(err, postgres.ErrNotInstalled):
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}
