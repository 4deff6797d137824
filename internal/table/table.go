// Package table is the lock table: who holds which key, and who waits for it in
// which order. It is a plain data structure. Every exported method is one
// transition, made at one instant, and returns what the outside must hear of it;
// goroutines, channels, contexts and clocks are the business of its one caller.
//
// # How it is laid out
//
// A key that is held or waited for has a queue. A request takes an entry at
// the end of the queue of every key that it names, and a ticket ties these entries
// together. A ticket is granted when no entry before one of its own blocks it: no
// holder and no earlier waiter. Two entries block each other unless both are shared
// and their limits leave room for both.
//
// Two facts keep every transition short. In a queue the holders come first, then the
// waiters that wait for another of their keys, then those that are blocked here: no
// entry is granted past one that blocks it, so the first that is blocked decides
// for all behind it. And requests are totally
// ordered by their arrival, so the earliest waiter never waits for a later one, and
// requests for many keys cannot deadlock with each other.
package table

// Mode says with which requests a request shares its keys.
type Mode uint8

const (
	Exclusive Mode = iota // with none
	Shared                // with other shared requests
)

// Config bounds the queues of a table.
type Config struct {
	MaxWaiters  int // waiters per key; 0 is no bound, and NoWaiters allows none
	SharedLimit int // shared holders per key; 0 is no bound
	Part        int // waiters that one transition lets go on, more or less, see Table.Postponed; 0 is fullPart
}

// NoWaiters as Config.MaxWaiters refuses every request that would have to wait.
const NoWaiters = -1

// A Table holds the queues of all keys. It is not safe for concurrent use.
type Table[K comparable] struct {
	config Config
	queues index[K]
	seq    uint64 // the last grant number given out
	keeper Keeper // of grants that are kept outside; nil without
	counts Counts

	arrivals uint64 // requests that were let into a queue
	worked   uint64 // entries that were moved or looked at
	ranking  ranking[K]
	search   search[K]
	cuts     cuts[K]
	watches  watches[K]
	limits   int // entries that have one

	opened    []*queue[K] // where a request that waited for other keys holds now; empty between transitions
	enough    uint64      // what worked is when the running transition has done its part
	postponed postponed[K]
	goesOn    bool // the running transition may let many of these go on; false between transitions

	granted []Grant[K]   // what the running transition grants; its array is reused
	led     []*Ticket[K] // what it makes the first holder of a key; likewise
	spare   spare[K]
}

// New returns an empty table.
func New[K comparable](config Config) *Table[K] {
	if config.Part == 0 {
		config.Part = fullPart
	}
	return &Table[K]{config: config, queues: newIndex[K](), spare: newSpare[K]()}
}

// A Request asks for one key, or for many at once.
type Request[K comparable] struct {
	Key     K
	Keys    []K     // where it is not nil, all of these instead of Key; duplicates, on the same terms, count once
	Each    []Terms // of the Keys; nil when all are exclusive
	Limit   int32   // of Key
	Mode    Mode    // of Key
	Try     bool    // do not wait
	Session *Session[K]
	Tag     any // comes back in the Grant, or when the wait is cancelled for it
}

// Terms are the terms on which a request asks for a key.
type Terms struct {
	Limit int32 // a shared one is granted while fewer hold the key; 0 is Config.SharedLimit
	Mode  Mode
}

// terms returns the terms on which a request asks for its only key.
func (t *Table[K]) terms(r *Request[K]) Terms { return t.limited(Terms{r.Limit, r.Mode}) }

// termsOf returns the terms on which a request for many keys asks for the i-th.
func (t *Table[K]) termsOf(r *Request[K], i int) Terms {
	if r.Each == nil {
		return Terms{}
	}
	return t.limited(r.Each[i])
}

// limited returns the terms with the limit that counts.
func (t *Table[K]) limited(is Terms) Terms {
	switch {
	case is.Mode == Exclusive:
		is.Limit = 0
	case is.Limit == 0:
		is.Limit = int32(t.config.SharedLimit)
	}
	return is
}

