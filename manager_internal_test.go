package keylock

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/table"
)

// keepBusy makes the owner serve one request until the returned function is called.
func keepBusy[K comparable](m *Manager[K]) (release func()) {
	begun, over := make(chan struct{}), make(chan struct{})
	go ask(context.Background(), m, func(*owner[K]) bool {
		close(begun)
		<-over
		return true
	})
	<-begun
	return func() { close(over) }
}

// fill puts messages into the mailbox that mean nothing, until so many are there.
func fill[K comparable](m *Manager[K], n int) {
	for len(m.mailbox) < n {
		m.mailbox <- message[K]{request: wake[K]{}}
	}
}

// A deadline used to do nothing while the owner was busy: a request that was likely to be
// granted at once did not listen to its context, and neither did a caller that waited for
// room in the mailbox, or for room to say that it has left.
func TestDeadlineDoesNotWaitForABusyOwner(t *testing.T) {
	for name, before := range map[string]int{"one request before it": 1, "a full mailbox": mailboxSize} {
		for call, wait := range map[string]func(*Manager[string], context.Context) error{
			"Acquire": func(m *Manager[string], ctx context.Context) error {
				_, err := m.Acquire(ctx, "k")
				return err
			},
			"AcquireAll": func(m *Manager[string], ctx context.Context) error {
				_, err := m.AcquireAll(ctx, "k", "l")
				return err
			},
			"Do": func(m *Manager[string], ctx context.Context) error {
				return m.Do(ctx, "k", func(context.Context) error { panic("without the lock") })
			},
			"Stats":    func(m *Manager[string], ctx context.Context) error { _, err := m.Stats(ctx); return err },
			"Snapshot": func(m *Manager[string], ctx context.Context) error { _, err := m.Snapshot(ctx); return err },
			"WaitIdle": func(m *Manager[string], ctx context.Context) error { return m.WaitIdle(ctx) },
			"Shutdown": func(m *Manager[string], ctx context.Context) error { return m.Shutdown(ctx) },
		} {
			t.Run(call+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := Start[string](t.Context())
					defer m.Close()
					idle := keepBusy(m)
					fill(m, before)
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					defer cancel()
					require.ErrorIs(t, wait(m, ctx), context.DeadlineExceeded)
					assert.Equal(t, 10*time.Millisecond, time.Since(start))

					idle()
					synctest.Wait()
					if call == "Shutdown" {
						<-m.Done() // it drains all the same
						return
					}
					requireNothingLeft(t, m)
				})
			})
		}
	}
}

// A context that ends while the reply is on its way wins, as everywhere.
func TestQuestionDoesNotAnswerAfterItsContextHasEnded(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the reply is there before its caller runs
	m := Start[string](context.Background())
	defer m.Close()
	for range 20 { // a select among ready cases would be right half of the time
		ctx, cancel := context.WithCancel(context.Background())
		idle := keepBusy(m)
		fill(m, mailboxSize)
		replied := make(chan error)
		go func() {
			_, err := ask(ctx, m, func(*owner[string]) bool {
				cancel()
				return true
			})
			replied <- err
		}()
		runtime.Gosched()
		idle()
		require.ErrorIs(t, <-replied, context.Canceled)
	}
}

// Those who wait leave, whatever room there is in the mailbox, and lose no grant by it.
func TestWaiterLeavesAFullMailbox(t *testing.T) {
	for room := range 3 {
		for _, releases := range []bool{false, true} {
			t.Run(fmt.Sprintf("room for %d, granted %t", room, releases), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := Start[string](t.Context())
					defer m.Close()
					holder, _ := m.TryAcquire("k")
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					const waiters = 4
					errs := make(chan error, waiters)
					for range waiters {
						go func() {
							_, err := m.Acquire(ctx, "k")
							errs <- err
						}()
					}
					synctest.Wait()
					idle := keepBusy(m)
					if releases {
						holder.Release()
					}
					fill(m, mailboxSize-room)
					time.Sleep(2 * time.Second)
					require.Len(t, errs, waiters, "the deadline has passed")
					for range waiters {
						require.ErrorIs(t, <-errs, context.DeadlineExceeded)
					}
					idle()
					holder.Release()
					requireNothingLeft(t, m)
				})
			})
		}
	}
}

