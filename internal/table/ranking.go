package table

// A ranking keeps the queues in which somebody waits in the order of how many do. A
// queue that changes by one moves by one, so it costs the same however many there are.
type ranking[K comparable] struct {
	top []*queue[K] // by the number of waiters: the first of the queues that have as many; the last is not nil
}

// update moves a queue to where it belongs now.
func (r *ranking[K]) update(q *queue[K]) {
	if q.rank != q.waiting {
		r.move(q)
	}
}

func (r *ranking[K]) move(q *queue[K]) {
	if q.rank > 0 {
		if q.above == nil {
			r.top[q.rank] = q.below
		} else {
			q.above.below = q.below
		}
		if q.below != nil {
			q.below.above = q.above
		}
	}
	q.rank, q.above, q.below = q.waiting, nil, nil
	if q.rank > 0 {
		for len(r.top) <= q.rank {
			r.top = append(r.top, nil)
		}
		if q.below = r.top[q.rank]; q.below != nil {
			q.below.above = q
		}
		r.top[q.rank] = q
	}
	for n := len(r.top); n > 0 && r.top[n-1] == nil; n = len(r.top) {
		r.top = r.top[:n-1]
	}
	if cap(r.top) > shrinkFrom && len(r.top) <= cap(r.top)/8 {
		r.top = append(make([]*queue[K], 0, 2*len(r.top)), r.top...)
	}
}

// longest is the most waiters that any queue has.
func (r *ranking[K]) longestQueue() int { return max(len(r.top)-1, 0) }

// all yields the queues in which somebody waits, the longest first.
func (r *ranking[K]) all(yield func(*queue[K]) bool) {
	for n := r.longestQueue(); n > 0; n-- {
		for q := r.top[n]; q != nil; q = q.below {
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
