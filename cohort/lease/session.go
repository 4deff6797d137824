package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/crew"
)

var errSessionLost = errors.New("the session was lost")

// session is a Session that is renewed until it is lost or the engine closes.
type session struct {
	engine *Engine
	Session
	ctx  context.Context // ends when the session can no longer be trusted
	lose context.CancelFunc

	until atomic.Int64 // until when it can be trusted, in nanoseconds since epoch
	epoch time.Time    // when Begin was sent; carries the monotonic clock

	joined  atomic.Pointer[attempt]       // a stack of attempts that run has not seen yet; linked by next
	joins   atomic.Uint64                 // how many there were
	waiting [1024]atomic.Pointer[attempt] // the latest attempt with each remainder of its number
	notices chan Notice                   // for attempts that are not there
	looks   chan struct{}                 // receives when notices may have been lost
	hears   atomic.Bool                   // notices arrive; otherwise each key counts as wanted
	deaf    chan struct{}                 // receives when they no longer do
	settled chan struct{}                 // closed when run knows for the first time whether notices arrive
	live    int                           // attempts when run last dropped those that have ended; owned by run
	doubt   chan struct{}                 // receives when something hints that the session is gone
	crowd   chan struct{}                 // receives when run should look after the attempts that have ended
}

type sessionReply struct {
	session *session
	err     error
}

// session returns the engine's session, a new one if the last was lost.
func (e *Engine) session(ctx context.Context) (*session, error) {
	if s := e.current.Load(); s != nil && s.trusted() {
		return s, nil
	}
	reply := make(chan sessionReply, 1)
	select {
	case e.asks <- reply:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	}
	select {
	case r := <-reply:
		return r.session, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	}
}

// keepSession owns the engine's session: it hands it out, and begins another when it is lost.
func (e *Engine) keepSession() {
	var (
		waiting []chan<- sessionReply
		begun   chan sessionReply // nil while none is being begun
		next    = e.newSession()  // kept after a Begin that failed: it may have been carried out
	)
	for {
		select {
		case ask := <-e.asks:
			if s := e.current.Load(); s != nil && s.trusted() {
				ask <- sessionReply{s, nil}
				break
			}
			waiting = append(waiting, ask)
			if begun == nil {
				begun = make(chan sessionReply, 1)
				id := next
				e.toEnd.Store(&id)
				e.crew.Start(func() {
					s, err := e.begin(id)
					begun <- sessionReply{s, err}
				})
			}
		case r := <-begun:
			begun = nil
			if r.err == nil {
				next = e.newSession()
				e.current.Store(r.session)
			}
			for _, ask := range waiting {
				ask <- r
			}
			waiting = nil
		case <-e.ctx.Done():
			return
		}
	}
}

// begin begins a session. It ends with no caller's context, only with the engine.
func (e *Engine) begin(id Session) (*session, error) {
	ctx, cancel := context.WithTimeout(e.ctx, e.TTL)
	defer cancel()
	s := &session{
		engine:  e,
		Session: id,
		epoch:   time.Now(),
		notices: make(chan Notice, 64),
		looks:   make(chan struct{}, 1),
		deaf:    make(chan struct{}, 1),
		settled: make(chan struct{}),
		doubt:   make(chan struct{}, 1),
		crowd:   make(chan struct{}, 1),
	}
	if err := e.store.Begin(ctx, id); err != nil {
		e.note(err)
		return nil, err
	}
	e.begun.Add(1)
	s.ctx, s.lose = context.WithCancel(e.ctx)
	s.trust(s.epoch)
	e.crew.Start(s.listen)
	e.crew.Start(s.run)
	s.settle()
	return s, nil
}

// settle waits until run knows whether notices arrive, as a rule for one round trip: what is granted before that counts
// as wanted, which would be the first key of every process.
func (s *session) settle() {
	patience := time.NewTimer(s.TTL / 10)
	defer patience.Stop()
	select {
	case <-s.settled:
	case <-s.ctx.Done():
	case <-patience.C:
	}
}

// trust moves the deadline: the session was prolonged at some moment after the
// request was sent, and is given up a fifth before its earliest end.
func (s *session) trust(sent time.Time) {
	until := int64(sent.Sub(s.epoch) + s.TTL - s.TTL/5)
	for {
		old := s.until.Load()
		if until <= old || s.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// left returns for how long the session can be trusted from now on.
func (s *session) left() time.Duration {
	return time.Duration(s.until.Load()) - time.Since(s.epoch)
}

// trusted reports whether the session can be trusted now. It looks at the clock:
// a process that was paused wakes before the timer that ends the session.
func (s *session) trusted() bool {
	if s.ctx.Err() != nil {
		return false
	}
	if s.left() <= 0 {
		s.lose()
		return false
	}
	return true
}

// request bounds a request to the store by the session and by the TTL: after
// either, the reply would say nothing that the end of the session does not say too.
func (s *session) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.TTL)
}

// within bounds a request by ctx too.
func (s *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, s.TTL)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

type renewal struct {
	sent    time.Time
	missing []Held
	err     error
}

