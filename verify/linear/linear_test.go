// Package linear records what concurrent callers see of a manager, and checks that one
// sequence of transitions of the model explains it.
package linear

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/verify/model"
	"github.com/seed-46f81e6d/keylock/verify/verbs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var length = flag.Duration("linear", 5*time.Second, "how long TestHistoriesAreLinearizable goes on")

// TestHistoriesAreLinearizable makes short histories of the real manager, each with a few
// callers who use all verbs at the same time, until the time is over.
//
//	go test -C verify ./linear -v -args -linear=1m
func TestHistoriesAreLinearizable(t *testing.T) {
	stuck := time.AfterFunc(*length+time.Minute, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		panic("a history does not end: a call waits forever")
	})
	defer stuck.Stop()
	histories, operations := 0, 0
	for start := time.Now(); time.Since(start) < *length; histories++ {
		random := rand.New(rand.NewPCG(uint64(start.UnixNano()), uint64(histories)))
		initial := state{State: model.State{MaxWaiters: random.IntN(4) - 1, SharedLimit: random.IntN(3)}}
		events := record(initial, random)
		operations += len(events)
		verdict, info := porcupine.CheckOperationsVerbose(specification(initial), events, time.Minute)
		if verdict != porcupine.Ok {
			picture, err := os.CreateTemp("", "history-*.html")
			require.NoError(t, err)
			require.NoError(t, porcupine.Visualize(specification(initial), info, picture))
			for _, e := range events {
				t.Logf("%4d to %4d: %v -> %v", e.Call, e.Return, e.Input, e.Output)
			}
			t.Fatalf("history %d of %+v is %s; a picture is in %s", histories, initial, verdict, picture.Name())
		}
	}
	t.Logf("%d histories of %d operations", histories, operations)
	require.Greater(t, histories, 10)
}

// A state is that of the model, and what was handed off to the requests that are there.
type state struct {
	model.State
	values [][2]int // the receiver, and the request whose value it is
	loose  []int    // values of reservations that were cancelled when no waiter could read them
	unsure []int    // who may have been handed its value, see cancel
}

func (s state) value(id int) int {
	for _, v := range s.values {
		if v[0] == id {
			return v[1]
		}
	}
	return 0
}

// receivers is to how many requests a value was handed.
func (s state) receivers(value int) (n int) {
	for _, v := range s.values {
		if v[1] == value {
			n++
		}
	}
	return n
}

// takes reports whether the first that is blocked at the key of a request, which holds it, can
// have it handed off: it asks for this key alone, and holds it when the request has left.
func (s state) takes(id int) bool {
	if s.Ended() || !s.Holds(id) {
		return false
	}
	keys := s.request(id).Keys
	if len(keys) != 1 {
		return false
	}
	first := s.FirstBlocked(keys[0])
	return first >= 0 && len(s.request(first).Keys) == 1 && s.Leave(id).Holds(first)
}

func (s state) request(id int) model.Request {
	return s.Present[slices.IndexFunc(s.Present, func(r model.Request) bool { return r.ID == id })]
}

// passOn is what follows when a request leaves and those that are granted then receive a
// value, if they ask for the same key and no other.
func (s state) passOn(id, value int) state {
	next := state{s.Leave(id), slices.Clone(s.values), s.loose, s.unsure}
	for _, r := range next.Present {
		if slices.Equal(r.Keys, s.request(id).Keys) && next.Holds(r.ID) && !s.Holds(r.ID) {
			next.values = append(next.values, [2]int{r.ID, value})
		}
	}
	return next
}

// with is the state with another one of the model.
func (s state) with(m model.State) state { return state{m, s.values, s.loose, s.unsure} }

// An input is one transition, or one look. A call that asks and waits is two: it joins and,
// later, it holds. Both lie between its beginning and its end.
type input struct {
	verb    verb
	request model.Request // to join
	try     bool
	id      int // to hold, to leave, and of who is told that it is closed
	key     int // to look at
}

type verb string

