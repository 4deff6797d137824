package table

import "iter"

// A Place describes one place in a line.
type Place struct {
	Seq   uint64 // the grant number; 0 while it waits
	Mode  Mode
	Label string // of its session
	Tag   any    // of the request, or of the grant

	// Of a waiting place:
	Behind  int // the place, counted from 1, of the last waiter before it that it has to let in first; 0 when there is none
	Keys    int // how many keys its request names
	Blocked int // in how many of their lines somebody is in its way
}

// Place returns what is the same of all places of a ticket: everything but Behind.
func (k *Ticket[K]) Place() Place {
	d := Place{Seq: k.seq, Mode: k.mode, Tag: k.tag, Keys: 1}
	if k.session != nil {
		d.Label = k.session.label
	}
	if k.many != nil {
		d.Keys = len(k.many.places)
	}
	if k.seq == 0 {
		d.Blocked = 1
		if k.many != nil {
			d.Blocked = k.many.blocked
		}
	}
	return d
}

// A View describes a line: its holders and then its waiters, each in their order.
type View[K comparable] struct {
	Key           K
	Held, Waiting int
	Places        iter.Seq[Place]
}

func (t *Table[K]) view(l *line[K]) View[K] {
	return View[K]{Key: l.key, Held: l.held, Waiting: l.waiting, Places: func(yield func(Place) bool) {
		position, exclusive := 0, 0 // the waiter's own, and the last exclusive waiter's before it
		for p := l.head; p != nil; p = p.next {
			d := p.ticket.Place()
			if !p.granted() {
				d.Behind = position
				position++
				if d.Mode == Exclusive {
					exclusive = position
				} else if t.config.SharedLimit == 0 {
					d.Behind = exclusive
				}
			}
			if !yield(d) {
				return
			}
		}
	}}
}

// All yields every key that is held or waited for, in no particular order.
func (t *Table[K]) All() iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		for l := range t.lines.all {
			if !yield(t.view(l)) {
				return
			}
		}
	}
}

// Ranked yields the keys that are waited for, those with the most waiters first.
func (t *Table[K]) Ranked() iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		for l := range t.ranking.all {
			if !yield(t.view(l)) {
				return
			}
		}
	}
}

// Longest is the most waiters that any key has.
func (t *Table[K]) Longest() int { return t.ranking.longest() }

// Look returns the view of one key; without holders and waiters when there are none.
func (t *Table[K]) Look(key K) View[K] {
	if l, _ := t.lines.find(key); l != nil {
		return t.view(l)
	}
	return View[K]{Key: key, Places: func(func(Place) bool) {}}
}

// Of yields the keys for which a ticket waits or which it holds, in the order in which
// its request names them.
func (t *Table[K]) Of(k *Ticket[K]) iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		places := k.places()
		for i := range places {
			if !yield(t.view(places[i].line)) {
				return
			}
		}
	}
}

// Ticket returns the ticket of a live grant; nil for any other.
func (k Token[K]) Ticket() *Ticket[K] {
	if !k.Live() {
		return nil
	}
	return k.ticket
}

// SetTag tags a grant. The tag of its request is forgotten by then.
func (k *Ticket[K]) SetTag(tag any) { k.tag = tag }

// Tag returns the tag of a request that waits, or of a grant; nil for no ticket.
func (k *Ticket[K]) Tag() any {
	if k == nil {
		return nil
	}
	return k.tag
}