// A reservation that is used up before the owner has received it leaves nothing behind.
func TestReservationIsAbandonedBeforeItIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Start[string](t.Context())
		defer m.Close()
		idle := keepBusy(m)
		var reservations []Reservation[string]
		for range 3 {
			reservations = append(reservations, m.Reserve("k"))
		}
		fill(m, mailboxSize)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, r := range reservations[1:] {
			_, err := r.Wait(ctx)
			require.ErrorIs(t, err, context.Canceled)
		}
		idle()
		lock, err := reservations[0].Wait(t.Context())
		require.NoError(t, err)
		assert.Zero(t, mustStats(t, m).Waiting, "a goroutine sees what it did before")
		lock.Release()
		requireNothingLeft(t, m)
	})
}

func mustStats[K comparable](t *testing.T, m *Manager[K]) Stats {
	t.Helper()
	s, err := m.Stats(context.Background())
	require.NoError(t, err)
	return s
}

// requireNothingLeft fails when a key is held or waited for, or can not be had any more.
func requireNothingLeft(t *testing.T, m *Manager[string]) {
	t.Helper()
	s := mustStats(t, m)
	require.Zero(t, s.Held+s.Waiting+s.Keys, s)
	lock, ok := m.TryAcquire("k")
	require.True(t, ok)
	lock.Release()
}

// A request is used again. One of many keys used to be cleared at every later use, and to
// keep their memory; and nothing that a user gave may stay in one that waits for its next
// use.
func TestRequestInThePoolKeepsNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one pool for all
	m := Start[*int](t.Context())
	defer m.Close()
	ctx := t.Context()
	key := func() *int { return new(int) }
	many := slices.Repeat([]*int{key()}, 1000)
	cancelled, cancel := context.WithCancel(ctx)

	lock, _ := m.Acquire(ctx, key())
	lock.Release()
	locks, _ := m.AcquireAll(ctx, many...)
	locks.Release()
	session := m.Session("s")
	lock, _ = session.Acquire(ctx, key())
	require.False(t, lock.Handoff("value"))
	_, ok := session.TryAcquireSet(exclusively(lock.Key())...)
	require.False(t, ok)
	withdrawn := m.ReserveSet(exclusively(append(many, lock.Key())...)...)
	waiting := m.Reserve(lock.Key())
	cancel()
	_, err := withdrawn.Wait(cancelled)
	require.Error(t, err)
	waiting.Cancel()
	_, err = session.Acquire(ctx, lock.Key())
	require.ErrorIs(t, err, ErrDeadlock)
	require.NoError(t, session.Close())
	mustStats(t, m)

	m.pool.New = nil
	requests := 0
	for r, _ := m.pool.Get().(*acquire[*int]); r != nil; r, _ = m.pool.Get().(*acquire[*int]) {
		requests++
		require.Equal(t, table.Request[*int]{}, r.want)
		require.Nil(t, r.session)
		require.Nil(t, r.err)
		require.Nil(t, r.value)
		require.Nil(t, r.ticket)
		require.Nil(t, r.nextLeft)
		require.Zero(t, r.token)
		require.Empty(t, r.replied)
		require.LessOrEqual(t, cap(r.many), keptKeys)
		require.Empty(t, r.many)
		for _, key := range r.many[:cap(r.many)] {
			require.Nil(t, key)
		}
	}
	require.NotZero(t, requests)
}

