package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// severity is what one event adds to the score of its address.
var severity = [sshlog.Kinds]int64{
	sshlog.AuthFailure:    1,  // mistyped, or another line about an attempt that is counted below, too
	sshlog.FailedKey:      1,  // a client offers each of its keys
	sshlog.InvalidUser:    3,  // guesses names
	sshlog.FailedPassword: 5,  // guesses passwords
	sshlog.TooMany:        10, // sshd closed the connection after so many attempts
	sshlog.BreakIn:        10,
}

// points returns what e adds to the score of its address.
func points(e sshlog.Event) int64 { return severity[e.Kind] * e.Count }

// result is what became of a run over all events.
type result struct {
	run
	wall     time.Duration
	outcomes []outcome // of the event with the same index
	records  map[netip.Addr]store.Record
}

// outcome is what became of one event. The zero outcome is that of an event that was not reached.
type outcome struct {
	conflicts int           // transactions that the database gave up
	committed bool          // the score is raised
	blocked   bool          // and that blocked the address
	latency   time.Duration // from taking the event to the end of its last transaction
}

// score handles all events over an empty store of db. The end of ctx stops it between two
// transactions of each worker; that is no error, the outcomes tell.
func (t threatscore) score(ctx context.Context, db database, events []sshlog.Event, run run, opts options) (r result, err error) {
	// What still has to be done when ctx ends must not end with it.
	lasting := context.WithoutCancel(ctx)
	records, err := db.open(lasting, run)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()

	progress := report.NewProgress(t.stderr, run.String(), len(events))
	defer progress.Finish()
	s := scorer{db: records, threshold: opts.threshold}
	if run.locked {
		s.locks = keylock.Start[netip.Addr](lasting)
	}

	r = result{run: run, outcomes: make([]outcome, len(events))}
	begun := time.Now()
	err = s.handleAll(ctx, events, r.outcomes, opts.workers, progress.Step)
	r.wall = time.Since(begun)
	if run.locked {
		err = errors.Join(err, s.locks.Shutdown(lasting))
	}
	if err != nil {
		return result{}, err
	}
	r.records, err = records.Records(lasting)
	return r, err
}

// scorer raises scores in a database.
type scorer struct {
	db        store.Store
	locks     *keylock.Manager[netip.Addr] // nil: events of one address run into each other
	threshold int64
}

// handleAll hands the events out to workers and fills in their outcomes, until all are handled,
// ctx ends, or the database fails, which is the only error.
func (s scorer) handleAll(ctx context.Context, events []sshlog.Event, outcomes []outcome, workers int, step func()) error {
	var taken atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for range min(workers, len(events)) {
		group.Go(func() error {
			for groupCtx.Err() == nil {
				i := int(taken.Add(1)) - 1
				if i >= len(events) {
					return nil
				}
				var err error
				if outcomes[i], err = s.handle(groupCtx, events[i]); err != nil {
					return err
				}
				step()
			}
			return nil
		})
	}
	err := group.Wait()
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// handle raises the score of e's address. The lock comes before the transaction and stays until
// the last retry: taken inside it would only make others wait with a transaction open.
func (s scorer) handle(ctx context.Context, e sshlog.Event) (o outcome, err error) {
	begun := time.Now()
	raise := func(ctx context.Context) error { return s.raise(ctx, e, &o) }
	if s.locks != nil {
		err = s.locks.Do(ctx, e.Addr, raise)
	} else {
		err = raise(ctx)
	}
	o.latency = time.Since(begun)
	return o, err
}

// raise tries the transaction for e until it goes through, ctx ends, or the database fails.
func (s scorer) raise(ctx context.Context, e sshlog.Event, o *outcome) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = time.Millisecond, 64*time.Millisecond

	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		blocked, err := s.db.Raise(ctx, e.Addr, points(e), s.threshold)
		switch {
		case err == nil:
			o.committed, o.blocked = true, blocked
		case errors.Is(err, store.ErrConflict):
			o.conflicts++
		default:
			err = backoff.Permanent(fmt.Errorf("raising the score of %v: %w", e.Addr, err))
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0))
	return err
}

// committed returns how many events are in the database.
func (r result) committed() (n int) {
	for _, o := range r.outcomes {
		if o.committed {
			n++
		}
	}
	return n
}

// conflicts returns how many transactions were given up.
func (r result) conflicts() (n int) {
	for _, o := range r.outcomes {
		n += o.conflicts
	}
	return n
}

// latencies returns how long each event took that is in the database.
func (r result) latencies() (all []time.Duration) {
	for _, o := range r.outcomes {
		if o.committed {
			all = append(all, o.latency)
		}
	}
	return all
}
