package table

import "reflect"

// A queue is the queue of one key: its holders in front, its waiters behind them,
// each group in the order of arrival.
type queue[K comparable] struct {
	key   K
	hash  uint64
	chain *queue[K] // the next in the index's bucket

	head, tail *entry[K]
	next       *entry[K] // the first that is not granted; nil when none waits
	blocked    *entry[K] // the first of these that an entry before it blocks; those before it wait for other keys
	held       int32     // entries that are granted
	waiting    int32     // entries that are not

	scan int32  // where the running cycle search has it, see search.scanOf
	cut  uint32 // the last cut that has seen it, or began before it was there

	rank         *rank[K]  // of the queues with as many waiters; nil when none waits
	above, below *queue[K] // in its rank
}

// An entry is where a ticket stands in one queue.
type entry[K comparable] struct {
	queue      *queue[K]
	ticket     *Ticket[K]
	prev, next *entry[K]
	Terms
}

func (p *entry[K]) granted() bool { return p.ticket.granted }

// before reports whether an entry stands before another of its queue; nil is the end.
func (p *entry[K]) before(at *entry[K]) bool {
	switch {
	case at == nil:
		return true
	case p.granted() != at.granted():
		return p.granted()
	}
	return p.ticket.number < at.ticket.number
}

// fits reports whether an entry is blocked neither by so many holders nor by the waiters before
// it, of which before is the last; nil when there are none. These wait for other keys. A shared
// entry without a limit passes those of them that have none either. One with a limit stands
// in order: it does not pass, and is not passed.
func (q *queue[K]) fits(is Terms, held int32, before *entry[K]) bool {
	switch {
	case held == 0 && before == nil:
		return true
	case is.Mode == Exclusive || q.head.Mode == Exclusive:
		return false
	case before != nil:
		return is.Limit == 0 && before.Limit == 0
	}
	return is.Limit == 0 || held < is.Limit
}

// admits reports whether a request that comes now would not be blocked.
func (q *queue[K]) admits(is Terms) bool {
	return q.blocked == nil && q.fits(is, q.held, q.waiterBefore(nil))
}

// unblocked returns the first entry that was blocked, if it no longer is; else nil.
func (q *queue[K]) unblocked() *entry[K] {
	if p := q.blocked; p != nil && q.fits(p.Terms, q.held, q.waiterBefore(p)) {
		return p
	}
	return nil
}

// waiterBefore returns the last waiter before an entry, or before the end; nil when there is
// none.
func (q *queue[K]) waiterBefore(p *entry[K]) *entry[K] {
	switch {
	case q.next == p:
		return nil
	case p == nil:
		return q.tail
	}
	return p.prev
}

// ready reports whether no entry of its queue blocks a waiter.
func (p *entry[K]) ready() bool { return p.before(p.queue.blocked) }

// push puts an entry at the end, as one that is blocked or not.
func (q *queue[K]) push(p *entry[K], blocked bool) {
	p.prev = q.tail
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
	if q.next == nil {
		q.next = p
	}
	if blocked && q.blocked == nil {
		q.blocked = p
	}
	q.waiting++
}

