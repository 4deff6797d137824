package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// Grant is a key held at the store. It implements cohort.Grant.
type Grant struct {
	attempt   *attempt
	releasing atomic.Bool
	released  chan struct{} // closed when the outcome is known
	outcome   error         // written before released is closed
}

// Epoch returns the store's number of the grant.
func (g *Grant) Epoch() uint64 { return g.attempt.granted.Load() }

// Key returns the key.
func (g *Grant) Key() string { return g.attempt.entry.Key }

// Entry returns the entry that holds the key.
func (g *Grant) Entry() Entry { return g.attempt.entry }

// Lost returns a channel that is closed when the session can no longer be trusted: a fifth of
// the TTL before the earliest moment at which it could have run out, as soon as the
// store says that it or the entry is gone, when the engine closes, or after Release. The
// call itself compares the deadline with the clock.
func (g *Grant) Lost() <-chan struct{} {
	g.attempt.session.trusted()
	return g.attempt.ctx.Done()
}

// Wanted is closed when another process waits for the key or was refused it, when a notice of
// that may have been lost, and when the grant is lost.
func (g *Grant) Wanted() <-chan struct{} {
	g.attempt.warn()
	return g.attempt.wanted
}

// OnWanted implements cohort.Recaller: f is called when Wanted is closed.
func (g *Grant) OnWanted(f func()) {
	if f == nil {
		panic("lease: OnWanted with a nil function")
	}
	if !g.attempt.onWanted.CompareAndSwap(nil, &f) {
		f()
		return
	}
	g.attempt.warn()
}

// Release implements cohort.Grant. While the store cannot be reached, the key is
// released in the background until the session has ended.
func (g *Grant) Release(ctx context.Context) error {
	ctx = ended.Sound(ctx)
	if g.releasing.CompareAndSwap(false, true) {
		if outcome, over := g.attempt.leaveNow(ctx); over {
			g.finish(outcome)
		} else if !g.attempt.session.engine.crew.Start(func() { g.finish(g.attempt.leave()) }) {
			g.attempt.end()
			g.finish(cohort.ErrLost) // the engine is closed, and the session has ended with it
		}
	}
	select {
	case <-g.released:
	case <-ctx.Done():
		select {
		case <-g.released: // both at once: the outcome says more
		default:
			return g.explain(ctx.Err())
		}
	}
	if g.outcome != nil {
		return g.explain(g.outcome)
	}
	return nil
}

func (g *Grant) finish(outcome error) {
	g.outcome = outcome
	close(g.released)
}

func (g *Grant) explain(err error) error {
	return fmt.Errorf("%s: release %s: %w", g.attempt.session.engine.Name, brief(g.Key()), err)
}

// attempt is the life of one entry: it waits, may hold the key, and leaves. A goroutine of the
// engine waits; once the key is granted the attempt belongs to that of the Release or of the clean-up.
type attempt struct {
	session *session
	call    *call // what is replied to with the grant
	entry   Entry
	ctx     context.Context // ends when the grant can no longer be trusted
	lose    context.CancelFunc

	notices chan Notice   // receives the latest; when it is full, what is in it makes the entry ask again
	wanted  chan struct{} // closed when another process wants the key, or when it is not known whether one does
	replied chan struct{} // receives when asking has become false

	decided atomic.Bool // it was granted or has failed: who sets it says which
	asking  atomic.Bool // an Enter is under way
	entered atomic.Bool // the entry may be at the store
	late    atomic.Bool // the outcome of an Enter is unknown: it may still arrive at the store
	unsure  bool        // an earlier Leave may have been carried out; owned by the call that leaves

	next       *attempt      // in the session's stack of attempts that joined
	granted    atomic.Uint64 // the epoch; 0 before the grant
	leaving    atomic.Bool   // a release has begun, so that an entry that is missing says nothing
	wantedOnce atomic.Bool
	warned     atomic.Bool            // its notices are needed
	onWanted   atomic.Pointer[func()] // what want calls; called is there when it is too late for that
}

func (s *session) newAttempt(c *call) *attempt {
	a := &attempt{
		session: s,
		call:    c,
		entry:   Entry{Session: s.Session, Key: c.key, Attempt: s.engine.attempts.Add(1), Warn: s.engine.warnings.Load() > 0},
		notices: make(chan Notice, 1),
		wanted:  make(chan struct{}),
		replied: make(chan struct{}, 1),
	}
	a.ctx, a.lose = context.WithCancel(s.ctx)
	return a
}

