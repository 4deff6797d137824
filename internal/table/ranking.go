package table

// A ranking keeps the queues in which requests wait in the order of how many do. A queue
// that changes by one moves to the rank beside its own, so it costs the same however many
// queues and waiters there are, and nothing grows that would have to be copied.
type ranking[K comparable] struct {
	highest, lowest *rank[K]
	spare           []*rank[K]
}

// A rank is the queues that have as many waiters. There is none without queues.
type rank[K comparable] struct {
	waiting       int32
	queues        *queue[K]
	higher, lower *rank[K]
}

// update moves a queue to where it belongs now.
func (r *ranking[K]) update(q *queue[K]) {
	at := q.rank
	switch {
	case at == nil && q.waiting == 0, at != nil && at.waiting == q.waiting:
		return
	case at != nil && q.waiting > 0 && at.queues == q && q.below == nil && at.fits(q.waiting):
		at.waiting = q.waiting // the queue is alone in its rank, which moves with it
		return
	}
	lower := r.below(at, q.waiting)
	if at != nil {
		at.remove(q)
	}
	if q.waiting > 0 {
		r.rank(q.waiting, lower).push(q)
	}
	if at != nil && at.queues == nil {
		r.remove(at)
	}
}

// fits reports whether a rank would be in order with so many waiters.
func (k *rank[K]) fits(waiting int32) bool {
	return (k.higher == nil || k.higher.waiting > waiting) && (k.lower == nil || k.lower.waiting < waiting)
}

// below returns the highest rank with fewer waiters, nil when there is none, beginning
// beside at, where nil stands for the end.
func (r *ranking[K]) below(at *rank[K], waiting int32) *rank[K] {
	for at != nil && at.waiting >= waiting {
		at = at.lower
	}
	for {
		next := r.after(at)
		if next == nil || next.waiting >= waiting {
			return at
		}
		at = next
	}
}

// after returns the rank above another one, where nil stands for the end.
func (r *ranking[K]) after(at *rank[K]) *rank[K] {
	if at == nil {
		return r.lowest
	}
	return at.higher
}

// rank returns the rank with so many waiters, which comes after lower.
func (r *ranking[K]) rank(waiting int32, lower *rank[K]) *rank[K] {
	higher := r.after(lower)
	if higher != nil && higher.waiting == waiting {
		return higher
	}
	k := r.take()
	*k = rank[K]{waiting: waiting, higher: higher, lower: lower}
	r.link(lower, k)
	r.link(k, higher)
	return k
}

// link makes two ranks neighbours, where nil stands for the ends.
func (r *ranking[K]) link(lower, higher *rank[K]) {
	if lower == nil {
		r.lowest = higher
	} else {
		lower.higher = higher
	}
	if higher == nil {
		r.highest = lower
	} else {
		higher.lower = lower
	}
}

func (r *ranking[K]) take() *rank[K] {
	if n := len(r.spare); n > 0 {
		k := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return k
	}
	return new(rank[K])
}

func (r *ranking[K]) remove(k *rank[K]) {
	r.link(k.lower, k.higher)
	*k = rank[K]{}
	if len(r.spare) < spareRanks {
		r.spare = append(r.spare, k)
	}
}

const spareRanks = 64

func (k *rank[K]) push(q *queue[K]) {
	q.rank, q.above, q.below = k, nil, k.queues
	if q.below != nil {
		q.below.above = q
	}
	k.queues = q
}

func (k *rank[K]) remove(q *queue[K]) {
	if q.above == nil {
		k.queues = q.below
	} else {
		q.above.below = q.below
	}
	if q.below != nil {
		q.below.above = q.above
	}
	q.rank, q.above, q.below = nil, nil, nil
}

// longestQueue is the most waiters that any queue has.
func (r *ranking[K]) longestQueue() int {
	if r.highest == nil {
		return 0
	}
	return int(r.highest.waiting)
}

// all yields the queues in which requests wait, the longest first.
func (r *ranking[K]) all(yield func(*queue[K]) bool) {
	for k := r.highest; k != nil; k = k.lower {
		for q := k.queues; q != nil; q = q.below {
			if !yield(q) {
				return
			}
		}
	}
}

// rank moves all the queues of a ticket that has begun or ceased to wait.
func (t *Table[K]) rank(k *Ticket[K]) {
	entries := k.entries()
	for i := range entries {
		t.ranking.update(entries[i].queue)
	}
}
