package inorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// A Group runs work that has keys. Its methods may be called from any goroutine. Use [New] or
// [Over] to make one, and [Group.Sub] for a part of one.
type Group[K comparable] struct {
	sched  *scheduler[K]
	parent *Group[K]               // nil for the one that New or Over returned
	ctx    context.Context         // of the functions
	cancel context.CancelCauseFunc // ends ctx
	forget func() bool             // ends the watch on the context that the group was made with

	// Guarded by sched.mu.
	running    int                           // functions that are called now, without those of the subs
	unfinished int                           // accepted, and neither done nor dropped, with what the subs have
	idle       chan struct{}                 // closed when unfinished comes to 0; nil while that is not waited for
	subs       burst[*Group[K], struct{}]    // those that are not over
	paused     burst[*queue[K], *time.Timer] // whose first work is this group's, and waits for another try
	failures   burst[K, *failure[K]]         // of keys, by WithKeyFailures
	failed     int                           // how many there have been
	closed     bool                          // Wait was called: nothing more is accepted
	err        error                         // why nothing more begins; nil while it does
}

// A failure is that of a key, the nth of its group.
type failure[K comparable] struct {
	KeyError[K]
	n int
}

// mustBeMade panics, in the caller, for a Group that neither New, Over nor Sub made.
func (g *Group[K]) mustBeMade() {
	if g == nil || g.sched == nil {
		panic("inorder: a Group must be made by New, Over or Sub")
	}
}

// Go adds fn to the queue of key and returns nil; or it returns an error,
// and fn is not going to be called. While the queue is full it waits for room, see [WithQueue].
// The context that fn gets is the group's: ctx is for that wait only.
//
// It returns ctx.Err() when ctx ends first or is done already; an error that is [ErrStopped]
// when the group begins nothing more, and that says why; [ErrFull] when fn of this group calls
// it, with the context it got, while the queue is full; and [keylock.ErrInvalidKey] for a key that
// is not equal to itself. A key that cannot be compared panics, and so do a nil ctx and a nil fn.
//
// That Go returned nil does not mean that fn is called: it is dropped when the group, or with
// WithKeyFailures its key, fails before its turn comes. Wait tells.
func (g *Group[K]) Go(ctx context.Context, key K, fn func(context.Context) error) error {
	g.mustBeMade()
	mustContext(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := check(key, fn); err != nil {
		return err
	}
	s := g.sched
	s.lock()
	defer s.unlock()
	if err := g.refusal(); err != nil || g.drop(key) {
		return err
	}
	if s.full() {
		if err := g.waitForRoom(ctx); err != nil {
			return err
		}
		if g.drop(key) {
			s.admit()
			return nil
		}
	}
	s.add(g, key, fn)
	return nil
}

// TryGo is Go without a wait: it is false, and fn is not going to be called, when the queue is
// full, when the group begins nothing more, and for a key that is not equal to itself.
func (g *Group[K]) TryGo(key K, fn func(context.Context) error) bool {
	g.mustBeMade()
	if check(key, fn) != nil {
		return false
	}
	s := g.sched
	s.lock()
	defer s.unlock()
	if g.refusal() != nil {
		return false
	}
	if g.drop(key) {
		return true
	}
	if s.full() {
		return false
	}
	s.add(g, key, fn)
	return true
}

func check[K comparable](key K, fn func(context.Context) error) error {
	if fn == nil {
		panic("inorder: nil function")
	}
	if same := key; key != same {
		return keylock.ErrInvalidKey
	}
	return nil
}

// Sub returns a part of the group: work that shares the group's keys, limit and queue, and has a
// context, an error, a Stop and a Wait of its own. The order of a key is that of the calls,
// through whichever part they came. The group's WaitIdle and Wait wait for its parts, and its
// end is theirs; a failure in a part is the part's own.
//
// A part is for what comes and goes while the work of a key must stay in order: the assignment
// of a partition, or one request. The end of ctx stops it. Wait for it, or stop it, when there is
// no more work: until then the group knows it. When the Wait of a part of [Over]'s group returns, a key
// of dropped work may still be about to be released, which only the group's own Wait waits for. A nil
// ctx panics.
func (g *Group[K]) Sub(ctx context.Context) *Group[K] {
	g.mustBeMade()
	mustContext(ctx)
	s := g.sched
	s.lock()
	defer s.unlock()
	sub := s.newGroup(ctx, g)
	sub.closed, sub.err = g.closed, g.err
	if sub.closed || sub.err != nil {
		sub.end()
		return sub
	}
	g.subs.put(sub, struct{}{})
	return sub
}

// WaitIdle waits until no accepted work of the group is unfinished, with that which is accepted
// meanwhile, and returns what Wait would: nil when everything was done. It returns ctx.Err() when
// ctx ends first. The group goes on.
//
// After Stop or a failure it returns when nothing of the group runs.
func (g *Group[K]) WaitIdle(ctx context.Context) error {
	g.mustBeMade()
	mustContext(ctx)
	s := g.sched
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.lock()
		if g.unfinished == 0 {
			defer s.unlock()
			return g.result()
		}
		idle := g.whenIdle()
		s.unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return ended.Err(ctx)
		}
	}
}