// wait enters the queue, asks again when it has to, and returns nil when the key is granted.
func (a *attempt) wait() error {
	a.session.join(a)
	var retry crew.Backoff
	var again *time.Timer // nil as long as the first Enter is under way
	for {
		standing, err := a.enter()
		pause := a.session.TTL / 4
		switch {
		case a.decided.Load():
			return nil // the notice of the grant has overtaken the reply
		case errors.Is(err, ErrSessionGone):
			a.session.lose()
			return errSessionLost
		case errors.Is(err, cohort.ErrHeld):
			return err
		case err != nil:
			a.call.problem.Store(&err)
			if !passes(err) {
				return err
			}
			if a.session.ctx.Err() != nil {
				return errSessionLost
			}
			pause = retry.Next()
		case standing.Epoch != 0:
			return a.take(standing.Epoch, standing.Wanted)
		default:
			retry = crew.Backoff{}
			a.call.problem.Store(nil)
			if standing.Again > 0 {
				pause = min(pause, standing.Again)
			}
		}
		if again == nil {
			again = time.NewTimer(pause)
			defer again.Stop()
		} else {
			again.Reset(pause)
		}
		select {
		case n := <-a.notices:
			if n.Kind == Granted && n.Epoch != 0 {
				return a.take(n.Epoch, false)
			}
		case <-again.C:
		case <-a.call.ctx.Done():
			return a.call.ctx.Err()
		case <-a.ctx.Done():
			return errSessionLost
		}
	}
}

// enter sends an Enter. The request outlives the call: if it were cancelled, it would be unknown whether it
// was carried out.
func (a *attempt) enter() (Standing, error) {
	a.asking.Store(true)
	defer func() {
		a.asking.Store(false)
		signal(a.replied)
	}()
	if a.decided.Load() { // since it decided to ask
		return Standing{}, nil
	}
	a.entered.Store(true)
	ctx, cancel := a.session.request()
	defer cancel()
	standing, err := a.session.engine.store.Enter(ctx, a.entry, a.call.try)
	a.session.engine.note(err)
	switch {
	case errors.Is(err, cohort.ErrHeld):
		a.entered.Store(a.late.Load())
	case err != nil:
		a.late.Store(true)
	}
	return standing, err
}

// take takes the key, unless the session or the caller ended meanwhile. It never waits: the goroutine that brings the
// notice of a grant calls it too, because each other one would have to be scheduled first.
func (a *attempt) take(epoch uint64, wanted bool) error {
	if !a.session.trusted() {
		return errSessionLost
	}
	if err := a.call.ctx.Err(); err != nil {
		return err
	}
	if !a.decided.CompareAndSwap(false, true) {
		return nil
	}
	a.granted.Store(epoch)
	if wanted || !a.session.hears.Load() {
		a.want()
	}
	if !a.call.reply(&Grant{attempt: a, released: make(chan struct{})}, nil) {
		a.cleanUp() // the caller ended at this moment
	}
	return nil
}

// notify passes a notice on, and never waits.
func (a *attempt) notify(n Notice) {
	if n.Kind == Wanted {
		a.want()
		return
	}
	if a.decided.Load() {
		return
	}
	if n.Kind == Granted && n.Epoch != 0 && a.take(n.Epoch, false) == nil {
		return // the goroutine that waits ends with the attempt, or when it would ask again: woken now, it would be in the way
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

// mostWarnings is after how many grants that did not need their notices the next ones come without them.
const mostWarnings = 16

// warn has a store that is a Warner send notices when another process wants the key. When that fails, the key counts as wanted.
func (a *attempt) warn() {
	e := a.session.engine
	if e.warner == nil || a.warned.Swap(true) {
		return
	}
	e.warnings.Store(mostWarnings)
	if a.entry.Warn || a.wantedOnce.Load() {
		return
	}
	asked := e.crew.Start(func() {
		ctx, cancel := a.session.request()
		defer cancel()
		wanted, err := e.warner.Warn(ctx, a.entry)
		e.note(err)
		if wanted || err != nil {
			a.want()
		}
	})
	if !asked {
		a.want() // the engine is closed
	}
}

// holds reports whether the attempt holds its key with the epoch and has not begun to leave.
func (a *attempt) holds(epoch uint64) bool {
	return a.granted.Load() == epoch && !a.leaving.Load()
}

// leave removes the entry. It returns nil when it did and ErrLost when the grant had been
// lost before. It tries until the store replies or the session ends, and the entry with it.
func (a *attempt) leave() error {
	a.leaving.Store(true)
	a.awaitReply(a.session.ctx)
	for retry := (crew.Backoff{}); ; {
		ctx, cancel := a.session.request()
		outcome, over := a.tryToLeave(ctx)
		cancel()
		if over {
			return outcome
		}
		_ = retry.Wait(a.session.ctx, a.session.ctx)
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
	found, err := a.session.engine.store.Leave(ctx, a.entry, a.late.Load())
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
	if e := a.session.engine; !a.warned.Load() && e.warnings.Load() > 0 {
		e.warnings.Add(-1)
	}
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
	if a.asking.Load() {
		patience := time.NewTimer(a.session.TTL / 8)
		defer patience.Stop()
		for a.asking.Load() {
			select {
			case <-a.replied:
			case <-patience.C:
				a.late.Store(true)
				return ctx.Err() == nil
			case <-ctx.Done():
				return false
			}
		}
	}
	return ctx.Err() == nil
}

// cleanUp removes in the background what an attempt that failed may have left, after the reply to its Enter, so that
// the Leave does not overtake it.
func (a *attempt) cleanUp() {
	a.session.engine.crew.Start(func() {
		for a.asking.Load() {
			<-a.replied
		}
		if a.entered.Load() {
			_ = a.leave()
		}
		a.end()
	})
}