const (
	join     verb = "join"
	hold     verb = "hold"
	refuse   verb = "fail to try"
	leave    verb = "leave"   // release, or give up
	handoff  verb = "handoff" // and whether it succeeds
	cancel   verb = "cancel"  // a reservation, which may have been handed a value
	end      verb = "close the session"
	shut     verb = "is told closed"
	closing  verb = "close"
	draining verb = "shutdown begins"
	drained  verb = "shutdown ends"
	idle     verb = "idle"
	inspect  verb = "inspect"
	stats    verb = "stats"
	ended    verb = "is told that the manager has ended"
)

// counts are the totals that a look shows.
type counts struct{ keys, held, shared, waiting int }

// maybe is the outcome of a join whose caller gave up: it may have come in or not.
const maybe model.Outcome = "maybe"

// specification is the model, as porcupine wants it.
func specification(initial state) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return initial },
		Equal: func(a, b any) bool {
			s, other := a.(state), b.(state)
			return s.Equal(other.State) && slices.Equal(s.values, other.values) && slices.Equal(s.loose, other.loose) && slices.Equal(s.unsure, other.unsure)
		},
		Step:              func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out) },
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v -> %v", in, out) },
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
	}
}

// step reports whether in some state an input can have the output, and what follows.
func step(s state, in input, out any) (bool, state) {
	switch in.verb {
	case join:
		next, outcome := s.Join(in.request, in.try)
		return outcome == out || out == maybe, s.with(next)
	case refuse:
		_, outcome := s.Join(in.request, true)
		return outcome == model.Busy || outcome == model.Closed, s
	case hold:
		value := out.(int)
		return s.Holds(in.id) && (value == s.value(in.id) || s.value(in.id) == 0 && slices.Contains(s.loose, value) ||
			value == 0 && slices.Contains(s.unsure, in.id)), s
	case leave:
		return true, s.with(s.Leave(in.id))
	case handoff:
		if s.takes(in.id) {
			return out == true, s.passOn(in.id, in.id)
		}
		return out == false, s
	case cancel:
		next := s.with(s.Leave(in.id))
		switch value := s.value(in.id); {
		case value != 0 && s.takes(in.id):
			next = s.passOn(in.id, value)
			if s.receivers(value) > 1 {
				// Of several that share a lock with a value, one whose caller had left before got none.
				for _, v := range next.values[len(s.values):] {
					next.unsure = append(slices.Clone(next.unsure), v[0])
				}
			}
		case value != 0:
			// The owner may hear of it after a later Cancel, by which there is a waiter for it.
			next.loose = append(slices.Clone(s.loose), value)
		}
		return true, next
	case end:
		return true, s.with(s.CloseSession(in.id))
	case shut:
		return (s.Closed || s.Draining) && !s.Has(in.id), s
	case closing:
		return true, s.with(s.Close())
	case draining:
		return true, s.with(s.Drain())
	case drained:
		return s.Ended(), s.with(s.Close())
	case idle:
		return s.Idle(), s
	case inspect:
		holders, waiters := s.Line(in.key)
		return !s.Ended() && out == [2]int{len(holders), len(waiters)}, s
	case stats:
		return !s.Ended() && out == totals(s.State), s
	case ended:
		return s.Ended(), s
	}
	panic(in.verb)
}

func totals(s model.State) counts {
	var c counts
	for key := range keys {
		if holders, waiters := s.Line(key); len(holders)+len(waiters) > 0 {
			c.keys++
		}
	}
	for _, r := range s.Present {
		switch {
		case !s.Holds(r.ID):
			c.waiting++
		case r.Shares():
			c.shared++
			fallthrough
		default:
			c.held++
		}
	}
	return c
}

const (
	keys    = 2
	callers = 4
	calls   = 5 // of each caller
)

// A recorder is where callers write down what they do.
type recorder struct {
	manager *keylock.Manager[int]
	passes  bool // locks are handed off
	clock   atomic.Int64
	ids     atomic.Int64
	mu      sync.Mutex
	events  []porcupine.Operation
}