// mode is Shared when all its keys are.
func (r *Request[K]) mode() Mode {
	if r.Keys == nil {
		return r.Mode
	}
	for _, is := range r.Each {
		if is.Mode == Exclusive {
			return Exclusive
		}
	}
	if len(r.Each) == 0 {
		return Exclusive
	}
	return Shared
}

// An Outcome is what became of a request when it joined.
type Outcome uint8

const (
	Granted  Outcome = iota // it holds its keys
	Waiting                 // it has its entries in queue
	Busy                    // it would have had to wait and was told not to
	Full                    // a queue that it would have joined has no entry left
	Deadlock                // its session would have waited for itself
	Closed                  // its session is closed
)

// An Answer is what the caller of Join must hear.
type Answer[K comparable] struct {
	Outcome Outcome
	Token   Token[K]    // when Granted
	Ticket  *Ticket[K]  // when Waiting, until it is granted or cancelled
	Refusal *Refusal[K] // when Full or Deadlock
}

// A Refusal says why a request may not wait.
type Refusal[K comparable] struct {
	Key   K             // when Full: whose queue is
	Cycle []WaitEdge[K] // when Deadlock: what waiting would have closed
}

// A Grant tells that a waiting request holds its keys now.
type Grant[K comparable] struct {
	Tag   any
	Token Token[K]
	Value any // what Handoff passed on with it; nil when nothing was
}

// Counts are the table's totals. Keys, Held, Waiting, and Shared, which is a part of
// Held, are of now, the others since New; Acquired - Released == Held always, and every
// request that joined is in exactly one of Acquired, Cancelled, Rejected and Waiting.
type Counts struct {
	Keys, Held, Shared, Waiting                     int
	Acquired, Waited, Cancelled, Rejected, Released uint64
}

// Join lets a request into its queues: it is granted, or waits in all of them, or
// leaves no trace.
func (t *Table[K]) Join(r *Request[K]) Answer[K] {
	if r.Session != nil && r.Session.closed {
		return t.reject(Closed, nil)
	}
	if r.Keys != nil {
		return t.joinAll(r)
	}
	is := t.terms(r)
	q, hash := t.queues.find(r.Key)
	if t.keeper != nil && q.isKept() {
		q = t.callIn(q)
	}
	free := q == nil || q.admits(is)
	if !free {
		if outcome, refusal := t.mayWait(q, r); outcome != Waiting {
			return t.reject(outcome, refusal)
		}
		if cycle := t.cycle(r); cycle != nil {
			return t.reject(Deadlock, &Refusal[K]{Cycle: cycle})
		}
	}
	if q == nil {
		q = t.open(r.Key, hash)
	}
	k := t.ticket(r)
	k.one[0] = entry[K]{queue: q, ticket: k, Terms: is}
	t.push(&k.one[0], !free)
	return t.settle(k, free)
}

// joinAll is Join for a request that names its keys in Keys.
func (t *Table[K]) joinAll(r *Request[K]) Answer[K] {
	if t.keeper != nil {
		t.callAllIn(r.Keys) // before it enters any queue
	}
	// A refusal must leave no trace, so where one is possible every queue is asked
	// before the first is joined.
	if (r.Try || t.config.MaxWaiters != 0) && t.blocks(r) {
		for i, key := range r.Keys {
			q, _ := t.queues.find(key)
			if q == nil || (r.Try || t.config.MaxWaiters == NoWaiters) && q.admits(t.termsOf(r, i)) {
				continue // another one is in the way
			}
			if outcome, refusal := t.mayWait(q, r); outcome != Waiting {
				return t.reject(outcome, refusal)
			}
		}
	}
	if cycle := t.cycle(r); cycle != nil {
		return t.reject(Deadlock, &Refusal[K]{Cycle: cycle})
	}
	k := t.ticket(r)
	k.many = t.spare.takeMany(len(r.Keys))
	t.worked += uint64(len(r.Keys))
	if k.session == nil {
		k.session = &k.many.solo
	}
	for i, key := range r.Keys {
		q, hash := t.queues.find(key)
		if q == nil {
			q = t.open(key, hash)
		} else if q.tail.ticket == k {
			continue // a duplicate: no other can have come since
		}
		is := t.termsOf(r, i)
		blocked := !q.admits(is)
		if blocked {
			k.many.blocked++
		}
		k.many.entries = append(k.many.entries, entry[K]{queue: q, ticket: k, Terms: is})
		t.push(&k.many.entries[len(k.many.entries)-1], blocked)
	}
	return t.settle(k, k.many.blocked == 0)
}

