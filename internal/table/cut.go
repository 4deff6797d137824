package table

import "math/bits"

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