// record makes one history.
func record(initial state, random *rand.Rand) []porcupine.Operation {
	watch := verbs.Observer{Callers: random.IntN(4) == 0, HoldTimes: random.IntN(4) == 0}
	if random.IntN(4) == 0 {
		watch.SlowLog, watch.SlowAfter = slog.New(slog.NewTextHandler(io.Discard, nil)), time.Microsecond
	}
	r := &recorder{manager: keylock.Start[int](context.Background(), append(verbs.Bounds(initial.State), watch.Options()...)...)}
	r.passes = random.IntN(2) == 0
	var all sync.WaitGroup
	for n := range callers {
		c := &caller{recorder: r, client: n, random: rand.New(rand.NewPCG(random.Uint64(), 0))}
		all.Go(func() {
			for range calls {
				c.call()
			}
			c.closeSession()
		})
	}
	all.Wait()
	r.manager.Close()
	return r.events
}

// now is later than every moment before.
func (r *recorder) now() int64 { return r.clock.Add(1) }

// arrived is now, after a call that does not wait for the owner. A handoff passes over a waiter
// whose caller has left before the owner receives that, so its leaving may come before what is in
// the mailbox. Histories in which locks are handed off wait until the mailbox has been served.
func (r *recorder) arrived() int64 {
	if r.passes {
		r.manager.Stats(context.Background())
	}
	return r.now()
}

// note writes down what happened between two moments.
func (c *caller) note(since, until int64, in input, out any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, porcupine.Operation{ClientId: c.client, Input: in, Call: since, Output: out, Return: until})
}

// A caller makes random calls, one after the other.
type caller struct {
	*recorder
	client  int
	random  *rand.Rand
	session *keylock.Session[int] // of the requests that have one; nil until there is one
	number  int                   // of the session
	asking  bool                  // it has a lock, and asks for another in its session
}

// call makes a call and gives back what it gets.
func (c *caller) call() {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if c.random.IntN(3) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.random.IntN(40_000)))
	}
	defer cancel()
	switch n := c.random.IntN(40); {
	case n < 30:
		c.lock(ctx)
	case n < 33:
		c.inspect(c.random.IntN(keys))
	case n < 36:
		c.stats()
	case n < 37:
		c.waitIdle(ctx)
	case n < 38:
		c.closeSession()
	case n == 38 && c.client == 0:
		c.shutdown(ctx)
	case n == 39 && c.client == 0:
		since := c.now()
		c.manager.Close()
		c.note(since, c.now(), input{verb: closing}, nil)
	}
}

// lock asks for a lock in one of the ways, and releases it.
func (c *caller) lock(ctx context.Context) {
	r := model.Request{ID: int(c.ids.Add(1)), Keys: []int{c.random.IntN(keys)}, Shared: c.random.IntN(2) == 0}
	switch c.random.IntN(10) {
	case 0:
		r.Keys, r.Shared = []int{0, 1}, false
	case 1:
		r.Keys = []int{0, 1}
		for range r.Keys {
			r.Each = append(r.Each, model.Terms{Shared: c.random.IntN(3) > 0, Limit: max(0, c.random.IntN(4)-1)})
		}
	case 2:
		r.Each = []model.Terms{{Shared: true, Limit: 1 + c.random.IntN(2)}}
	}
	var by verbs.Caller = c.manager
	if c.asking || c.random.IntN(3) == 0 {
		if c.session == nil {
			c.session, c.number = c.manager.Session(""), int(c.ids.Add(1))
		}
		by, r.Session = c.session, c.number
	}
	since := c.now()
	switch c.random.IntN(4) {
	case 0:
		lock, ok := verbs.Try(by, r)
		c.tried(since, r, lock, ok)
	case 1:
		reservation := verbs.Reserve(by, r)
		reserved := c.arrived()
		runtime.Gosched()
		if c.random.IntN(4) == 0 {
			gone := c.now()
			reservation.Cancel()
			c.note(since, reserved, input{verb: join, request: r}, maybe)
			c.note(gone, c.arrived(), input{verb: cancel, id: r.ID}, nil)
			return
		}
		waits := c.now()
		lock, err := reservation.Wait(ctx)
		c.waited(since, reserved, waits, r, lock, err)
	default:
		lock, err := verbs.Acquire(ctx, by, r)
		c.waited(since, c.now(), since, r, lock, err)
	}
}