// push puts an entry at the end of its queue.
func (t *Table[K]) push(p *entry[K], blocked bool) {
	t.cuts.touch(p.queue)
	p.queue.push(p, blocked)
	if p.Limit > 0 {
		t.limits++
	}
}

// blocks reports whether a request for many keys would have to wait for one of them.
func (t *Table[K]) blocks(r *Request[K]) bool {
	for i, key := range r.Keys {
		if q, _ := t.queues.find(key); q != nil && !q.admits(t.termsOf(r, i)) {
			return true
		}
	}
	return false
}

// mayWait says whether a request may join a queue in which it cannot be granted.
func (t *Table[K]) mayWait(q *queue[K], r *Request[K]) (Outcome, *Refusal[K]) {
	switch {
	case r.Try:
		return Busy, nil
	case t.config.MaxWaiters != 0 && int(q.waiting) >= t.config.MaxWaiters:
		return Full, &Refusal[K]{Key: q.key}
	}
	return Waiting, nil
}

// ticket returns a ticket for a request, without its entries.
func (t *Table[K]) ticket(r *Request[K]) *Ticket[K] {
	k := t.spare.takeTicket()
	t.arrivals++
	k.number = t.arrivals
	k.tag, k.mode = r.Tag, r.mode()
	k.session, k.index = r.Session, -1 // it joins its session when it is known how
	return k
}

func (t *Table[K]) reject(outcome Outcome, refusal *Refusal[K]) Answer[K] {
	t.counts.Rejected++
	return Answer[K]{Outcome: outcome, Refusal: refusal}
}

// settle answers for a ticket that has just taken its entries.
func (t *Table[K]) settle(k *Ticket[K], free bool) Answer[K] {
	t.counts.Waiting++
	if !free {
		if k.session != nil {
			k.session.add(k)
		}
		t.rank(k)
		if len(t.watches.tags) > 0 {
			entries := k.entries()
			for i := range entries {
				if q := entries[i].queue; !entries[i].ready() && !t.postponed.has(q) {
					t.want(q)
				}
			}
		}
		return Answer[K]{Outcome: Waiting, Ticket: k}
	}
	return Answer[K]{Outcome: Granted, Token: t.grant(k)}
}

// Worked is how many entries it has moved or looked at. It tells, without a clock, whether
// a transition may have taken long.
func (t *Table[K]) Worked() uint64 { return t.worked }

// Reject counts a request that the caller refused before it came to the table.
func (t *Table[K]) Reject() { t.counts.Rejected++ }

// Cancel takes a waiting ticket out of its queues and returns the grants that follow.
// The ticket is gone afterwards. It costs the same wherever the ticket stands.
func (t *Table[K]) Cancel(k *Ticket[K]) []Grant[K] {
	t.begin()
	t.cancel(k)
	return t.granted
}

// begin begins a transition. It forgets what the last one granted, and its memory if that was
// much.
func (t *Table[K]) begin() {
	t.enough = t.worked + uint64(t.config.Part)
	if cap(t.granted) > spareMax {
		t.granted = nil
	}
	clear(t.granted)
	t.granted = t.granted[:0]
	if cap(t.led) > spareMax {
		t.led = nil
	}
	clear(t.led)
	t.led = t.led[:0]
}

func (t *Table[K]) cancel(k *Ticket[K]) {
	t.counts.Waiting--
	t.counts.Cancelled++
	t.leave(k)
}