// Values that Start and the calls of a manager did not make fail in their caller, with a
// sentence, or hold nothing.
func TestZeroAndNilValues(t *testing.T) {
	ctx := t.Context()
	for name, m := range map[string]*Manager[string]{"zero": new(Manager[string]), "nil": nil} {
		for call, use := range map[string]func(){
			"Acquire":       func() { m.Acquire(ctx, "k") },
			"AcquireShared": func() { m.AcquireShared(ctx, "k") },
			"AcquireAll":    func() { m.AcquireAll(ctx, "k") },
			"TryAcquire":    func() { m.TryAcquire("k") },
			"Reserve":       func() { m.Reserve("k") },
			"Do":            func() { m.Do(ctx, "k", nil) },
			"Stats":         func() { m.Stats(ctx) },
			"Snapshot":      func() { m.Snapshot(ctx) },
			"Inspect":       func() { m.Inspect(ctx, "k") },
			"Top":           func() { m.Top(ctx, 1) },
			"WaitIdle":      func() { m.WaitIdle(ctx) },
			"Shutdown":      func() { m.Shutdown(ctx) },
			"Close":         func() { m.Close() },
			"Done":          func() { m.Done() },
			"Session":       func() { m.Session("s") },
		} {
			assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", use, "%s Manager: %s", name, call)
		}
		assert.Equal(t, "no manager", m.String(), name)
	}
	for name, s := range map[string]*Session[string]{"zero": new(Session[string]), "nil": nil} {
		for call, use := range map[string]func(){
			"Acquire":    func() { s.Acquire(ctx, "k") },
			"TryAcquire": func() { s.TryAcquire("k") },
			"Reserve":    func() { s.Reserve("k") },
			"Do":         func() { s.Do(ctx, "k", nil) },
			"Close":      func() { s.Close() },
		} {
			assert.PanicsWithValue(t, "keylock: a Session must be made by Manager.Session", use, "%s Session: %s", name, call)
		}
		assert.Equal(t, "no session", s.String(), name)
	}
}

// exclusively wants keys exclusively.
func exclusively[K comparable](keys ...K) (set []Want[K]) {
	for _, key := range keys {
		set = append(set, Want[K]{Key: key})
	}
	return set
}

// behindWriter returns a manager whose owner does not run, with a writer and requests behind it
// that share its key. One step grants about part of these.
func behindWriter(lifetime chan struct{}, part, n int) (o *owner[string], writer *acquire[string], readers []*acquire[string]) {
	m, o := newManager[string](lifetime, options{table: table.Config{Part: part}}, mailboxSize)
	join := func(mode table.Mode) *acquire[string] {
		r := m.newAcquire(nil, table.Request[string]{Key: "k", Mode: mode})
		r.serve(o)
		return r
	}
	writer = join(table.Exclusive)
	for range n {
		readers = append(readers, join(table.Shared))
	}
	return o, writer, readers
}

// granted returns how many requests have a grant.
func granted(requests []*acquire[string]) (n int) {
	for _, r := range requests {
		if r.token.Live() {
			n++
		}
	}
	return n
}

// A release of which 100,000 readers heard stopped the owner for 131 ms.
func TestRequestsAreServedWhileManyReadersAreGranted(t *testing.T) {
	o, writer, readers := behindWriter(nil, 2, 8)
	o.release(writer.token)
	assert.Equal(t, 1, granted(readers), "in the step of the release")
	fill(o.m, 1)
	require.True(t, o.goOn())
	assert.Equal(t, 2, granted(readers), "before the next request")
	fill(o.m, mailboxSize)
	o.meter.requests = 1
	require.True(t, o.goOn())
	assert.Equal(t, 2, granted(readers), "while others have no room to send")
	o.meter.requests = seldom
	require.True(t, o.goOn())
	assert.Equal(t, 3, granted(readers), "while others have had no room for long")
	for len(o.m.mailbox) > 0 {
		<-o.m.mailbox
	}
	require.True(t, o.goOn())
	assert.Equal(t, len(readers), granted(readers), "without another request")
	assert.False(t, o.table.Postponed())
}

