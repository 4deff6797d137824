package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
	"github.com/seed-46f81e6d/keylock/verify/verbs"
)

// run runs a program in a bubble and returns how the manager differed from the model.
func run(t *testing.T, p program) (err error) {
	synctest.Test(t, func(*testing.T) {
		state := model.State{MaxWaiters: p.maxWaiters, SharedLimit: p.sharedLimit}
		watch := verbs.Observer{Callers: p.watched&1 != 0, HoldTimes: p.watched&2 != 0}
		if p.watched&4 != 0 {
			watch.SlowLog, watch.SlowAfter = slog.New(slog.NewTextHandler(io.Discard, nil)), time.Second
		}
		r := &runner{
			manager:  keylock.Start[int](context.Background(), append(verbs.Bounds(state), watch.Options()...)...),
			watch:    watch,
			state:    state,
			sessions: make(map[int]*keylock.Session[int]),
		}
		defer r.manager.Close()
		for i, s := range p.steps {
			if err = r.step(s); err != nil {
				err = fmt.Errorf("after step %d, %v: %w", i, s, err)
				return
			}
		}
	})
	return err
}

// A runner is a manager beside its model.
type runner struct {
	manager   *keylock.Manager[int]
	watch     verbs.Observer
	state     model.State
	sessions  map[int]*keylock.Session[int]
	requests  []*request
	others    []*call // of WaitIdle and of Shutdown
	wasClosed bool    // by Close, not by a shutdown
	handoffs  int     // each passes another value
}

// A call is one that may wait.
type call struct {
	what     string
	returned bool
	err      error
	settled  bool  // it should have returned
	want     error // what it should have returned then
}

// settle says what a call returns, unless that was said before.
func (c *call) settle(want error) {
	if !c.settled {
		c.settled, c.want = true, want
	}
}

// check compares what a call did with what it should have done.
func (c *call) check() error {
	switch {
	case c.returned != c.settled:
		return fmt.Errorf("%s: has returned is %t, want %t", c.what, c.returned, c.settled)
	case c.returned && !errors.Is(c.err, c.want):
		return fmt.Errorf("%s: returned %v, want %v", c.what, c.err, c.want)
	}
	return nil
}

// A request is a call that asks for a lock.
type request struct {
	call
	model.Request
	lock        keylock.Lock[int]
	cancel      context.CancelFunc
	reservation *keylock.Reservation[int]
	used        bool // the reservation: waited for, or cancelled
	passed      any  // the value that should have come with the lock

	since    time.Time // when it began to hold, or else to wait
	held     bool      // it holds
	wanted   <-chan struct{}
	isWanted bool // so wanted should be closed
}

// step makes a step in both, and compares them.
func (r *runner) step(s step) error {
	err := r.make(s)
	synctest.Wait()
	if err != nil {
		return err
	}
	for _, q := range r.requests {
		if r.state.Holds(q.ID) {
			q.settle(nil)
			if !q.held {
				q.held, q.since = true, time.Now()
			}
		}
	}
	for _, c := range r.others {
		switch {
		case c.what == "WaitIdle" && r.state.Idle() && !r.wasClosed:
			c.settle(nil)
		case c.what == "Shutdown" && r.state.Ended() && !r.wasClosed:
			c.settle(nil)
		case r.state.Ended():
			c.settle(keylock.ErrClosed)
		}
	}
	if r.state.Ended() {
		r.state = r.state.Close()
	}
	for _, q := range r.requests {
		q.isWanted = q.isWanted || r.wants(q)
	}
	return r.compare()
}

