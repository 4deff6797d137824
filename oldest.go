package keylock

import "github.com/seed-46f81e6d/keylock/internal/table"

// firsts are the grants that were the first of those by which a key is held now, so the
// oldest of them is of the key that has been held for longest, however many hold other keys
// together. It is a heap by grant number, in segments, because a copy of all would take long.
type firsts[K comparable] struct {
	segments [][]*tracked[K]
	size     int
}

const firstsSegment = 1024

func (f *firsts[K]) at(i int) *tracked[K] { return f.segments[i/firstsSegment][i%firstsSegment] }

func (f *firsts[K]) put(s *tracked[K], i int) {
	f.segments[i/firstsSegment][i%firstsSegment] = s
	s.first = i + 1
}

// push adds a grant, if it is not there.
func (f *firsts[K]) push(s *tracked[K]) {
	if s.first > 0 {
		return
	}
	if f.size == len(f.segments)*firstsSegment {
		f.segments = append(f.segments, make([]*tracked[K], firstsSegment))
	}
	f.put(s, f.size)
	f.size++
	f.up(s)
}

// remove takes a grant out, if it is there.
func (f *firsts[K]) remove(s *tracked[K]) {
	i := s.first - 1
	if i < 0 {
		return
	}
	s.first = 0
	f.size--
	last := f.at(f.size)
	f.segments[f.size/firstsSegment][f.size%firstsSegment] = nil
	if n := len(f.segments) - 2; n >= 0 && f.size <= n*firstsSegment { // one that is empty is kept
		f.segments[n+1] = nil
		f.segments = f.segments[:n+1]
	}
	if last != s {
		f.put(last, i)
		f.up(last)
		f.down(last)
	}
}

func (f *firsts[K]) up(s *tracked[K]) {
	for i := s.first - 1; i > 0; {
		above := (i - 1) / 2
		if f.at(above).seq < s.seq {
			return
		}
		f.put(f.at(above), i)
		f.put(s, above)
		i = above
	}
}

func (f *firsts[K]) down(s *tracked[K]) {
	for i := s.first - 1; ; {
		below := 2*i + 1
		if below+1 < f.size && f.at(below+1).seq < f.at(below).seq {
			below++
		}
		if below >= f.size || s.seq < f.at(below).seq {
			return
		}
		f.put(f.at(below), i)
		f.put(s, below)
		i = below
	}
}

// oldest yields the grants, the oldest first.
func (f *firsts[K]) oldest(yield func(*tracked[K]) bool) {
	var taken []*tracked[K]
	for f.size > 0 {
		s := f.at(0)
		f.remove(s)
		taken = append(taken, s)
		if !yield(s) {
			break
		}
	}
	for _, s := range taken {
		f.push(s)
	}
}

// lead notes which grants have become the first of their keys, because those before them
// have ended.
func (t *tracking[K]) lead(tickets []*table.Ticket[K]) {
	for _, k := range tickets {
		if s, ok := k.Tag().(*tracked[K]); ok { // or it has ended, too, or will be noted of when it is delivered
			t.firsts.push(s)
		}
	}
}
