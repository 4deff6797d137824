package table

import (
	"cmp"
	"math"
	"slices"
)

// A Session is one logical owner of requests, who may wait while it holds. Sessions
// are what a wait-for graph is made of: a session waits for another when one of its
// waiting tickets has to wait until a ticket of the other is gone.
//
// There is an edge from a waiting entry to every entry before it that it conflicts
// with: a hard edge to a holder, a soft one to an earlier waiter. A request of no
// session holds nothing while it waits, so it can only pass a cycle on, along its own
// queue or, if it names many keys, from one queue to another.
type Session[K comparable] struct {
	label         string
	waiting, held []*Ticket[K]
	closed        bool
	node          int32 // where the running cycle search has it, see search.nodeOf
}

// NewSession returns a session that owns nothing. The label is for people to read.
func NewSession[K comparable](label string) *Session[K] { return &Session[K]{label: label} }

// list is the list that has the ticket.
func (s *Session[K]) list(k *Ticket[K]) *[]*Ticket[K] {
	if k.granted {
		return &s.held
	}
	return &s.waiting
}

// Label returns what names the session to people.
func (s *Session[K]) Label() string { return s.label }

func (s *Session[K]) add(k *Ticket[K]) {
	list := s.list(k)
	k.index = int32(len(*list))
	*list = append(*list, k)
}

func (s *Session[K]) remove(k *Ticket[K]) {
	list := s.list(k)
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[k.index], moved.index = moved, k.index
	(*list)[last] = nil
	*list = (*list)[:last]
	if cap(*list) > spareMax && last < cap(*list)/8 {
		*list = append(make([]*Ticket[K], 0, cap(*list)/4), *list...)
	}
}

// CloseSession cancels all that a session waits for, releases all that it holds, and
// lets it ask for nothing more. It returns the tags of the cancelled requests and of the
// ended grants, and the waiters that their leaving let in. It costs in proportion to these.
func (t *Table[K]) CloseSession(s *Session[K]) (cancelled, released []any, granted []Grant[K]) {
	// What waits goes first, or the session would be granted what it releases.
	cancelled, _ = t.CancelSession(s)
	for len(s.held) > 0 {
		k := s.held[len(s.held)-1]
		if k.tag != nil {
			released = append(released, k.tag)
		}
		t.release(k)
	}
	return cancelled, released, t.granted
}

// CancelSession is the first half of CloseSession: what the session holds stays.
func (t *Table[K]) CancelSession(s *Session[K]) (cancelled []any, granted []Grant[K]) {
	t.begin()
	s.closed = true
	// The last that came goes first, or the session would be granted what it gives up.
	slices.SortFunc(s.waiting, func(a, b *Ticket[K]) int { return cmp.Compare(a.number, b.number) })
	for i, k := range s.waiting {
		k.index = int32(i)
	}
	for len(s.waiting) > 0 {
		k := s.waiting[len(s.waiting)-1]
		cancelled = append(cancelled, k.tag)
		t.cancel(k)
	}
	return cancelled, t.granted
}

// Grants returns what a session holds.
func (s *Session[K]) Grants() []Token[K] {
	grants := make([]Token[K], len(s.held))
	for i, k := range s.held {
		grants[i] = Token[K]{ticket: k, seq: k.seq()}
	}
	return grants
}

// A WaitEdge is one of the wait-for graph: a session waits for a key that another one
// holds, or claims by an earlier entry in its queue.
type WaitEdge[K comparable] struct {
	Waiter  string // label
	Key     K
	Blocker string // label
	Held    bool   // or else claimed
}

// cycle returns the cycle that a session's request would close by waiting, from the
// session to itself; nil when there is none, or no session. No other request can close
// one: nothing stands behind a request that has just come, and one without a session
// holds nothing. Nor does anything wait for a session that holds nothing, and has asked for nothing else.
func (t *Table[K]) cycle(r *Request[K]) []WaitEdge[K] {
	if r.Session == nil || len(r.Session.waiting)+len(r.Session.held) == 0 {
		return nil
	}
	s := &t.search
	s.request = r
	s.keys = t.blocking(r, s.keys)
	s.limited = t.limits > 0 || slices.ContainsFunc(s.keys, func(a asked[K]) bool { return a.Limit > 0 })
	defer func() {
		t.worked += s.looked
		s.reset()
	}()
	if len(s.keys) == 0 || !s.reachable() {
		return nil
	}
	if s.limited {
		// A request that waits for room among shared holders waits for any of them and not
		// for all, so a way back to the start does not prove anything yet.
		if !s.reduce() {
			return nil
		}
		s.stuckOnly, s.bound = true, math.MaxUint64
		s.reach()
	}
	return s.edges()
}

