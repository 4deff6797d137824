package table

import (
	"hash/maphash"
	"math/bits"
)

// An index finds queues by their keys. It is a linear hash table (Litwin, "Linear hashing:
// a new tool for file and table addressing", 1980): with each queue it grows by a bucket
// and, when queues have left, it shrinks by two. The buckets stand in segments, which are
// added and taken away one at a time. So the memory of a burst goes back while the burst ebbs
// away, and no request waits until everything has moved: with a queue at most two buckets
// change, and at most one segment is made.
//
// It is here and not a map because the owner does little else than to find, add and
// remove queues: here each key is hashed once for all three. Beside the same table with
// a map, uncontended locks took 0.89 of the time, sixteen keys at once 0.69 to 0.79,
// locks beside a million held ones 0.74, and with the tags of the buckets 0.78 of that; a
// held key takes 23 bytes less.
type index[K comparable] struct {
	seed     maphash.Seed
	segments [][]bucket[K] // all are full but the last, and that may be empty
	buckets  uint64        // how many there are
	span     uint64        // the least power of two that is not below buckets
	size     int           // how many queues there are
}

// segment is how many buckets are in one, a power of two.
const (
	segmentBits = 10
	segment     = 1 << segmentBits
)

// A bucket is a chain of queues. Its tags are a byte of each queue's hash, the first queue's
// in the lowest, as far as there is room; the others are 0. They tell of most keys that
// no request holds that they are not here, without a look at queues that no cache remembers.
type bucket[K comparable] struct {
	head *queue[K]
	tags uint64
}

// tag is the byte of a hash that stands for it in a bucket. It is not 0, and none of the
// bits by which buckets are chosen.
func tag(hash uint64) uint64 { return hash>>56 | 1 }

// full reports whether there may be more queues than tags.
func (b *bucket[K]) full() bool { return b.tags>>56 != 0 }

// mayHave is false when no queue in the bucket has the hash.
func (b *bucket[K]) mayHave(hash uint64) bool {
	const lowest, highest = 0x0101010101010101, 0x8080808080808080 // bits of each byte
	differs := b.tags ^ tag(hash)*lowest
	return (differs-lowest)&^differs&highest != 0 || b.full() // one of its bytes is 0
}

func (b *bucket[K]) push(q *queue[K]) {
	q.chain, b.head = b.head, q
	b.tags = b.tags<<8 | tag(q.hash)
}

func (b *bucket[K]) remove(q *queue[K]) {
	at, bit := &b.head, uint64(1) // the lowest of its tag
	for *at != q {
		at, bit = &(*at).chain, bit<<8
	}
	*at, q.chain = q.chain, nil
	if b.full() {
		b.retag()
		return
	}
	before := bit - 1 // the tags of the queues before it
	b.tags = b.tags>>8&^before | b.tags&before
}

// retag makes the tags anew. There is room for eight: what is shifted further is lost.
func (b *bucket[K]) retag() {
	b.tags = 0
	for q, at := b.head, 0; q != nil; q, at = q.chain, at+8 {
		b.tags |= tag(q.hash) << at
	}
}

// fewestBuckets is a power of two.
const fewestBuckets = 8

func newIndex[K comparable]() index[K] {
	first := make([]bucket[K], fewestBuckets)
	return index[K]{seed: maphash.MakeSeed(), segments: [][]bucket[K]{first}, buckets: fewestBuckets, span: fewestBuckets}
}

// bucket is where queues with a hash are. Those of a bucket that is not there yet are in
// the one that will be split into it.
func (x *index[K]) bucket(hash uint64) uint64 {
	b := hash & (x.span - 1)
	if b >= x.buckets {
		b -= x.span / 2
	}
	return b
}

// at returns a bucket.
func (x *index[K]) at(b uint64) *bucket[K] { return &x.segments[b>>segmentBits][b%segment] }

