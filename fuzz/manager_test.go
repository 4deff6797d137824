package fuzz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// FuzzManager runs programs on a manager, in a bubble.
//
//	go test ./fuzz -run='^$' -fuzz=FuzzManager -fuzztime=30s -fuzzminimizetime=1x
func FuzzManager(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, bytes []byte) {
		require.NoError(t, runManager(t, parse(bytes[:min(len(bytes), maxProgram)])))
	})
}

// TestManagerRandomPrograms runs random programs on a manager.
func TestManagerRandomPrograms(t *testing.T) {
	limit := 4 * time.Second
	if testing.Short() {
		limit = time.Second
	}
	steps := 0
	for seed, start := uint64(0), time.Now(); time.Since(start) < limit; seed++ {
		random := rand.New(rand.NewPCG(seed, 1))
		bytes := make([]byte, maxProgram)
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		p := parse(bytes)
		require.NoError(t, runManager(t, p), "seed %d", seed)
		steps += len(p.steps)
	}
	t.Logf("%d steps", steps)
}

var managerVerbs = [16]int{
	acquire, acquire, acquire, acquire, try, reserve, reserve, wait,
	cancel, cancelReservation, release, release, release, handoff, waitIdle, other,
}

// What comes seldom, because it ends something.
var seldom = [16]int{
	closeSession, closeSession, closeSession, shutdown, shutdown, closeManager, endContext,
	downgrade, downgrade, downgrade, other, other, other, other, other, other,
}

func managerVerb(s step) int {
	if verb := managerVerbs[s.verb]; verb != other {
		return verb
	}
	return seldom[s.arg/4%16]
}

// keyNames are the keys as the manager knows them. Floating-point numbers, because one of them is
// not equal to itself.
var keyNames = [keys]float64{0, 1, 2, 3}

// A managerRun is a manager beside the worlds that it may have made.
type managerRun struct {
	manager *keylock.Manager[float64]
	worlds  []*world           // all that fit what was seen so far
	cancel  context.CancelFunc // of the manager's context

	sessions     [owners]*keylock.Session[float64]
	calls        []*made
	reservations []keylock.Reservation[float64]
}

// made is a call that was made of the manager.
type made struct {
	cancel context.CancelFunc // of its context
	result
	lock keylock.Lock[float64]
}

// locker is what a manager and a session have in common.
type locker interface {
	Acquire(context.Context, float64) (keylock.Lock[float64], error)
	AcquireShared(context.Context, float64) (keylock.Lock[float64], error)
	AcquireAll(context.Context, ...float64) (keylock.Lock[float64], error)
	TryAcquire(float64) (keylock.Lock[float64], bool)
	AcquireSet(context.Context, ...keylock.Want[float64]) (keylock.Lock[float64], error)
	TryAcquireSet(...keylock.Want[float64]) (keylock.Lock[float64], bool)
	Reserve(float64) keylock.Reservation[float64]
	ReserveSet(...keylock.Want[float64]) keylock.Reservation[float64]
}

// options are the options of the program's manager.
func (p program) options() (opts []keylock.Option) {
	if p.maxWaiters != 0 {
		opts = append(opts, keylock.WithMaxWaiters(max(p.maxWaiters, 0)))
	}
	if p.sharedLimit != 0 {
		opts = append(opts, keylock.WithSharedLimit(p.sharedLimit))
	}
	if p.watched&1 != 0 {
		opts = append(opts, keylock.WithCallers())
	}
	if p.watched&2 != 0 {
		opts = append(opts, keylock.WithHoldTimes())
	}
	if p.watched&4 != 0 {
		opts = append(opts, keylock.WithSlowLog(slog.New(slog.NewTextHandler(io.Discard, nil)), time.Nanosecond))
	}
	return opts
}

