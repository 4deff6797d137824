package table

// A Session is one logical owner of requests, who may wait while it holds. Sessions
// are what a wait-for graph is made of: a session waits for another when one of its
// waiting tickets has to wait until a ticket of the other is gone.
//
// There is an edge from a waiting entry to every entry before it that it conflicts
// with: a hard edge to a holder, a soft one to an earlier waiter. A request of no
// session holds nothing while it waits, so it can only pass a cycle on, along its own
// queue or, if it names many keys, from one queue to another.
type Session[K comparable] struct {
	label   string
	tickets []*Ticket[K] // all that it waits for or holds
	closed  bool

	// Of the running cycle search:
	mark  uint64      // the search that reached it last
	via   WaitEdge[K] // how it was reached
	from  *Session[K]
	stuck bool // it can not go on, as far as the search knows
}

// NewSession returns a session that owns nothing. The label is for people to read.
func NewSession[K comparable](label string) *Session[K] { return &Session[K]{label: label} }

func (s *Session[K]) add(k *Ticket[K]) {
	k.session = s
	k.index = int32(len(s.tickets))
	s.tickets = append(s.tickets, k)
}

func (s *Session[K]) remove(k *Ticket[K]) {
	last := len(s.tickets) - 1
	moved := s.tickets[last]
	s.tickets[k.index], moved.index = moved, k.index
	s.tickets[last] = nil
	s.tickets = s.tickets[:last]
}

// CloseSession cancels all that a session waits for, releases all that it holds, and
// lets it ask for nothing more. It returns the tags of the cancelled requests and of the
// ended grants, and whom their leaving let in.
func (t *Table[K]) CloseSession(s *Session[K]) (cancelled, released []any, granted []Grant[K]) {
	t.begin()
	s.closed = true
	// What waits goes first, or the session would be granted what it releases.
	for i := len(s.tickets) - 1; i >= 0; i-- {
		if k := s.tickets[i]; k.seq == 0 {
			cancelled = append(cancelled, k.tag)
			t.cancel(k)
		}
	}
	for len(s.tickets) > 0 {
		k := s.tickets[len(s.tickets)-1]
		if k.tag != nil {
			released = append(released, k.tag)
		}
		t.release(k)
	}
	return cancelled, released, t.granted
}

// An WaitEdge of the wait-for graph: somebody waits for a key that another session holds,
// or claims by an earlier entry in its queue.
type WaitEdge[K comparable] struct {
	Waiter  string // label
	Key     K
	Blocker string // label
	Held    bool   // or else claimed
}

// cycle returns the cycle that a session's request would close by waiting, from the
// session to itself; nil when there is none, or no session. No other request can close one: whoever
// stands at the end of a queue has nobody behind it, and a request without a session
// holds nothing.
func (t *Table[K]) cycle(r *Request[K]) []WaitEdge[K] {
	if r.Session == nil {
		return nil
	}
	s := search[K]{table: t, request: r, start: r.Session}
	if !s.reach() {
		return nil
	}
	if t.config.SharedLimit > 0 {
		// Who waits for room among shared holders waits for any of them, not for all,
		// so a way back to the start does not prove anything yet.
		if !s.reduce() {
			return nil
		}
		s.stuckOnly = true
		s.reach()
	}
	var edges []WaitEdge[K]
	for o := s.start; ; {
		edges = append(edges, o.via)
		if o = o.from; o == s.start {
			break
		}
	}
	for i, j := 0, len(edges)-1; i < j; i, j = i+1, j-1 {
		edges[i], edges[j] = edges[j], edges[i]
	}
	return edges
}

// A search looks, breadth first, for the shortest way from a session that is about to
// wait back to itself.
type search[K comparable] struct {
	table     *Table[K]
	request   *Request[K] // the one that is about to wait
	start     *Session[K]
	stuckOnly bool // keep to sessions that reduce left stuck

	reached []*Session[K] // in the order in which they were, without start
	found   bool
}

// reach marks every session that the start would wait for, directly or not, and
// reports whether it is one of them.
func (s *search[K]) reach() bool {
	s.table.searches++
	s.reached, s.found = s.reached[:0], false
	for q := range s.blockedIn() {
		s.again(q)
		s.scan(s.start, q, q.tail, s.request.mode())
	}
	for i := 0; i < len(s.reached); i++ {
		o := s.reached[i]
		for _, k := range o.tickets {
			if k.seq != 0 {
				continue
			}
			entries := k.entries()
			for j := range entries {
				s.scan(o, entries[j].queue, entries[j].prev, k.mode)
			}
		}
	}
	return s.found
}