// Wait makes the group accept nothing more, waits until all that it accepted is done or dropped, and
// returns the first error: of a function, the cause of the group's context, or that of Stop. Errors after it
// are not kept. With [WithKeyFailures] it also returns, joined, the first 16 failures of keys and
// the number of the others. It ends the group's context.
//
// It may be called again, and by many at once, but not by work of the group, which would wait for
// itself.
func (g *Group[K]) Wait() error {
	g.mustBeMade()
	s := g.sched
	s.lock()
	g.close()
	for g.unfinished > 0 {
		idle := g.whenIdle()
		s.unlock()
		<-idle
		s.lock()
	}
	defer s.unlock()
	g.end()
	return g.result()
}

// Stop makes the group begin nothing more: work that waits, for its turn or for another try, is
// dropped. Work that runs goes on. To end that too, end the context that the group was made
// with; to wait for it, call Wait, which returns the cause, or ErrStopped when that is nil. Only
// the first Stop does anything, and none after a failure.
func (g *Group[K]) Stop(cause error) {
	g.mustBeMade()
	if cause == nil {
		cause = ErrStopped
	}
	s := g.sched
	s.lock()
	defer s.unlock()
	s.halt(g, cause, false)
}

// fail stops the group as the failure of its work does: what runs is cut short, too.
func (g *Group[K]) fail(cause error) {
	s := g.sched
	s.lock()
	defer s.unlock()
	s.halt(g, cause, true)
}

// Reopen lets a key go on that has failed, see [WithKeyFailures], and returns its failure, a
// [*KeyError] that Wait no longer returns; nil when the key has not failed. What was dropped
// does not come back.
func (g *Group[K]) Reopen(key K) error {
	g.mustBeMade()
	s := g.sched
	s.lock()
	defer s.unlock()
	f := g.failures.now[key]
	if f == nil {
		return nil
	}
	g.failures.remove(key)
	return &f.KeyError
}

// Below, sched.mu is held.

// refusal returns why the group accepts nothing; nil when it does.
func (g *Group[K]) refusal() error {
	g.notice()
	return g.reason()
}

// reason is refusal as far as it has been noticed.
func (g *Group[K]) reason() error {
	switch {
	case g.err != nil && g.err != ErrStopped:
		return fmt.Errorf("%w: %w", ErrStopped, g.err)
	case g.err != nil, g.closed:
		return ErrStopped
	}
	return nil
}

// notice stops a group whose context has ended: the watch on the context, on a goroutine of
// its own, may come later.
func (g *Group[K]) notice() {
	if g.err == nil && g.ctx.Err() != nil && !g.over() {
		g.sched.halt(g, context.Cause(g.ctx), true)
	}
}

// over is true when there is nothing that Wait would wait for.
func (g *Group[K]) over() bool { return g.unfinished == 0 && (g.closed || g.err != nil) }

// drop counts work of a key that has failed as dropped; it is false when the key has not.
func (g *Group[K]) drop(key K) bool {
	f := g.failures.now[key]
	if f != nil {
		f.Dropped++
	}
	return f != nil
}

// waitForRoom returns nil when there is room, which is then taken: it is the caller's. It gives
// the mutex away while it waits.
func (g *Group[K]) waitForRoom(ctx context.Context) error {
	s := g.sched
	w := &roomWaiter[K]{group: g, answered: make(chan error, 1)}
	w.element = s.blocked.PushBack(w)
	s.unlock()
	var abandoned error // why, when there is no reply yet
	if ctx.Value(insideOf[K]{s}) != nil {
		abandoned = ErrFull
	} else {
		select {
		case err := <-w.answered:
			w.answered <- err
			abandoned = ctx.Err()
		case <-ctx.Done():
			abandoned = ended.Err(ctx)
		}
	}
	s.lock()
	if w.element != nil {
		s.blocked.Remove(w.element)
		return abandoned
	}
	if err := <-w.answered; err != nil {
		return err
	}
	s.waiting-- // add counts it again, before the mutex is given away
	if abandoned == nil {
		abandoned = g.refusal()
	}
	if abandoned != nil {
		s.admit()
	}
	return abandoned
}

func (g *Group[K]) whenIdle() <-chan struct{} {
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}

// close makes the group and its parts accept nothing more.
func (g *Group[K]) close() {
	g.notice()
	g.closed = true
	for sub := range g.subs.now {
		sub.close()
	}
	g.sched.refuseWaiters()
	if g.over() {
		g.end()
	}
}

// end releases what the group keeps of others. Nothing of it is unfinished.
func (g *Group[K]) end() {
	g.forget()
	g.cancel(g.err)
	if g.parent != nil {
		g.parent.subs.remove(g)
	}
}

// result returns what Wait does.
func (g *Group[K]) result() error {
	g.notice()
	if len(g.failures.now) == 0 {
		return g.err
	}
	ordered := make([]*failure[K], 0, len(g.failures.now))
	for _, f := range g.failures.now {
		ordered = append(ordered, f)
	}
	slices.SortFunc(ordered, func(a, b *failure[K]) int { return a.n - b.n })
	errs := []error{g.err}
	for _, f := range ordered[:min(len(ordered), maxKeyErrors)] {
		e := f.KeyError
		errs = append(errs, &e)
	}
	if more := len(ordered) - maxKeyErrors; more > 0 {
		errs = append(errs, fmt.Errorf("inorder: %d more keys failed", more))
	}
	return errors.Join(errs...)
}
