// Package store keeps the severity score of every address in a database.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dgraph-io/badger/v4"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrConflict is returned by Raise when the database gave up the transaction because another one
// was in its way. Nothing was written; the same call may be tried again.
var ErrConflict = errors.New("store: transaction conflict")

// Record is what a database knows of an address.
type Record struct {
	Score   int64 `json:"score"`
	Blocked bool  `json:"blocked"`
}

// Raised returns the record with points added, blocked if that takes the score over the
// threshold, and whether this is what blocked it.
func (r Record) Raised(points, threshold int64) (raised Record, blocks bool) {
	r.Score += points
	blocks = r.Score > threshold && !r.Blocked
	r.Blocked = r.Blocked || blocks
	return r, blocks
}

// Store is a database of records by address. Its methods may be called from any goroutine.
type Store interface {
	// Raise replaces the record of addr by its Raised, in one transaction that reads, modifies
	// and writes, and returns whether that blocked the address. A new address begins with the
	// zero Record. When Raise returns nil the change is on disk.
	//
	// It returns ErrConflict if the transaction lost against another one. After any error
	// nothing was written. A transaction that has begun is not torn off by the end of ctx.
	Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (blocks bool, err error)

	// Records returns all records at one point in time.
	Records(ctx context.Context) (map[netip.Addr]Record, error)

	// Close frees what the store holds. No other call may follow or run beside it.
	Close() error
}

// patience is how long a database may be away.
const patience = 30 * time.Second

// throughOutages calls operation again, after a while, as long as it returns an outage. It returns
// what else operation returns; the outage if the database stays away; or why ctx has ended.
func throughOutages[T any](ctx context.Context, operation func() (T, error)) (T, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 10*time.Millisecond, time.Second

	return backoff.Retry(ctx, func() (T, error) {
		result, err := operation()
		if err != nil && !isOutage(err) {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(patience))
}

// The codes of PostgreSQL's errors that matter here.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	adminShutdown        = "57P01"
	crashShutdown        = "57P02"
	cannotConnectNow     = "57P03" // it is starting up
)

// isConflict tells whether the database gave a transaction up because of another one.
func isConflict(err error) bool {
	return hasCode(err, serializationFailure, deadlockDetected)
}

// isOutage tells whether the database went away, or is not there: it said so, or the connection
// broke.
func isOutage(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return hasCode(err, adminShutdown, crashShutdown, cannotConnectNow)
	}
	var (
		connect *pgconn.ConnectError
		network *net.OpError
	)
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func hasCode(err error, codes ...string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && slices.Contains(codes, said.Code)
}

type badgerStore struct{ db *badger.DB }

// OpenBadger opens an embedded Badger database in the folder dir, which it makes if need be.
// Every commit is synced to disk. Badger is optimistic: of two transactions that read the same
// key and write it, the one that commits later gets ErrConflict.
func OpenBadger(dir string) (Store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(nil).
		WithMemTableSize(16 << 20).
		WithValueLogFileSize(32 << 20))
	if err != nil {
		return nil, err
	}
	return badgerStore{db}, nil
}

func (s badgerStore) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (blocks bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	err = s.db.Update(func(txn *badger.Txn) error {
		record, err := get(txn, addr)
		if err != nil {
			return err
		}
		record, blocks = record.Raised(points, threshold)
		return put(txn, addr, record)
	})
	if errors.Is(err, badger.ErrConflict) {
		err = ErrConflict
	}
	return blocks && err == nil, err
}

func get(txn *badger.Txn, addr netip.Addr) (record Record, err error) {
	item, err := txn.Get(addr.AsSlice())
	if errors.Is(err, badger.ErrKeyNotFound) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	return decode(item)
}

func put(txn *badger.Txn, addr netip.Addr, record Record) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return txn.Set(addr.AsSlice(), value)
}

func decode(item *badger.Item) (record Record, err error) {
	err = item.Value(func(value []byte) error { return json.Unmarshal(value, &record) })
	return record, err
}

func (s badgerStore) Records(ctx context.Context) (map[netip.Addr]Record, error) {
	records := make(map[netip.Addr]Record)
	err := s.db.View(func(txn *badger.Txn) error {
		items := txn.NewIterator(badger.DefaultIteratorOptions)
		defer items.Close()
		for items.Rewind(); items.Valid(); items.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			var addr netip.Addr
			if err := addr.UnmarshalBinary(items.Item().Key()); err != nil {
				return err
			}
			record, err := decode(items.Item())
			if err != nil {
				return err
			}
			records[addr] = record
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

func (s badgerStore) Close() error { return s.db.Close() }
