package table

import (
	"iter"
	"math/bits"
)

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
	return q != nil && q.blocked != nil && q.unblocked() == nil
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

// First reports whether a grant is the first of those by which one of its keys is held. Only
// the first of those that share a key is, and none that has no key.
func (k *Ticket[K]) First() bool {
	entries := k.entries()
	for i := range entries {
		if entries[i].prev == nil {
			return true
		}
	}
	return false
}

// Firsts is Of for the keys of which a grant is the first holder.
func (t *Table[K]) Firsts(k *Ticket[K]) iter.Seq[View[K]] {
	return func(yield func(View[K]) bool) {
		for v := range t.Of(k) {
			if v.queue.head.ticket == k && !yield(v) {
				return
			}
		}
	}
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

// A Cut shows the whole table as it was at one instant, bit by bit, while the table goes
// on. A queue that is about to change is shown before it does, if it was not yet. So each
// key that was there at that instant is shown once, as it was then.
//
// It goes through the index in the order of the reversed hashes, because in that order the
// queues of a bucket stay together however often buckets are split and merged: what lies
// behind the cut's position was shown, whatever has moved meanwhile.
type Cut[K comparable] struct {
	table    *Table[K]
	show     func(View[K])
	number   uint32
	position uint64 // every hash that is less, when it is reversed, was passed
	passed   bool   // every hash was

	// blocked is in how many queues tickets for many keys were blocked at the instant of the
	// cut, where that has changed: it concerns queues that have not changed, too.
	blocked map[*Ticket[K]]int
}

// cuts are the cuts that are under way.
type cuts[K comparable] struct {
	running []*Cut[K]
	begun   uint32 // the number of the last one
}

// Cut begins to show the table as it is now: show is called once for each key that is held
// or waited for, by Next or by whatever changes the queue of that key first. It must not
// change the table, and its view is good until it returns. A cut must be ended.
func (t *Table[K]) Cut(show func(View[K])) *Cut[K] {
	if t.cuts.begun >= mostCuts && len(t.cuts.running) == 0 {
		t.forgetCuts()
	}
	t.cuts.begun++
	c := &Cut[K]{table: t, show: show, number: t.cuts.begun}
	t.cuts.running = append(t.cuts.running, c)
	return c
}

// mostCuts is after how many cuts their numbers begin anew, at the next moment without a
// cut. There is as much time again until they would have to.
const mostCuts = 1 << 31

// forgetCuts lets the numbers of cuts begin anew. It looks at every queue.
func (t *Table[K]) forgetCuts() {
	for q := range t.queues.all {
		q.cut = 0
	}
	t.cuts.begun = 0
}

// Next shows more keys, of which at least one is new, until it has looked at about n holders
// and waiters or at as many buckets. It is false when all have been shown.
func (c *Cut[K]) Next(n int) bool {
	x := &c.table.queues
	for ; n > 0 && !c.passed; n-- {
		b := x.bucket(bits.Reverse64(c.position))
		for q := x.at(b).head; q != nil; q = q.chain {
			n -= c.table.cuts.show(q)
		}
		// The hashes of a bucket are equal in their last bits, so reversed they are in a row.
		depth := x.depth(b)
		width := uint64(1) << (64 - depth)
		c.position = c.position&^(width-1) + width
		c.passed = c.position == 0
	}
	return !c.passed
}

// End ends a cut: nothing is shown any more.
func (c *Cut[K]) End() {
	running := c.table.cuts.running
	for i, other := range running {
		if other == c {
			running[i] = running[len(running)-1]
			running[len(running)-1] = nil
			c.table.cuts.running = running[:len(running)-1]
		}
	}
	c.passed, c.blocked = true, nil
}

// touch shows a queue that is about to change to the cuts that have not seen it.
func (c *cuts[K]) touch(q *queue[K]) {
	if len(c.running) > 0 && q.cut != c.begun {
		c.show(q)
	}
}

// show shows a queue to the cuts that have not seen it, and returns what that cost.
func (c *cuts[K]) show(q *queue[K]) (cost int) {
	for _, running := range c.running {
		if running.number > q.cut {
			v := running.table.view(q)
			v.cut = running
			running.show(v)
			cost += min(int(q.held), Shown) + min(int(q.waiting), Shown)
		}
	}
	q.cut = c.begun
	for _, running := range c.running[:min(len(c.running), 1)] {
		running.table.worked += uint64(cost)
	}
	return cost
}

// keepBlocked keeps in how many queues a ticket for many keys is blocked, before that
// changes.
func (c *cuts[K]) keepBlocked(k *Ticket[K]) {
	for _, running := range c.running {
		if _, kept := running.blocked[k]; !kept {
			if running.blocked == nil {
				running.blocked = make(map[*Ticket[K]]int)
			}
			running.blocked[k] = k.many.blocked
		}
	}
}
