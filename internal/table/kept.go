//go:build kept

package table

import "hash/maphash"

// A Keeper keeps grants outside the table. A key that is kept stays granted when its holder
// has released it, and the keeper grants it again, as often as it is asked to. The table
// learns of that when it comes to the key: it calls the grant in, and what was kept is a
// grant like any other from then on, or has ended.
type Keeper interface {
	// Number returns the number of the next grant.
	Number() uint64
	// Holds reports whether the grant with a number is held, of the key with a hash.
	Holds(hash, number uint64) bool
	// CallIn ends the keeping of the key with a hash.
	CallIn(hash uint64) Called
}

// Called is what became of a grant while it was kept.
type Called struct {
	Number uint64 // of the last grant
	Grants uint64 // how many there were after that of the table
	Held   bool   // the last one has not ended
}

// keeping is what a table knows of grants that are kept outside of it.
type keeping struct{ keeper Keeper }

// next returns the number of the next grant after the last one of the table.
func (k keeping) next(last uint64) uint64 {
	if k.keeper == nil {
		return last + 1
	}
	return k.keeper.Number()
}

// skips reports whether there are numbers of grants that the table does not know of.
func (k keeping) skips() bool { return k.keeper != nil }

// SetKeeper gives an empty table a keeper.
func (t *Table[K]) SetKeeper(k Keeper) { t.keeping = keeping{k} }

// isKept is the index of a ticket that is kept, which is in no session.
const isKept = -2

// Keep lets the keeper have a grant. It must be exclusive, of one key, and have no session
// and no waiter.
func (t *Table[K]) Keep(k *Ticket[K]) { k.index = isKept }

// CallIn calls in a grant that is kept, and does nothing with any other.
func (t *Table[K]) CallIn(k *Ticket[K]) {
	if k.index == isKept {
		t.callIn(k.one[0].queue)
	}
}

// callIn calls in the grant of a queue, and reports whether it is held.
func (t *Table[K]) callIn(q *queue[K]) bool {
	k := q.head.ticket
	k.index = -1
	called := t.keeping.keeper.CallIn(q.hash)
	t.cuts.touch(q)
	t.counts.Acquired += called.Grants
	t.counts.Released += called.Grants
	k.number = called.Number
	t.seq = max(t.seq, k.number)
	if !called.Held {
		t.release(k)
	}
	return called.Held
}

// find returns the queue of a key, in which nothing is kept, nil when there is none; and the
// hash of the key.
func (t *Table[K]) find(key K) (*queue[K], uint64) {
	q, hash := t.queues.find(key)
	if q != nil && q.head.ticket.index == isKept && !t.callIn(q) {
		q = nil
	}
	return q, hash
}

// callAllIn calls in what is kept of the keys of a request, before it enters any queue.
func (t *Table[K]) callAllIn(r *Request[K]) {
	if t.keeping.keeper != nil {
		for _, key := range r.Keys {
			t.find(key)
		}
	}
}

// live reports whether a grant has not ended, and calls it in if it is kept. The table cannot
// tell before what its number is now.
func (t *Table[K]) live(token Token[K]) bool {
	if token.seq != 0 && token.ticket.index == isKept {
		q := token.ticket.one[0].queue
		if !t.keeping.keeper.Holds(q.hash, token.seq) {
			return false // it does not end what another one holds
		}
		t.callIn(q)
	}
	return token.Live()
}

// Token returns the token of a grant that has the ticket.
func (k *Ticket[K]) Token(number uint64) Token[K] { return Token[K]{ticket: k, seq: number} }

// Hash returns the hash of the only key of a ticket, which has a queue.
func (k *Ticket[K]) Hash() uint64 { return k.one[0].queue.hash }

// Seed returns what the hashes of keys are made with, by maphash.Comparable.
func (t *Table[K]) Seed() maphash.Seed { return t.queues.seed }
