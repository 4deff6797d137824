package table

// fullPart is how many waiters one transition lets go on, more or less, so that a release
// or a handoff behind which very many share does not take long.
const fullPart = 256

// postponed are the queues in which waiters can go on that were too many for one transition.
//
// In such a queue the order holds as in any other, as if the first of them were still blocked:
// what comes later waits behind them, and what leaves before them lets them go on. The head of
// a queue is never postponed, so who waits always waits behind another one.
type postponed[K comparable] struct {
	queues []postponedQueue[K]
	at     map[*queue[K]]int // where they are in queues
}

// A postponedQueue is one of them, and the value that goes with its grants.
type postponedQueue[K comparable] struct {
	*queue[K]
	passed passed
}

// passed is a value that was handed off to the waiters of a queue that had arrived by then. Who
// came later may be granted together with them, and gets none.
type passed struct {
	value any // nil when there is none
	until uint64
}

// to returns the value with which a waiter is granted.
func (p passed) to(number uint64) any {
	if number > p.until {
		return nil
	}
	return p.value
}

func (p *postponed[K]) has(q *queue[K]) bool {
	_, has := p.at[q]
	return has
}

// add adds a queue, unless it is there.
func (p *postponed[K]) add(q *queue[K]) {
	if p.has(q) {
		return
	}
	if p.at == nil {
		p.at = make(map[*queue[K]]int)
	}
	p.at[q] = len(p.queues)
	p.queues = append(p.queues, postponedQueue[K]{queue: q})
}

// pass notes that a value was handed off to those who wait in a queue, if it is there.
func (p *postponed[K]) pass(q *queue[K], value passed) {
	if i, has := p.at[q]; has {
		p.queues[i].passed = value
	}
}

// remove removes a queue, and reports whether it was there.
func (p *postponed[K]) remove(q *queue[K]) bool {
	i, has := p.at[q]
	if !has {
		return false
	}
	last := len(p.queues) - 1
	moved := p.queues[last]
	p.queues[i], p.at[moved.queue] = moved, i
	p.queues[last], p.queues = postponedQueue[K]{}, p.queues[:last]
	if delete(p.at, q); last == 0 {
		*p = postponed[K]{} // maps do not shrink
	}
	return true
}

// Postponed reports whether waiters can go on that were too many for one transition. They must
// go on by and by, see GoOn.
func (t *Table[K]) Postponed() bool { return len(t.postponed.queues) > 0 }

// GoOn lets postponed waiters go on, about n or as many as a transition does, and returns the
// grants that follow.
func (t *Table[K]) GoOn(n int) []Grant[K] {
	t.begin()
	t.enough, t.goesOn = min(t.enough, t.worked+uint64(n)), true
	for more := true; more && t.Postponed(); more = t.worked < t.enough {
		t.advance(t.postponed.queues[0].queue)
		t.advanceOpened()
	}
	t.goesOn = false
	return t.granted
}
