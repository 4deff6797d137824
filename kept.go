package keylock

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// kept are the grants that are kept. A key that is released, and that no other request
// wants, stays granted in a cell, and the next caller that asks for it takes it there.
//
// The owner alone fills cells, and it calls them in: because another request comes to it for
// the key, because another key needs the cell, or because a question is about all keys. From
// then on the grant is one like any other, or it has ended.
type kept[K comparable] struct {
	gate     cellGate
	table    *table.Table[K] // the owner's
	seed     maphash.Seed    // of its hashes
	lifetime <-chan struct{} // the Done of Start's context
	cells    []cell[K]
	atOnce   int // cells that the owner calls in before it serves others

	_      cacheLine
	number atomic.Uint64 // the last that was given to a grant
	_      cacheLine
	// unserved is how many requests were not served yet whose calls return before: reservations,
	// ends of requests that were abandoned, those of sessions, and shutdowns. What follows such a
	// call must not take effect before it does: meanwhile no caller takes or parks.
	unserved atomic.Int64
	_        cacheLine
}

// A cacheLine keeps apart what is used by different processors.
type cacheLine [64]byte

// A cell has one key at most. What becomes of it is decided by its word, in one step:
//
//   - called: it is the owner's. The owner sets it, and unsets it when it fills the cell.
//   - out: the key is held. A release parks it.
//   - parked, which is neither: the key is free, and the first caller that asks takes it.
//
// The rest of the word is the number of the last grant, and how many grants there were after
// that of the owner. A number is given once, so a late release does not match another grant, and
// a word that is the same as before has not changed meanwhile.
type cell[K comparable] struct {
	word atomic.Uint64
	hash atomic.Uint64 // of the key; written while the word is called

	// Written by the owner while the word is called, and read by the holder.
	key    K
	ticket *table.Ticket[K]

	missed uint64 // the hash of the last key that found another one here; the owner's
	_      cacheLine
}

const (
	called uint64 = 1 << iota
	out
	oneGrant // of those that are counted

	numberBits = 12
	countMask  = 1<<numberBits - oneGrant
	mostNumber = 1<<(64-numberBits) - 1 // after which no grants are kept any more
)

func newKept[K comparable](t *table.Table[K], lifetime <-chan struct{}, n int) *kept[K] {
	k := &kept[K]{table: t, seed: t.Seed(), lifetime: lifetime, cells: make([]cell[K], n), atOnce: 256}
	for i := range k.cells {
		k.cells[i].word.Store(called)
	}
	t.SetKeeper(k)
	return k
}

// cell is where a key with a hash can be.
func (k *kept[K]) cell(hash uint64) *cell[K] {
	i, _ := bits.Mul64(hash, uint64(len(k.cells)))
	return &k.cells[i]
}

// sends counts a request of a call that does not wait until it is served.
func (k *kept[K]) sends() {
	if k != nil {
		k.gate.before("counts its request")
		k.unserved.Add(1)
	}
}

// served ends what sends began.
func (k *kept[K]) served() {
	if k != nil {
		k.gate.before("counts a request as served")
		k.unserved.Add(-1)
	}
}

// take takes a key that is kept, if it may be taken.
//
// The grant is one of the moment at which the caller looks whether it may take: the key was
// free then, because the word is the same before and after. It gets its number later, so that a
// reservation that the same goroutine has made before has a lower one.
//
// When it is false, a grant that it returns is of another key with the same hash, nearly never, and must
// be released.
func (k *kept[K]) take(key K) (grant table.Token[K], ok bool) {
	hash := maphash.Comparable(k.seed, key)
	c := k.cell(hash)
	k.gate.cell("looks at a cell", 0, 0)
	word := c.word.Load()
	if word&(called|out) != 0 || word&countMask == countMask || c.hash.Load() != hash {
		return grant, false
	}
	k.gate.cell("looks whether it may take", word, 0)
	if k.unserved.Load() > 0 || isClosed(k.lifetime) {
		return grant, false
	}
	k.gate.cell("numbers its grant", word, 0)
	number := k.number.Add(1)
	k.gate.cell("takes a kept grant", word, number)
	if number > mostNumber || !c.word.CompareAndSwap(word, number<<numberBits|(word&countMask+oneGrant)|out) {
		return grant, false
	}
	k.gate.cell("reads its cell", 0, number)
	return c.ticket.Token(number), c.key == key
}

// park keeps the grant of a key, if that is kept and was not called, and reports
// whether there is nothing to do for the owner.
func (k *kept[K]) park(key K, grant table.Token[K]) bool {
	c := k.cell(maphash.Comparable(k.seed, key))
	k.gate.cell("looks at its cell", 0, grant.Seq())
	word := c.word.Load()
	switch {
	case word>>numberBits != grant.Seq() || word&called != 0:
		return false
	case word&out == 0:
		return true // it was released before
	}
	k.gate.cell("looks whether it may park", word, grant.Seq())
	if k.unserved.Load() > 0 {
		return false
	}
	k.gate.cell("parks", word, grant.Seq())
	return c.word.CompareAndSwap(word, word&^out)
}

// Number is of [table.Keeper].
func (k *kept[K]) Number() uint64 { return k.number.Add(1) }

// CallIn is of [table.Keeper].
func (k *kept[K]) CallIn(hash uint64) table.Called {
	c := k.cell(hash)
	k.gate.before("calls a cell in")
	word := c.word.Or(called)
	return table.Called{Number: word >> numberBits, Grants: word & countMask / oneGrant, Held: word&out != 0}
}

// keep fills the cell of a key that was just granted. The owner calls it. When there is another key, which is free,
// it makes room only for a key that is missed for the second time in a row: with Zipf's keys
// it would make room nearly always for one that is not asked for again.
func (k *kept[K]) keep(key K, grant table.Token[K]) {
	if k.number.Load() >= mostNumber {
		return
	}
	hash := grant.Ticket().Hash()
	c := k.cell(hash)
	k.gate.before("looks at the cell of a grant")
	word := c.word.Load()
	switch {
	case word&called != 0:
		if c.live(word) {
			return // its holder may still read it
		}
	case word&out != 0:
		return
	case c.missed != hash:
		c.missed = hash
		return
	default:
		k.gate.before("calls a cell in that is parked")
		if !c.word.CompareAndSwap(word, word|called) {
			return // it has been taken
		}
		k.table.CallIn(c.ticket)
	}
	c.hash.Store(hash)
	c.key, c.ticket, c.missed = key, grant.Ticket(), 0
	k.table.Keep(c.ticket)
	k.gate.before("fills a cell")
	c.word.Store(grant.Seq()<<numberBits | out)
}

// live reports whether the last grant that a cell had is held, when its word is called.
func (c *cell[K]) live(word uint64) bool {
	return c.ticket != nil && c.ticket.Token(word>>numberBits).Live()
}

// callIn calls in some cells, and forgets the keys that are not held. The owner calls it.
func (k *kept[K]) callIn(cells []cell[K]) {
	for i := range cells {
		c := &cells[i]
		if c.ticket == nil {
			continue
		}
		k.table.CallIn(c.ticket)
		if !c.live(c.word.Load()) {
			var none K
			c.key, c.ticket = none, nil
		}
	}
}