// make makes a step, without what follows from it.
func (r *runner) make(s step) error {
	switch s.verb {
	case "acquire", "share", "try", "tryShare", "reserve":
		return r.ask(s)
	case "waitIdle":
		c := &call{what: "WaitIdle"}
		if r.state.Ended() {
			c.settle(keylock.ErrClosed)
		}
		r.others = append(r.others, c)
		go func() { c.err, c.returned = r.manager.WaitIdle(context.Background()), true }()
	case "shutdown":
		c := &call{what: "Shutdown"}
		if r.state.Ended() {
			c.settle(nil)
		}
		r.others = append(r.others, c)
		r.state = r.state.Drain()
		go func() { c.err, c.returned = r.manager.Shutdown(context.Background()), true }()
	case "closeAll":
		r.wasClosed = r.wasClosed || !r.state.Ended()
		r.refuse(func(model.Request) bool { return true })
		r.state = r.state.Close()
		r.manager.Close()
	case "pass":
		time.Sleep(time.Second)
	case "closeSession":
		if !r.state.Ended() {
			r.refuse(func(q model.Request) bool { return q.Session == s.session })
		}
		for _, q := range r.requests {
			if q.Session == s.session && q.want == nil && !q.returned {
				q.want = keylock.ErrClosed // also when it was granted, and not waited for
			}
		}
		r.state = r.endSession(s.session)
		r.session(s.session).Close()
	default:
		if s.of < len(r.requests) {
			return r.use(s, r.requests[s.of])
		}
	}
	return nil
}

// refuse says that those who wait are told that it is closed.
func (r *runner) refuse(who func(model.Request) bool) {
	for _, q := range r.requests {
		if who(q.Request) && r.state.Has(q.ID) && !r.state.Holds(q.ID) {
			q.settle(keylock.ErrClosed)
		}
	}
}

func (r *runner) session(n int) *keylock.Session[int] {
	if r.sessions[n] == nil {
		r.sessions[n] = r.manager.Session(fmt.Sprint("session ", n))
	}
	return r.sessions[n]
}

// ask makes a step that asks for a lock.
func (r *runner) ask(s step) error {
	q := &request{Request: model.Request{ID: len(r.requests), Keys: s.keys, Session: s.session}, since: time.Now()}
	q.what = fmt.Sprintf("request %d", q.ID)
	q.Shared = s.verb == "share" || s.verb == "tryShare"
	q.Each = s.each()
	r.requests = append(r.requests, q)
	var caller verbs.Caller = r.manager
	if s.session != 0 {
		caller = r.session(s.session)
	}
	tries := s.verb == "try" || s.verb == "tryShare"
	next, outcome := r.state.Join(q.Request, tries)
	switch outcome {
	case model.In:
		r.state = next
	case model.Busy:
		q.settle(errNot)
	case model.Full:
		q.settle(keylock.ErrQueueFull)
	case model.Deadlock:
		q.settle(keylock.ErrDeadlock)
	case model.Closed:
		q.settle(keylock.ErrClosed)
	}
	switch {
	case tries:
		lock, ok := verbs.Try(caller, q.Request)
		q.lock, q.returned = lock, true
		if !ok {
			q.err = q.want // it says no more than that
			if q.want == nil {
				return fmt.Errorf("the try failed")
			}
		}
	case s.verb == "reserve":
		reservation := verbs.Reserve(caller, q.Request)
		q.reservation = &reservation
	default:
		var ctx context.Context
		ctx, q.cancel = context.WithCancel(context.Background())
		go func() {
			q.lock, q.err = verbs.Acquire(ctx, caller, q.Request)
			q.returned = true
		}()
	}
	return nil
}

// errNot is what a try would return that finds the key busy.
var errNot = errors.New("busy")

// use makes a step that is about a request.
func (r *runner) use(s step, q *request) error {
	switch s.verb {
	case "await":
		return r.await(q)
	case "cancel":
		r.cancel(q)
	case "release":
		q.lock.Release()
		if q.lock.Seq() != 0 && !r.state.Ended() {
			r.state = r.state.Leave(q.ID)
		}
	case "downgrade":
		q.lock.Downgrade()
		if q.lock.Seq() != 0 && !r.state.Ended() {
			if r.state.Holds(q.ID) {
				q.Shared, q.Each = len(q.Keys) > 0, nil
			}
			r.state = r.state.Downgrade(q.ID)
		}
	case "want":
		if q.lock.Seq() != 0 {
			q.wanted, q.isWanted = q.lock.Wanted(), r.wants(q)
		}
	case "handoff":
		if q.lock.Seq() == 0 {
			return nil
		}
		want := r.state.Holds(q.ID) && !r.state.Ended() && r.takes(r.state, q)
		r.handoffs++
		if want {
			r.state = r.passOn(r.state, q, r.handoffs)
		}
		if got := q.lock.Handoff(r.handoffs); got != want {
			return fmt.Errorf("Handoff is %t, want %t", got, want)
		}
	}
	return nil
}

