package pglock_test

import (
	"context"
	"errors"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/pglock"
)

// A service's locks, for all its processes. Migrate, or schema.sql by hand, has made the tables.
func Example() {
	ctx := context.Background()
	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return
	}
	engine, err := pglock.New(config)
	if err != nil {
		return
	}
	locks := cohort.Start(ctx, engine)
	defer locks.Close()

	_ = locks.Do(ctx, "order/42", func(ctx context.Context) error {
		return save(ctx, cohort.TokenFrom(ctx))
	})
}

// save stands for a resource that refuses a token smaller than one it has seen.
func save(context.Context, cohort.Token) error { return nil }

// For data in the same database no token is needed: a transaction that has called Guard excludes every
// other holder of the key until it has ended.
func ExampleGrant_Guard() {
	pay := func(ctx context.Context, conn *pgx.Conn, lock cohort.Lock, order int) error {
		grant, ok := lock.Grant().(*pglock.Grant)
		if !ok {
			return errors.New("no lock")
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := grant.Guard(ctx, tx); err != nil {
				return err // ErrLost: another process has the key
			}
			_, err := tx.Exec(ctx, "UPDATE orders SET paid = true WHERE id = $1", order)
			return err
		})
	}
	_ = pay
}
