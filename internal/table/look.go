package table

import "iter"

// A Entry describes one entry in a queue.
type Entry struct {
	Seq   uint64 // the grant number; 0 while it waits
	Mode  Mode
	Label string // of its session
	Tag   any    // of the request, or of the grant

	// Of a waiting entry:
	Behind  int // the entry, counted from 1, of the last waiter before it that it has to let in first; 0 when there is none
	Keys    int // how many keys its request names
	Blocked int // in how many of their queues somebody is in its way
}

// Entry returns what is the same of all entries of a ticket: everything but Behind.
func (k *Ticket[K]) Entry() Entry {
	d := Entry{Seq: k.seq, Mode: k.mode, Tag: k.tag, Keys: 1}
	if k.session != nil {
		d.Label = k.session.label
	}
	if k.many != nil {
		d.Keys = len(k.many.entries)
	}
	if k.seq == 0 {
		d.Blocked = 1
		if k.many != nil {
			d.Blocked = k.many.blocked
		}
	}
	return d
}

// A View describes a queue: its holders and then its waiters, each in their order.
type View[K comparable] struct {
	Key           K
	Held, Waiting int
	Entries       iter.Seq[Entry]
}

func (t *Table[K]) view(q *queue[K]) View[K] {
	return View[K]{Key: q.key, Held: q.held, Waiting: q.waiting, Entries: func(yield func(Entry) bool) {
		position, exclusive := 0, 0 // the waiter's own, and the last exclusive waiter's before it
		for p := q.head; p != nil; p = p.next {
			d := p.ticket.Entry()
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
		for q := range t.queues.all {
			if !yield(t.view(q)) {
				return
			}
		}
	}
}

// Ranked yields the keys that are waited for, those with the most waiters first.
func (t *Table[K]) Ranked() iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		for q := range t.ranking.all {
			if !yield(t.view(q)) {
				return
			}
		}
	}
}

// LongestQueue is the most waiters that any key has.
func (t *Table[K]) LongestQueue() int { return t.ranking.longestQueue() }

// Look returns the view of one key; without holders and waiters when there are none.
func (t *Table[K]) Look(key K) View[K] {
	if q, _ := t.queues.find(key); q != nil {
		return t.view(q)
	}
	return View[K]{Key: key, Entries: func(func(Entry) bool) {}}
}

// Of yields the keys for which a ticket waits or which it holds, in the order in which
// its request names them.
func (t *Table[K]) Of(k *Ticket[K]) iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		entries := k.entries()
		for i := range entries {
			if !yield(t.view(entries[i].queue)) {
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