// A handoff to 100,000 readers stopped the owner for 200 ms.
func TestRequestsAreServedWhileManyReadersReceiveAValue(t *testing.T) {
	o, writer, readers := behindWriter(nil, 1, 5)
	require.True(t, o.handOff(writer.token, "value"))
	require.Equal(t, 1, granted(readers), "in the step of the handoff")
	assert.Equal(t, "value", readers[0].value)
	late := o.m.newAcquire(nil, table.Request[string]{Key: "k", Mode: table.Shared})
	late.serve(o)
	fill(o.m, 1)
	require.True(t, o.goOn())
	require.Equal(t, 2, granted(readers), "before the next request")
	assert.False(t, o.handOff(readers[0].token, "another"), "those that wait have a value")
	require.True(t, o.m.abandonRequest(readers[2]))
	for len(o.m.mailbox) > 0 {
		<-o.m.mailbox
	}
	require.True(t, o.goOn())
	require.Equal(t, len(readers), granted(readers))
	for i, r := range readers {
		if i == 2 {
			assert.Nil(t, r.value, "its caller has left")
			continue
		}
		assert.Equal(t, "value", r.value)
		assert.False(t, o.m.abandonRequest(r), "it is to read the value")
	}
	assert.True(t, late.token.Live())
	assert.Nil(t, late.value, "it came later")
}

func TestGuarantee09NoReaderIsGrantedLaterThanTheEnd(t *testing.T) {
	lifetime := make(chan struct{})
	o, writer, readers := behindWriter(lifetime, 1, 3)
	o.release(writer.token)
	close(lifetime)
	require.False(t, o.goOn())
	assert.Equal(t, 1, granted(readers))
	for _, r := range readers[1:] {
		assert.ErrorIs(t, r.err, ErrClosed)
	}
}

// The requests that were abandoned while the mailbox was full may be very many.
func TestGuarantee09NothingIsGrantedForAnAbandonedRequestAfterTheEnd(t *testing.T) {
	lifetime := make(chan struct{})
	o, writer, readers := behindWriter(lifetime, 1, 1)
	o.m.left.Store(writer)
	close(lifetime)
	o.serveLeft()
	assert.Zero(t, granted(readers))
	assert.ErrorIs(t, readers[0].err, ErrClosed)
}

// The context of the next waiter ends, the holder hands off the lock, and the owner
// serves that before it learns that the waiter has left: the value goes to the one behind,
// and where there is none it stays with the holder.
func TestHandoffPassesOverAWaiterWhoHasLeft(t *testing.T) {
	m := &Manager[string]{mailbox: make(chan message[string], 1)}
	m.pool.New = func() any { return &acquire[string]{replied: make(chan bool, 2)} }
	o := &owner[string]{m: m, table: table.New[string](table.Config{})}
	ask := func() *acquire[string] {
		r := m.newAcquire(nil, table.Request[string]{Key: "k"})
		r.serve(o)
		return r
	}
	handOff := func(of table.Token[string], value any) bool {
		r := &handoff[string]{grant: of, value: value, passed: make(chan bool, 1)}
		r.serve(o)
		return <-r.passed
	}

	holder, gone, next := ask(), ask(), ask()
	require.True(t, m.abandonRequest(gone))
	m.leave(gone)
	require.True(t, handOff(holder.token, "state"))
	require.Len(t, next.replied, 1)
	assert.Equal(t, "state", next.value)
	(<-m.mailbox).serve(o)
	assert.True(t, next.token.Live(), "the late withdrawal takes nothing from anybody")

	gone = ask()
	require.True(t, m.abandonRequest(gone))
	m.leave(gone)
	assert.False(t, handOff(next.token, "state"))
	assert.True(t, next.token.Live(), "the holder keeps the lock, and the value")
	(<-m.mailbox).serve(o)
	assert.Equal(t, table.Counts{Keys: 1, Held: 1, Acquired: 2, Waited: 1, Cancelled: 2, Released: 1}, o.table.Counts())
}

// Two keys nearly never have one hash. When they do, one of them does not get the other's grant.
func TestKeptGrantOfAnotherKeyIsGivenBack(t *testing.T) {
	m := Start[string](t.Context(), WithKeptGrants(1))
	defer m.Close()
	for range 2 {
		l, err := m.Acquire(t.Context(), "a")
		require.NoError(t, err)
		l.Release()
	}
	grant, _ := m.kept.take("b")
	assert.Zero(t, grant, "of a key with another hash")
	m.kept.cells[0].hash.Store(maphash.Comparable(m.kept.seed, "b"))
	l, ok := m.TryAcquire("b")
	require.True(t, ok)
	assert.Equal(t, "b", l.Key())
	a, err := m.Inspect(t.Context(), "a")
	require.NoError(t, err)
	assert.Zero(t, a.Held)
	l.Release()
}

