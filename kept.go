//go:build kept

package keylock

import (
	"context"
	"hash/maphash"
	"math/bits"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// keeping is what a manager knows of grants that are kept after their release; nil when it
// keeps none.
type keeping[K comparable] = *kept[K]

// keptByDefault is in how many cells managers keep grants: KEYLOCK_KEPT says so, or it is 256.
var keptByDefault = func() int {
	if n, err := strconv.Atoi(os.Getenv("KEYLOCK_KEPT")); err == nil {
		return n
	}
	return 256
}()

// keptFor returns what a manager keeps that has these options.
func keptFor[K comparable](m *Manager[K], o *owner[K], _ options) keeping[K] {
	if keptByDefault <= 0 || m.tracks {
		return nil
	}
	return newKept(m, o, keptByDefault)
}

// kept are the grants that are kept. A key that is released, and that no other request
// wants, stays granted in a cell, and the next caller that asks for it takes it there.
//
// The owner alone fills cells, and it calls them in: because another request comes to it for
// the key, because another key needs the cell, or because a question is about all keys. From
// then on the grant is one like any other, or it has ended.
type kept[K comparable] struct {
	m        *Manager[K]
	seed     maphash.Seed // of the table's hashes
	lifetime <-chan struct{}
	cells    []cell[K]

	_      cacheLine
	number atomic.Uint64 // the last that was given to a grant
	_      cacheLine
	// reserving is how many requests of reservations were not served yet. Reserve is the only
	// call for a lock that returns before the owner has seen it, so what the same goroutine does
	// next must not take effect before: meanwhile no caller takes or parks.
	reserving atomic.Int64
	_         cacheLine

	// Owned by the owner.
	asked   []looker[K] // what needs a moment at which it knows of all grants
	looks   bool        // it is on the way to that moment
	left    int         // requests that it has to serve before
	waiting int         // calls of WaitIdle that wait for the end of the busy period
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

func newKept[K comparable](m *Manager[K], o *owner[K], n int) *kept[K] {
	k := &kept[K]{m: m, seed: o.table.Seed(), lifetime: o.lifetime, cells: make([]cell[K], n)}
	for i := range k.cells {
		k.cells[i].word.Store(called)
	}
	o.table.SetKeeper(k)
	return k
}

// cell is where a key with a hash can be.
func (k *kept[K]) cell(hash uint64) *cell[K] {
	i, _ := bits.Mul64(hash, uint64(len(k.cells)))
	return &k.cells[i]
}

// takeKept takes what is kept of the key that is wanted, if it may be.
func (m *Manager[K]) takeKept(s *sessionState[K], want table.Request[K]) (lock Lock[K], ok bool) {
	if m == nil || m.kept == nil || s != nil || want.Mode != table.Exclusive || want.Keys != nil {
		return lock, false
	}
	return m.kept.take(want.Key)
}

// takeReserved does so for a reservation, and replies to it.
func (m *Manager[K]) takeReserved(r *acquire[K]) bool {
	lock, ok := m.takeKept(r.session, r.want)
	if ok {
		r.token = lock.token
		r.replyUnsent(nil)
	}
	return ok
}

// reserving returns the request to send for a reservation, which is counted.
func (m *Manager[K]) reserving(r *acquire[K]) request[K] {
	if m.kept == nil {
		return r
	}
	m.gate.before("counts its reservation")
	m.kept.reserving.Add(1)
	return (*countedReservation[K])(r)
}

// take takes a key that is kept, if it may be taken.
//
// The grant is one of the moment at which the caller looks whether it may take: the key was
// free then, because the word is the same before and after. It gets its number later, so that a
// reservation that the same goroutine has made before has a lower one.
func (k *kept[K]) take(key K) (lock Lock[K], ok bool) {
	hash := maphash.Comparable(k.seed, key)
	c := k.cell(hash)
	k.m.gate.cell("looks at a cell", 0, 0)
	word := c.word.Load()
	if word&(called|out) != 0 || word&countMask == countMask || c.hash.Load() != hash {
		return lock, false
	}
	k.m.gate.cell("looks whether it may take", word, 0)
	if k.reserving.Load() > 0 || isClosed(k.lifetime) {
		return lock, false
	}
	k.m.gate.cell("numbers its grant", word, 0)
	number := k.number.Add(1)
	k.m.gate.cell("takes a kept grant", word, number)
	if number > mostNumber || !c.word.CompareAndSwap(word, number<<numberBits|(word&countMask+oneGrant)|out) {
		return lock, false
	}
	k.m.gate.cell("reads its cell", 0, number)
	lock = Lock[K]{m: k.m, token: c.ticket.Token(number), key: key}
	if c.key != key { // two keys have one hash: nearly never
		lock.Release()
		return Lock[K]{}, false
	}
	return lock, true
}

// park keeps the grant of a lock of one key, if that is kept and was not called, and reports
// whether there is nothing to do for the owner.
func (l Lock[K]) park() bool {
	k := l.m.kept
	if k == nil {
		return false
	}
	c := k.cell(maphash.Comparable(k.seed, l.key))
	k.m.gate.cell("looks at its cell", 0, l.token.Seq())
	word := c.word.Load()
	switch {
	case word>>numberBits != l.token.Seq() || word&called != 0:
		return false
	case word&out == 0:
		return true // it was released before
	}
	k.m.gate.cell("looks whether it may park", word, l.token.Seq())
	if k.reserving.Load() > 0 {
		return false
	}
	k.m.gate.cell("parks", word, l.token.Seq())
	return c.word.CompareAndSwap(word, word&^out)
}

// Number is of [table.Keeper].
func (k *kept[K]) Number() uint64 { return k.number.Add(1) }

// Holds is of [table.Keeper].
func (k *kept[K]) Holds(hash, number uint64) bool {
	k.m.gate.before("looks who holds a cell")
	word := k.cell(hash).word.Load()
	return word>>numberBits == number && word&out != 0
}

// CallIn is of [table.Keeper].
func (k *kept[K]) CallIn(hash uint64) table.Called {
	c := k.cell(hash)
	k.m.gate.before("calls a cell in")
	word := c.word.Or(called)
	return table.Called{Number: word >> numberBits, Grants: word & countMask / oneGrant, Held: word&out != 0}
}

// countedReservation is the request of a reservation that is counted in reserving.
type countedReservation[K comparable] acquire[K]

func (r *countedReservation[K]) serve(o *owner[K]) {
	(*acquire[K])(r).serve(o)
	o.m.gate.before("counts a reservation as served")
	o.m.kept.reserving.Add(-1)
}

func (r *countedReservation[K]) refuse() { (*acquire[K])(r).refuse() }

// keeps reports whether grants are kept now.
func (o *owner[K]) keeps() bool {
	k := o.m.kept
	return k != nil && !o.ended && !o.draining && o.idle == nil && !k.looks && k.number.Load() < mostNumber
}

// keep fills the cell of a key that was just granted. When there is another key, which is free,
// it makes room only for a key that is missed for the second time in a row: with Zipf's keys
// it would make room nearly always for one that is not asked for again.
func (o *owner[K]) keep(r *acquire[K], grant table.Token[K]) {
	if !o.keeps() || r.session != nil || r.want.Mode != table.Exclusive || r.want.Keys != nil {
		return
	}
	hash := grant.Ticket().Hash()
	c := o.m.kept.cell(hash)
	o.m.gate.before("looks at the cell of a grant")
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
		o.m.gate.before("calls a cell in that is parked")
		if !c.word.CompareAndSwap(word, word|called) {
			return // it has been taken
		}
		o.table.CallIn(c.ticket)
	}
	c.hash.Store(hash)
	c.key, c.ticket, c.missed = r.want.Key, grant.Ticket(), 0
	o.table.Keep(c.ticket)
	o.m.gate.before("fills a cell")
	c.word.Store(grant.Seq()<<numberBits | out)
}

// live reports whether the last grant that a cell had is held, when its word is called.
func (c *cell[K]) live(word uint64) bool {
	return c.ticket != nil && c.ticket.Token(word>>numberBits).Live()
}

// callAllIn calls in every cell, and forgets the keys that are not held.
func (o *owner[K]) callAllIn() {
	if o.m.kept == nil {
		return
	}
	for i := range o.m.kept.cells {
		c := &o.m.kept.cells[i]
		if c.ticket == nil {
			continue
		}
		o.table.CallIn(c.ticket)
		if !c.live(c.word.Load()) {
			var none K
			c.key, c.ticket = none, nil
		}
	}
}

// A looker looks at all grants, or learns that the manager has ended.
type looker[K comparable] interface{ look(o *owner[K]) }

// stops looks at all grants, where that is due, and reports whether the owner stops serving:
// when it has ended, or has served what it has to serve before it looks.
func (o *owner[K]) stops() bool {
	switch k := o.m.kept; {
	case k == nil:
	case !k.looks && len(k.asked) > 0:
		o.look()
	case k.looks && k.left == 0:
		return true
	case k.looks:
		k.left--
	}
	return o.ended
}

// look goes on to a moment at which the owner knows of all grants, and lets those look that
// wait for it.
//
// What a caller has sent before it took a key, or parked it, may still be in the mailbox when the
// cell of that key is called in. So the moment comes when what is in the mailbox by then is
// served. It is one point of the history, because after their cells are called in callers can
// only send requests, which are served later.
func (o *owner[K]) look() {
	k := o.m.kept
	k.looks = true
	o.long(o.callAllIn)
	k.left = len(o.m.mailbox)
	o.serve()
	k.looks = false
	asked := k.asked
	k.asked = nil
	for _, l := range asked {
		l.look(o)
	}
}

// long does what may take long, between two requests.
func (o *owner[K]) long(serve func()) {
	o.meter.long(serve)
	o.meter.sampled = min(o.meter.sampled, o.meter.requests)
}

// askAll is ask for a question about more than one key.
func askAll[K comparable, V any](ctx context.Context, m *Manager[K], answer func(*owner[K]) V) (V, error) {
	if m == nil || m.kept == nil {
		return ask(ctx, m, answer)
	}
	return askAs(ctx, m, answer, func(q *question[K]) request[K] { return (*questionOfAll[K])(q) })
}

// A questionOfAll is one about more than one key.
type questionOfAll[K comparable] question[K]

func (q *questionOfAll[K]) serve(o *owner[K]) { o.m.kept.asked = append(o.m.kept.asked, q) }

func (q *questionOfAll[K]) refuse() { (*question[K])(q).refuse() }

func (q *questionOfAll[K]) look(o *owner[K]) {
	defer o.m.long.Add(-1)
	if o.ended {
		q.refuse()
		return
	}
	o.long(func() { q.answer(o) })
	q.replied <- nil
}

// beginKnown begins a snapshot when the owner knows of all grants.
func (s *snapshot[K]) beginKnown(o *owner[K]) {
	if o.m.kept == nil {
		s.begin(o)
		return
	}
	o.m.kept.asked = append(o.m.kept.asked, s)
}

// look begins the snapshot, unless that was done or it is over.
func (s *snapshot[K]) look(o *owner[K]) {
	if s.cut == nil && !s.gone.has() && !o.ended {
		s.begin(o)
	}
}

// A leaving is what the owner knows of a snapshot whose caller has left.
type leaving struct{ left bool }

func (l *leaving) set()      { l.left = true }
func (l *leaving) has() bool { return l.left }

// A waitIdle is a call of WaitIdle. No grants are kept while any waits, so the owner must hear
// when the context of one has ended. Only the owner touches its fields.
type waitIdle[K comparable] struct {
	period *idle // for the end of which it waits
	left   bool  // its context has ended
}

// begin returns what to ask the owner.
func (w *waitIdle[K]) begin() func(*owner[K]) *idle { return w.wait }

// wait returns what to wait for until the manager is idle; nil when it is.
func (w *waitIdle[K]) wait(o *owner[K]) *idle {
	if w.left {
		return nil
	}
	if o.m.kept == nil {
		return o.busyPeriod()
	}
	if o.idle == nil {
		o.m.kept.waiting = 0
	}
	if w.period = o.busyPeriod(); w.period != nil {
		o.m.kept.waiting++
	}
	return w.period
}

// leave ends a call whose context has ended.
func (w *waitIdle[K]) leave(m *Manager[K]) {
	if m.kept != nil {
		m.sendSoon(message[K]{request: w})
	}
}

func (w *waitIdle[K]) serve(o *owner[K]) {
	w.left = true
	if w.period == nil || w.period != o.idle {
		return
	}
	if o.m.kept.waiting--; o.m.kept.waiting == 0 {
		o.idle = nil
	}
}

func (w *waitIdle[K]) refuse() {}