// A search looks at near entries first, and each time at farther times as many.
var near, farther uint64 = 64, 8

// reachable reports whether the start is reached from itself. It looks back, at what waits for the start, and
// ahead, at what the start would wait for, in turns and ever farther. The first look that is complete decides, so
// the cost is in proportion to the smaller of the two.
func (s *search[K]) reachable() bool {
	for entries := near; ; {
		s.begin(entries)
		if !s.mayReach() {
			return false
		}
		entries *= farther
		s.begin(entries)
		if found := s.reach(); !s.gaveUp() {
			return found
		}
	}
}

// begin forgets what an earlier look has reached. The next one gives up after so many entries.
func (s *search[K]) begin(entries uint64) {
	clear(s.nodes)
	clear(s.scans)
	s.nodes, s.scans = s.nodes[:0], s.scans[:0]
	s.add(s.request.Session)
	s.bound = s.looked + entries
}

// mayReach looks back. It is false if nothing that waits for the start, directly or not, stands in a queue in which the
// start is going to wait. That is so for most sessions, because few others wait for them. It follows some edges that
// are none, from a shared waiter to a shared entry before it. It is true if it gives up.
func (s *search[K]) mayReach() bool {
	for i := 0; i < len(s.nodes); i++ {
		for p := range s.nodes[i].session.entries {
			if s.looked++; s.gaveUp() {
				return true
			}
			first := p.next // that waits behind it
			if p.granted() {
				first = p.queue.next
			}
			c := s.scanOf(p.queue)
			if first == nil || !first.before(c.behind) {
				continue
			}
			for w := first; w != c.behind; w = w.next {
				if s.looked++; s.gaveUp() {
					return true
				}
				if o := w.ticket.session; o != nil && s.nodeOf(o) == nil {
					s.add(o)
				}
			}
			c.behind = first
		}
	}
	return slices.ContainsFunc(s.keys, func(a asked[K]) bool { return s.known(a.queue) != nil })
}

// blocking returns the queues in which a request would have to wait.
func (t *Table[K]) blocking(r *Request[K], queues []asked[K]) []asked[K] {
	add := func(key K, is Terms) {
		if q, _ := t.queues.find(key); q != nil && !q.admits(is) {
			queues = append(queues, asked[K]{q, is})
		}
	}
	if r.Keys == nil {
		add(r.Key, t.terms(r))
	}
	for i, key := range r.Keys {
		add(key, t.termsOf(r, i))
	}
	return queues
}

// asked is what a request asks for in one queue.
type asked[K comparable] struct {
	queue *queue[K]
	Terms
}

// A search looks, breadth first, for a short way from a session that is about to wait back
// to itself.
//
// It goes through each queue once, from its head on, however many of its waiters are
// reached. Each of them waits for entries before it, so a queue needs a cursor and no more:
// what it has passed is reached. Sessions and queues know by an index where the search has
// them; it holds when that place has them, too. Thus nothing in them refers to a search, or
// to what a search has met.
type search[K comparable] struct {
	limited bool        // some entries have a limit
	request *Request[K] // the one that is about to wait
	keys    []asked[K]  // where it would

	nodes []node[K] // the first is the start
	scans []scan[K]

	order     []int32 // of the nodes, as they were reached
	stuckOnly bool    // keep to nodes that reduce left stuck
	found     bool
	last      via[K] // how the start was reached

	looked uint64 // at how many entries it has
	bound  uint64 // at how many it gives up

	free []int32      // nodes that can go on, and have not been dealt with
	gets []*Ticket[K] // for many keys, of which all go on: likewise
}

// A node is a session that was reached.
type node[K comparable] struct {
	session *Session[K]
	via     via[K]
	reached bool
	stuck   bool
	blocked int // its entries that wait for one that is stuck
}

