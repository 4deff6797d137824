package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-46f81e6d/keylock"
)

// rows are numbered from 0. That one is hot.
const hotRow = 0

// rows is a table of counters, reached over a pool of connections.
type rows struct {
	pool   *pgxpool.Pool
	schema string
	work   time.Duration
	locks  *keylock.Manager[int] // nil: the database alone keeps the transactions of a row apart
}

// openRows makes a table with the hot row and so many cold ones in a schema of its own.
func openRows(ctx context.Context, url string, opts options) (*rows, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(opts.pool)
	config.MinConns = config.MaxConns // no latency is that of a new connection
	r := &rows{schema: "coldrows_" + strings.ToLower(rand.Text()), work: opts.work}
	config.ConnConfig.RuntimeParams["search_path"] = r.schema
	if r.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	_, err = r.pool.Exec(ctx, fmt.Sprintf(`
		CREATE SCHEMA %s;
		CREATE TABLE rows (id int PRIMARY KEY, n bigint NOT NULL);
		INSERT INTO rows SELECT id, 0 FROM generate_series(0, %d) AS id`, r.schema, opts.cold))
	if err != nil {
		r.pool.Close()
		return nil, fmt.Errorf("preparing PostgreSQL: %w", err)
	}
	return r, nil
}

// close drops the table.
func (r *rows) close() error {
	defer r.pool.Close()
	_, err := r.pool.Exec(context.Background(), "DROP SCHEMA "+r.schema+" CASCADE")
	return err
}

// add adds one to the row and returns how long it waited for a connection. The lock, if there is
// one, comes first: a caller that waits for it has no connection.
func (r *rows) add(ctx context.Context, row int) (waited time.Duration, err error) {
	if r.locks == nil {
		return r.update(ctx, row)
	}
	err = r.locks.Do(ctx, row, func(ctx context.Context) error {
		waited, err = r.update(ctx, row)
		return err
	})
	return waited, err
}

// update does the transaction and returns how long it waited for a connection. Once it has one, the
// end of ctx does not tear it off.
func (r *rows) update(ctx context.Context, row int) (waited time.Duration, err error) {
	begun := time.Now()
	conn, err := r.pool.Acquire(ctx)
	waited = time.Since(begun)
	if err != nil {
		return waited, err
	}
	defer conn.Release()

	ctx = context.WithoutCancel(ctx)
	if row == hotRow {
		return waited, r.updateHot(ctx, conn)
	}
	_, err = conn.Exec(ctx, "UPDATE rows SET n = n + 1 WHERE id = $1", row)
	return waited, err
}

// updateHot reads the hot row, so that no other transaction can, works, and writes it.
func (r *rows) updateHot(ctx context.Context, conn *pgxpool.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, "SELECT n FROM rows WHERE id = $1 FOR UPDATE", hotRow).Scan(&n); err != nil {
			return err
		}
		time.Sleep(r.work)
		_, err := tx.Exec(ctx, "UPDATE rows SET n = $2 WHERE id = $1", hotRow, n+1)
		return err
	})
}

// verify returns an error unless hot and cold are what was added to the hot row and to the others.
func (r *rows) verify(ctx context.Context, hot, cold int) error {
	var isHot, isCold int
	err := r.pool.QueryRow(ctx, "SELECT sum(n) FILTER (WHERE id = $1), sum(n) FILTER (WHERE id <> $1) FROM rows", hotRow).Scan(&isHot, &isCold)
	if err == nil && (isHot != hot || isCold != cold) {
		err = errors.New("additions are lost")
	}
	if err != nil {
		return fmt.Errorf("the hot row has %d of %d, the cold rows %d of %d: %w", isHot, hot, isCold, cold, err)
	}
	return nil
}
