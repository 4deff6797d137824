package keylock

import (
	"context"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// Snapshot returns what is known of every key that is held or waited for, all at one
// point of the manager's history, in no particular order. Of each key it shows how many
// holders and waiters there are, and at most the first 1,000 of either.
//
// The owner collects the keys a few at a time, and serves others in between, so it takes
// its time; a key that is about to change meanwhile is collected before it does. Two
// snapshots are collected at a time, and further ones begin when one of these is over.
//
// It returns an error that wraps ctx.Err() when ctx ends first, which ends the collection, too; and [ErrClosed]
// when the manager has ended or ends meanwhile.
func (m *Manager[K]) Snapshot(ctx context.Context) ([]KeyInfo[K], error) {
	mustContext(ctx)
	m.mustBeStarted()
	if ctx.Err() != nil {
		return nil, endOf(ctx, named[K]{})
	}
	done := ctx.Done()
	s := &snapshot[K]{begun: make(chan struct{})}
	defer m.endSnapshot(s)
	if _, err := askAll(ctx, m, s.ask); err != nil {
		return nil, err
	}
	m.gate.selects(ctx, s.begun, s)
	select {
	case <-s.begun: // also when the manager ends
	case <-done:
		return nil, endOf(ctx, named[K]{})
	}
	var keys []KeyInfo[K]
	for {
		part, err := ask(ctx, m, func(o *owner[K]) part[K] { return s.next(o, s.pace(o)) })
		if err != nil {
			return nil, err
		}
		keys = slices.Grow(keys, part.left)
		for _, found := range part.found {
			keys = append(keys, found...)
		}
		if part.over {
			s.over = true
			return slices.Clip(keys), nil
		}
	}
}

// A snapshot is one that is being collected. Its caller asks for one part after the other,
// so the parts stand in the mailbox like all requests: the owner makes progress with them
// beside all others, does not look for work when there is none, and stops when the caller
// does.
type snapshot[K comparable] struct {
	begun chan struct{} // closed when it has begun, or the manager has ended
	over  bool          // of the caller: it has everything

	// Owned by the owner.
	cut   *table.Cut[K]  // nil before it has begun
	at    time.Duration  // when that was
	left  int            // keys that have not been found yet
	found [][]KeyInfo[K] // since the last part, in pieces, because a copy of much would take long
	gone  bool           // it is over, or its caller has left
	seen  uint64         // requests that the owner had received when it was asked for the last part
}

// A part is what was found since the last one.
type part[K comparable] struct {
	found [][]KeyInfo[K]
	left  int // keys in it, and those that are still to come
	over  bool
}

const (
	mostSnapshots = 2  // that are collected at a time: each is shown what changes
	mostAtOnce    = 64 // holders, waiters and empty buckets that one part looks at, more or less
	piece         = 64
)

// ask begins the snapshot, or lets it wait for its turn.
func (s *snapshot[K]) ask(o *owner[K]) struct{} {
	if s.gone {
		return struct{}{} // before the moment came that it asked for
	}
	o.snapshots = append(o.snapshots, s)
	if len(o.snapshots) <= mostSnapshots {
		s.begin(o)
	}
	return struct{}{}
}

// begin takes the moment that the snapshot shows.
func (s *snapshot[K]) begin(o *owner[K]) {
	s.at, s.left, s.seen = o.meter.now(), o.table.Counts().Keys, o.meter.requests
	s.cut = o.table.Cut(func(v table.View[K]) {
		n := len(s.found)
		if n == 0 || len(s.found[n-1]) == piece {
			s.found = append(s.found, make([]KeyInfo[K], 0, min(piece, s.left)))
			n++
		}
		s.found[n-1] = append(s.found[n-1], o.describe(v, s.at, table.Shown))
		s.left--
	})
	close(s.begun)
}

// look begins the snapshot, unless that was done or it is over.
func (s *snapshot[K]) look(o *owner[K]) {
	if s.cut == nil && !s.gone && !o.ended {
		s.begin(o)
	}
}

// pace is how much of the snapshot the next part looks at: much when the owner has nothing
// else to do, or else about as much as others have asked of it since the last part, so that
// these get half of its time, however many they are.
func (s *snapshot[K]) pace(o *owner[K]) int {
	others := int(o.meter.requests - s.seen - 1)
	s.seen = o.meter.requests
	if others == 0 {
		return mostAtOnce
	}
	return min(others, mostAtOnce)
}

// next collects the next part.
func (s *snapshot[K]) next(o *owner[K], n int) part[K] {
	p := part[K]{over: !s.cut.Next(n), left: s.left}
	for _, found := range s.found {
		p.left += len(found)
	}
	p.found, s.found = s.found, nil
	if p.over {
		s.end(o)
	}
	return p
}

// endSnapshot ends a snapshot that its caller does not want any more. It does not wait until
// there is room in the mailbox: a deadline is not late because the owner has much to do.
func (m *Manager[K]) endSnapshot(s *snapshot[K]) {
	if !s.over {
		m.sendSoon(message[K]{request: (*abandonSnapshot[K])(s)})
	}
}

// abandonSnapshot ends a snapshot that is not over.
type abandonSnapshot[K comparable] snapshot[K]

func (s *abandonSnapshot[K]) serve(o *owner[K]) { (*snapshot[K])(s).end(o) }

func (s *abandonSnapshot[K]) refuse() {}

// end frees what the snapshot needed, and begins the next that waits for its turn.
func (s *snapshot[K]) end(o *owner[K]) {
	s.gone = true
	i := slices.Index(o.snapshots, s)
	if i < 0 {
		return // it is over, or was never asked for
	}
	o.snapshots = slices.Delete(o.snapshots, i, i+1)
	if s.cut != nil { // else it had not begun, though where grants are kept it may have been about to
		s.cut.End()
		s.found = nil
	}
	if i < mostSnapshots && len(o.snapshots) >= mostSnapshots {
		o.whenKnown(o.snapshots[mostSnapshots-1])
	}
}

// endSnapshots ends all snapshots, because the manager ends. Those that wait for their turn
// are refused when they ask for the first part.
func (o *owner[K]) endSnapshots() {
	for _, s := range o.snapshots {
		if s.cut == nil {
			close(s.begun)
		} else {
			s.cut.End()
		}
	}
	o.snapshots = nil
}
