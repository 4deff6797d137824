package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// attempt is the life of one entry: it waits, may hold the key, and leaves. It
// belongs to the goroutine of the Acquire, then to that of the Release or of the clean-up.
type attempt struct {
	session *session
	entry   Entry
	ctx     context.Context // ends when the grant can no longer be trusted
	lose    context.CancelFunc

	notices chan Notice     // receives the latest; when it is full, what is in it makes the entry ask again
	wanted  chan struct{}   // closed when another process wants the key, or when it is not known whether one does
	replies chan enterReply // receives the reply to the Enter that is under way
	asking  bool            // an Enter is under way
	entered bool            // the entry may be at the store
	late    bool            // the outcome of an Enter is unknown: it may still arrive at the store
	unsure  bool            // an earlier Leave may have been carried out

	next       *attempt      // in the session's stack of attempts that joined
	granted    atomic.Uint64 // the epoch; 0 before the grant
	leaving    atomic.Bool   // a release has begun, so that an entry that is missing says nothing
	wantedOnce atomic.Bool
	onWanted   atomic.Pointer[func()] // what want calls; called is there when it is too late for that
}

type enterReply struct {
	Standing
	err error
}

func (s *session) newAttempt(key string) *attempt {
	a := &attempt{
		session: s,
		entry:   Entry{Session: s.Session, Key: key, Attempt: s.engine.attempts.Add(1)},
		notices: make(chan Notice, 1),
		wanted:  make(chan struct{}),
		replies: make(chan enterReply, 1),
	}
	a.ctx, a.lose = context.WithCancel(s.ctx)
	return a
}

// wait enters the queue and returns nil when the key is granted.
func (a *attempt) wait(ctx context.Context, try bool) error {
	a.session.join(a)
	var retry backoff
	var problem error // of the last Enter, if it failed
	look := false     // a notice came while an Enter was under way, which may have been carried out before
	again := time.NewTimer(a.session.TTL)
	defer again.Stop()
	a.ask(try)
	for {
		select {
		case r := <-a.replies:
			a.asking = false
			switch {
			case errors.Is(r.err, ErrSessionGone):
				a.session.lose()
				return errSessionLost
			case errors.Is(r.err, cohort.ErrHeld):
				a.entered = a.late
				return r.err
			case r.err != nil:
				a.late = true
				problem = r.err
				if !passes(r.err) {
					return r.err
				}
				if a.session.ctx.Err() != nil {
					return errSessionLost
				}
				again.Reset(retry.next())
			case r.Epoch != 0:
				return a.grant(ctx, r.Epoch, r.Wanted)
			default:
				retry, problem = backoff{}, nil
				pause := a.session.TTL / 4
				if r.Again > 0 {
					pause = min(pause, r.Again)
				}
				again.Reset(pause)
				if look {
					look = false
					a.ask(try)
				}
			}
		case n := <-a.notices:
			if n.Kind == Granted && n.Epoch != 0 {
				return a.grant(ctx, n.Epoch, false)
			}
			look = a.asking
			a.ask(try)
		case <-again.C:
			a.ask(try)
		case <-ctx.Done():
			if problem != nil {
				return problem
			}
			return ctx.Err()
		case <-a.ctx.Done():
			return errSessionLost
		}
	}
}

// ask sends an Enter, unless one is under way. The request outlives the Acquire: if
// it were cancelled, it would be unknown whether it was carried out.
func (a *attempt) ask(try bool) {
	if a.asking {
		return
	}
	a.asking, a.entered = true, true
	a.session.engine.crew.start(func() {
		ctx, cancel := a.session.request()
		defer cancel()
		standing, err := a.session.engine.store.Enter(ctx, a.entry, try)
		a.session.engine.note(err)
		a.replies <- enterReply{standing, err}
	})
}