func (t *Table[K]) release(k *Ticket[K]) {
	t.counts.Held--
	t.counts.Released++
	if k.mode == Shared {
		t.counts.Shared--
	}
	if len(t.watches.tags) > 0 {
		t.watches.end(k)
	}
	t.leave(k)
}

// Release ends the grant that the token stands for and returns the grants that follow.
// A token whose grant has ended changes nothing, whatever holds the key now: that
// is what a grant number is for.
func (t *Table[K]) Release(token Token[K]) []Grant[K] {
	t.begin()
	if t.keeper != nil {
		t.CallIn(token.ticket)
	}
	if token.Live() {
		t.release(token.ticket)
	}
	return t.granted
}

// Handoff is Release for a live grant whose next waiter is granted by that alone, as NextWaiter
// says. The value comes with the grants of all requests for this one key that are granted by it,
// also of those that are postponed: they receive it when they go on.
func (t *Table[K]) Handoff(token Token[K], value any) []Grant[K] {
	q := token.ticket.one[0].queue
	t.Release(token)
	for i := range t.granted {
		// A request for many keys may have opened another queue, which this value does not concern.
		if k := t.granted[i].Token.ticket; k.many == nil && k.one[0].queue == q {
			t.granted[i].Value = value
		}
	}
	t.postponed.pass(q, passed{value, t.arrivals})
	return t.granted
}

// Downgrade makes an exclusive grant shared, for each of its keys, and returns the grants that
// follow. It changes nothing when the grant is shared, has no keys, or has ended.
func (t *Table[K]) Downgrade(token Token[K]) []Grant[K] {
	t.begin()
	if t.keeper != nil {
		t.CallIn(token.ticket)
	}
	if !token.Live() || token.ticket.mode == Shared {
		return t.granted
	}
	k := token.ticket
	entries := k.entries()
	if len(entries) == 0 {
		return t.granted
	}
	t.worked += uint64(len(entries))
	for i := range entries { // before any of them is different
		t.cuts.touch(entries[i].queue)
	}
	for i := range entries {
		entries[i].Mode = Shared
	}
	k.mode = Shared
	t.counts.Shared++
	for i := range entries {
		t.advance(entries[i].queue)
	}
	t.advanceOpened()
	return t.granted
}

// NextWaiter returns the first ticket that has to wait for the key of a token, and whether
// Release of the token would grant it, and for that key alone; nil when none has to wait, and
// for a grant of many keys or one that has ended. One that is postponed goes on in any case.
func (t *Table[K]) NextWaiter(token Token[K]) (next *Ticket[K], alone bool) {
	if !token.Live() || token.ticket.many != nil { // or it is kept: then nothing waits
		return nil, false
	}
	q := token.ticket.one[0].queue
	p := q.blocked
	if p == nil {
		return nil, false
	}
	return p.ticket, p.ticket.many == nil && !t.postponed.has(q) && q.fits(p.Terms, q.held-1, q.waiterBefore(p))
}

// CancelAll cancels every waiting ticket, grants nothing, and returns their tags.
// Holders stay.
func (t *Table[K]) CancelAll() []any {
	waiters := make([]*Ticket[K], 0, t.counts.Waiting)
	for q := range t.queues.all {
		for p := q.next; p != nil; p = p.next {
			if p == &p.ticket.entries()[0] { // one that waits for many keys is met in each queue
				waiters = append(waiters, p.ticket)
			}
		}
	}
	tags := make([]any, 0, len(waiters))
	for _, k := range waiters {
		tags = append(tags, k.tag)
		entries := k.entries()
		for i := range entries {
			t.remove(&entries[i])
		}
		t.discard(k)
	}
	t.postponed = postponed[K]{}
	t.counts.Waiting -= len(tags)
	t.counts.Cancelled += uint64(len(tags))
	return tags
}

// leave takes a ticket out of all its queues, lets in what it blocked, and
// discards it.
func (t *Table[K]) leave(k *Ticket[K]) {
	entries := k.entries()
	t.worked += uint64(len(entries))
	for i := range entries {
		p := &entries[i]
		q := p.queue
		if p.granted() && p == q.head && q.held > 1 {
			t.led = append(t.led, p.next.ticket)
		}
		opens := p == q.blocked || p.ready() // an entry that is blocked itself blocks no other, but for the first
		t.remove(p)
		if opens {
			t.advance(q)
		}
	}
	t.advanceOpened()
	t.discard(k)
}