// A number has 62 bits in a cell.
func TestNoGrantIsKeptAfterTheLastNumber(t *testing.T) {
	_, o := newManager[string](nil, options{}, mailboxSize)
	grant := func(key string) table.Token[string] {
		return o.table.Join(&table.Request[string]{Key: key}).Token
	}
	keep := func(key string) (word uint64) {
		k := newKept(o.table, nil, 1)
		k.keep(key, grant(key))
		return k.cells[0].word.Load()
	}
	o.table.Keep(grant("first").Ticket(), mostNumber-1)
	assert.Equal(t, uint64(mostNumber<<numberBits|out), keep("last that is kept"))
	assert.Equal(t, called, keep("next"))
}

// What a call of WaitIdle says when its context has ended may come before the owner has looked at it, or when the busy
// period for whose end it waited is over.
func TestWaitIdleLeavesOnlyItsOwnPeriod(t *testing.T) {
	m, o := newManager[string](nil, options{}, mailboxSize)
	m.kept = newKept(o.table, nil, 1)
	busy := func() (end func()) {
		grant := o.table.Join(&table.Request[string]{Key: "k"}).Token
		return func() {
			o.table.Release(grant)
			o.checkIdle()
		}
	}
	end := busy()
	var first, second, third waitIdle[string]
	over := first.wait(o)
	require.NotNil(t, over)
	end()
	require.True(t, ended.Is(over.over))
	first.serve(o)
	assert.Zero(t, o.idle)

	end = busy()
	require.NotNil(t, second.wait(o))
	first.serve(o)
	third.serve(o)
	assert.Nil(t, third.wait(o))
	assert.NotNil(t, o.idle, "the second waits still")
	second.serve(o)
	assert.Nil(t, o.idle)
	third.serve(o)
	assert.Zero(t, o.looking.waiting)
	end()
}

// A call of WaitIdle whose context ends before the owner has looked at it keeps no grants from being kept.
func TestGrantsAreKeptAfterAWaitIdleThatWasNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Start[string](t.Context(), WithKeptGrants(16))
		defer m.Close()
		busy, err := m.AcquireShared(t.Context(), "busy")
		require.NoError(t, err)
		defer busy.Release()
		release := keepBusy(m)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.WaitIdle(ctx), context.DeadlineExceeded)
		release()
		before := mustStats(t, m).Requests
		for range 100 {
			l, err := m.Acquire(t.Context(), "k")
			require.NoError(t, err)
			l.Release()
		}
		assert.Less(t, mustStats(t, m).Requests-before, uint64(10))
	})
}

// CancelLate is a Cancel that was held up between its look at a Wait that was under way
// and its word to the owner.
func (v Reservation[K]) CancelLate() {
	v.m.send(message[K]{request: &cancelReservation[K]{v.r, v.generation}})
}

// The caller of a snapshot may leave when its turn has come and the owner does not know of all
// kept grants yet. The next snapshot used to wait then until the manager ended.
func TestSnapshotWhoseTurnHasComeLeavesItToTheNext(t *testing.T) {
	m, o := newManager[string](nil, options{}, mailboxSize)
	m.kept = newKept(o.table, nil, 1)
	var snapshots [mostSnapshots + 2]*snapshot[string]
	for i := range snapshots {
		snapshots[i] = &snapshot[string]{begun: make(chan struct{})}
		snapshots[i].ask(o)
	}
	leaves, last := snapshots[mostSnapshots], snapshots[mostSnapshots+1]

	snapshots[0].end(o) // now it is the turn of the one that leaves
	m.send(message[string]{request: (*abandonSnapshot[string])(leaves)})
	require.False(t, o.stops())
	require.False(t, o.stops())
	require.Empty(t, m.mailbox)
	assert.True(t, ended.Is(last.begun))
	assert.False(t, ended.Is(leaves.begun))

	for _, s := range snapshots {
		s.end(o)
	}
	assert.Empty(t, o.snapshots)
}