// A via is how a session was reached: over an entry in a queue, in which another waits.
type via[K comparable] struct {
	from  int32
	queue *queue[K]
	held  bool
}

// A scan is how far the search has come in a queue.
type scan[K comparable] struct {
	queue *queue[K]
	next  *entry[K] // all before it are reached
	owned *entry[K] // the first of them that has a session; nil when none has

	// A shared waiter without a limit waits for no shared entry beside it, only for the last
	// one before it that it does not pass, which waits for all before it in its turn.
	looked *entry[K] // all before it were looked at
	barred *entry[K] // the last of them that is not passed: that is exclusive, or waits and has a limit

	behind *entry[K] // of mayReach: it and all after it were looked at; nil is the end

	// Of reduce. An exclusive entry is stuck when anything before it is; a shared one when one
	// that it does not pass is; and one with a limit when any waiter before it is, or as many
	// holders as the limit allows. What is stuck becomes ever less, so both only move on.
	request   *asked[K] // what the request would wait for at the end of this queue; nil when nothing
	first     *entry[K] // nothing before it is stuck
	atFirst   bool      // that was noted of it
	room      *entry[K] // nothing before it is stuck that is not passed
	atRoom    bool      // that it goes on was noted of it
	stuckHeld int32     // shared entries before room that hold, now or some day, and are stuck
	stuckWait int32     // shared entries before room that wait for other keys, and are stuck
}

// maxKept is how much room a search keeps for the next one.
const maxKept = 1024

// reset forgets everything that the search has met.
func (s *search[K]) reset() {
	if cap(s.nodes)+cap(s.scans)+cap(s.order)+cap(s.free)+cap(s.keys)+cap(s.gets) > maxKept {
		*s = search[K]{}
		return
	}
	clear(s.nodes)
	clear(s.scans)
	clear(s.keys)
	clear(s.gets[:cap(s.gets)])
	*s = search[K]{nodes: s.nodes[:0], scans: s.scans[:0], order: s.order[:0], free: s.free[:0], gets: s.gets[:0], keys: s.keys[:0]}
}

// nodeOf returns the node of a session; nil when it was not reached.
func (s *search[K]) nodeOf(o *Session[K]) *node[K] {
	if o == nil || int(o.node) >= len(s.nodes) || s.nodes[o.node].session != o {
		return nil
	}
	return &s.nodes[o.node]
}

// add adds the node of a session that has none.
func (s *search[K]) add(o *Session[K]) *node[K] {
	o.node = int32(len(s.nodes))
	s.nodes = append(s.nodes, node[K]{session: o})
	return &s.nodes[o.node]
}

// known returns the scan of a queue; nil when there is none.
func (s *search[K]) known(q *queue[K]) *scan[K] {
	if int(q.scan) >= len(s.scans) || s.scans[q.scan].queue != q {
		return nil
	}
	return &s.scans[q.scan]
}

func (s *search[K]) scanOf(q *queue[K]) *scan[K] {
	if c := s.known(q); c != nil {
		return c
	}
	q.scan = int32(len(s.scans))
	s.scans = append(s.scans, scan[K]{queue: q, next: q.head, looked: q.head})
	return &s.scans[q.scan]
}

// reach reaches the sessions for which the start would wait, directly or not, and reports
// whether it is one of them. Without a limit it ends as soon as it is.
func (s *search[K]) reach() bool {
	s.order, s.found = append(s.order[:0], 0), false
	for i := range s.nodes {
		s.nodes[i].reached = i == 0
	}
	for i := range s.scans {
		c := &s.scans[i]
		c.next, c.looked, c.barred = c.queue.head, c.queue.head, nil
	}
	for _, a := range s.keys {
		s.waits(0, a.queue, nil, a.Terms)
	}
	for i := 1; i < len(s.order); i++ {
		from := s.order[i]
		for _, k := range s.nodes[from].session.waiting {
			entries := k.entries()
			for j := range entries {
				if s.over() {
					return s.found
				}
				s.waits(from, entries[j].queue, &entries[j], entries[j].Terms)
			}
		}
	}
	return s.found
}

// over reports whether there is nothing more to look for, or no more may be looked at.
func (s *search[K]) over() bool { return s.foundAll() || s.looked > s.bound }

