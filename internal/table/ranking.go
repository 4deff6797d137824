package table

// A ranking keeps the lines in which somebody waits in the order of how many do. A
// line that changes by one moves by one, so it costs the same however many there are.
type ranking[K comparable] struct {
	top []*line[K] // by the number of waiters: the first of the lines that have as many; the last is not nil
}

// update moves a line to where it belongs now.
func (r *ranking[K]) update(l *line[K]) {
	if l.rank != l.waiting {
		r.move(l)
	}
}

func (r *ranking[K]) move(l *line[K]) {
	if l.rank > 0 {
		if l.above == nil {
			r.top[l.rank] = l.below
		} else {
			l.above.below = l.below
		}
		if l.below != nil {
			l.below.above = l.above
		}
	}
	l.rank, l.above, l.below = l.waiting, nil, nil
	if l.rank > 0 {
		for len(r.top) <= l.rank {
			r.top = append(r.top, nil)
		}
		if l.below = r.top[l.rank]; l.below != nil {
			l.below.above = l
		}
		r.top[l.rank] = l
	}
	for n := len(r.top); n > 0 && r.top[n-1] == nil; n = len(r.top) {
		r.top = r.top[:n-1]
	}
	if cap(r.top) > shrinkFrom && len(r.top) <= cap(r.top)/8 {
		r.top = append(make([]*line[K], 0, 2*len(r.top)), r.top...)
	}
}

// longest is the most waiters that any line has.
func (r *ranking[K]) longest() int { return max(len(r.top)-1, 0) }

// all yields the lines in which somebody waits, the longest first.
func (r *ranking[K]) all(yield func(*line[K]) bool) {
	for n := r.longest(); n > 0; n-- {
		for l := r.top[n]; l != nil; l = l.below {
			if !yield(l) {
				return
			}
		}
	}
}

// rank moves all the lines of a ticket that has begun or ceased to wait.
func (t *Table[K]) rank(k *Ticket[K]) {
	places := k.places()
	for i := range places {
		t.ranking.update(places[i].line)
	}
}