// While a request that may take long is under way, callers listen to their contexts from the beginning. One that
// was counted, and not taken from the count, would make them do so for good.
func TestRequestsThatMayTakeLongAreCountedUntilTheyAreServed(t *testing.T) {
	type calls struct {
		m           *Manager[string]
		s           *Session[string]
		of, ofMany  Lock[string] // they are held
		ends        context.Context
		reservation Reservation[string] // of the session, for a key that is held
	}
	for name, c := range map[string]struct {
		counted    int64
		whenItEnds int64
		call       func(*calls)
	}{
		"Acquire":                           {0, 0, func(c *calls) { c.m.Acquire(c.ends, "free") }},
		"TryAcquire":                        {0, 0, func(c *calls) { c.m.TryAcquire("free") }},
		"Reserve":                           {0, 0, func(c *calls) { c.m.Reserve("free") }},
		"Release":                           {0, 0, func(c *calls) { c.of.Release() }},
		"Downgrade":                         {0, 0, func(c *calls) { c.of.Downgrade() }},
		"Stats":                             {1, 1, func(c *calls) { c.m.Stats(c.ends) }},
		"Snapshot":                          {1, 1, func(c *calls) { c.m.Snapshot(c.ends) }},
		"AcquireAll":                        {1, 2, func(c *calls) { c.m.AcquireAll(c.ends, "free", "too") }},
		"TryAcquireSet":                     {1, 1, func(c *calls) { c.m.TryAcquireSet(exclusively("free", "too")...) }},
		"ReserveSet":                        {1, 1, func(c *calls) { c.m.ReserveSet(exclusively("free", "too")...) }},
		"Release of many":                   {1, 1, func(c *calls) { c.ofMany.Release() }},
		"Downgrade of many":                 {1, 1, func(c *calls) { c.ofMany.Downgrade() }},
		"Acquire of a session":              {1, 2, func(c *calls) { c.s.Acquire(c.ends, "held") }},
		"TryAcquire of a session":           {1, 1, func(c *calls) { c.s.TryAcquire("free") }},
		"Reserve of a session":              {1, 1, func(c *calls) { c.s.Reserve("free") }},
		"Close of a session":                {1, 1, func(c *calls) { c.s.Close() }},
		"Cancel of a session's":             {1, 1, func(c *calls) { c.reservation.Cancel() }},
		"Wait of a session's":               {0, 1, func(c *calls) { c.reservation.Wait(c.ends) }},
		"Stats without room":                {1, 0, func(c *calls) { fill(c.m, mailboxSize); c.m.Stats(c.ends) }},
		"Acquire of a session without room": {1, 0, func(c *calls) { fill(c.m, mailboxSize); c.s.Acquire(c.ends, "held") }},
	} {
		for _, opts := range [][]Option{nil, {WithKeptGrants(2)}} {
			synctest.Test(t, func(t *testing.T) {
				m := Start[string](t.Context(), opts...)
				defer m.Close()
				of := &calls{m: m, s: m.Session("s")}
				ends, end := context.WithCancel(t.Context())
				of.ends = ends
				of.of, _ = m.TryAcquire("held")
				of.ofMany, _ = m.TryAcquireSet(exclusively("one", "more")...)
				of.reservation = of.s.Reserve("held")
				synctest.Wait()
				require.Zero(t, m.long.Load())
				idle := keepBusy(m)
				before := m.long.Load()
				go c.call(of)
				synctest.Wait()
				assert.Equal(t, c.counted, m.long.Load()-before, name)
				end()
				synctest.Wait()
				assert.Equal(t, c.whenItEnds, m.long.Load()-before, name)
				idle()
				synctest.Wait()
				assert.Zero(t, m.long.Load(), name)
			})
		}
	}
}

// A request that is used again does not keep the one that was left after it.
func TestRequestsThatWereLeftAreNotListedAnyMore(t *testing.T) {
	o, _, readers := behindWriter(nil, 1, 2)
	for _, r := range readers {
		require.True(t, o.m.abandonRequest(r))
	}
	readers[0].nextLeft = readers[1]
	o.m.left.Store(readers[0])
	o.serveLeft()
	assert.Nil(t, readers[0].nextLeft)
	assert.Zero(t, o.table.Counts().Waiting)
}
