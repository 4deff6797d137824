// Package store keeps the severity score of every address in a database.
package store

import (
	"context"
	"errors"
	"net/netip"
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
