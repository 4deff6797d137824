package main

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// slowStore is an optimistic database in memory whose transactions take a millisecond. In a
// synctest bubble that is fake time, and exactly so long.
type slowStore struct {
	mu      sync.Mutex
	records map[netip.Addr]store.Record
	refuse  func(points int64) bool // gives the transaction up; nil: never
	begun   []int64                 // the points of all transactions, in the order of their begin
}

func newSlowStore() *slowStore { return &slowStore{records: make(map[netip.Addr]store.Record)} }

func (s *slowStore) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (bool, error) {
	s.mu.Lock()
	read := s.records[addr]
	s.begun = append(s.begun, points)
	s.mu.Unlock()

	time.Sleep(time.Millisecond)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[addr] != read || s.refuse != nil && s.refuse(points) {
		return false, store.ErrConflict
	}
	var blocks bool
	s.records[addr], blocks = read.Raised(points, threshold)
	return blocks, nil
}

func (s *slowStore) Records(context.Context) (map[netip.Addr]store.Record, error) {
	return s.records, nil
}

func (s *slowStore) Close() error { return nil }

// attacks returns n events of the address with the given last byte. The i-th counts i+1 times, so
// that a transaction tells the event that it is for.
func attacks(last byte, n int) (events []sshlog.Event) {
	for i := range n {
		addr := netip.AddrFrom4([4]byte{203, 0, 113, last})
		events = append(events, sshlog.Event{Addr: addr, Kind: sshlog.AuthFailure, Count: int64(i + 1)})
	}
	return events
}

func ignore() {}

// handled counts the outcomes of events that are in the database.
func handled(outcomes []outcome) result { return result{outcomes: outcomes} }

func TestWithoutTheLockEventsOfOneAddressConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := attacks(7, 20)
		outcomes := make([]outcome, len(events))
		s := scorer{db: newSlowStore(), threshold: 100}
		require.NoError(t, s.handleAll(t.Context(), events, outcomes, 20, ignore))

		assert.Equal(t, 20, handled(outcomes).committed())
		assert.GreaterOrEqual(t, handled(outcomes).conflicts(), 19, "all but one lost at first")
	})
}

func TestWithTheLockNothingConflictsAndOnlyOneAddressWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[netip.Addr](t.Context())
		defer locks.Close()
		s := scorer{db: newSlowStore(), locks: locks, threshold: 100}

		events := attacks(0, 20)
		for other := range byte(20) {
			events = append(events, attacks(other+1, 1)...)
		}
		outcomes := make([]outcome, len(events))
		begun := time.Now()
		require.NoError(t, s.handleAll(t.Context(), events, outcomes, math.MaxInt, ignore))

		assert.Equal(t, 20*time.Millisecond, time.Since(begun), "the hot address takes one transaction after the other")
		assert.Equal(t, len(events), handled(outcomes).committed())
		assert.Zero(t, handled(outcomes).conflicts())
		assert.Equal(t, 20*time.Millisecond, report.Summarize(handled(outcomes).latencies()).Max, "a latency includes the wait for the lock")
		for _, cold := range outcomes[20:] {
			assert.Equal(t, time.Millisecond, cold.latency, "an address of its own never waits")
		}
	})
}

// The database may give up a transaction although no other is in its way (a checkpoint, another
// process). Its retries must not be interleaved with other events of the address.
func TestTheLockIsHeldThroughRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[netip.Addr](t.Context())
		defer locks.Close()
		db := newSlowStore()
		refused := make(map[int64]int)
		db.refuse = func(points int64) bool { refused[points]++; return refused[points] <= 3 }
		s := scorer{db: db, locks: locks, threshold: 100}

		events := attacks(7, 10)
		outcomes := make([]outcome, len(events))
		require.NoError(t, s.handleAll(t.Context(), events, outcomes, 10, ignore))

		assert.Equal(t, 30, handled(outcomes).conflicts())
		require.Len(t, db.begun, 40)
		for i, points := range db.begun {
			assert.Equal(t, db.begun[i/4*4], points, "transaction %d", i)
		}
	})
}

func TestInterruptStopsBetweenTransactions(t *testing.T) {
	for _, locked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			db := newSlowStore()
			s := scorer{db: db, threshold: 100}
			if locked {
				s.locks = keylock.Start[netip.Addr](t.Context())
				defer s.locks.Close()
			}
			time.AfterFunc(5500*time.Microsecond, func() { cancel(errors.New("a signal")) })

			events := attacks(7, 100)
			outcomes := make([]outcome, len(events))
			begun := time.Now()
			require.NoError(t, s.handleAll(ctx, events, outcomes, 10, ignore))

			assert.LessOrEqual(t, time.Since(begun), 6500*time.Microsecond, "transactions at hand are finished, no others begun")
			r := result{run: run{locked: locked}, outcomes: outcomes, records: db.records}
			assert.Positive(t, r.committed())
			assert.Less(t, r.committed(), len(events))
			assert.NoError(t, verify(events, r, s.threshold))
			if locked {
				assert.Equal(t, 6, r.committed())
				require.NoError(t, s.locks.Shutdown(t.Context()), "nothing is held or waited for any more")
			}
		})
	}
}

func TestDatabaseErrorStopsEveryWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := keylock.Start[netip.Addr](t.Context())
		defer locks.Close()
		broken := errors.New("disk on fire")
		s := scorer{db: failingStore{newSlowStore(), broken}, locks: locks, threshold: 100}

		outcomes := make([]outcome, 1000)
		err := s.handleAll(t.Context(), attacks(7, 1000), outcomes, 10, ignore)
		require.ErrorIs(t, err, broken)
		assert.ErrorContains(t, err, "203.0.113.7")
		assert.Less(t, handled(outcomes).committed(), 10, "no worker goes on")
	})
}

// failingStore fails for good at the first event that counts 5 or more.
type failingStore struct {
	store.Store
	err error
}

func (s failingStore) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (bool, error) {
	if points >= 5 {
		return false, s.err
	}
	return s.Store.Raise(ctx, addr, points, threshold)
}