// discard forgets a ticket that has left all its queues.
func (t *Table[K]) discard(k *Ticket[K]) {
	if k.session != nil {
		k.session.remove(k)
	}
	t.spare.putTicket(k)
}

// advance looks at those in a queue who are blocked there, until one still is, and grants
// those who are blocked nowhere any more. It is called when an entry has left that was in the
// way, or shares now. When the transition has done its part, all but the first of them are
// postponed; where others are, the first is only when it is not the head of the queue.
func (t *Table[K]) advance(q *queue[K]) {
	first, enough := q.blocked, t.enough
	var with passed
	if len(t.postponed.queues) > 0 && t.postponed.has(q) {
		with = t.postponed.queues[t.postponed.at[q]].passed
		if first != q.head && !t.goesOn {
			// They go on in GoOn. Otherwise each of those that were granted would let others go on when
			// it leaves, and so many would be granted at once after all.
			first, enough = nil, 0
		}
	}
	for p := q.unblocked(); p != nil; p = q.unblocked() {
		if p != first && t.worked >= enough {
			t.postponed.add(q)
			return
		}
		q.blocked = p.next
		k := p.ticket
		if k.many != nil {
			t.worked++
			t.cuts.keepBlocked(k)
			if k.many.blocked--; k.many.blocked > 0 {
				continue // it keeps its entry here until its other queues are free too
			}
		}
		t.counts.Waited++
		g := Grant[K]{Tag: k.tag}
		if k.many == nil {
			g.Value = with.to(k.number)
		}
		g.Token = t.grant(k)
		t.granted = append(t.granted, g)
		t.rank(k)
		if k.many != nil {
			t.opens(k)
		}
	}
	if len(t.postponed.queues) > 0 && t.postponed.remove(q) && q.blocked != nil {
		t.want(q)
	}
}

// opens notes that a ticket for many keys holds them now. Where it shares, those behind it may
// have waited for that, because of a limit.
func (t *Table[K]) opens(k *Ticket[K]) {
	for i := range k.many.entries {
		if p := &k.many.entries[i]; p.Mode == Shared && p.queue.blocked != nil {
			t.opened = append(t.opened, p.queue)
		}
	}
}

// advanceOpened advances the queues that were opened, until none is.
func (t *Table[K]) advanceOpened() {
	for len(t.opened) > 0 {
		last := len(t.opened) - 1
		q := t.opened[last]
		t.opened[last], t.opened = nil, t.opened[:last]
		if t.worked < t.enough {
			t.advance(q)
		} else if q.unblocked() != nil {
			t.postponed.add(q) // also the first, or each could open the next of very many queues
		}
	}
	if cap(t.opened) > spareMax {
		t.opened = nil
	}
}

// grant makes a ticket that is not blocked a holder of all its keys.
func (t *Table[K]) grant(k *Ticket[K]) Token[K] {
	entries := k.entries()
	t.worked += uint64(len(entries))
	if len(t.cuts.running) > 0 {
		for i := range entries { // before it is any different
			t.cuts.touch(entries[i].queue)
		}
	}
	if k.session != nil && k.index >= 0 {
		k.session.remove(k)
	}
	t.seq++
	k.number, k.granted = t.seq, true
	k.tag = nil
	if k.session != nil {
		k.session.add(k)
	}
	for i := range entries {
		entries[i].queue.grant(&entries[i])
	}
	t.counts.Waiting--
	t.counts.Held++
	t.counts.Acquired++
	if k.mode == Shared {
		t.counts.Shared++
	}
	return Token[K]{ticket: k, seq: t.seq}
}

// open returns a new queue for a key with this hash.
func (t *Table[K]) open(key K, hash uint64) *queue[K] {
	q := t.spare.takeQueue()
	q.key, q.hash, q.cut = key, hash, t.cuts.begun
	t.queues.add(q)
	return q
}

