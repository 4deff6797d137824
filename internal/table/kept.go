package table

import "hash/maphash"

// A Keeper keeps grants outside the table. A key that is kept stays granted when its holder
// has released it, and the keeper grants it again, as often as it is asked to. The table
// learns of that when it comes to the key: it calls the grant in, and what was kept is a
// grant like any other from then on, or has ended.
type Keeper interface {
	// CallIn ends the keeping of the key with a hash.
	CallIn(hash uint64) Called
}

// Called is what became of a grant while it was kept.
type Called struct {
	Number uint64 // of the last grant
	Held   bool   // the last one has not ended
}

// SetKeeper gives an empty table a keeper.
func (t *Table[K]) SetKeeper(k Keeper) { t.keeper = k }

// isKept is the index of a ticket that is kept, which is in no session.
const isKept = -2

// Keep lets the keeper have the last grant, and the numbers that follow, up to the first that ends
// in the bits of mask: no other grant gets them. The grant must be exclusive, of one key, and have no
// session and no waiter.
func (t *Table[K]) Keep(k *Ticket[K], mask uint64) {
	k.index = isKept
	t.seq |= mask
}

// CallIn calls in a grant that is kept, and does nothing with any other, or with nil. The number
// of one that is kept is known only then.
func (t *Table[K]) CallIn(k *Ticket[K]) {
	if k != nil && k.index == isKept {
		t.callIn(k.one[0].queue)
	}
}

// isKept reports whether the grant of a queue is kept.
func (q *queue[K]) isKept() bool { return q != nil && q.head.ticket.index == isKept }

// callIn calls in the grant of a queue, and returns the queue; nil when the grant has ended.
func (t *Table[K]) callIn(q *queue[K]) *queue[K] {
	k := q.head.ticket
	k.index = -1
	called := t.keeper.CallIn(q.hash)
	t.cuts.touch(q)
	more := called.Number - k.number // grants than the table knows of
	t.counts.Acquired += more
	t.counts.Released += more
	k.number = called.Number
	if called.Held {
		return q
	}
	t.release(k)
	return nil
}

// callAllIn calls in what is kept of some keys.
func (t *Table[K]) callAllIn(keys []K) {
	for _, key := range keys {
		if q, _ := t.queues.find(key); q.isKept() {
			t.callIn(q)
		}
	}
}

// Token returns the token of a grant that has the ticket.
func (k *Ticket[K]) Token(number uint64) Token[K] { return Token[K]{ticket: k, seq: number} }

// Hash returns the hash of the only key of a ticket, which has a queue.
func (k *Ticket[K]) Hash() uint64 { return k.one[0].queue.hash }

// Seed returns what the hashes of keys are made with, by maphash.Comparable.
func (t *Table[K]) Seed() maphash.Seed { return t.queues.seed }
