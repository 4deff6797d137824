package main

import (
	"context"
	"errors"
	"os"

	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// database gives every run an empty store.
type database struct {
	open  func(context.Context, run) (store.Store, error)
	close func() error
}

// database returns the one that was asked for.
func (t threatscore) database(opts options) (database, error) {
	if opts.db == badger {
		return database{t.openTemporary, func() error { return nil }}, nil
	}
	url := opts.db
	if url == privatePostgres {
		url = ""
	}
	server, err := postgres.Open(url)
	if err != nil {
		return database{}, err
	}
	open := func(ctx context.Context, r run) (store.Store, error) {
		return store.OpenPostgres(ctx, server.URL, opts.workers, r.transaction)
	}
	return database{open, server.Close}, nil
}

// openTemporary opens a Badger database that is removed when it is closed.
func (t threatscore) openTemporary(context.Context, run) (store.Store, error) {
	dir, err := os.MkdirTemp("", "threatscore-")
	if err != nil {
		return nil, err
	}
	s, err := t.openBadger(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return temporary{s, dir}, nil
}

// temporary is a store with its folder.
type temporary struct {
	store.Store
	dir string
}

func (s temporary) Close() error { return errors.Join(s.Store.Close(), os.RemoveAll(s.dir)) }

// run is one pass of the workers over all events.
type run struct {
	transaction store.Transaction // empty where the database has but one kind
	locked      bool
}

// String names the run for people.
func (r run) String() string {
	if r.transaction == "" {
		return lockName(r.locked)
	}
	return string(r.transaction) + ", " + lockName(r.locked)
}

func lockName(locked bool) string {
	if locked {
		return "with the lock"
	}
	return "without the lock"
}