// gaveUp reports whether a look was not complete.
func (s *search[K]) gaveUp() bool { return s.looked > s.bound && !s.foundAll() }

// foundAll reports whether there is nothing more to look for. Under a limit a way back to the start is not enough,
// because reduce needs all that can be reached.
func (s *search[K]) foundAll() bool { return s.found && (!s.limited || s.stuckOnly) }

// waits reaches what a waiter waits for in one queue; nil stands for the end of it.
func (s *search[K]) waits(from int32, q *queue[K], at *entry[K], is Terms) {
	s.looked++
	if at != nil && at.ready() || s.over() {
		return
	}
	c := s.scanOf(q)
	if is.Mode == Exclusive || is.Limit > 0 {
		s.visitUpTo(c, from, at)
		return
	}
	for p := c.looked; p != nil && p.before(at) && !s.over(); p = p.next {
		if p.Mode == Exclusive || p.Limit > 0 && !p.granted() {
			c.barred = p
			if from == 0 && p.ticket.session == s.request.Session {
				s.visit(from, p) // a cycle of one edge; those that are nearer may close longer ones
			}
		}
		c.looked = p.next
		s.looked++
	}
	// When more was looked at already than this waiter asks for, it was reached then.
	last := c.barred
	switch {
	case last == nil || !last.before(at) || s.over():
	case last.ticket.session != nil:
		s.visit(from, last) // its own session goes on from here
	default:
		s.visitUpTo(c, from, last.next)
	}
}

// visitUpTo visits the entries of a queue before one that it has not visited; nil is the end.
func (s *search[K]) visitUpTo(c *scan[K], from int32, at *entry[K]) {
	for p := c.next; p != nil && p.before(at) && !s.over(); p = p.next {
		if c.owned == nil && p.ticket.session != nil {
			c.owned = p
		}
		s.visit(from, p)
		c.next = p.next
	}
}

// visit notes that one session waits for the one of an entry, if it has one.
func (s *search[K]) visit(from int32, p *entry[K]) {
	s.looked++
	o := p.ticket.session
	if o == nil {
		return
	}
	n := s.nodeOf(o)
	via := via[K]{from, p.queue, p.granted()}
	switch {
	case n == nil:
		n = s.add(o)
	case o.node == 0:
		if !s.found {
			s.found, s.last = true, via
		}
		return
	case n.reached || s.stuckOnly && !n.stuck:
		return
	}
	n.via, n.reached = via, true
	s.order = append(s.order, o.node)
}

// edges returns the way on which the start was reached, from the start on.
func (s *search[K]) edges() []WaitEdge[K] {
	length := 1
	for at := s.last.from; at != 0; at = s.nodes[at].via.from {
		length++
	}
	edges := make([]WaitEdge[K], length)
	for v, blocker := s.last, int32(0); length > 0; v, blocker = s.nodes[v.from].via, v.from {
		length--
		edges[length] = WaitEdge[K]{
			Waiter: s.nodes[v.from].session.label, Key: v.queue.key,
			Blocker: s.nodes[blocker].session.label, Held: v.held,
		}
	}
	return edges
}

// reduce assumes that every session that can go on does, and releases all that it holds,
// until nothing changes, and reports whether the start is still stuck then. It looks at
// each entry of a queue, and at each of a session, a fixed number of times.
func (s *search[K]) reduce() bool {
	for i := range s.nodes {
		for _, k := range s.nodes[i].session.waiting {
			entries := k.entries()
			for j := range entries {
				s.scanOf(entries[j].queue)
				s.looked++
				s.nodes[i].blocked++
			}
			if k.many != nil {
				k.many.search.left, k.many.search.gets = len(entries), false
			}
		}
	}
	for i := range s.keys {
		if c := s.scanOf(s.keys[i].queue); c.request == nil { // a key that is named twice counts once
			c.request = &s.keys[i]
			s.nodes[0].blocked++
		}
	}
	for i := range s.nodes {
		s.nodes[i].stuck = s.nodes[i].blocked > 0
	}
	for i := range s.scans {
		c := &s.scans[i]
		c.first = c.owned // what has no session is not stuck before anything else is
		if c.first == nil {
			c.first = c.queue.head
		}
		c.room = c.first
	}
	for i := range s.scans {
		s.settle(&s.scans[i])
	}
	for len(s.free)+len(s.gets) > 0 && s.nodes[0].stuck {
		if last := len(s.gets) - 1; last >= 0 {
			k := s.gets[last]
			s.gets = s.gets[:last]
			s.holds(k)
			continue
		}
		n := &s.nodes[s.free[len(s.free)-1]]
		s.free = s.free[:len(s.free)-1]
		n.stuck = false
		// First all are taken back that were counted, or what is passed only now would be.
		for p := range n.session.entries {
			if c := s.known(p.queue); c != nil && p.Mode == Shared && p.before(c.room) {
				if p.gets() {
					c.stuckHeld--
				} else {
					c.stuckWait--
				}
			}
		}
		for p := range n.session.entries {
			if c := s.known(p.queue); c != nil {
				s.settle(c)
			}
		}
	}
	return s.nodes[0].stuck
}