// runManager returns an error when the manager differs from its model.
func runManager(t *testing.T, p program) (err error) {
	synctest.Test(t, func(*testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		r := &managerRun{
			manager: keylock.Start[float64](ctx, p.options()...),
			worlds:  []*world{{model: &model{maxWaiters: p.maxWaiters, sharedLimit: p.sharedLimit}}},
			cancel:  cancel,
		}
		defer r.end()
		for owner := 1; owner < owners; owner++ {
			r.sessions[owner] = r.manager.Session(label(owner))
		}
		for i, s := range p.steps {
			if err = r.step(s); err != nil {
				err = p.error(i, err, func(s step) string { return verbNames[managerVerb(s)] })
				return
			}
		}
	})
	return err
}

// end ends whatever still runs. That nothing is left then is for the bubble to say.
func (r *managerRun) end() {
	r.cancel()
	r.manager.Close()
	for _, c := range r.calls {
		c.cancel()
	}
}

// step does one step and looks whether the manager is where it should be then.
func (r *managerRun) step(s step) error {
	a, ok := r.choose(s)
	if !ok {
		return nil
	}
	var histories []history
	if racer, ok := pick(r.world().pending(), s.arg/2); ok && s.race && a.canRace() {
		c := action{verb: cancel, target: racer}
		cancelFirst := s.arg%2 == 0
		if cancelFirst {
			r.do(c)
			r.do(a)
		} else {
			r.do(a)
			r.do(c)
		}
		for _, w := range r.worlds {
			histories = append(histories, w.racing(a, c, cancelFirst)...)
		}
	} else {
		r.do(a)
		for _, w := range r.worlds {
			histories = append(histories, history{w, w.after(a)})
		}
	}
	synctest.Wait()
	return r.keep(histories, r.look())
}

// keep keeps the worlds in which the view is possible; it is an error when there is none.
func (r *managerRun) keep(histories []history, v view) error {
	var errs []error
	r.worlds = nil
	for _, h := range histories {
		err := h.after.compare(v, h.before)
		known := func(w *world) bool { return reflect.DeepEqual(w, h.after) }
		if err != nil {
			errs = append(errs, err)
		} else if !slices.ContainsFunc(r.worlds, known) {
			r.worlds = append(r.worlds, h.after)
		}
	}
	if len(r.worlds) == 0 {
		return errors.Join(errs...)
	}
	return nil
}

// world is one of those that are possible. They differ in what cannot be seen yet.
func (r *managerRun) world() *world { return r.worlds[0] }

// canRace says whether the action and the end of some wait's context may come at the same time
// here: when it is done by the one goroutine that makes the steps.
func (a action) canRace() bool {
	switch a.verb {
	case release, handoff, downgrade, cancelReservation, closeSession, try, reserve, closeManager, endContext:
		return true
	}
	return false
}

// A history is a world before and after something has happened.
type history struct{ before, after *world }

// after is the world after an action.
func (w *world) after(actions ...action) *world {
	c := w.clone()
	for _, a := range actions {
		c.do(a)
	}
	return c
}

// racing returns every history that an action and the end of a call's context may have when
// they come at the same time. Unless its context ended first, the call may return as if it had
// not.
func (w *world) racing(a, cancellation action, cancelFirst bool) []history {
	histories := []history{{w, w.after(cancellation, a)}}
	after := w.after(a)
	c := &after.calls[cancellation.target]
	if !c.returned {
		return append(histories, history{w, after.after(cancellation)})
	}
	kept := c.err == nil && after.hasValue(c.request)
	if !cancelFirst || kept {
		histories = append(histories, history{w, after})
	}
	if kept && after.receives(c.request, w) {
		return histories
	}
	// The answer crosses the cancellation. If it is a lock it is given back, and so it is if
	// others who share it have the value.
	crossed := after.clone()
	crossed.calls[cancellation.target].fail(context.Canceled)
	if c.err == nil {
		crossed.leave(c.request)
		crossed.settle()
	}
	return append(histories, history{w, crossed})
}

