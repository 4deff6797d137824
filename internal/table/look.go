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
	Blocked int // in how many of its queues an entry blocks it
}

// Entry returns what is the same of all entries of a ticket: everything but Behind, and the
// mode where the keys have different ones.
func (k *Ticket[K]) Entry() Entry {
	d := Entry{Seq: k.seq(), Mode: k.mode, Tag: k.tag, Keys: 1}
	if k.session != nil {
		d.Label = k.session.label
	}
	if k.many != nil {
		d.Keys = len(k.many.entries)
	}
	if !k.granted {
		d.Blocked = 1
		if k.many != nil {
			d.Blocked = k.many.blocked
		}
	}
	return d
}

// A View describes a queue, until the table changes.
type View[K comparable] struct {
	Key           K
	Held, Waiting int

	queue *queue[K] // nil when it is empty
	cut   *Cut[K]   // whose instant is described; nil for now
}

func (t *Table[K]) view(q *queue[K]) View[K] {
	return View[K]{Key: q.key, Held: int(q.held), Waiting: int(q.waiting), queue: q}
}

// Blocked reports whether a waiter has to wait for the key, and not only for others.
func (v View[K]) Blocked() bool {
	q := v.queue
	return q != nil && q.blocked != nil && !q.fits(q.blocked.Terms, q.held, q.waiterBefore(q.blocked))
}

// Shown is how many holders and how many waiters of a key are shown.
const Shown = 1000

// Entries yields at most the first Shown holders and then at most the first Shown waiters,
// each in their order.
func (v View[K]) Entries(yield func(Entry) bool) { v.First(Shown)(yield) }

// First is Entries with another bound.
func (v View[K]) First(most int) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if v.queue == nil {
			return
		}
		p := v.queue.head
		for range min(v.Held, most) {
			d := p.ticket.Entry()
			d.Mode = p.Mode
			if !yield(d) {
				return
			}
			p = p.next
		}
		p = v.queue.next
		last := 0 // the position of the last waiter that no other passes
		for position := range min(v.Waiting, most) {
			d := v.waiter(p.ticket)
			d.Mode, d.Behind = p.Mode, position
			if p.Mode == Exclusive || p.Limit > 0 {
				last = position + 1
			} else {
				d.Behind = last
			}
			if !yield(d) {
				return
			}
			p = p.next
		}
	}
}

// waiter describes a waiter, at the instant of the cut if there is one.
func (v View[K]) waiter(k *Ticket[K]) Entry {
	d := k.Entry()
	if v.cut != nil && k.many != nil {
		if blocked, kept := v.cut.blocked[k]; kept {
			d.Blocked = blocked
		}
	}
	return d
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
	q, _ := t.queues.find(key)
	if q.isKept() {
		q = t.callIn(q)
	}
	if q != nil {
		return t.view(q)
	}
	return View[K]{Key: key}
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

// First reports whether a grant is the first of those by which its keys are held. Only the
// first of those that share a key is, and none that has no key.
func (k *Ticket[K]) First() bool {
	entries := k.entries()
	return len(entries) > 0 && entries[0].prev == nil
}

// Led returns the tickets that the last transition made the first holder of their key,
// because the one before them has left. They may have left, too.
func (t *Table[K]) Led() []*Ticket[K] { return t.led }

// SetTag tags a grant. The tag of its request is forgotten by then.
func (k *Ticket[K]) SetTag(tag any) { k.tag = tag }

// Tag returns the tag of a request that waits, or of a grant; nil for no ticket.
func (k *Ticket[K]) Tag() any {
	if k == nil {
		return nil
	}
	return k.tag
}