// again looks for the shortest cycle: the start asks for a key that it has asked for
// already. In a long queue scan would meet others first.
func (s *search[K]) again(q *queue[K]) {
	if s.table.config.SharedLimit > 0 {
		return // it may wait for its own shared holders and for others as well
	}
	for _, k := range s.start.tickets {
		entries := k.entries()
		for i := range entries {
			if p := &entries[i]; p.queue == q && (k.mode == Exclusive || s.request.mode() == Exclusive) {
				s.visit(s.start, s.start, q, p)
			}
		}
	}
}

// blockedIn yields the queues in which the start's request would have to wait.
func (s *search[K]) blockedIn() func(yield func(*queue[K]) bool) {
	return func(yield func(*queue[K]) bool) {
		keys := s.request.Keys
		if keys == nil {
			keys = []K{s.request.Key}
		}
		for _, key := range keys {
			q, _ := s.table.queues.find(key)
			if q != nil && !q.admits(s.request.mode(), s.table.config.SharedLimit) && !yield(q) {
				return
			}
		}
	}
}

// scan marks whom a waiter waits for in one queue, from the entry before it to the head.
// A shared waiter without a limit waits for no shared one beside it, only for the first
// exclusive one, which in its turn waits for all before it.
func (s *search[K]) scan(waiter *Session[K], q *queue[K], from *entry[K], mode Mode) {
	beside := mode == Shared && s.table.config.SharedLimit == 0
	for p := from; p != nil; p = p.prev {
		k := p.ticket
		if beside && k.mode == Shared {
			continue
		}
		beside = false
		o := k.session
		if o == nil {
			continue
		}
		s.visit(o, waiter, q, p)
		if k.mode == Exclusive && !p.granted() {
			return // its own session goes on from here
		}
	}
}

// visit notes that a waiter waits for a session.
func (s *search[K]) visit(o, waiter *Session[K], q *queue[K], p *entry[K]) {
	if o.mark == s.table.searches || s.stuckOnly && !o.stuck {
		return
	}
	o.mark, o.from = s.table.searches, waiter
	o.via = WaitEdge[K]{Waiter: waiter.label, Key: q.key, Blocker: o.label, Held: p.granted()}
	if o == s.start {
		s.found = true
		return
	}
	s.reached = append(s.reached, o)
}

// reduce assumes that every session that can go on does and releases all that it holds,
// until nothing changes, and reports whether the start is still stuck then.
func (s *search[K]) reduce() bool {
	stuck := append([]*Session[K]{s.start}, s.reached...)
	for _, o := range stuck {
		o.stuck = true
	}
	for changed := true; changed; {
		changed = false
		for _, o := range stuck {
			if o.stuck && !s.isStuck(o) {
				o.stuck, changed = false, true
			}
		}
	}
	return s.start.stuck
}

// isStuck reports whether any wait of a session waits for one who is stuck.
func (s *search[K]) isStuck(o *Session[K]) bool {
	if o == s.start {
		for q := range s.blockedIn() {
			if s.isStuckIn(q, nil, s.request.mode()) {
				return true
			}
		}
	}
	for _, k := range o.tickets {
		if k.seq != 0 {
			continue
		}
		entries := k.entries()
		for i := range entries {
			if s.isStuckIn(entries[i].queue, &entries[i], k.mode) {
				return true
			}
		}
	}
	return false
}

// isStuckIn reports whether a waiter of that mode at an entry, or at the end of the queue,
// waits for one who is stuck.
func (s *search[K]) isStuckIn(q *queue[K], at *entry[K], mode Mode) bool {
	exclusive, shared := 0, 0 // entries before it whose owners are stuck
	blocks := func(mode Mode) bool {
		if mode == Exclusive {
			return exclusive+shared > 0
		}
		return exclusive > 0 || shared >= s.table.config.SharedLimit
	}
	for p := q.head; p != at; p = p.next {
		k := p.ticket
		var stuck bool
		switch {
		case k.session != nil:
			stuck = k.session.mark == s.table.searches && k.session.stuck
		case !p.granted():
			stuck = blocks(k.mode)
		}
		switch {
		case stuck && k.mode == Exclusive:
			exclusive++
		case stuck:
			shared++
		}
		if blocks(mode) {
			return true
		}
	}
	return false
}