// wants reports whether what Wanted returns for a request should be closed: a request waits
// for it, or it holds no longer.
func (r *runner) wants(q *request) bool {
	return r.state.Ended() || !r.state.Holds(q.ID) || r.state.Wanted(q.ID)
}

// takes reports whether the first that waits for the key of a request can have it handed off:
// it asks for this key alone, and holds it when the request has left.
func (r *runner) takes(s model.State, q *request) bool {
	if len(q.Keys) != 1 {
		return false
	}
	next := s.FirstBlocked(q.Keys[0])
	return next >= 0 && len(r.requests[next].Keys) == 1 && s.Leave(q.ID).Holds(next)
}

// passOn returns the state that follows when a request leaves and those that are granted then
// receive a value, if the first of them takes it.
func (r *runner) passOn(s model.State, q *request, value any) model.State {
	next := s.Leave(q.ID)
	if value != nil && r.takes(s, q) {
		for _, other := range r.requests {
			if next.Holds(other.ID) && !s.Holds(other.ID) && slices.Equal(other.Keys, q.Keys) {
				other.passed = value
			}
		}
	}
	return next
}

// unread returns the value of a reservation that was not waited for; nil when there is none.
func (r *runner) unread(q *request) any {
	if q.reservation == nil || q.used || !r.state.Holds(q.ID) {
		return nil
	}
	return q.passed
}

// endSession returns the state that follows when a session is closed. A value that it has not
// read is passed on.
func (r *runner) endSession(session int) model.State {
	s := r.state
	if s.Ended() {
		return s.CloseSession(session)
	}
	for _, q := range r.requests {
		if q.Session == session && !s.Holds(q.ID) {
			s = s.Leave(q.ID)
		}
	}
	for _, q := range r.requests {
		if q.Session == session && r.unread(q) != nil {
			s = r.passOn(s, q, q.passed)
		}
	}
	return s.CloseSession(session)
}

// await waits for a reservation.
func (r *runner) await(q *request) error {
	if q.reservation == nil {
		return nil
	}
	if q.used {
		if _, err := q.reservation.Wait(context.Background()); !errors.Is(err, keylock.ErrReservationDone) {
			return fmt.Errorf("Wait of a used reservation returned %v", err)
		}
		return nil
	}
	q.used = true
	go func() {
		q.lock, q.err = q.reservation.Wait(context.Background())
		q.returned = true
	}()
	return nil
}

// cancel ends the context of a request that waits, or cancels its reservation.
func (r *runner) cancel(q *request) {
	switch {
	case q.reservation == nil && q.cancel == nil:
		return // a try
	case q.reservation == nil:
		if !q.returned {
			q.settle(context.Canceled)
			r.state = r.state.Leave(q.ID)
		}
		q.cancel()
	case !q.used: // the entry or the grant is given up, and never waited for
		unread := r.unread(q)
		q.used = true
		q.reservation.Cancel()
		q.settled, q.returned, q.err = true, true, q.want
		if !r.state.Ended() {
			r.state = r.passOn(r.state, q, unread)
		}
	default:
		if !q.returned {
			q.settle(keylock.ErrReservationDone)
			r.state = r.state.Leave(q.ID)
		}
		q.reservation.Cancel()
	}
}