// depth is how many bits the hashes of a bucket have in common.
func (x *index[K]) depth(b uint64) int {
	bits := bits.Len64(x.span) - 1
	if b < x.span/2 && b+x.span/2 >= x.buckets {
		bits-- // it was not split yet
	}
	return bits
}

// find returns the queue of a key, nil when there is none, and the hash of the key.
func (x *index[K]) find(key K) (q *queue[K], hash uint64) {
	hash = maphash.Comparable(x.seed, key)
	b := x.at(x.bucket(hash))
	if !b.mayHave(hash) {
		return nil, hash
	}
	q = b.head
	for q != nil && (q.hash != hash || q.key != key) {
		q = q.chain
	}
	return q, hash
}

// add adds the queue of a key that has none.
func (x *index[K]) add(q *queue[K]) {
	if x.size == int(x.buckets) {
		x.split()
	}
	x.at(x.bucket(q.hash)).push(q)
	x.size++
}

func (x *index[K]) remove(q *queue[K]) {
	x.at(x.bucket(q.hash)).remove(q)
	x.size--
	for range 2 { // by one at a time it would never shrink to less than half
		if x.buckets > fewestBuckets && x.size < int(x.buckets)/2 {
			x.merge()
		}
	}
}

// split adds a bucket, with the queues that it should have of the one where they were.
func (x *index[K]) split() {
	added := x.buckets
	if added == x.span {
		x.span *= 2
	}
	x.grow()
	from, to := x.at(added-x.span/2), x.at(added)
	stay, move := &from.head, &to.head
	for q := from.head; q != nil; q = q.chain {
		if x.bucket(q.hash) == added {
			*move, move = q, &q.chain
		} else {
			*stay, stay = q, &q.chain
		}
	}
	*stay, *move = nil, nil
	from.retag()
	to.retag()
}

// merge takes away the last bucket, and puts its queues where they were before the split.
func (x *index[K]) merge() {
	last := x.buckets - 1
	to, from := x.at(last-x.span/2), x.at(last)
	at := &to.head
	for *at != nil {
		at = &(*at).chain
	}
	*at = from.head
	to.retag()
	*from = bucket[K]{}
	x.shrink()
	if last == x.span/2 {
		x.span /= 2
	}
}

// grow adds an empty bucket. Of segments only the first is ever copied, while it is small.
func (x *index[K]) grow() {
	last := &x.segments[len(x.segments)-1]
	if len(*last) == segment {
		x.segments = append(x.segments, make([]bucket[K], 0, segment))
		last = &x.segments[len(x.segments)-1]
	}
	*last = append(*last, bucket[K]{})
	x.buckets++
}

// shrink takes away the last bucket, which is empty. One empty segment is kept, so that a
// number of queues that goes up and down a little makes none.
func (x *index[K]) shrink() {
	n := len(x.segments) - 1
	if len(x.segments[n]) == 0 {
		x.segments[n] = nil
		x.segments = x.segments[:n]
		n--
	}
	last := &x.segments[n]
	*last = (*last)[:len(*last)-1]
	x.buckets--
	if cap(x.segments) > shrinkFrom && n < cap(x.segments)/4 {
		x.segments = append(make([][]bucket[K], 0, 2*n), x.segments...)
	}
}

// all yields every queue. None must be added or removed meanwhile.
func (x *index[K]) all(yield func(*queue[K]) bool) {
	for b := range x.buckets {
		for q := x.at(b).head; q != nil; q = q.chain {
			if !yield(q) {
				return
			}
		}
	}
}

// A ranking keeps the queues in which requests wait in the order of how many do. A queue
// that changes by one moves to the rank beside its own, so it costs the same however many
// queues and waiters there are, and nothing grows that would have to be copied.
type ranking[K comparable] struct {
	highest, lowest *rank[K]
	spare           []*rank[K]
}