// grant makes a waiter that is ready the last of the holders.
func (q *queue[K]) grant(p *entry[K]) {
	q.waiting--
	q.held++
	if q.next == p {
		q.next = p.next
		return
	}
	p.prev.next = p.next
	if p.next == nil {
		q.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = q.next.prev, q.next
	if p.prev == nil {
		q.head = p
	} else {
		p.prev.next = p
	}
	q.next.prev = p
}

// remove takes an entry out, wherever it stands.
func (q *queue[K]) remove(p *entry[K]) {
	if p.prev == nil {
		q.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		q.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	if p.granted() {
		q.held--
		return
	}
	q.waiting--
	if q.next == p {
		q.next = p.next
	}
	if q.blocked == p {
		q.blocked = p.next
	}
}

// A Ticket is one request: its entries in queue and, once it is granted, the grant.
// Tickets are used again, so outside this package a grant is known by its Token.
type Ticket[K comparable] struct {
	tag     any         // the caller's own: of the request, and then of the grant
	number  uint64      // of its arrival while it waits, and then of its grant
	one     [1]entry[K] // of a request for one key
	many    *many[K]    // of a request for many; else nil
	session *Session[K] // whose it is; nil when it has none
	index   int32       // where it is in its session
	mode    Mode        // of all its keys; exclusive when one of them is
	granted bool
}

// seq is the grant number; 0 while it waits.
func (k *Ticket[K]) seq() uint64 {
	if !k.granted {
		return 0
	}
	return k.number
}

// many is what a ticket for many keys has instead of one entry.
type many[K comparable] struct {
	entries []entry[K] // one for each key; never grown, because queues point into it
	blocked int        // entries that are blocked
	search  struct {   // of a running search, see search.reduce
		left int  // entries that are not known to go on
		gets bool // all are, so it holds its keys then
	}
	// solo owns the ticket when no session does, so that a cycle search, which goes from
	// session to session, finds the way from one of its queues to the others.
	solo Session[K]
}

// entries are where the ticket stands in each of its queues.
func (k *Ticket[K]) entries() []entry[K] {
	if k.many != nil {
		return k.many.entries
	}
	return k.one[:]
}

// A Token stands for one grant and no other: grant numbers are not used again. The
// zero Token stands for none.
type Token[K comparable] struct {
	ticket *Ticket[K]
	seq    uint64
}

// Seq is the number of the grant, from 1, strictly increasing over the table's life.
func (k Token[K]) Seq() uint64 { return k.seq }

// Live reports whether the grant has not ended. Like every look into the table it
// is for the table's one caller.
func (k Token[K]) Live() bool { return k.seq != 0 && k.ticket.seq() == k.seq }

// spare keeps tickets and queues for their next use, so that the steady state
// allocates nothing, and not more than spareMax of each, so that a burst's memory
// goes back.
type spare[K comparable] struct {
	tickets []*Ticket[K]
	queues  []*queue[K]
	many    []*many[K]

	mostQueues int // less than spareMax where a key is large
}

const (
	spareMax   = 1024
	spareMany  = 64        // also the most entries in one of them
	spareBytes = 256 << 10 // of the queues, which have a key each
)

func newSpare[K comparable]() spare[K] {
	size := int(reflect.TypeFor[queue[K]]().Size())
	return spare[K]{mostQueues: min(spareMax, spareBytes/size)}
}

func (s *spare[K]) takeTicket() *Ticket[K] {
	if n := len(s.tickets); n > 0 {
		k := s.tickets[n-1]
		s.tickets = s.tickets[:n-1]
		return k
	}
	return new(Ticket[K])
}

func (s *spare[K]) putTicket(k *Ticket[K]) {
	if m := k.many; m != nil && cap(m.entries) <= spareMany && len(s.many) < spareMany {
		clear(m.entries)
		*m = many[K]{entries: m.entries[:0], solo: Session[K]{waiting: m.solo.waiting, held: m.solo.held}}
		s.many = append(s.many, m)
	}
	*k = Ticket[K]{}
	if len(s.tickets) < spareMax {
		s.tickets = append(s.tickets, k)
	}
}

// takeMany returns room for n entries.
func (s *spare[K]) takeMany(n int) *many[K] {
	if i := len(s.many) - 1; i >= 0 {
		m := s.many[i]
		s.many = s.many[:i]
		if cap(m.entries) >= n {
			return m
		}
	}
	return &many[K]{entries: make([]entry[K], 0, n)}
}

func (s *spare[K]) takeQueue() *queue[K] {
	if n := len(s.queues); n > 0 {
		q := s.queues[n-1]
		s.queues = s.queues[:n-1]
		return q
	}
	return new(queue[K])
}

func (s *spare[K]) putQueue(q *queue[K]) {
	*q = queue[K]{}
	if len(s.queues) < s.mostQueues {
		s.queues = append(s.queues, q)
	}
}

// watches are grants whose holders want to hear when a request has to wait for one of their
// keys. They are kept apart from tickets and queues, so that they cost nothing where there
// are none.
type watches[K comparable] struct {
	tags map[*Ticket[K]]any
	at   map[*queue[K]]map[*Ticket[K]]struct{} // the same, by the queues of their keys
	over []any                                 // tags of those that have ended, see Over
	keys int                                   // of all these grants
	most int                                   // that there were since the maps were made
}

// fewWatched are so many keys that their watches may be copied at once.
const fewWatched = 1024

// Watch watches a live grant that no request waits for, until one has to wait for one of its
// keys, or the grant ends: then Over returns the tag. It returns the tag with which the grant
// is watched, which is that of the first Watch; nil when there is nothing to watch, because the
// grant has ended or a request waits for it.
func (t *Table[K]) Watch(token Token[K], tag any) any {
	if t.keeper != nil {
		t.CallIn(token.ticket)
	}
	if !token.Live() {
		return nil
	}
	k := token.ticket
	w := &t.watches
	if first, watched := w.tags[k]; watched {
		return first
	}
	entries := k.entries()
	for i := range entries {
		if q := entries[i].queue; q.blocked != nil && !t.postponed.has(q) {
			return nil
		}
	}
	if w.tags == nil {
		w.empty()
	}
	w.add(k, tag)
	t.worked += uint64(len(entries))
	return tag
}

// add adds a ticket with its tag.
func (w *watches[K]) add(k *Ticket[K], tag any) {
	w.tags[k] = tag
	entries := k.entries()
	w.keys += len(entries)
	w.most = max(w.most, w.keys)
	for i := range entries {
		q := entries[i].queue
		if w.at[q] == nil {
			w.at[q] = make(map[*Ticket[K]]struct{})
		}
		w.at[q][k] = struct{}{}
	}
}

// Over returns the tags of the watches that have ended since it was last called.
func (t *Table[K]) Over() []any {
	over := t.watches.over
	t.watches.over = nil
	return over
}

// Unwatch ends all watches.
func (t *Table[K]) Unwatch() {
	for k := range t.watches.tags {
		t.watches.end(k)
	}
}

// want ends the watches of those who hold a key for which a request has to wait now.
func (t *Table[K]) want(q *queue[K]) {
	at := t.watches.at[q]
	t.worked += uint64(len(at))
	for k := range at {
		t.watches.end(k)
	}
}

// end ends the watch of a ticket, if there is one.
func (w *watches[K]) end(k *Ticket[K]) {
	tag, watched := w.tags[k]
	if !watched {
		return
	}
	w.over = append(w.over, tag)
	delete(w.tags, k)
	entries := k.entries()
	for i := range entries {
		q := entries[i].queue
		if delete(w.at[q], k); len(w.at[q]) == 0 {
			delete(w.at, q)
		}
	}
	w.keys -= len(entries)
	switch { // maps do not shrink
	case len(w.tags) == 0:
		w.tags, w.at, w.most = nil, nil, 0
	case w.keys <= fewWatched && w.most > 8*fewWatched:
		tags := w.tags
		w.empty()
		for k, tag := range tags {
			w.add(k, tag)
		}
	}
}

// empty makes the maps anew.
func (w *watches[K]) empty() {
	w.tags, w.at, w.most = make(map[*Ticket[K]]any), make(map[*queue[K]]map[*Ticket[K]]struct{}), 0
	w.keys = 0
}
