package table

import "fmt"

// Check returns an error that says which of the table's own rules its state breaks,
// and nil when it breaks none. It is for tests: it looks at every line and at every
// ticket, and works out from the order of the places alone who may hold and who must
// wait.
func (t *Table[K]) Check() error {
	c := checker[K]{table: t, blocked: make(map[*Ticket[K]]int), places: make(map[*Ticket[K]]int)}
	for l := range t.lines.all {
		if err := c.line(l); err != nil {
			return fmt.Errorf("line %v: %w", l.key, err)
		}
	}
	for k := range c.places {
		if err := c.ticket(k); err != nil {
			return fmt.Errorf("ticket with grant %d: %w", k.seq, err)
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
	return c.spare()
}

// A checker collects what the lines say of each ticket.
type checker[K comparable] struct {
	table   *Table[K]
	blocked map[*Ticket[K]]int // lines in which somebody before it is in its way
	places  map[*Ticket[K]]int // places that were found
}

// line checks one line, from its head to its tail.
func (c *checker[K]) line(l *line[K]) error {
	switch {
	case l.head == nil:
		return fmt.Errorf("nobody stands in it, but it was not evicted")
	}
	var (
		prev, next    *place[K]
		held, waiting int
		exclusive     bool // somebody exclusive stands before p
		lastSeq       uint64
	)
	limit := c.table.config.SharedLimit
	for p := l.head; p != nil; prev, p = p, p.next {
		k := p.ticket
		switch {
		case p.line != l:
			return fmt.Errorf("a place belongs to the line of %v", p.line.key)
		case p.prev != prev:
			return fmt.Errorf("place %d: its link back is broken", held+waiting)
		case !owns(k, p):
			return fmt.Errorf("place %d: its ticket does not have it", held+waiting)
		}
		before := held + waiting
		blocked := before > 0 && (exclusive || k.mode == Exclusive || limit > 0 && before >= limit)
		switch {
		case !p.granted():
			waiting++
			if next == nil {
				next = p
			}
		case waiting > 0:
			return fmt.Errorf("place %d: grant %d has passed a waiter", before, k.seq)
		case blocked:
			return fmt.Errorf("place %d: grant %d conflicts with a holder", before, k.seq)
		case k.seq <= lastSeq:
			return fmt.Errorf("place %d: grant %d comes after grant %d", before, k.seq, lastSeq)
		default:
			held++
			lastSeq = k.seq
		}
		c.places[k]++
		if blocked {
			c.blocked[k]++
		}
		exclusive = exclusive || k.mode == Exclusive
	}
	maxWaiters := c.table.config.MaxWaiters
	switch {
	case l.tail != prev:
		return fmt.Errorf("its tail is not its last place")
	case l.next != next:
		return fmt.Errorf("its next place is not the first that waits")
	case l.held != held || l.waiting != waiting:
		return fmt.Errorf("it counts %d held and %d waiting, but has %d and %d", l.held, l.waiting, held, waiting)
	case maxWaiters > 0 && waiting > maxWaiters:
		return fmt.Errorf("%d wait, %d may", waiting, maxWaiters)
	}
	return nil
}

// index checks that every line is found by its key, that the buckets have the tags of their
// lines, and that there are as few of them as there should be.
func (c *checker[K]) index() error {
	x, size := &c.table.lines, 0
	for l := range x.all {
		size++
		if !x.has(l) {
			return fmt.Errorf("the line of %v is not found by its key", l.key)
		}
	}
	for i := range x.buckets {
		made := x.buckets[i]
		if made.retag(); made.tags != x.buckets[i].tags {
			return fmt.Errorf("bucket %d has the tags %x, its lines %x", i, x.buckets[i].tags, made.tags)
		}
	}
	for _, b := range x.buckets[len(x.buckets):cap(x.buckets)] {
		if b.head != nil {
			return fmt.Errorf("a bucket that was taken away keeps the line of %v", b.head.key)
		}
	}
	switch n := len(x.buckets); {
	case size != x.size:
		return fmt.Errorf("it counts %d lines, there are %d", x.size, size)
	case n < size || n < fewestBuckets || n > max(fewestBuckets, 2*size+1):
		return fmt.Errorf("it has %d buckets for %d lines", n, size)
	case x.span < uint64(n) || x.span/2 >= uint64(n):
		return fmt.Errorf("it has %d buckets, in a span of %d", n, x.span)
	}
	return nil
}

// has reports whether a line is found by its key.
func (x *index[K]) has(l *line[K]) bool {
	found, _ := x.find(l.key)
	return found == l
}

// ranking checks that it has each line in which somebody waits, once and in its place, and
// no other.
func (c *checker[K]) ranking() error {
	top := c.table.ranking.top
	if n := len(top); n > 0 && top[n-1] == nil {
		return fmt.Errorf("no line has the most waiters, %d", n-1)
	}
	ranked := 0
	for n, l := range top {
		for above := (*line[K])(nil); l != nil; above, l = l, l.below {
			switch {
			case !c.table.lines.has(l):
				return fmt.Errorf("it has a line of %v that is not the table's", l.key)
			case l.waiting != n || l.rank != n:
				return fmt.Errorf("the line of %v has %d waiters, and is among those that have %d", l.key, l.waiting, n)
			case l.above != above:
				return fmt.Errorf("the link back of the line of %v is broken", l.key)
			}
			ranked++
		}
	}
	for l := range c.table.lines.all {
		if l.waiting > 0 {
			ranked--
		}
	}
	if ranked != 0 {
		return fmt.Errorf("it has %d lines too many", ranked)
	}
	return nil
}

// owns reports whether a place is one of the ticket's.
func owns[K comparable](k *Ticket[K], p *place[K]) bool {
	places := k.places()
	for i := range places {
		if p == &places[i] {
			return true
		}
	}
	return false
}

// ticket checks that a ticket which the lines have shown stands in all its lines,
// and waits if and only if somebody is in its way.
func (c *checker[K]) ticket(k *Ticket[K]) error {
	switch {
	case c.places[k] != len(k.places()):
		return fmt.Errorf("it has %d places, %d stand in a line", len(k.places()), c.places[k])
	case k.many != nil && k.many.blocked != c.blocked[k]:
		return fmt.Errorf("it counts %d lines in which it is blocked, there are %d", k.many.blocked, c.blocked[k])
	case k.seq == 0 && c.blocked[k] == 0:
		return fmt.Errorf("it waits for nobody")
	case k.seq > c.table.seq:
		return fmt.Errorf("the last grant was %d", c.table.seq)
	}
	if k.session == nil {
		if k.many != nil {
			return fmt.Errorf("it is for many keys, but no session has it, not even its own")
		}
		return nil
	}
	return k.session.check()
}

// check checks that a session and its tickets know each other.
func (s *Session[K]) check() error {
	if s.closed {
		return fmt.Errorf("session %q is closed, but owns %d tickets", s.label, len(s.tickets))
	}
	for i, k := range s.tickets {
		if k.session != s || int(k.index) != i {
			return fmt.Errorf("ticket %d of session %q is in another one, or elsewhere in it", i, s.label)
		}
	}
	return nil
}

// totals checks the counts.
func (c *checker[K]) totals() error {
	counts := c.table.Counts()
	var held, shared, waiting int
	seqs := make(map[uint64]bool)
	for k := range c.places {
		if k.seq == 0 {
			waiting++
			continue
		}
		held++
		if k.mode == Shared {
			shared++
		}
		if seqs[k.seq] {
			return fmt.Errorf("grant %d was given twice", k.seq)
		}
		seqs[k.seq] = true
	}
	switch {
	case counts.Waiting != waiting:
		return fmt.Errorf("%d are counted as waiting, %d wait", counts.Waiting, waiting)
	case counts.Held < held: // more may be: a grant of no keys stands in no line
		return fmt.Errorf("%d are counted as held, %d are", counts.Held, held)
	case counts.Shared != shared:
		return fmt.Errorf("%d are counted as shared, %d are", counts.Shared, shared)
	case counts.Acquired-counts.Released != uint64(counts.Held):
		return fmt.Errorf("%d acquired and %d released do not leave %d held", counts.Acquired, counts.Released, counts.Held)
	case counts.Acquired != c.table.seq:
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
	if len(s.tickets) > spareMax || len(s.lines) > spareMax || len(s.many) > spareMany {
		return fmt.Errorf("spare: %d tickets, %d lines, %d for many keys are kept", len(s.tickets), len(s.lines), len(s.many))
	}
	tickets := make(map[*Ticket[K]]bool)
	for _, k := range s.tickets {
		if *k != (Ticket[K]{}) || c.places[k] > 0 || tickets[k] {
			return fmt.Errorf("spare: a ticket is not blank, in use, or there twice")
		}
		tickets[k] = true
	}
	lines := make(map[*line[K]]bool)
	for _, l := range s.lines {
		if *l != (line[K]{}) || lines[l] {
			return fmt.Errorf("spare: a line is not blank, or there twice")
		}
		lines[l] = true
	}
	for _, m := range s.many {
		if len(m.places) > 0 || cap(m.places) > spareMany || m.blocked != 0 || len(m.solo.tickets) > 0 {
			return fmt.Errorf("spare: places for many keys are not blank, or too many")
		}
		for _, p := range m.places[:cap(m.places)] {
			if p != (place[K]{}) {
				return fmt.Errorf("spare: a place for many keys is not blank")
			}
		}
	}
	return nil
}
