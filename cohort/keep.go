package cohort

import (
	"container/heap"
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// keeper keeps claims that no local caller uses, see [WithKeep], and gives them back.
//
// A claim is held by a local caller, kept, recalled, or gone. Its holder keeps it, also when others of the process wait; from
// then on either the next local holder takes it out or the keeper's goroutine recalls it, by one
// compare-and-swap. A recalled claim stays in the store until the engine has got the key back, and a
// local caller that meets it there waits for that, so that the process has one contender per key at the engine.
//
// The engine reports at any time that a key is wanted. It notes that first and looks then
// whether the claim is kept; the holder keeps the claim first and looks then again whether it is
// wanted. So at least one of them sees the other, and has the keeper's goroutine look at the claim.
type keeper struct {
	gate    gate
	idle    time.Duration
	most    int64
	epoch   time.Time
	listen  func(*claim)             // has the engine tell when the key is wanted
	release func(*claim) (lost bool) // gives the key back to the engine, and waits for that

	kept    atomic.Int64 // claims that are kept
	closing atomic.Bool  // every claim is given back, and no more are kept
	store   []atomic.Pointer[stored]
	seed    maphash.Seed
	shy     []atomic.Uint64 // see skips

	inbox   atomic.Pointer[claim] // a stack of claims that the keeper's goroutine has to look at
	wake    chan struct{}         // receives when there is something in it
	busy    atomic.Int64          // recalls in progress
	hits    atomic.Uint64
	recalls atomic.Uint64

	// Owned by the keeper's goroutine.
	due     schedule
	live    int      // entries of due when those of claims that are gone were last dropped
	backlog []*claim // to be recalled when fewer recalls are in progress
	swept   bool     // after closing
}

// stored is an element of an immutable list of the claims in one bucket of the store.
type stored struct {
	claim *claim
	next  *stored
}

// The states of a claim.
const (
	held uint32 = iota
	kept
	recalled
	gone
)

const (
	mostRecalls = 64 // in progress at a time
	shyUpTo     = 3  // holders that shared a claim: with more the key is not shy
	mostShy     = 6  // so 1<<6 - 1 claims are not kept
)

// longestIdle outlasts every process. Added to the time since its start, it does not overflow.
const longestIdle = math.MaxInt64 / 2

func newKeeper(idle time.Duration, most int, listen func(*claim), release func(*claim) (lost bool)) *keeper {
	buckets := 1
	for buckets < most && buckets < 1<<16 {
		buckets *= 2
	}
	return &keeper{
		idle: min(idle, longestIdle), most: int64(most), epoch: time.Now(), listen: listen, release: release,
		store: make([]atomic.Pointer[stored], buckets),
		shy:   make([]atomic.Uint64, min(max(4*buckets, 64), 1<<16)),
		seed:  maphash.MakeSeed(),
		wake:  make(chan struct{}, 1),
	}
}

// keep keeps a claim that is not lost instead of giving it back, and reports false if it must be given back.
// Called by its holder.
func (k *keeper) keep(c *claim) bool {
	k.gate.before("looks whether it is wanted", c)
	if c.wanted.Load() != nil || k.closing.Load() {
		return false
	}
	if !c.judged {
		c.judged, c.skipped = true, k.skips(c.key)
	}
	if c.skipped && c.seq.Load() <= shyUpTo {
		return false
	}
	k.gate.before("reserves room", c)
	if k.kept.Add(1) > k.most {
		k.kept.Add(-1)
		return false
	}
	k.listen(c)
	k.gate.before("looks whether that is known already", c)
	if c.wanted.Load() != nil {
		k.kept.Add(-1)
		return false
	}
	c.keptAt.Store(int64(k.now()))
	first := !c.stored
	if first {
		c.stored = true
		k.insert(c)
	}
	k.gate.before("keeps it", c)
	c.state.Store(kept)
	k.gate.before("looks again", c)
	if first || c.wanted.Load() != nil || k.closing.Load() {
		k.look(c)
	}
	return true
}

// take takes the kept claim to the key out. It returns a channel instead if that is being given back, which is
// closed when it is; neither if there is no claim. Called by the local holder of the key.
func (k *keeper) take(key string) (*claim, <-chan struct{}) {
	c := k.find(key)
	if c == nil {
		return nil, nil
	}
	k.gate.before("takes it out", c)
	if !c.state.CompareAndSwap(kept, held) {
		return nil, c.returned
	}
	k.kept.Add(-1)
	k.hits.Add(1)
	return c, nil
}

// heed follows the engine's report that the key is wanted, which c has noted.
func (k *keeper) heed(c *claim) {
	k.gate.before("looks whether it is kept", c)
	if c.state.Load() == kept {
		k.look(c)
	}
}

// forget follows the return of a claim to the engine. Called by its holder, or by the goroutine that has recalled it.
func (k *keeper) forget(c *claim, lost bool) {
	if !c.stored {
		return
	}
	if c.wanted.Load() != nil && !lost {
		k.judge(c)
	}
	k.remove(c)
	c.state.Store(gone)
}

// look has the keeper's goroutine look at the claim.
func (k *keeper) look(c *claim) {
	k.gate.before("looks whether it is in the inbox", c)
	if c.queued.Swap(true) {
		return
	}
	k.gate.before("puts it into the inbox", c)
	for {
		c.next = k.inbox.Load()
		if k.inbox.CompareAndSwap(c.next, c) {
			break
		}
	}
	k.rouse()
}

func (k *keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// close has every claim given back, and no more kept.
func (k *keeper) close() {
	k.gate.before("closes the store", nil)
	k.closing.Store(true)
	k.rouse()
}

// run is the keeper's goroutine, which ends when done is closed.
func (k *keeper) run(done <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next, ok := k.round(k.now()); ok {
			timer.Reset(next - k.now())
		} else {
			timer.Stop()
		}
		select {
		case <-k.wake:
		case <-timer.C:
		case <-done:
			return
		}
	}
}

// round looks at every claim that has to be looked at now, and returns when the next has to be.
func (k *keeper) round(now time.Duration) (next time.Duration, ok bool) {
	for {
		k.gate.before("takes one out of the inbox", nil)
		c := k.inbox.Load()
		if c == nil {
			break
		}
		if !k.inbox.CompareAndSwap(c, c.next) {
			continue
		}
		c.next = nil
		k.gate.before("looks at it", c)
		c.queued.Store(false) // before it looks: what comes later is put into the inbox again
		k.inspect(c, now)
	}
	k.gate.before("looks whether the store is closed", nil)
	if k.closing.Load() && !k.swept {
		k.swept = true
		for b := range k.store {
			for s := k.store[b].Load(); s != nil; s = s.next {
				k.inspect(s.claim, now)
			}
		}
	}
	backlog := k.backlog
	k.backlog = nil
	for _, c := range backlog {
		k.inspect(c, now)
	}
	for len(k.due) > 0 && k.due[0].at <= now {
		c := heap.Pop(&k.due).(appointment).claim
		c.appointed = false
		k.inspect(c, now)
	}
	if len(k.due) == 0 {
		return 0, false
	}
	return k.due[0].at, true
}

// inspect recalls the claim if it has to be given back now, and has it looked at again when it may have to be.
func (k *keeper) inspect(c *claim, now time.Duration) {
	k.gate.before("looks at its state", c)
	switch c.state.Load() {
	case held:
		k.appoint(c, now+k.idle)
	case kept:
		until := time.Duration(c.keptAt.Load()) + k.idle
		k.gate.before("looks whether it has to be given back", c)
		if c.wanted.Load() == nil && !k.closing.Load() && now < until {
			k.appoint(c, until)
		} else if !k.recall(c) {
			k.appoint(c, now+k.idle)
		}
	}
}

// recall gives the claim back, and reports false if a local holder has taken it out.
func (k *keeper) recall(c *claim) bool {
	if k.busy.Load() >= mostRecalls {
		k.backlog = append(k.backlog, c)
		return true
	}
	if c.returned == nil {
		c.returned = make(chan struct{})
	}
	k.gate.before("recalls it", c)
	if !c.state.CompareAndSwap(kept, recalled) {
		return false
	}
	k.kept.Add(-1)
	k.busy.Add(1)
	k.gate.starts(func() {
		lost := k.release(c)
		if c.wanted.Load() != nil && !lost {
			k.recalls.Add(1)
		}
		k.forget(c, lost)
		k.gate.before("reports its return", c)
		close(c.returned)
		k.busy.Add(-1)
		k.rouse()
	})
	return true
}

// appoint has the claim looked at again at that time, or earlier.
func (k *keeper) appoint(c *claim, at time.Duration) {
	if c.appointed {
		return
	}
	if len(k.due) >= 2*k.live+64 {
		k.due = slices.DeleteFunc(k.due, func(a appointment) bool { return a.claim.state.Load() == gone })
		heap.Init(&k.due)
		k.live = len(k.due)
	}
	c.appointed = true
	heap.Push(&k.due, appointment{at, c})
}

// now returns the time since the keeper was made.
func (k *keeper) now() time.Duration { return time.Since(k.epoch) }

// find returns the claim to the key in the store; nil if there is none.
func (k *keeper) find(key string) *claim {
	k.gate.before("looks it up", nil)
	for s := k.bucket(key).Load(); s != nil; s = s.next {
		if s.claim.key == key {
			return s.claim
		}
	}
	return nil
}

func (k *keeper) insert(c *claim) {
	k.gate.before("puts it into the store", c)
	b := k.bucket(c.key)
	for {
		head := b.Load()
		if b.CompareAndSwap(head, &stored{c, head}) {
			return
		}
	}
}

func (k *keeper) remove(c *claim) {
	k.gate.before("removes it from the store", c)
	b := k.bucket(c.key)
	for {
		head := b.Load()
		if b.CompareAndSwap(head, head.without(c)) {
			return
		}
	}
}

// without returns the list without c.
func (s *stored) without(c *claim) *stored {
	switch {
	case s == nil:
		return nil
	case s.claim == c:
		return s.next
	default:
		return &stored{s.claim, s.next.without(c)}
	}
}

func (k *keeper) bucket(key string) *atomic.Pointer[stored] {
	return &k.store[maphash.String(k.seed, key)%uint64(len(k.store))]
}

// A key whose claim other processes wanted before it had served a few holders becomes shy: its next claim is not kept, the next time
// the next three are not, and so on up to mostShy. One that serves more holders is kept all the same, and ends that. What is known of
// it is a word in a table of fixed size, with the hash of the key, how shy it is, and how many claims are still to be skipped. Two keys that
// share a word forget each other.
const (
	skipBits  = 8
	levelBits = 8
)

// skips reports whether the claim that the key has now is not to be kept because the key is shy.
func (k *keeper) skips(key string) bool {
	word, name := k.shyness(key)
	w := word.Load()
	if w>>(skipBits+levelBits) != name || w%(1<<skipBits) == 0 {
		return false
	}
	word.Store(w - 1)
	return true
}

// judge makes the key of a claim that other processes wanted shyer, or no longer shy.
func (k *keeper) judge(c *claim) {
	word, name := k.shyness(c.key)
	level := uint64(0)
	if c.seq.Load() <= shyUpTo {
		if w := word.Load(); w>>(skipBits+levelBits) == name {
			level = w >> skipBits % (1 << levelBits)
		}
		level = min(level+1, mostShy)
	}
	word.Store(name<<(skipBits+levelBits) | level<<skipBits | (1<<level - 1))
}

// shyness returns the word for the key, and what it begins with if it is about this key.
func (k *keeper) shyness(key string) (word *atomic.Uint64, name uint64) {
	h := maphash.String(k.seed, key)
	return &k.shy[h%uint64(len(k.shy))], h >> (skipBits + levelBits)
}

// schedule is a heap of appointments, the next first.
type schedule []appointment

type appointment struct {
	at    time.Duration
	claim *claim
}

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].at < s[j].at }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(a any)        { *s = append(*s, a.(appointment)) }
func (s *schedule) Pop() any {
	last := len(*s) - 1
	a := (*s)[last]
	(*s)[last] = appointment{}
	*s = (*s)[:last]
	return a
}