// remove takes an entry out of its queue, and the queue out of the table when it was
// the last.
func (t *Table[K]) remove(p *entry[K]) {
	q := p.queue
	t.cuts.touch(q)
	if p.Limit > 0 {
		t.limits--
	}
	q.remove(p)
	t.ranking.update(q)
	if q.head != nil {
		return
	}
	t.queues.remove(q)
	t.spare.putQueue(q)
}

// shrinkFrom is the number of keys from which on memory is given back.
const shrinkFrom = 1024

// Counts returns the totals.
func (t *Table[K]) Counts() Counts {
	c := t.counts
	c.Keys = t.queues.size
	return c
}

// Idle reports whether no key is held or waited for.
func (t *Table[K]) Idle() bool { return t.queues.size == 0 }

// fullPart is how many waiters one transition lets go on, more or less, so that a release
// or a handoff behind which very many share does not take long.
const fullPart = 256

// postponed are the queues in which waiters can go on that were too many for one transition.
//
// In such a queue the order holds as in any other, as if the first of them were still blocked:
// what comes later waits behind them, and what leaves before them lets them go on. The head of
// a queue is never postponed, so who waits always waits behind another one.
type postponed[K comparable] struct {
	queues []postponedQueue[K]
	at     map[*queue[K]]int // where they are in queues
	turn   int               // where the queue is that goes on next
}

// A postponedQueue is one of them, and the value that goes with its grants.
type postponedQueue[K comparable] struct {
	*queue[K]
	passed passed
}

// passed is a value that was handed off to the waiters of a queue that had arrived by then. Who
// came later may be granted together with them, and gets none.
type passed struct {
	value any // nil when there is none
	until uint64
}

// to returns the value with which a waiter is granted.
func (p passed) to(number uint64) any {
	if number > p.until {
		return nil
	}
	return p.value
}

func (p *postponed[K]) has(q *queue[K]) bool {
	_, has := p.at[q]
	return has
}

// add adds a queue, unless it is there.
func (p *postponed[K]) add(q *queue[K]) {
	if p.has(q) {
		return
	}
	if p.at == nil {
		p.at = make(map[*queue[K]]int)
	}
	p.at[q] = len(p.queues)
	p.queues = append(p.queues, postponedQueue[K]{queue: q})
}

// pass notes that a value was handed off to those who wait in a queue, if it is there.
func (p *postponed[K]) pass(q *queue[K], value passed) {
	if i, has := p.at[q]; has {
		p.queues[i].passed = value
	}
}

// next returns the queue whose turn it is to go on. They take turns, because a queue to which others
// come all the time stays here.
func (p *postponed[K]) next() *queue[K] {
	if p.turn >= len(p.queues) {
		p.turn = 0
	}
	q := p.queues[p.turn].queue
	p.turn++
	return q
}

// remove removes a queue, and reports whether it was there.
func (p *postponed[K]) remove(q *queue[K]) bool {
	i, has := p.at[q]
	if !has {
		return false
	}
	last := len(p.queues) - 1
	moved := p.queues[last]
	p.queues[i], p.at[moved.queue] = moved, i
	p.queues[last], p.queues = postponedQueue[K]{}, p.queues[:last]
	if delete(p.at, q); last == 0 {
		*p = postponed[K]{} // maps do not shrink
	}
	return true
}

// Postponed reports whether waiters can go on that were too many for one transition. They must
// go on by and by, see GoOn.
func (t *Table[K]) Postponed() bool { return len(t.postponed.queues) > 0 }

// GoOn lets postponed waiters go on, about n or as many as a transition does, and returns the
// grants that follow.
func (t *Table[K]) GoOn(n int) []Grant[K] {
	t.begin()
	t.enough, t.goesOn = min(t.enough, t.worked+uint64(n)), true
	for more := true; more && t.Postponed(); more = t.worked < t.enough {
		t.advance(t.postponed.next())
		t.advanceOpened()
	}
	t.goesOn = false
	return t.granted
}
