package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// schema is what a store makes in its database. A receipt is written by the same transaction as the
// record, so it tells whether that transaction went through.
//
// The table begins with many addresses and is analysed. SERIALIZABLE locks what a transaction reads:
// of a tiny table that is all of it, because it is not worth an index, and then every address would
// collide with every other. Pages are left half empty, so that a record's new version finds room
// beside the old one and the index, where neighbours collide, need not change.
const schema = `
	CREATE TABLE scores (addr inet PRIMARY KEY, score bigint NOT NULL, blocked boolean NOT NULL) WITH (fillfactor = 50);
	CREATE TABLE receipts (id bigint PRIMARY KEY, blocks boolean);
	INSERT INTO scores SELECT '10.0.0.0'::inet + n, 0, false FROM generate_series(1, 20000) AS n;
	ANALYZE scores;`

// postgresStore is a schema of its own in a PostgreSQL database.
type postgresStore struct {
	pool     *pgxpool.Pool
	schema   string
	raise    raiser
	receipts atomic.Int64 // the last receipt's number
}

// OpenPostgres connects to the PostgreSQL database at url, by as many connections as conns says,
// and makes a schema in it that Close drops again. Raise does its work by transaction.
//
// A server that goes away and comes back, within half a minute, is no error: Raise waits for it,
// and finds out what became of a transaction whose end it was not told.
func OpenPostgres(ctx context.Context, url string, conns int, transaction Transaction) (Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(conns)
	return openPostgres(ctx, config, transaction)
}

func openPostgres(ctx context.Context, config *pgxpool.Config, transaction Transaction) (Store, error) {
	s := &postgresStore{raise: raisers[transaction], schema: "threatscore_" + strings.ToLower(rand.Text())}
	config.ConnConfig.RuntimeParams["search_path"] = s.schema
	var err error
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	if _, err := s.pool.Exec(ctx, "CREATE SCHEMA "+s.schema+";"+schema); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("preparing PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *postgresStore) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (blocks bool, err error) {
	return throughOutages(ctx, func() (bool, error) {
		receipt := s.receipts.Add(1)
		blocks, err := s.try(ctx, change{receipt, addr, points, threshold})
		switch {
		case isOutage(err):
			return s.settle(ctx, receipt, err)
		case isConflict(err):
			return false, ErrConflict
		}
		return blocks, err
	})
}

// try does one transaction. Its connection is given back before anything else is done about it.
func (s *postgresStore) try(ctx context.Context, c change) (blocks bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	return s.raise(context.WithoutCancel(ctx), conn.Conn(), c)
}

// settle returns what became of a transaction whose connection broke, for the reason given: whether
// it blocked the address, or that reason if it wrote nothing and never will.
//
// The server may not have got over that transaction yet. So settle does not look for its receipt,
// but tries to write a void one in its place: that waits until the transaction is over, and once
// there is a void receipt, the true one can no longer be written.
func (s *postgresStore) settle(ctx context.Context, receipt int64, reason error) (blocks bool, err error) {
	ctx = context.WithoutCancel(ctx) // no caller may go away without knowing
	settled, err := throughOutages(ctx, func() (blocks *bool, err error) {
		err = s.pool.QueryRow(ctx, `
			INSERT INTO receipts VALUES ($1, NULL)
			ON CONFLICT (id) DO UPDATE SET id = excluded.id
			RETURNING blocks`, receipt).Scan(&blocks)
		return blocks, err
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("it is not known whether a transaction was committed: %w", errors.Join(err, reason))
	case settled == nil:
		return false, reason
	}
	return *settled, nil
}

func (s *postgresStore) Records(ctx context.Context) (map[netip.Addr]Record, error) {
	rows, err := s.pool.Query(ctx, "SELECT addr, score, blocked FROM scores WHERE score <> 0 OR blocked")
	if err != nil {
		return nil, err
	}
	records := make(map[netip.Addr]Record)
	var (
		addr   netip.Addr
		record Record
	)
	_, err = pgx.ForEachRow(rows, []any{&addr, &record.Score, &record.Blocked}, func() error {
		records[addr] = record
		return nil
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

func (s *postgresStore) Close() error {
	defer s.pool.Close()
	_, err := s.pool.Exec(context.Background(), "DROP SCHEMA "+s.schema+" CASCADE")
	return err
}