// choose makes the choices of a step; false when there is nothing to choose from.
func (r *managerRun) choose(s step) (a action, ok bool) {
	a = action{step: s, verb: managerVerb(s), value: len(r.calls)}
	switch {
	case a.verb == reserve:
		a.each = nil // of many that share, it does not show which grant is whose before the Wait
		fallthrough
	case a.verb == try || a.each != nil:
		a.step = a.single()
	}
	switch a.verb {
	case other:
	case cancel:
		a.target, ok = pick(r.world().pending(), s.arg)
	case release:
		a.target, ok = pick(append(r.world().locks(false), r.world().locks(true)...), s.arg)
	case handoff, downgrade:
		a.target, ok = pick(append(r.world().locks(false), r.world().locks(true)...), s.arg)
	case wait, cancelReservation:
		a.target, ok = int(s.arg)%max(len(r.reservations), 1), len(r.reservations) > 0
	case closeSession:
		ok = s.owner != 0
	default:
		ok = true
	}
	return a, ok
}

// do does an action, without waiting for what it leads to.
func (r *managerRun) do(a action) {
	m := r.manager
	var from locker = m
	if a.owner != 0 {
		from = r.sessions[a.owner]
	}
	names := make([]float64, len(a.keys))
	for i, key := range a.keys {
		names[i] = keyNames[key]
	}
	if a.invalid() {
		names[len(names)-1] = math.NaN()
	}
	switch a.verb {
	case acquire:
		r.start(a, func(ctx context.Context) (keylock.Lock[float64], error) {
			switch {
			case a.many && a.each == nil:
				return from.AcquireAll(ctx, names...)
			case a.many || a.limit > 0:
				return from.AcquireSet(ctx, a.wants(names)...)
			case a.shared:
				return from.AcquireShared(ctx, names[0])
			}
			return from.Acquire(ctx, names[0])
		})
	case try:
		var l keylock.Lock[float64]
		var ok bool
		if a.many || a.shared {
			l, ok = from.TryAcquireSet(a.wants(names)...)
		} else {
			l, ok = from.TryAcquire(names[0])
		}
		r.returned(l, ok)
	case reserve:
		var v keylock.Reservation[float64]
		if a.many || a.shared {
			set := a.wants(names)
			v = from.ReserveSet(set...)
			clear(set) // it is the caller's
		} else {
			v = from.Reserve(names[0])
		}
		r.reservations = append(r.reservations, v)
		r.returned(keylock.Lock[float64]{}, true)
	case wait:
		r.start(a, r.reservations[a.target].Wait)
	case cancelReservation:
		r.reservations[a.target].Cancel()
	case cancel:
		r.calls[a.target].cancel()
	case release:
		r.calls[a.target].lock.Release()
	case downgrade:
		r.calls[a.target].lock.Downgrade()
	case handoff:
		r.returned(keylock.Lock[float64]{}, r.calls[a.target].lock.Handoff(a.value))
	case closeSession:
		if r.world().closed[a.owner] {
			r.sessions[a.owner] = m.Session(label(a.owner))
		} else {
			r.sessions[a.owner].Close()
		}
	case waitIdle:
		r.start(a, func(ctx context.Context) (l keylock.Lock[float64], err error) { return l, m.WaitIdle(ctx) })
	case shutdown:
		r.start(a, func(ctx context.Context) (l keylock.Lock[float64], err error) { return l, m.Shutdown(ctx) })
	case closeManager:
		m.Close()
	case endContext:
		r.cancel()
	}
}

// single is the step for one key where a set is of one.
func (s step) single() step {
	if s.many && len(s.keys) == 1 {
		if s.many = false; s.each != nil {
			s.shared, s.limit, s.each = s.each[0].Mode == table.Shared, s.each[0].Limit, nil
		}
	}
	return s
}

// wants are the keys with their terms.
func (a action) wants(names []float64) (set []keylock.Want[float64]) {
	for i, name := range names {
		is := table.Terms{Limit: a.limit}
		if a.shared {
			is.Mode = table.Shared
		}
		if a.each != nil {
			is = a.each[i]
		}
		set = append(set, keylock.Want[float64]{Key: name, Mode: keylock.Mode(is.Mode), Limit: int(is.Limit)})
	}
	return set
}