// holds assumes that a ticket for many keys holds them, while its session may be stuck.
func (s *search[K]) holds(k *Ticket[K]) {
	k.many.search.gets = true
	entries := k.entries()
	for i := range entries {
		p := &entries[i]
		if c := s.known(p.queue); p.Mode == Shared && p.before(c.room) && s.stuck(p) {
			c.stuckWait--
			c.stuckHeld++
		}
	}
	for i := range entries {
		s.settle(s.known(entries[i].queue))
	}
}

// gets reports whether an entry that goes on in its queue holds then, and does not wait for
// other keys.
func (p *entry[K]) gets() bool {
	return p.granted() || p.ticket.many == nil || p.ticket.many.search.gets
}

// entries yields all entries of a session.
func (s *Session[K]) entries(yield func(*entry[K]) bool) {
	for _, tickets := range [...][]*Ticket[K]{s.waiting, s.held} {
		for _, k := range tickets {
			entries := k.entries()
			for i := range entries {
				if !yield(&entries[i]) {
					return
				}
			}
		}
	}
}

// settle moves on in a queue as far as nothing is stuck there any more.
func (s *search[K]) settle(c *scan[K]) {
	for {
		if !c.atFirst {
			c.atFirst = true
			s.goesOn(c, c.first, Exclusive)
		}
		if c.first == nil || s.stuck(c.first) {
			break
		}
		c.first, c.atFirst = c.first.next, false
	}
	for {
		p := c.room
		is := Terms{}
		switch {
		case p != nil:
			is = p.Terms
		case c.request != nil:
			is = c.request.Terms
		}
		if !c.atRoom && (is.Limit == 0 || c.stuckWait == 0 && c.stuckHeld < is.Limit) {
			c.atRoom = true
			s.goesOn(c, p, Shared)
		}
		if p == nil {
			return
		}
		stuck := s.stuck(p)
		switch {
		case is.Mode == Exclusive:
			if stuck || p.ticket.session == nil && !p.granted() && c.first != nil && c.first.before(p) {
				return
			}
		case is.Limit > 0 && !p.granted() && (!c.atRoom || stuck && !p.gets()):
			return // no entry passes it
		case !stuck:
		case p.gets():
			c.stuckHeld++
		default:
			c.stuckWait++
		}
		c.room, c.atRoom = p.next, false
	}
}

// stuck reports whether the session of an entry is.
func (s *search[K]) stuck(p *entry[K]) bool {
	n := s.nodeOf(p.ticket.session)
	return n != nil && n.stuck
}

// goesOn notes that an entry of a mode, or the request at the end, waits for nothing that
// is stuck.
func (s *search[K]) goesOn(c *scan[K], p *entry[K], mode Mode) {
	at := int32(0)
	switch {
	case p == nil:
		if c.request == nil || c.request.Mode != mode {
			return
		}
	case p.granted() || p.Mode != mode || s.nodeOf(p.ticket.session) == nil:
		return
	default:
		at = p.ticket.session.node
		if m := p.ticket.many; m != nil {
			if m.search.left--; m.search.left == 0 {
				s.gets = append(s.gets, p.ticket)
			}
		}
	}
	if s.nodes[at].blocked--; s.nodes[at].blocked == 0 {
		s.free = append(s.free, at)
	}
}
