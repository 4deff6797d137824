package store

import (
	"context"
	"errors"
	"net/netip"

	"github.com/jackc/pgx/v5"
)

// Transaction is a way to read, modify and write a record in PostgreSQL.
type Transaction string

// Serializable and RepeatableRead read a record and then write it, at the isolation level of that
// name: the database gives up one of two that meet. ForUpdate locks the record when it reads it,
// and Upsert does all in one statement: then the database lets one wait for the other.
const (
	Serializable   Transaction = "serializable"
	RepeatableRead Transaction = "repeatable-read"
	ForUpdate      Transaction = "for-update"
	Upsert         Transaction = "upsert"
)

// Transactions are all of them.
var Transactions = []Transaction{Serializable, RepeatableRead, ForUpdate, Upsert}

// change is what a transaction is to do.
type change struct {
	receipt           int64
	addr              netip.Addr
	points, threshold int64
}

// raiser does a change, with its receipt, in one transaction over conn.
type raiser func(ctx context.Context, conn *pgx.Conn, c change) (blocks bool, err error)

var raisers = map[Transaction]raiser{
	Serializable:   readThenWrite(pgx.Serializable, ""),
	RepeatableRead: readThenWrite(pgx.RepeatableRead, ""),
	ForUpdate:      readThenWrite(pgx.ReadCommitted, "FOR UPDATE"),
	Upsert:         upsert,
}

// readThenWrite returns a raiser that selects the record, with the given clause, and updates it.
func readThenWrite(level pgx.TxIsoLevel, clause string) raiser {
	raise := func(ctx context.Context, conn *pgx.Conn, c change) (blocks bool, err error) {
		err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
			var record Record
			err := tx.QueryRow(ctx, "SELECT score, blocked FROM scores WHERE addr = $1 "+clause, c.addr).
				Scan(&record.Score, &record.Blocked)
			if err != nil {
				return err
			}
			record, blocks = record.Raised(c.points, c.threshold)
			_, err = tx.Exec(ctx, `
				WITH receipt AS (INSERT INTO receipts VALUES ($4, $5))
				UPDATE scores SET score = $2, blocked = $3 WHERE addr = $1`,
				c.addr, record.Score, record.Blocked, c.receipt, blocks)
			return err
		})
		return blocks && err == nil, err
	}

	return func(ctx context.Context, conn *pgx.Conn, c change) (bool, error) {
		blocks, err := raise(ctx, conn, c)
		if !errors.Is(err, pgx.ErrNoRows) {
			return blocks, err
		}
		// A new address gets its zero record outside: inserts of neighbours collide, too.
		_, err = conn.Exec(ctx, "INSERT INTO scores VALUES ($1, 0, false) ON CONFLICT DO NOTHING", c.addr)
		if err != nil {
			return false, err
		}
		return raise(ctx, conn, c)
	}
}

// upsert is a raiser that needs one statement. The score only rises, so it is this change that
// blocks the address if the score was not over the threshold before.
func upsert(ctx context.Context, conn *pgx.Conn, c change) (blocks bool, err error) {
	err = conn.QueryRow(ctx, `
		WITH raised AS (
			INSERT INTO scores AS s VALUES ($1, $2::bigint, $2 > $3::bigint)
			ON CONFLICT (addr) DO UPDATE SET score = s.score + $2, blocked = s.blocked OR s.score + $2 > $3
			RETURNING score - $2 <= $3 AND score > $3 AS blocks)
		INSERT INTO receipts SELECT $4::bigint, blocks FROM raised RETURNING blocks`,
		c.addr, c.points, c.threshold, c.receipt).Scan(&blocks)
	return blocks, err
}