// start makes a call in a goroutine and with a context of its own.
func (r *managerRun) start(a action, call func(context.Context) (keylock.Lock[float64], error)) {
	ctx, cancel := context.WithCancel(context.Background())
	if a.done() {
		cancel()
	}
	c := &made{cancel: cancel}
	r.calls = append(r.calls, c)
	go func() { c.finish(call(ctx)) }()
}

// returned notes a call that has returned.
func (r *managerRun) returned(l keylock.Lock[float64], ok bool) {
	c := &made{cancel: func() {}}
	r.calls = append(r.calls, c)
	if ok {
		c.finish(l, nil)
	} else {
		c.finish(l, errRefused)
	}
}

// finish notes what the call has returned.
func (c *made) finish(l keylock.Lock[float64], err error) {
	c.lock, c.err = l, sentinel(err)
	c.seq, c.value = l.Seq(), l.Value()
	c.result.returned = true
}

// sentinel returns what the error is, without the particulars.
func sentinel(err error) error {
	for _, target := range []error{
		keylock.ErrClosed, keylock.ErrDeadlock, keylock.ErrInvalidKey, keylock.ErrQueueFull, keylock.ErrReservationDone,
	} {
		if errors.Is(err, target) {
			return target
		}
	}
	return err
}

// look sees all that can be seen.
func (r *managerRun) look() view {
	ctx := context.Background()
	var v view
	for _, c := range r.calls {
		v.results = append(v.results, c.result)
	}
	select {
	case <-r.manager.Done():
		v.done = true
	default:
	}
	var errs [2 + keys]error
	v.stats, errs[0] = r.manager.Stats(ctx)
	v.stats.Waits, v.stats.Requests, v.stats.Serving, v.stats.Uptime = keylock.Histogram{}, 0, 0, 0
	v.stats.Timed, v.stats.Holds, v.stats.OldestHold, v.stats.OldestWait, v.stats.SlowLogLost = false, keylock.Histogram{}, 0, 0, 0
	infos, err := r.manager.Snapshot(ctx)
	errs[1] = err
	v.queues = make(map[int][]table.Entry)
	for _, info := range infos {
		key := int(info.Key)
		for _, h := range info.Holders {
			v.queues[key] = append(v.queues[key], table.Entry{Seq: h.Seq, Mode: table.Mode(h.Mode), Label: h.Session})
		}
		for _, w := range info.Waiters {
			v.queues[key] = append(v.queues[key], table.Entry{Mode: table.Mode(w.Mode), Label: w.Session})
		}
	}
	for key, name := range keyNames {
		info, err := r.manager.Inspect(ctx, name)
		v.present[key], errs[2+key] = info.Held+info.Waiting > 0, err
	}
	v.err = errs[0]
	for _, err := range errs {
		if err != v.err {
			v.err = fmt.Errorf("questions are answered differently: %v", errs)
		}
	}
	return v
}

// What the programs have found in the manager, each as a test that tells its story.

// No keys, in a request that was new, became no list of keys, which means the one key
// of the request: AcquireAll() locked the zero key.
func TestNoKeysIsNotTheZeroKey(t *testing.T) {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	zero, err := m.Acquire(ctx, "")
	require.NoError(t, err)
	defer zero.Release()

	locks, ok := m.TryAcquireSet()
	assert.True(t, ok, "there is nothing to wait for")
	locks.Release()
	defer m.ReserveSet().Cancel()

	stats, err := m.Stats(ctx)
	require.NoError(t, err)
	assert.Zero(t, stats.Waiting, "nor for a reservation")
}

// A reservation that is granted and not yet waited for is held by its session, and is
// released with it. Wait returned the lock all the same, as if it were still held.
func TestReservationEndsWithItsSession(t *testing.T) {
	ctx := context.Background()
	m := keylock.Start[string](ctx)
	defer m.Close()

	s := m.Session("s")
	granted := s.Reserve("key")
	s.Close()
	other, ok := m.TryAcquire("key")
	require.True(t, ok, "the session has released the key")
	defer other.Release()

	lock, err := granted.Wait(ctx)
	assert.ErrorIs(t, err, keylock.ErrClosed)
	assert.Zero(t, lock)
}
