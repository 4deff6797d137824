package table

import (
	"cmp"
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
