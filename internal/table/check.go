package table

import "fmt"

// Check returns an error that says which of the table's own rules its state breaks,
// and nil when it breaks none. It is for tests: it looks at every queue and at every
// ticket, and works out from the order of the entries alone who may hold and who must
// wait.
func (t *Table[K]) Check() error {
	c := checker[K]{table: t, blocked: make(map[*Ticket[K]]int), entries: make(map[*Ticket[K]]int)}
	for q := range t.queues.all {
		if err := c.queue(q); err != nil {
			return fmt.Errorf("queue %v: %w", q.key, err)
		}
	}
	for k := range c.entries {
		if err := c.ticket(k); err != nil {
			return fmt.Errorf("ticket with grant %d: %w", k.seq(), err)
		}
	}
	if err := c.totals(); err != nil {
		return fmt.Errorf("totals: %w", err)
	}
	if err := c.index(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if err := c.ranking(); err != nil {
		return fmt.Errorf("ranking: %w", err)
	}
	if err := c.search(); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if err := c.watches(); err != nil {
		return fmt.Errorf("watches: %w", err)
	}
	if err := c.postponed(); err != nil {
		return fmt.Errorf("postponed: %w", err)
	}
	return c.spare()
}

// search checks that the last cycle search has left nothing behind.
func (c *checker[K]) search() error {
	s := &c.table.search
	for _, n := range s.nodes[:cap(s.nodes)] {
		if n.session != nil || n.via.queue != nil {
			return fmt.Errorf("it keeps session %q", n.session.label)
		}
	}
	for _, scan := range s.scans[:cap(s.scans)] {
		if scan.queue != nil || scan.next != nil || scan.looked != nil || scan.barred != nil || scan.request != nil {
			return fmt.Errorf("it keeps a queue")
		}
	}
	for _, a := range s.keys[:cap(s.keys)] {
		if a.queue != nil {
			return fmt.Errorf("it keeps the queue of %v", a.queue.key)
		}
	}
	for _, k := range s.gets[:cap(s.gets)] {
		if k != nil {
			return fmt.Errorf("it keeps a ticket")
		}
	}
	if s.request != nil || s.last.queue != nil || len(s.nodes)+len(s.scans)+len(s.order)+len(s.free)+len(s.keys)+len(s.gets) > 0 {
		return fmt.Errorf("it is not over")
	}
	return nil
}

// watches checks that what is watched is held, that no request waits for it, that it is found
// by its queues, and that its maps are not too large.
func (c *checker[K]) watches() error {
	w := &c.table.watches
	found := 0
	for k := range w.tags {
		entries := k.entries()
		if !k.granted || c.entries[k] != len(entries) {
			return fmt.Errorf("grant %d is watched, which has ended", k.seq())
		}
		for i := range entries {
			q := entries[i].queue
			if _, there := w.at[q][k]; !there {
				return fmt.Errorf("grant %d is watched, but not in the queue of %v", k.seq(), q.key)
			}
			if q.blocked != nil && !c.table.postponed.has(q) {
				return fmt.Errorf("grant %d is watched, but a request waits for %v", k.seq(), q.key)
			}
			found++
		}
	}
	switch {
	case w.keys != found || w.most < found:
		return fmt.Errorf("%d keys are watched, and %d are counted, of %d at most", found, w.keys, w.most)
	case len(w.tags) == 0 && (w.tags != nil || w.at != nil || w.most > 0), found <= fewWatched && w.most > 8*fewWatched:
		return fmt.Errorf("the maps for %d keys are kept for %d", w.most, found)
	}
	for q, at := range w.at {
		if found -= len(at); len(at) == 0 {
			return fmt.Errorf("no grant is watched in the queue of %v", q.key)
		}
	}
	if found != 0 {
		return fmt.Errorf("%d more are watched in queues than there are", -found)
	}
	return nil
}

// postponed checks that the queues in which waiters are postponed are found, and are the
// table's.
func (c *checker[K]) postponed() error {
	p := &c.table.postponed
	if len(p.at) != len(p.queues) {
		return fmt.Errorf("%d queues are found of %d", len(p.at), len(p.queues))
	}
	for i, q := range p.queues {
		if at, has := p.at[q.queue]; !has || at != i || !c.table.queues.has(q.queue) {
			return fmt.Errorf("the queue of %v is not found, or is not the table's", q.key)
		}
	}
	if len(c.table.opened) > 0 {
		return fmt.Errorf("%d queues are left open", len(c.table.opened))
	}
	return nil
}

// A checker collects what the queues say of each ticket.
type checker[K comparable] struct {
	table   *Table[K]
	blocked map[*Ticket[K]]int // queues in which an entry before it blocks it
	entries map[*Ticket[K]]int // entries that were found
	limits  int                // of these, those that have one
}

// queue checks one queue, from its head to its tail.
func (c *checker[K]) queue(q *queue[K]) error {
	switch {
	case q.head == nil:
		return fmt.Errorf("it has no entry, but it was not evicted")
	}
	var (
		prev, next    *entry[K]
		first         *entry[K] // the first that is blocked
		held, waiting int
		exclusive     bool // an exclusive entry is before p
		inOrder       bool // and a waiter with a limit
		lastSeq       uint64
		lastArrival   uint64
		postponed     = c.table.postponed.has(q)
	)
	for p := q.head; p != nil; prev, p = p, p.next {
		k := p.ticket
		switch {
		case p.queue != q:
			return fmt.Errorf("an entry belongs to the queue of %v", p.queue.key)
		case p.prev != prev:
			return fmt.Errorf("entry %d: its link back is broken", held+waiting)
		case !owns(k, p):
			return fmt.Errorf("entry %d: its ticket does not have it", held+waiting)
		}
		before := held + waiting
		conflicts := before > 0 && (exclusive || p.Mode == Exclusive || inOrder || p.Limit > 0 && (waiting > 0 || held >= int(p.Limit)))
		switch {
		case !p.granted() && k.number <= lastArrival:
			return fmt.Errorf("entry %d: arrival %d comes after arrival %d", before, k.number, lastArrival)
		case !p.granted():
			waiting++
			lastArrival = k.number
			if next == nil {
				next = p
			}
		case waiting > 0:
			return fmt.Errorf("entry %d: grant %d stands behind a waiter", before, k.seq())
		case conflicts:
			return fmt.Errorf("entry %d: grant %d conflicts with a holder", before, k.seq())
		case k.granted && k.number <= lastSeq:
			return fmt.Errorf("entry %d: grant %d comes after grant %d", before, k.seq(), lastSeq)
		default:
			held++
			lastSeq = k.number
		}
		c.entries[k]++
		if postponed && p == q.blocked && (conflicts || before == 0) {
			return fmt.Errorf("entry %d: it is postponed, but an entry before it blocks it, or there is none", before)
		}
		blocked := conflicts || postponed && (p == q.blocked || first != nil)
		switch {
		case !blocked && first != nil:
			return fmt.Errorf("entry %d: it is not blocked, but an entry before it is", before)
		case blocked && first == nil:
			first = p
		}
		if blocked {
			c.blocked[k]++
		}
		if p.Limit > 0 {
			c.limits++
		}
		exclusive = exclusive || p.Mode == Exclusive
		inOrder = inOrder || !p.granted() && p.Limit > 0
	}
	maxWaiters := c.table.config.MaxWaiters
	switch {
	case postponed && q.blocked == nil:
		return fmt.Errorf("waiters of it are postponed, but none is blocked")
	case q.tail != prev:
		return fmt.Errorf("its tail is not its last entry")
	case q.next != next:
		return fmt.Errorf("its next entry is not the first that waits")
	case q.blocked != first:
		return fmt.Errorf("its first blocked entry is not the first that is")
	case int(q.held) != held || int(q.waiting) != waiting:
		return fmt.Errorf("it counts %d held and %d waiting, but has %d and %d", q.held, q.waiting, held, waiting)
	case maxWaiters != 0 && waiting > max(maxWaiters, 0):
		return fmt.Errorf("%d wait, %d may", waiting, maxWaiters)
	}
	return nil
}

// index checks that every queue is found by its key, that the buckets have the tags of their
// queues, and that there are as few of them as there should be.
func (c *checker[K]) index() error {
	x, size := &c.table.queues, 0
	for q := range x.all {
		size++
		if !x.has(q) {
			return fmt.Errorf("the queue of %v is not found by its key", q.key)
		}
	}
	count := uint64(0)
	for i, buckets := range x.segments {
		if last := i == len(x.segments)-1; !last && len(buckets) != segment && !(i == len(x.segments)-2 && len(x.segments[i+1]) == 0) {
			return fmt.Errorf("segment %d has %d buckets, others follow", i, len(buckets))
		}
		count += uint64(len(buckets))
		for _, b := range buckets {
			made := b
			if made.retag(); made.tags != b.tags {
				return fmt.Errorf("a bucket has the tags %x, its queues %x", b.tags, made.tags)
			}
		}
		for _, b := range buckets[len(buckets):cap(buckets)] {
			if b.head != nil {
				return fmt.Errorf("a bucket that was taken away keeps the queue of %v", b.head.key)
			}
		}
	}
	if count != x.buckets {
		return fmt.Errorf("it counts %d buckets, there are %d", x.buckets, count)
	}
	switch n := int(x.buckets); {
	case size != x.size:
		return fmt.Errorf("it counts %d queues, there are %d", x.size, size)
	case n < size || n < fewestBuckets || n > max(fewestBuckets, 2*size+1):
		return fmt.Errorf("it has %d buckets for %d queues", n, size)
	case x.span < uint64(n) || x.span/2 >= uint64(n):
		return fmt.Errorf("it has %d buckets, in a span of %d", n, x.span)
	}
	return nil
}

// has reports whether a queue is found by its key.
func (x *index[K]) has(q *queue[K]) bool {
	found, _ := x.find(q.key)
	return found == q
}

// ranking checks that it has each queue with a waiter, once, in the rank of
// its number of waiters, and no other.
func (c *checker[K]) ranking() error {
	r := &c.table.ranking
	ranked, lower := 0, (*rank[K])(nil)
	for k := r.lowest; k != nil; lower, k = k, k.higher {
		switch {
		case k.lower != lower:
			return fmt.Errorf("the link down of rank %d is broken", k.waiting)
		case lower != nil && lower.waiting >= k.waiting:
			return fmt.Errorf("rank %d comes after rank %d", k.waiting, lower.waiting)
		case k.queues == nil:
			return fmt.Errorf("rank %d is empty", k.waiting)
		}
		for above, q := (*queue[K])(nil), k.queues; q != nil; above, q = q, q.below {
			switch {
			case !c.table.queues.has(q):
				return fmt.Errorf("it has a queue of %v that is not the table's", q.key)
			case q.waiting != k.waiting || q.rank != k:
				return fmt.Errorf("the queue of %v has %d waiters, and is among those that have %d", q.key, q.waiting, k.waiting)
			case q.above != above:
				return fmt.Errorf("the link back of the queue of %v is broken", q.key)
			}
			ranked++
		}
	}
	if r.highest != lower {
		return fmt.Errorf("its highest rank is not the last")
	}
	for q := range c.table.queues.all {
		if q.waiting > 0 {
			ranked--
		}
	}
	if ranked != 0 {
		return fmt.Errorf("it has %d queues too many", ranked)
	}
	return nil
}

// owns reports whether an entry is one of the ticket's.
func owns[K comparable](k *Ticket[K], p *entry[K]) bool {
	entries := k.entries()
	for i := range entries {
		if p == &entries[i] {
			return true
		}
	}
	return false
}

// ticket checks that a ticket which the queues have shown stands in all its queues,
// and waits if and only if an entry blocks it.
func (c *checker[K]) ticket(k *Ticket[K]) error {
	switch {
	case c.entries[k] != len(k.entries()):
		return fmt.Errorf("it has %d entries, %d stand in a queue", len(k.entries()), c.entries[k])
	case k.many != nil && k.many.blocked != c.blocked[k]:
		return fmt.Errorf("it counts %d queues in which it is blocked, there are %d", k.many.blocked, c.blocked[k])
	case !k.granted && c.blocked[k] == 0:
		return fmt.Errorf("it waits and nothing blocks it")
	case k.seq() > c.table.seq:
		return fmt.Errorf("the last grant was %d", c.table.seq)
	}
	if k.session == nil {
		if k.many != nil {
			return fmt.Errorf("it is for many keys, but no session has it, not even its own")
		}
		return nil
	}
	if list := *k.session.list(k); int(k.index) >= len(list) || list[k.index] != k {
		return fmt.Errorf("its session does not have it")
	}
	return k.session.check()
}

// check checks that a session and its tickets know each other.
func (s *Session[K]) check() error {
	if n := len(s.waiting) + len(s.held); s.closed && n > 0 {
		return fmt.Errorf("session %q is closed, but owns %d tickets", s.label, n)
	}
	for granted, tickets := range map[bool][]*Ticket[K]{false: s.waiting, true: s.held} {
		for i, k := range tickets {
			if k.session != s || k.granted != granted || int(k.index) != i {
				return fmt.Errorf("ticket %d of session %q is in another one, or elsewhere in it", i, s.label)
			}
		}
	}
	return nil
}

// totals checks the counts.
func (c *checker[K]) totals() error {
	if c.limits != c.table.limits {
		return fmt.Errorf("%d entries are counted as limited, %d are", c.table.limits, c.limits)
	}
	counts := c.table.Counts()
	var held, shared, waiting int
	seqs := make(map[uint64]bool)
	for k := range c.entries {
		if !k.granted {
			waiting++
			continue
		}
		held++
		if k.mode == Shared {
			shared++
		}
		if seqs[k.number] {
			return fmt.Errorf("grant %d was given twice", k.number)
		}
		seqs[k.number] = true
	}
	switch {
	case counts.Waiting != waiting:
		return fmt.Errorf("%d are counted as waiting, %d wait", counts.Waiting, waiting)
	case counts.Held < held: // more may be: a grant of no keys stands in no queue
		return fmt.Errorf("%d are counted as held, %d are", counts.Held, held)
	case counts.Shared != shared:
		return fmt.Errorf("%d are counted as shared, %d are", counts.Shared, shared)
	case counts.Acquired-counts.Released != uint64(counts.Held):
		return fmt.Errorf("%d acquired and %d released do not leave %d held", counts.Acquired, counts.Released, counts.Held)
	case counts.Acquired != c.table.seq && (c.table.keeper == nil || counts.Acquired > c.table.seq):
		return fmt.Errorf("%d acquired, the last grant was %d", counts.Acquired, c.table.seq)
	case counts.Waited > counts.Acquired:
		return fmt.Errorf("%d of %d grants have waited", counts.Waited, counts.Acquired)
	}
	return nil
}

// spare checks that what is kept for the next use is blank, is not in use and is not
// too much.
func (c *checker[K]) spare() error {
	s := &c.table.spare
	if len(s.tickets) > spareMax || len(s.queues) > s.mostQueues || len(s.many) > spareMany {
		return fmt.Errorf("spare: %d tickets, %d queues, %d for many keys are kept", len(s.tickets), len(s.queues), len(s.many))
	}
	tickets := make(map[*Ticket[K]]bool)
	for _, k := range s.tickets {
		if *k != (Ticket[K]{}) || c.entries[k] > 0 || tickets[k] {
			return fmt.Errorf("spare: a ticket is not blank, in use, or there twice")
		}
		tickets[k] = true
	}
	queues := make(map[*queue[K]]bool)
	for _, q := range s.queues {
		if *q != (queue[K]{}) || queues[q] {
			return fmt.Errorf("spare: a queue is not blank, or there twice")
		}
		queues[q] = true
	}
	for _, m := range s.many {
		if len(m.entries) > 0 || cap(m.entries) > spareMany || m.blocked != 0 || len(m.solo.waiting)+len(m.solo.held) > 0 {
			return fmt.Errorf("spare: entries for many keys are not blank, or too many")
		}
		for _, p := range m.entries[:cap(m.entries)] {
			if p != (entry[K]{}) {
				return fmt.Errorf("spare: an entry for many keys is not blank")
			}
		}
	}
	return nil
}
