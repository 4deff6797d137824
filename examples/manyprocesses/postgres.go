package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres"
	"github.com/seed-46f81e6d/keylock/pglock"
)

// servePostgres starts a private PostgreSQL in a temporary folder of its own, and ends it with its standard input.
func servePostgres(_ string, in io.Reader, out io.Writer) error {
	server, err := postgres.Start()
	if err != nil {
		return err
	}
	if err := prepare(server.URL); err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Fprintln(out, server.URL)
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, server.Close())
}

// prepare makes the tables of the locks and of the counter.
func prepare(url string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := pglock.Migrate(ctx, conn); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE counters AS SELECT 0 AS counter, 0 AS writes")
	return err
}

// postgresSite is a process's way to PostgreSQL.
type postgresSite struct {
	pool *pgxpool.Pool
}

func connectPostgres(url string) (site, error) {
	pool, err := pgxpool.New(context.Background(), url)
	return postgresSite{pool}, err
}

func (s postgresSite) close() error {
	s.pool.Close()
	return nil
}

func (s postgresSite) engine() (cohort.Engine, error) {
	return pglock.New(s.pool.Config().ConnConfig, pglock.WithTTL(leaseTTL))
}

func (s postgresSite) read(ctx context.Context) (counter, writes int, err error) {
	err = s.pool.QueryRow(ctx, "SELECT counter, writes FROM counters").Scan(&counter, &writes)
	return counter, writes, err
}

// write sets the counter in a transaction that excludes every other holder of the lock.
func (s postgresSite) write(ctx context.Context, lock cohort.Lock, counter int) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lock.Grant().(*pglock.Grant).Guard(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE counters SET counter = $1, writes = writes + 1", counter)
		return err
	})
}