// grant takes the key, unless the session or the caller ended meanwhile.
func (a *attempt) grant(ctx context.Context, epoch uint64, wanted bool) error {
	if !a.session.trusted() {
		return errSessionLost
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.granted.Store(epoch)
	if wanted || !a.session.hears.Load() {
		a.want()
	}
	return nil
}

// notify passes a notice on, and never waits.
func (a *attempt) notify(n Notice) {
	if n.Kind == Wanted {
		a.want()
		return
	}
	if a.granted.Load() != 0 {
		return
	}
	select {
	case a.notices <- n:
	default:
		select { // the latest may carry a grant; whatever is left here when several come at once makes the entry ask
		case <-a.notices:
		default:
		}
		select {
		case a.notices <- n:
		default:
		}
	}
}

// want makes it known that another process wants the key. It may be called before the grant.
func (a *attempt) want() {
	if !a.wantedOnce.CompareAndSwap(false, true) {
		return
	}
	close(a.wanted)
	if f := a.onWanted.Swap(&called); f != nil {
		(*f)()
	}
}

var called = func() {}

// holds reports whether the attempt holds its key with the epoch and has not begun to leave.
func (a *attempt) holds(epoch uint64) bool {
	return a.granted.Load() == epoch && !a.leaving.Load()
}

// leave removes the entry. It returns nil when it did and ErrLost when the grant had been
// lost before. It tries until the store replies or the session ends, and the entry with it.
func (a *attempt) leave() error {
	a.leaving.Store(true)
	a.awaitReply(a.session.ctx)
	for retry := (backoff{}); ; {
		ctx, cancel := a.session.request()
		outcome, over := a.tryToLeave(ctx)
		cancel()
		if over {
			return outcome
		}
		_ = retry.wait(a.session.ctx, a.session.ctx)
	}
}

// leaveNow is leave on the caller's goroutine, which spares it two others: one request, that
// ends with ctx too. It reports whether the entry has left; if not, leave goes on.
func (a *attempt) leaveNow(ctx context.Context) (outcome error, over bool) {
	a.leaving.Store(true)
	if !a.awaitReply(ctx) {
		return nil, false
	}
	ctx, cancel := a.session.within(ctx)
	defer cancel()
	return a.tryToLeave(ctx)
}

// tryToLeave sends one request to remove the entry. It reports whether that is over.
func (a *attempt) tryToLeave(ctx context.Context) (outcome error, over bool) {
	if !a.session.trusted() {
		return a.left(cohort.ErrLost)
	}
	found, err := a.session.engine.store.Leave(ctx, a.entry, a.late)
	a.session.engine.note(err)
	switch {
	case err == nil && (found || a.unsure):
		return a.left(nil)
	case err == nil:
		a.session.suspect()
		return a.left(cohort.ErrLost)
	case errors.Is(err, ErrSessionGone):
		a.session.lose()
		return a.left(cohort.ErrLost)
	}
	a.unsure = true // whatever the error says, and whatever it is: the entry must not stay on a session that lives
	return nil, false
}

// left follows the end of the entry.
func (a *attempt) left(outcome error) (error, bool) {
	a.end()
	return outcome, true
}

// end is called once nothing is to be heard of the attempt any more.
func (a *attempt) end() {
	a.session.slot(a.entry.Attempt).CompareAndSwap(a, nil)
	a.lose()
}

// awaitReply waits for the reply to the Enter that is under way, if there is one, because the notice of the grant can
// overtake it. Without the reply the store would have to remember that the entry has left for as
// long as the session lives, once for each such grant. It reports false when ctx has ended.
func (a *attempt) awaitReply(ctx context.Context) bool {
	if a.asking {
		patience := time.NewTimer(a.session.TTL / 8)
		defer patience.Stop()
		select {
		case r := <-a.replies:
			a.late = a.late || r.err != nil
		case <-patience.C:
			a.late = true
		case <-ctx.Done():
			return false
		}
		a.asking = false
	}
	return ctx.Err() == nil
}

// cleanUp removes in the background what an attempt that failed may have left.
func (a *attempt) cleanUp() {
	a.session.engine.crew.start(func() {
		if a.asking { // after its reply, so that the Leave does not overtake it
			r := <-a.replies
			a.asking = false
			a.late = a.late || r.err != nil && !errors.Is(r.err, cohort.ErrHeld)
			if errors.Is(r.err, cohort.ErrHeld) {
				a.entered = a.late
			}
		}
		if a.entered {
			_ = a.leave()
		}
		a.end()
	})
}