// tried writes down a try, and releases.
func (c *caller) tried(since int64, r model.Request, lock keylock.Lock[int], ok bool) {
	until := c.now()
	if !ok {
		c.note(since, until, input{verb: refuse, request: r}, nil)
		return
	}
	c.note(since, until, input{verb: join, request: r, try: true}, model.In)
	c.release(r, lock)
}

// waited writes down a request that joined between two moments and then waited, and
// releases.
func (c *caller) waited(since, joined, waits int64, r model.Request, lock keylock.Lock[int], err error) {
	until := c.now()
	switch {
	case err == nil:
		c.note(since, joined, input{verb: join, request: r}, model.In)
		value := 0
		if lock.Value() != nil {
			value = lock.Value().(int)
		}
		c.note(waits, until, input{verb: hold, id: r.ID}, value)
		c.release(r, lock)
	case errors.Is(err, keylock.ErrQueueFull):
		c.note(since, joined, input{verb: join, request: r}, model.Full)
	case errors.Is(err, keylock.ErrDeadlock):
		c.note(since, joined, input{verb: join, request: r}, model.Deadlock)
	case errors.Is(err, keylock.ErrClosed):
		// It was refused, or it came in and was sent away.
		c.note(since, joined, input{verb: join, request: r}, maybe)
		c.note(since, until, input{verb: shut, id: r.ID}, nil)
	default:
		c.note(since, joined, input{verb: join, request: r}, maybe)
		c.note(since, c.arrived(), input{verb: leave, id: r.ID}, nil)
	}
}

// release holds for a moment, and releases.
func (c *caller) release(r model.Request, lock keylock.Lock[int]) {
	for range c.random.IntN(3) {
		runtime.Gosched()
	}
	if r.Session != 0 && !c.asking && c.random.IntN(2) == 0 {
		c.asking = true
		c.lock(context.Background())
		c.asking = false
	}
	since := c.now()
	if c.passes && c.random.IntN(3) == 0 {
		passed := lock.Handoff(r.ID)
		c.note(since, c.now(), input{verb: handoff, id: r.ID}, passed)
		if passed {
			return
		}
		since = c.now()
	}
	lock.Release()
	c.note(since, c.arrived(), input{verb: leave, id: r.ID}, nil)
	if c.random.IntN(4) == 0 {
		lock.Release() // nothing happens, so there is nothing to write down
	}
}

// closeSession closes the session, if there is one; the next request of one has another.
func (c *caller) closeSession() {
	if c.session == nil {
		return
	}
	since := c.now()
	c.session.Close()
	c.note(since, c.arrived(), input{verb: end, id: c.number}, nil)
	c.session = nil
}

func (c *caller) inspect(key int) {
	since := c.now()
	info, err := c.manager.Inspect(context.Background(), key)
	c.look(since, input{verb: inspect, key: key}, [2]int{info.Held, info.Waiting}, err)
}

func (c *caller) stats() {
	since := c.now()
	s, err := c.manager.Stats(context.Background())
	c.look(since, input{verb: stats}, counts{s.Keys, s.Held, s.Shared, s.Waiting}, err)
}

func (c *caller) waitIdle(ctx context.Context) {
	since := c.now()
	err := c.manager.WaitIdle(ctx)
	c.look(since, input{verb: idle}, nil, err)
}

// look writes down what a call has seen; nothing when its context ended.
func (c *caller) look(since int64, in input, out any, err error) {
	switch until := c.now(); {
	case err == nil:
		c.note(since, until, in, out)
	case errors.Is(err, keylock.ErrClosed):
		c.note(since, until, input{verb: ended}, nil)
	}
}

func (c *caller) shutdown(ctx context.Context) {
	since := c.now()
	err := c.manager.Shutdown(ctx)
	until := c.now()
	c.note(since, until, input{verb: draining}, nil)
	if err == nil {
		c.note(since, until, input{verb: drained}, nil)
	}
}