// A rank is the queues that have as many waiters. There is none without queues.
type rank[K comparable] struct {
	waiting       int32
	queues        *queue[K]
	higher, lower *rank[K]
}

// update moves a queue to where it belongs now.
func (r *ranking[K]) update(q *queue[K]) {
	at := q.rank
	switch {
	case at == nil && q.waiting == 0, at != nil && at.waiting == q.waiting:
		return
	case at != nil && q.waiting > 0 && at.queues == q && q.below == nil && at.fits(q.waiting):
		at.waiting = q.waiting // the queue is alone in its rank, which moves with it
		return
	}
	lower := at.below(q.waiting)
	if at != nil {
		at.remove(q)
	}
	if q.waiting > 0 {
		r.rank(q.waiting, lower).push(q)
	}
	if at != nil && at.queues == nil {
		r.remove(at)
	}
}

// fits reports whether a rank would be in order with so many waiters.
func (k *rank[K]) fits(waiting int32) bool {
	return (k.higher == nil || k.higher.waiting > waiting) && (k.lower == nil || k.lower.waiting < waiting)
}

// below returns the highest rank with fewer waiters than a queue that was in this rank, or in none; nil
// when there is none. A queue gets one waiter at a time, so no rank above this one has fewer.
func (k *rank[K]) below(waiting int32) *rank[K] {
	for k != nil && k.waiting >= waiting {
		k = k.lower
	}
	return k
}

// after returns the rank above another one, where nil stands for the end.
func (r *ranking[K]) after(at *rank[K]) *rank[K] {
	if at == nil {
		return r.lowest
	}
	return at.higher
}

// rank returns the rank with so many waiters, which comes after lower.
func (r *ranking[K]) rank(waiting int32, lower *rank[K]) *rank[K] {
	higher := r.after(lower)
	if higher != nil && higher.waiting == waiting {
		return higher
	}
	k := r.take()
	*k = rank[K]{waiting: waiting, higher: higher, lower: lower}
	r.link(lower, k)
	r.link(k, higher)
	return k
}

// link makes two ranks neighbours, where nil stands for the ends.
func (r *ranking[K]) link(lower, higher *rank[K]) {
	if lower == nil {
		r.lowest = higher
	} else {
		lower.higher = higher
	}
	if higher == nil {
		r.highest = lower
	} else {
		higher.lower = lower
	}
}

func (r *ranking[K]) take() *rank[K] {
	if n := len(r.spare); n > 0 {
		k := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return k
	}
	return new(rank[K])
}

func (r *ranking[K]) remove(k *rank[K]) {
	r.link(k.lower, k.higher)
	*k = rank[K]{}
	if len(r.spare) < spareRanks {
		r.spare = append(r.spare, k)
	}
}

const spareRanks = 64

func (k *rank[K]) push(q *queue[K]) {
	q.rank, q.above, q.below = k, nil, k.queues
	if q.below != nil {
		q.below.above = q
	}
	k.queues = q
}

func (k *rank[K]) remove(q *queue[K]) {
	if q.above == nil {
		k.queues = q.below
	} else {
		q.above.below = q.below
	}
	if q.below != nil {
		q.below.above = q.above
	}
	q.rank, q.above, q.below = nil, nil, nil
}

// longestQueue is the most waiters that any queue has.
func (r *ranking[K]) longestQueue() int {
	if r.highest == nil {
		return 0
	}
	return int(r.highest.waiting)
}

// all yields the queues in which requests wait, the longest first.
func (r *ranking[K]) all(yield func(*queue[K]) bool) {
	for k := r.highest; k != nil; k = k.lower {
		for q := k.queues; q != nil; q = q.below {
			if !yield(q) {
				return
			}
		}
	}
}

// rank moves all the queues of a ticket that has begun or ceased to wait.
func (t *Table[K]) rank(k *Ticket[K]) {
	entries := k.entries()
	for i := range entries {
		t.ranking.update(entries[i].queue)
	}
}