// compare compares all that can be seen.
func (r *runner) compare() error {
	for _, q := range r.requests {
		if q.wanted != nil {
			select {
			case <-q.wanted:
				if !q.isWanted {
					return fmt.Errorf("%s: its lock is wanted", q.what)
				}
			default:
				if q.isWanted {
					return fmt.Errorf("%s: its lock is not wanted", q.what)
				}
			}
		}
		if q.reservation != nil && !q.used {
			continue // it is told when it is waited for
		}
		if err := q.check(); err != nil {
			return err
		}
		if got := q.lock.Value(); q.lock.Seq() != 0 && got != q.passed {
			return fmt.Errorf("%s: got the value %v, want %v", q.what, got, q.passed)
		}
	}
	for _, c := range r.others {
		if err := c.check(); err != nil {
			return err
		}
	}
	return r.compareLooks()
}

// compareLooks compares what Stats, Inspect and Snapshot show.
func (r *runner) compareLooks() error {
	ctx := context.Background()
	stats, err := r.manager.Stats(ctx)
	if r.state.Ended() {
		if !errors.Is(err, keylock.ErrClosed) {
			return fmt.Errorf("Stats returned %v after the end", err)
		}
		return nil
	}
	var want keylock.Stats
	for _, q := range r.state.Present {
		switch {
		case !r.state.Holds(q.ID):
			want.Waiting++
		case q.Shares():
			want.Shared++
			fallthrough
		default:
			want.Held++
		}
	}
	snapshot, _ := r.manager.Snapshot(ctx)
	for key := range keys {
		holders, waiters := r.state.Line(key)
		active := len(holders)+len(waiters) > 0
		if active {
			want.Keys++
		}
		if info, _ := r.manager.Inspect(ctx, key); info.Held != len(holders) || info.Waiting != len(waiters) {
			return fmt.Errorf("Inspect(%d) is %v", key, info)
		}
		i := slices.IndexFunc(snapshot, func(info keylock.KeyInfo[int]) bool { return info.Key == key })
		if i >= 0 != active || active && !r.shows(snapshot[i], key, holders, waiters) {
			return fmt.Errorf("Snapshot is %+v; key %d is held by %v, and %v wait", snapshot, key, holders, waiters)
		}
	}
	if timed := r.watch.HoldTimes || r.watch.SlowLog != nil; timed {
		want.Timed = true
		for _, q := range r.state.Present {
			oldest := &want.OldestWait
			if r.state.Holds(q.ID) {
				oldest = &want.OldestHold
			}
			*oldest = max(*oldest, time.Since(r.requests[q.ID].since))
		}
	}
	got := keylock.Stats{
		Keys: stats.Keys, Held: stats.Held, Shared: stats.Shared, Waiting: stats.Waiting,
		Timed: stats.Timed, OldestHold: stats.OldestHold, OldestWait: stats.OldestWait,
	}
	switch {
	case got != want:
		return fmt.Errorf("Stats is %+v, want %+v", got, want)
	case stats.Acquired-stats.Released != uint64(stats.Held):
		return fmt.Errorf("Stats does not add up: %+v", stats)
	}
	return nil
}

// shows reports whether a snapshot of a key shows these holders and these waiters, in
// this order, but for holders: one that shares may have passed another.
func (r *runner) shows(info keylock.KeyInfo[int], key int, holders, waiters []int) bool {
	var held, waiting []string
	for _, h := range info.Holders {
		if h.Since.IsZero() == (r.watch.HoldTimes || r.watch.SlowLog != nil) || (h.Caller.String() == "") == r.watch.Callers {
			return false
		}
		held = append(held, h.Mode.String()+" "+h.Session)
	}
	for _, w := range info.Waiters {
		waiting = append(waiting, w.Mode.String()+" "+w.Session)
	}
	hold := r.describe(key, holders)
	slices.Sort(held)
	slices.Sort(hold)
	return slices.Equal(held, hold) && slices.Equal(waiting, r.describe(key, waiters))
}

// describe tells of each request its mode and its session.
func (r *runner) describe(key int, ids []int) []string {
	var all []string
	for _, id := range ids {
		q := r.requests[id]
		mode, session := keylock.Exclusive, ""
		if q.Of(key).Shared {
			mode = keylock.Shared
		}
		if q.Session != 0 {
			session = fmt.Sprint("session ", q.Session)
		}
		all = append(all, mode.String()+" "+session)
	}
	return all
}
