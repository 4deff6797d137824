package keylock

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/ended"
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
	// numbers are the last bits of the last number that the grants of a cell can have. After that
	// the owner grants, and fills the cell again: each 8,192 grants, so that its messages cost nothing.
	numbers uint64
	atOnce  int // cells that the owner calls in before it serves others

	_ cacheLine
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
// The rest of the word is the number of the last grant. The owner reserves numbers for the cell
// when it fills it, so that who takes it writes nothing that other keys use. A number is given
// once, so a late release does not match another grant, and a word that is the same as before
// has not changed meanwhile.
type cell[K comparable] struct {
	word cellWord
	hash atomic.Uint64 // of the key; written while the word is called

	// Written by the owner while the word is called, and read by the holder.
	key    K
	ticket *table.Ticket[K]

	missed uint64 // the hash of the last key that found another one here; the owner's
	_      cacheLine
}

// A cellWord is the word of a cell. A lock that was taken from a cell comes with it.
type cellWord struct{ atomic.Uint64 }

const (
	called uint64 = 1 << iota
	out

	numberBits = 2                          // of the word, below the number
	mostNumber = 1<<(64-numberBits) - 1<<13 // after which no grants are kept any more
)

func newKept[K comparable](t *table.Table[K], lifetime <-chan struct{}, n int) *kept[K] {
	k := &kept[K]{table: t, seed: t.Seed(), lifetime: lifetime, cells: make([]cell[K], n), numbers: 1<<13 - 1, atOnce: 256}
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

// take takes a key that is kept, if it may be taken, and returns where it was.
//
// The grant is one of the moment at which the caller looks whether it may take: the key was
// free then, because the word is the same before and after.
//
// When it is nil, a grant that it returns is of another key with the same hash, nearly never, and must
// be released.
func (k *kept[K]) take(key K) (grant table.Token[K], from *cellWord) {
	hash := maphash.Comparable(k.seed, key)
	c := k.cell(hash)
	k.gate.cell("looks at a cell", 0, 0)
	word := c.word.Load()
	number := word >> numberBits
	if word&(called|out) != 0 || number&k.numbers == k.numbers || c.hash.Load() != hash {
		return grant, nil
	}
	k.gate.cell("looks whether it may take", word, 0)
	if k.unserved.Load() > 0 || ended.Is(k.lifetime) {
		return grant, nil
	}
	number++
	k.gate.cell("takes a kept grant", word, number)
	if !c.word.CompareAndSwap(word, number<<numberBits|out) {
		return grant, nil
	}
	k.gate.cell("reads its cell", 0, number)
	if grant = c.ticket.Token(number); c.key != key {
		return grant, nil
	}
	return grant, &c.word
}

// park keeps the grant of a key, if that is kept and was not called, and reports whether there is
// nothing to do for the owner. The lock comes with the word of the cell if it was taken there.
func (k *kept[K]) park(key K, with any, grant table.Token[K]) bool {
	at, taken := with.(*cellWord)
	if !taken {
		at = &k.cell(maphash.Comparable(k.seed, key)).word
	}
	k.gate.cell("looks at its cell", 0, grant.Seq())
	word := at.Load()
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
	return at.CompareAndSwap(word, word&^out)
}

// CallIn is of [table.Keeper].
func (k *kept[K]) CallIn(hash uint64) table.Called {
	c := k.cell(hash)
	k.gate.before("calls a cell in")
	word := c.word.Or(called)
	return table.Called{Number: word >> numberBits, Held: word&out != 0}
}

// keep fills the cell of a key that was just granted. The owner calls it. When there is another key, which is free,
// it makes room only for a key that is missed for the second time in a row: with Zipf's keys
// it would make room nearly always for one that is not asked for again.
func (k *kept[K]) keep(key K, grant table.Token[K]) {
	if grant.Seq() > mostNumber {
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
	k.table.Keep(c.ticket, k.numbers)
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