// run renews the session, passes notices on, ends the session when it can no longer
// be trusted, and then ends it at the store too.
func (s *session) run() {
	watchdog := time.NewTimer(s.left())
	defer watchdog.Stop()
	next := time.NewTicker(s.TTL / 4)
	defer next.Stop()
	renewed := make(chan renewal)
	attempts := make(map[uint64]*attempt)
	known := false
	settled := func() {
		if !known {
			known = true
			close(s.settled)
		}
	}
	audit := auditor{}
	renew := func() {
		s.admit(attempts)
		held := audit.next(attempts)
		s.engine.crew.Start(func() { s.renew(held, renewed) })
	}
	for {
		select {
		case <-s.crowd:
			s.admit(attempts)
		case n := <-s.notices:
			s.admit(attempts)
			if a := attempts[n.Attempt]; a != nil {
				a.notify(n)
			}
		case <-s.looks:
			s.admit(attempts)
			for _, a := range attempts {
				a.want()
				a.notify(Notice{Kind: Look})
			}
			settled()
		case <-s.deaf:
			s.wantAll(attempts)
			settled()
		case <-next.C: // whether or not the last renewal was answered: the reply may be lost
			renew()
		case <-s.doubt:
			renew()
		case r := <-renewed:
			switch {
			case errors.Is(r.err, ErrSessionGone):
				s.lose()
			case r.err == nil:
				s.trust(r.sent)
				watchdog.Reset(s.left())
				for _, h := range r.missing {
					if a := attempts[h.Attempt]; a != nil && a.holds(h.Epoch) {
						a.lose()
						a.want()
					}
				}
			} // the watchdog decides when other errors are too many
		case <-watchdog.C:
			if s.left() <= 0 {
				s.lose()
			} else {
				watchdog.Reset(s.left())
			}
		case <-s.ctx.Done():
			s.wantAll(attempts)
			if s.engine.ctx.Err() == nil {
				s.engine.lost.Add(1)
			}
			if s.engine.ctx.Err() == nil || s.engine.toEnd.Load().ID != s.ID { // otherwise Close ends it
				s.finish()
			}
			return
		}
	}
}

// join has run know the attempt before it handles the next notice. It does not wake run, which
// would cost an uncontended lock more than all else here.
func (s *session) join(a *attempt) {
	s.slot(a.entry.Attempt).Store(a)
	for {
		a.next = s.joined.Load()
		if s.joined.CompareAndSwap(a.next, a) {
			break
		}
	}
	if s.joins.Add(1)%1024 == 0 {
		signal(s.crowd)
	}
}

// slot is where an attempt stands that joined, until another takes the slot.
func (s *session) slot(number uint64) *atomic.Pointer[attempt] {
	return &s.waiting[number%uint64(len(s.waiting))]
}

// notify passes a notice on, and never waits. A waiter that is in its slot is woken from here;
// each goroutine in between would be one more to schedule for every grant.
func (s *session) notify(n Notice) {
	if n.Kind != Look {
		if a := s.slot(n.Attempt).Load(); a != nil && a.entry.Attempt == n.Attempt {
			a.notify(n)
			return
		}
		select {
		case s.notices <- n:
			return
		default: // there are too many
		}
	}
	s.hears.Store(true)
	signal(s.looks)
}

// signal sends to a channel of one, unless there is a signal in it already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// admit adds the attempts that have joined. It drops those that have ended
// whenever the number of attempts has doubled since the last time.
func (s *session) admit(attempts map[uint64]*attempt) {
	for a := s.joined.Swap(nil); a != nil; {
		next := a.next
		a.next = nil
		if a.ctx.Err() == nil || s.ctx.Err() != nil { // with the session all end, and it matters to those that hold a key
			attempts[a.entry.Attempt] = a
		}
		a = next
	}
	if len(attempts) < 2*s.live+64 {
		return
	}
	for n, a := range attempts {
		if a.ctx.Err() != nil {
			delete(attempts, n)
		}
	}
	s.live = len(attempts)
}

// wantAll has every key count as wanted, also those that are about to be granted.
func (s *session) wantAll(attempts map[uint64]*attempt) {
	s.admit(attempts)
	for _, a := range attempts {
		a.want()
	}
}

func (s *session) renew(held []Held, renewed chan<- renewal) {
	ctx, cancel := s.request()
	defer cancel()
	r := renewal{sent: time.Now()}
	r.missing, r.err = s.engine.store.Renew(ctx, s.Session, held)
	s.engine.note(r.err)
	select {
	case renewed <- r:
	case <-s.ctx.Done():
	}
}

// suspect has the session renewed now: something was missing that it should have kept.
func (s *session) suspect() { signal(s.doubt) }

// listen keeps hearing the store's notices.
func (s *session) listen() {
	for retry := (crew.Backoff{}); s.ctx.Err() == nil; {
		began := time.Now()
		_ = s.engine.store.Listen(s.ctx, s.Session, s.notify)
		s.hears.Store(false)
		signal(s.deaf)
		if time.Since(began) > s.TTL {
			retry = crew.Backoff{}
		}
		_ = retry.Wait(s.ctx, s.ctx)
	}
}

// finish ends a lost session at the store, so that no other process waits until it runs
// out. It tries until it must have run out.
func (s *session) finish() {
	ctx, cancel := context.WithTimeout(s.engine.requests, s.TTL)
	defer cancel()
	for retry := (crew.Backoff{}); ctx.Err() == nil && s.engine.store.End(ctx, s.Session) != nil; {
		_ = retry.Wait(ctx, ctx)
	}
}

// auditor chooses which held entries the next renewal asks about.
type auditor struct {
	pending []uint64 // attempts that this round has yet to ask about
}

// most bounds how many entries one renewal asks about.
const most = 1024

func (u *auditor) next(attempts map[uint64]*attempt) (held []Held) {
	if len(u.pending) == 0 {
		for n := range attempts {
			u.pending = append(u.pending, n)
		}
	}
	for len(u.pending) > 0 && len(held) < most {
		last := len(u.pending) - 1
		a := attempts[u.pending[last]]
		u.pending = u.pending[:last]
		if a == nil {
			continue
		}
		if epoch := a.granted.Load(); epoch != 0 && !a.leaving.Load() {
			held = append(held, Held{Key: a.entry.Key, Attempt: a.entry.Attempt, Epoch: epoch})
		}
	}
	return held
}
