package store

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"

	"github.com/dgraph-io/badger/v4"
)

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
