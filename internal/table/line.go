package table

// A line is the queue of one key: its holders in front, its waiters behind them,
// each group in the order of arrival.
type line[K comparable] struct {
	key   K
	hash  uint64
	chain *line[K] // the next in the index's bucket

	head, tail *place[K]
	next       *place[K] // the first that is not granted; nil when nobody waits
	held       int       // places that are granted
	waiting    int       // places that are not

	rank         int // waiting, as far as the ranking knows
	above, below *line[K]
}

// A place is where a ticket stands in one line.
type place[K comparable] struct {
	line       *line[K]
	ticket     *Ticket[K]
	prev, next *place[K]
}

func (p *place[K]) granted() bool { return p.ticket.seq != 0 }

// fits reports whether the line's next place may be granted beside its holders.
func (l *line[K]) fits(mode Mode, sharedLimit int) bool {
	if l.held == 0 {
		return true
	}
	return mode == Shared && l.head.ticket.mode == Shared && (sharedLimit == 0 || l.held < sharedLimit)
}

// admits reports whether somebody who comes now would be granted.
func (l *line[K]) admits(mode Mode, sharedLimit int) bool {
	return l.next == nil && l.fits(mode, sharedLimit)
}

// push puts a place at the end.
func (l *line[K]) push(p *place[K]) {
	p.prev = l.tail
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
	if l.next == nil {
		l.next = p
	}
	l.waiting++
}

// remove takes a place out, wherever it stands.
func (l *line[K]) remove(p *place[K]) {
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	if p.granted() {
		l.held--
		return
	}
	l.waiting--
	if l.next == p {
		l.next = p.next
	}
}

// A Ticket is one request: its places in line and, once it is granted, the grant.
// Tickets are used again, so outside this package a grant is known by its Token.
type Ticket[K comparable] struct {
	tag     any         // the caller's own: of the request, and then of the grant
	seq     uint64      // the grant number; 0 while it waits
	one     [1]place[K] // of a request for one key
	many    *many[K]    // of a request for many; else nil
	session *Session[K] // whose it is; nil when it is nobody's
	index   int32       // where it is in its session
	mode    Mode
}

// many is what a ticket for many keys has instead of one place.
type many[K comparable] struct {
	places  []place[K] // one for each key; never grown, because lines point into it
	blocked int        // places that somebody before them is in the way of
	// solo owns the ticket when no session does, so that a cycle search, which goes from
	// session to session, finds the way from one of its lines to the others.
	solo Session[K]
}

// places are where the ticket stands in each of its lines.
func (k *Ticket[K]) places() []place[K] {
	if k.many != nil {
		return k.many.places
	}
	return k.one[:]
}

// A Token stands for one grant, for ever: grant numbers are not used again. The
// zero Token stands for none.
type Token[K comparable] struct {
	ticket *Ticket[K]
	seq    uint64
}

// Seq is the number of the grant, from 1, strictly increasing over the table's life.
func (k Token[K]) Seq() uint64 { return k.seq }

// Live reports whether the grant has not ended. Like every look into the table it
// is for the table's one caller.
func (k Token[K]) Live() bool { return k.seq != 0 && k.ticket.seq == k.seq }

// spare keeps tickets and lines for their next use, so that the steady state
// allocates nothing, and not more than spareMax of each, so that a burst's memory
// goes back.
type spare[K comparable] struct {
	tickets []*Ticket[K]
	lines   []*line[K]
	many    []*many[K]
}

const (
	spareMax  = 1024
	spareMany = 64 // also the most places in one of them
)

func (s *spare[K]) takeTicket() *Ticket[K] {
	if n := len(s.tickets); n > 0 {
		k := s.tickets[n-1]
		s.tickets = s.tickets[:n-1]
		return k
	}
	return new(Ticket[K])
}

func (s *spare[K]) putTicket(k *Ticket[K]) {
	if m := k.many; m != nil && cap(m.places) <= spareMany && len(s.many) < spareMany {
		clear(m.places)
		*m = many[K]{places: m.places[:0], solo: Session[K]{tickets: m.solo.tickets}}
		s.many = append(s.many, m)
	}
	*k = Ticket[K]{}
	if len(s.tickets) < spareMax {
		s.tickets = append(s.tickets, k)
	}
}

// takeMany returns room for n places.
func (s *spare[K]) takeMany(n int) *many[K] {
	if i := len(s.many) - 1; i >= 0 {
		m := s.many[i]
		s.many = s.many[:i]
		if cap(m.places) >= n {
			return m
		}
	}
	return &many[K]{places: make([]place[K], 0, n)}
}

func (s *spare[K]) takeLine() *line[K] {
	if n := len(s.lines); n > 0 {
		l := s.lines[n-1]
		s.lines = s.lines[:n-1]
		return l
	}
	return new(line[K])
}

func (s *spare[K]) putLine(l *line[K]) {
	*l = line[K]{}
	if len(s.lines) < spareMax {
		s.lines = append(s.lines, l)
	}
}
