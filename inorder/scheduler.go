package inorder

import (
	"container/list"
	"context"
	"maps"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// A scheduler decides which work runs. A group and its parts share one.
type scheduler[K comparable] struct {
	locks       *keylock.Manager[K] // under whose locks work runs; nil: the keys are the group's own
	limit       int                 // of running
	room        int                 // the bound of waiting
	keyFailures bool
	root        *Group[K]

	mu      sync.Mutex
	queues  burst[K, *queue[K]] // those that have work
	ready   fifo[K]             // those whose first work only needs a slot; when there are any, running is limit
	running int                 // functions that are called now, and slots that are about to
	waiting int                 // work that is accepted and was never begun
	blocked list.List           // of *roomWaiter, who wait until waiting is below room
	later   []func()            // what the next unlock does, without the mutex
}

// A roomWaiter is a call of Go that waits for room.
type roomWaiter[K comparable] struct {
	group    *Group[K]
	element  *list.Element // in blocked; nil once it is answered
	answered chan error    // nil: there is room, and it is counted in waiting
}

// An item is one piece of work.
type item[K comparable] struct {
	fn    func(context.Context) error
	group *Group[K]
	next  *item[K] // in its queue, whose last item has the first one here
}

// A queue is the work of one key that waits. The item that runs is in none.
type queue[K comparable] struct {
	key   K
	last  *item[K]  // whose next is the first one; nil when nothing waits
	after *queue[K] // in ready
	held  *held[K]  // nil without a manager
	state state
	again bool // its first item was begun before
	gone  bool // it was emptied while its key was being acquired
}

type state uint8

const (
	acquiring state = iota // its key is being asked for
	ready                  // in scheduler.ready
	running                // an item of it runs
	pausing                // its first item waits for another try
)

func (q *queue[K]) first() *item[K] { return q.last.next }

func (q *queue[K]) empty() bool { return q.last == nil }

func (q *queue[K]) pushBack(it *item[K]) {
	q.pushFront(it)
	q.last = it
}

func (q *queue[K]) pushFront(it *item[K]) {
	if q.last == nil {
		q.last = it
	} else {
		it.next = q.last.next
	}
	q.last.next = it
}

// pop removes the first item, and tells whether it was begun before.
func (q *queue[K]) pop() (it *item[K], again bool) {
	it, again = q.last.next, q.again
	if it == q.last {
		q.last = nil
	} else {
		q.last.next = it.next
	}
	it.next, q.again = nil, false
	return it, again
}

// filter removes the items for which out is true. It tells out, too, which were begun before.
func (q *queue[K]) filter(out func(it *item[K], again bool) bool) {
	if q.empty() {
		return
	}
	last := q.last
	it, again := q.first(), q.again
	q.last, q.again = nil, false
	for end := false; !end; again = false {
		next := it.next
		end = it == last
		it.next = nil
		if !out(it, again) {
			q.pushBack(it)
			q.again = q.again || again
		}
		it = next
	}
}

// A burst is a map that gives its memory back when most of what it held is gone: a map of the language
// keeps it, and to range over one takes time for all that it ever held. The zero burst is ready to use.
type burst[K comparable, V any] struct {
	now  map[K]V
	most int // that now has held
}

func (b *burst[K, V]) put(key K, value V) {
	if b.now == nil {
		b.now = make(map[K]V)
	}
	b.now[key] = value
	b.most = max(b.most, len(b.now))
}

// remove may be called for what a range over b.now has come to.
func (b *burst[K, V]) remove(key K) {
	delete(b.now, key)
	if b.most < 1000 || len(b.now) > b.most/16 {
		return
	}
	smaller := make(map[K]V, len(b.now))
	maps.Copy(smaller, b.now)
	b.now, b.most = smaller, len(smaller)
}

// A fifo is a list of queues.
type fifo[K comparable] struct{ head, tail *queue[K] }

func (f *fifo[K]) push(q *queue[K]) {
	if f.head == nil {
		f.head = q
	} else {
		f.tail.after = q
	}
	f.tail = q
}

func (f *fifo[K]) pop() {
	q := f.head
	f.head, q.after = q.after, nil
	if f.head == nil {
		f.tail = nil // which would keep the key in memory
	}
}

// insideOf is the key of a context that a function of the scheduler's groups got.
type insideOf[K comparable] struct{ *scheduler[K] }

func (s *scheduler[K]) newGroup(ctx context.Context, parent *Group[K]) *Group[K] {
	g := &Group[K]{sched: s, parent: parent}
	ctx = ended.Sound(ctx)
	g.ctx, g.cancel = context.WithCancelCause(context.WithValue(ctx, insideOf[K]{s}, true))
	g.forget = context.AfterFunc(ctx, func() {
		s.lock()
		defer s.unlock()
		s.halt(g, context.Cause(ctx), true)
	})
	return g
}

func (s *scheduler[K]) lock() { s.mu.Lock() }

// unlock gives the mutex away and does what is due outside of it.
func (s *scheduler[K]) unlock() {
	later := s.later
	s.later = nil
	s.mu.Unlock()
	for _, do := range later {
		do()
	}
}

// Below, the mutex is held unless it says otherwise.

// full is true when Go must wait for room: also behind others who do.
func (s *scheduler[K]) full() bool { return s.waiting >= s.room || s.blocked.Len() > 0 }

// admit lets those in who wait for room that there is now.
func (s *scheduler[K]) admit() {
	for s.waiting < s.room && s.blocked.Len() > 0 {
		s.waiting++
		s.answer(s.blocked.Front(), nil)
	}
}

// refuseWaiters ends the wait for room of those whose group accepts nothing more.
func (s *scheduler[K]) refuseWaiters() {
	for e := s.blocked.Front(); e != nil; {
		next := e.Next()
		if err := e.Value.(*roomWaiter[K]).group.reason(); err != nil {
			s.answer(e, err)
		}
		e = next
	}
	s.admit() // the room may be for those behind
}

func (s *scheduler[K]) answer(e *list.Element, err error) {
	w := e.Value.(*roomWaiter[K])
	s.blocked.Remove(e)
	w.element = nil
	w.answered <- err
}

// add accepts work.
func (s *scheduler[K]) add(g *Group[K], key K, fn func(context.Context) error) {
	it := &item[K]{fn: fn, group: g}
	s.waiting++
	g.accepted()
	q := s.queues.now[key]
	if q != nil {
		q.pushBack(it)
		return
	}
	q = &queue[K]{key: key}
	q.pushBack(it)
	s.queues.put(key, q)
	s.prepare(q)
}

// prepare makes a queue that has work ready: at once, or when its key is acquired.
func (s *scheduler[K]) prepare(q *queue[K]) {
	if s.locks != nil {
		s.acquire(q)
		return
	}
	s.makeReady(q)
}

// makeReady lets a queue's first item run as soon as there is a slot.
func (s *scheduler[K]) makeReady(q *queue[K]) {
	q.state = ready
	s.ready.push(q)
	s.dispatch()
}

// dispatch starts what is ready while there are slots.
func (s *scheduler[K]) dispatch() {
	for s.running < s.limit {
		s.running++
		q, it := s.begin()
		if q == nil {
			s.running--
			return
		}
		go s.work(q, it)
	}
}

// begin takes the first item of the queue that has been ready longest, for a slot that is
// counted already. It returns nil when there is none.
func (s *scheduler[K]) begin() (*queue[K], *item[K]) {
	for {
		q := s.ready.head
		if q == nil {
			return nil, nil
		}
		if g := q.first().group; g.ctx.Err() != nil {
			g.notice() // which drops that item
			continue
		}
		s.ready.pop()
		q.state = running
		it, again := q.pop()
		it.group.running++
		s.left(again)
		return q, it
	}
}

// left counts an item that waits no longer.
func (s *scheduler[K]) left(again bool) {
	if !again {
		s.waiting--
		s.admit()
	}
}

// work runs items, each of the queue that has been ready longest, until there is none or another
// goroutine has the slot. It is called without the mutex.
func (s *scheduler[K]) work(q *queue[K], it *item[K]) {
	defer func() {
		if q == nil {
			return
		}
		if x := recover(); x != nil {
			// Nothing is counted as done, and nothing of the key begins: a Wait that returned
			// could end the process, with success, before the panic does.
			panic(x)
		}
		go func() {
			if q, it := s.done(q, it, ErrGoexit); q != nil {
				s.work(q, it)
			}
		}()
	}()
	for q != nil {
		q, it = s.done(q, it, it.fn(it.group.ctx))
	}
}

// done ends a call and returns the item to go on with; nil when there is none. It is called
// without the mutex.
func (s *scheduler[K]) done(q *queue[K], it *item[K], err error) (*queue[K], *item[K]) {
	after, again := againIn(err)
	s.lock()
	it.group.notice()
	if again {
		again = s.retry(q, it)
	} else if err != nil {
		s.fail(it.group, q, err)
	}
	it.group.running--
	if s.locks != nil {
		return s.doneUnderLock(q, it, again, after)
	}
	switch {
	case again && after > 0:
		s.pause(q, after)
	case q.empty():
		s.queues.remove(q.key)
	default:
		q.state = ready
		s.ready.push(q)
	}
	if !again {
		it.group.finished()
	}
	q, it = s.next()
	s.unlock()
	return q, it
}

// next returns the item for a slot that has become free, and gives the slot up when there is none.
func (s *scheduler[K]) next() (*queue[K], *item[K]) {
	q, it := s.begin()
	if q == nil {
		s.running--
	}
	return q, it
}

// retry puts an item back as the first of its queue, unless it must not begin any more.
func (s *scheduler[K]) retry(q *queue[K], it *item[K]) bool {
	if it.group.err != nil {
		return false
	}
	q.pushFront(it)
	q.again = true
	return true
}

// pause makes a queue wait until its first item may be tried again.
func (s *scheduler[K]) pause(q *queue[K], after time.Duration) {
	it := q.first()
	g := it.group
	q.state = pausing
	g.paused.put(q, time.AfterFunc(after, func() {
		s.lock()
		defer s.unlock()
		if g.paused.now[q] != nil && q.state == pausing && q.first() == it {
			g.paused.remove(q)
			s.prepare(q)
		}
	}))
}

// fail records the error of work of q's key.
func (s *scheduler[K]) fail(g *Group[K], q *queue[K], err error) {
	if !s.keyFailures {
		if g.err == nil {
			s.halt(g, err, true)
		}
		return
	}
	g.failed++
	f := &failure[K]{KeyError[K]{Key: q.key, Err: err}, g.failed}
	g.failures.put(q.key, f)
	q.filter(func(it *item[K], again bool) bool {
		if it.group != g {
			return false
		}
		f.Dropped++
		s.discard(it, again)
		return true
	})
}

// halt makes a group and its parts begin nothing more and drops what waits. If it is to cut
// short, it also ends the context of what runs.
func (s *scheduler[K]) halt(g *Group[K], cause error, cut bool) {
	if g.err != nil && !cut {
		return
	}
	running := g.mark(cause, cut)
	s.refuseWaiters()
	if g.unfinished > running {
		s.sweep()
	}
}

// mark notes why a group and its parts begin nothing more, and returns how many of their
// functions run.
func (g *Group[K]) mark(cause error, cut bool) (running int) {
	if g.err == nil {
		g.err = cause
	}
	if cut {
		g.cancel(cause)
	}
	running = g.running
	for sub := range g.subs.now {
		running += sub.mark(cause, cut)
	}
	if g.unfinished == 0 {
		g.end()
	}
	return running
}

// sweep drops the items of all groups that begin nothing more. It costs time for everything that
// waits, which spares each item the links that it would need to be found.
func (s *scheduler[K]) sweep() {
	var resumed []*queue[K]
	for _, q := range s.queues.now {
		if q.state == pausing && q.first().group.err != nil {
			it, again := q.pop()
			it.group.paused.now[q].Stop()
			it.group.paused.remove(q)
			s.discard(it, again)
			resumed = append(resumed, q)
		}
		q.filter(func(it *item[K], again bool) bool {
			if it.group.err == nil {
				return false
			}
			s.discard(it, again)
			return true
		})
		if q.empty() && q.state != running {
			s.queues.remove(q.key)
			s.emptied(q)
		}
	}
	still := fifo[K]{}
	for q := s.ready.head; q != nil; {
		after := q.after
		q.after = nil
		if !q.empty() {
			still.push(q)
		}
		q = after
	}
	s.ready = still
	// All of them, before anything is dispatched: that may find that another group has ended, and sweep
	// again. A queue that is pausing without a timer must not be seen by then.
	for _, q := range resumed {
		switch {
		case q.empty():
		case s.locks != nil:
			s.acquire(q)
		default:
			q.state = ready
			s.ready.push(q)
		}
	}
	if len(resumed) > 0 {
		s.dispatch()
	}
}

// discard counts an item that is dropped.
func (s *scheduler[K]) discard(it *item[K], again bool) {
	s.left(again)
	it.group.finished()
}

// accepted counts work of the group.
func (g *Group[K]) accepted() {
	for ; g != nil; g = g.parent {
		g.unfinished++
	}
}

// finished counts work of the group that is done or dropped.
func (g *Group[K]) finished() {
	for ; g != nil; g = g.parent {
		g.unfinished--
		if g.unfinished > 0 {
			continue
		}
		if g.idle != nil {
			close(g.idle)
			g.idle = nil
		}
		if g.over() {
			g.end()
		}
	}
}
