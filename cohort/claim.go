package cohort

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// claim is the process's claim to a key at the engine, from when it asks until it has
// given the key back. It belongs to the local holder of the key, the only one that changes it,
// and travels with the local lock to the next, or is kept for it. Those who only look go by replied.
type claim struct {
	key      string
	asked    time.Time
	withdraw context.CancelFunc

	replied chan struct{} // closed when the engine has replied
	at      time.Time     // when it did; it and the fields below are written before
	err     error         // why it refused; the fields below are for when it granted
	grant   Grant

	seq     atomic.Uint64           // of the last local holder
	listens atomic.Bool             // the engine was asked to tell when another process wants the key
	wanted  atomic.Pointer[wanting] // nil while none does, or the engine was not asked
	other   chan struct{}           // closed when one does; nil if the engine cannot tell

	// For the keeper. Of these its holder owns judged, skipped and stored, and the keeper's goroutine next and appointed.
	state     atomic.Uint32
	keptAt    atomic.Int64  // by the keeper's clock
	judged    bool          // whether it is skipped is known
	skipped   bool          // it is not kept while it has served few holders, because its key is shy
	stored    bool          // it was kept once, and is in the store
	queued    atomic.Bool   // it is in the inbox, or about to be
	next      *claim        // there
	appointed bool          // it is in the schedule
	returned  chan struct{} // closed when a recalled claim is given back

	slow *time.Timer // makes the slow log look at it while it waits, else nil; owned by the registry's goroutine
}

// wanting is from when on handoffs and the time count.
type wanting struct {
	at  time.Time
	seq uint64 // of the local holder then, or the first to come
}

// ask asks the engine for key. The question outlives its asker, who may leave it to the next.
func (m *Manager) ask(key string, try bool) *claim {
	ctx, cancel := context.WithCancel(m.ctx)
	c := &claim{key: key, asked: time.Now(), replied: make(chan struct{}), withdraw: cancel}
	m.claims.do(func(cs *claims) { cs.begin(c) })
	reply := func(g Grant, err error) {
		if g == nil && err == nil {
			err = errNoReply
		}
		c.grant, c.err, c.at = g, err, time.Now()
		if c.err == nil {
			m.heed(c)
		} else if m.ctx.Err() != nil {
			c.err = ErrClosed
		}
		m.claims.do(func(cs *claims) { cs.replied(c) })
		close(c.replied)
		cancel()
	}
	if m.asker != nil {
		m.asker.Ask(ctx, key, try, reply)
		return c
	}
	acquire := m.engine.Acquire
	if try {
		acquire = m.engine.TryAcquire
	}
	go func() { reply(acquire(ctx, key)) }()
	return c
}

// heed follows the grant. An engine that cannot tell when another process wants the key counts as wanting it from the start.
func (m *Manager) heed(c *claim) {
	if _, tells := c.grant.(Recaller); !tells {
		c.wanted.Store(&wanting{c.at, 1})
		return
	}
	c.other = make(chan struct{})
}

// listen has the engine tell, from now on, when another process wants the key. It is called when that first matters: when
// the claim was handed off, is to be kept, or its holder asks. It may cost this process a request, and each
// that waits for the key another one.
func (m *Manager) listen(c *claim) {
	if c.other == nil || c.listens.Load() || !c.listens.CompareAndSwap(false, true) {
		return
	}
	c.grant.(Recaller).OnWanted(func() {
		if m.keeper != nil {
			m.keeper.gate.before("notes that it is wanted", c)
		}
		if !c.wanted.CompareAndSwap(nil, &wanting{time.Now(), max(c.seq.Load(), 1)}) {
			return
		}
		close(c.other)
		if m.keeper != nil {
			m.keeper.heed(c)
		}
	})
}

// isLost reports whether the engine's lock is lost; it asks the grant, which knows first.
func (c *claim) isLost() bool { return ended.Is(c.grant.Lost()) }

// giveBack gives the key back to the engine, and waits for that for a while.
func (m *Manager) giveBack(c *claim) error {
	ctx, cancel := context.WithTimeout(context.Background(), m.engineTimeout)
	defer cancel()
	began := time.Now()
	err := c.grant.Release(ctx)
	took := time.Since(began)
	lost := errors.Is(err, ErrLost)
	m.claims.do(func(cs *claims) { cs.end(c, took, lost) })
	return err
}

// leave gives the key back to the engine. Called by the holder of the claim.
func (m *Manager) leave(c *claim) error {
	err := m.giveBack(c)
	if m.keeper != nil {
		m.keeper.forget(c, errors.Is(err, ErrLost))
	}
	return err
}

// contend turns the local lock into one among processes: with the claim that came with it, with the
// one that is kept, or by asking the engine. While it has the local lock, it asks of the caller's context only whether done,
// its channel, is closed: its methods may panic.
func (m *Manager) contend(ctx context.Context, done <-chan struct{}, local keylock.Lock[string], try bool) (Lock, error) {
	c, _ := local.Value().(*claim)
	for c == nil && m.keeper != nil {
		kept, returned := m.keeper.take(local.Key())
		if returned == nil {
			c = kept
			break
		}
		if try {
			local.Release()
			return Lock{}, ErrHeld
		}
		select {
		case <-returned:
		case <-done:
			local.Release()
			return Lock{}, endOf(ctx, local.Key())
		}
	}
	for inherited := true; ; inherited = false {
		if c == nil {
			c = m.ask(local.Key(), try)
			inherited = false
		}
		if !ended.Is(c.replied) {
			select {
			case <-c.replied:
			case <-done:
			}
		}
		switch {
		case ended.Is(done):
			m.abandon(local, c)
			return Lock{}, endOf(ctx, local.Key())
		case c.err != nil && !inherited:
			local.Release()
			return Lock{}, c.err
		case c.err == nil && !c.isLost():
			if inherited && c.seq.Load() > 0 {
				m.listen(c)
			}
			return m.newLock(local, c, c.seq.Add(1)), nil
		case c.err == nil && !m.leaveLost(local, c, done):
			return Lock{}, endOf(ctx, local.Key())
		}
		c = nil
	}
}

// leaveLost gives a claim back that is lost, because its engine may forget it then. It reports false if done was closed
// first: then it goes on, and releases the local lock afterwards.
func (m *Manager) leaveLost(local keylock.Lock[string], c *claim, done <-chan struct{}) bool {
	left := inBackground(func() { _ = m.leave(c) })
	select {
	case <-left:
		return true
	case <-done:
		go func() {
			<-left
			local.Release()
		}()
		return false
	}
}

// inBackground runs f in a goroutine, and returns a channel that is closed when it has returned.
func inBackground(f func()) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		f()
		close(over)
	}()
	return over
}

// abandon leaves the claim to the next waiter of the process, or withdraws it.
func (m *Manager) abandon(local keylock.Lock[string], c *claim) {
	if m.handOff(local, c) {
		return
	}
	c.withdraw()
	go m.cleanUp(local, c)
}

// cleanUp ends a claim that is not wanted any more. It holds the local lock until that is
// done, so that the engine has one contender per key.
func (m *Manager) cleanUp(local keylock.Lock[string], c *claim) {
	<-c.replied
	if c.err == nil {
		_ = m.leave(c)
	}
	local.Release()
}

// mayHandOff reports whether the claim may be handed off once more.
func (m *Manager) mayHandOff(c *claim) bool {
	if m.maxHandoffs == 0 || c.isLost() {
		return false
	}
	w := c.wanted.Load()
	return w == nil || c.seq.Load() < w.seq+uint64(m.maxHandoffs) && time.Now().Before(w.at.Add(m.maxHold))
}

// handOff hands the claim off to the next waiter, with the local lock, and reports false if there
// is none. It cannot get lost: a waiter that gives up at that moment is granted the local
// lock all the same, and hands the claim off again.
func (m *Manager) handOff(local keylock.Lock[string], c *claim) bool {
	if m.waiting.Load() == 0 {
		return false // a waiter that comes now can ask the engine itself; the owner need not be asked
	}
	return local.Handoff(c)
}

// registry gives those who look the claims of a process. One goroutine owns them; it decides nothing about locks,
// and a lock does not wake it: what happens to claims is put on a stack, until it is asked, or there is much of it.
type registry struct {
	pending atomic.Pointer[action] // what it has yet to carry out, latest first
	pushed  atomic.Uint64          // how many actions there were
	eager   bool                   // each action wakes it
	wake    chan struct{}
	done    chan struct{} // closed when the goroutine has ended
}

// action is what the goroutine shall carry out.
type action struct {
	do   func(*claims)
	next *action
}

// mostPending is after how many actions the goroutine is woken.
const mostPending = 256

// claims are owned by the registry's goroutine.
type claims struct {
	byKey   map[string]*claim
	waiting int
	slow    *slowLog // nil if there is none

	granted, refused, lost uint64
	waits, releases        keylock.Histogram
}

// newRegistry starts the goroutine, which ends when ended is closed.
func newRegistry(ended <-chan struct{}, slow *slowLog) *registry {
	r := &registry{eager: slow != nil, wake: make(chan struct{}, 1), done: make(chan struct{})}
	cs := &claims{byKey: make(map[string]*claim), slow: slow}
	if slow != nil {
		slow.look = r.do
	}
	go func() {
		defer close(r.done)
		for {
			select {
			case <-r.wake:
				r.carryOut(cs)
			case <-ended:
				r.carryOut(cs)
				cs.endSlow()
				return
			}
		}
	}()
	return r
}

// do has the registry's goroutine carry out f before it is asked the next time, and nothing when it has ended.
func (r *registry) do(f func(*claims)) {
	if r.push(f)%mostPending == 0 || r.eager {
		r.nudge()
	}
}

// push puts an action on the stack, and returns how many there were.
func (r *registry) push(f func(*claims)) uint64 {
	a := &action{do: f}
	for {
		a.next = r.pending.Load()
		if r.pending.CompareAndSwap(a.next, a) {
			return r.pushed.Add(1)
		}
	}
}

func (r *registry) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// carryOut carries out what is on the stack, in order.
func (r *registry) carryOut(cs *claims) {
	var first *action
	for a := r.pending.Swap(nil); a != nil; {
		a.next, first, a = first, a, a.next
	}
	for ; first != nil; first = first.next {
		first.do(cs)
	}
}

// ask has it carry out f, and waits for that.
func (r *registry) ask(ctx context.Context, f func(*claims)) error {
	carriedOut := make(chan struct{})
	r.push(func(cs *claims) { f(cs); close(carriedOut) })
	r.nudge()
	select {
	case <-carriedOut:
		return nil
	case <-r.done:
		return ErrClosed
	case <-ctx.Done():
		return ended.Err(ctx)
	}
}

func (cs *claims) begin(c *claim) {
	cs.byKey[c.key] = c
	cs.waiting++
	cs.slow.begin(c)
}

// replied follows the engine's reply. The fields of c that it reads have been written.
func (cs *claims) replied(c *claim) {
	cs.waiting--
	cs.slow.over(c)
	if c.err != nil {
		cs.refused++
		cs.forget(c)
		return
	}
	cs.granted++
	observe(&cs.waits, c.at.Sub(c.asked))
}

// end follows a release, whatever came of it.
func (cs *claims) end(c *claim, took time.Duration, lost bool) {
	if lost {
		cs.lost++
	}
	observe(&cs.releases, took)
	cs.forget(c)
}

func (cs *claims) forget(c *claim) {
	if cs.byKey[c.key] == c { // the local lock passes on before this is carried out
		delete(cs.byKey, c.key)
	}
}

// info returns what is to be seen of the claim to key; the zero Claim if there is none.
func (cs *claims) info(key string) Claim {
	c := cs.byKey[key]
	if c == nil {
		return Claim{}
	}
	info := Claim{State: ClaimWaiting, Since: c.asked}
	select {
	case <-c.replied:
		if c.err != nil {
			return Claim{}
		}
		info = Claim{State: ClaimHeld, Since: c.at, Token: Token{c.grant.Epoch(), c.seq.Load()}, Lost: c.isLost()}
		if s := c.state.Load(); s == kept || s == recalled {
			info.State = ClaimKept
		}
	default:
	}
	return info
}

// observe counts a duration.
func observe(h *keylock.Histogram, d time.Duration) {
	d = max(d, 0)
	h.Count++
	h.Sum += d.Seconds()
	h.Max = max(h.Max, d)
	for i := range h.Buckets {
		if d < h.Bound(i) || i == len(h.Buckets)-1 {
			h.Buckets[i]++
			return
		}
	}
}

// endSlow ends the slow log.
func (cs *claims) endSlow() {
	if cs.slow == nil {
		return
	}
	for _, c := range cs.byKey {
		if c.slow != nil {
			c.slow.Stop()
		}
	}
	for c := range cs.slow.next {
		cs.slow.send(slowRecord{key: c.key, waited: time.Since(c.asked), over: true, err: ErrClosed})
	}
	close(cs.slow.records)
}

// slowLog logs waits at the engine that last for too long.
type slowLog struct {
	logger *slog.Logger
	after  time.Duration
	engine Inspector           // nil if the engine cannot tell who is ahead
	look   func(func(*claims)) // has the registry's goroutine look

	records chan slowRecord
	next    map[*claim]time.Duration // how long a claim that was reported has to wait to be reported again; owned by the registry's goroutine
	lost    uint64                   // records that were not logged; owned by the registry's goroutine
}

// slowRecord is what is logged of one wait.
type slowRecord struct {
	key    string
	waited time.Duration
	over   bool
	err    error // with which it was over
}

// begin has a claim checked when it has waited for long enough.
func (l *slowLog) begin(c *claim) {
	if l != nil {
		c.slow = time.AfterFunc(l.after-time.Since(c.asked), func() { l.look(func(*claims) { l.check(c) }) })
	}
}

// check reports the claim, if it still waits, and has it checked again when it has waited for twice as long.
func (l *slowLog) check(c *claim) {
	if c.slow == nil {
		return
	}
	waited := time.Since(c.asked)
	next := max(l.next[c], l.after)
	for next <= waited {
		next *= 2
	}
	l.next[c] = next
	l.send(slowRecord{key: c.key, waited: waited})
	c.slow.Reset(next - waited)
}

// over ends the checks of a claim, and reports the end of a wait that was reported.
func (l *slowLog) over(c *claim) {
	if l == nil {
		return
	}
	c.slow.Stop()
	c.slow = nil // a check may be under way
	if _, reported := l.next[c]; reported {
		delete(l.next, c)
		l.send(slowRecord{key: c.key, waited: c.at.Sub(c.asked), over: true, err: c.err})
	}
}

func (l *slowLog) send(r slowRecord) {
	select {
	case l.records <- r:
	default: // the logger is slower than the waits
		l.lost++
	}
}

// run logs the records until there are no more. A logger may panic, or end its goroutine: that costs one record.
func (l *slowLog) run() {
	ended := false
	defer func() {
		if !ended {
			_ = recover()
			go l.run()
		}
	}()
	for r := range l.records {
		l.log(r)
	}
	ended = true
}

func (l *slowLog) log(r slowRecord) {
	attrs := []slog.Attr{slog.String("key", show.Bare(&r.key)), slog.Duration("waited", r.waited)}
	level, message := slog.LevelWarn, "cohort: a slow wait at the engine"
	switch {
	case r.over && r.err != nil:
		level, message = slog.LevelInfo, "cohort: a slow wait at the engine has ended without the lock"
		attrs = append(attrs, slog.Any("error", r.err))
	case r.over:
		level, message = slog.LevelInfo, "cohort: a slow wait at the engine was granted"
	case l.engine != nil:
		attrs = append(attrs, l.ahead(r.key)...)
	}
	l.logger.LogAttrs(context.Background(), level, message, attrs...)
}

// ahead asks the engine who is before this process in the queue of key.
func (l *slowLog) ahead(key string) []slog.Attr {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	queue, err := l.engine.Inspect(ctx, key)
	if err != nil {
		return []slog.Attr{slog.Any("queue_unknown", err)}
	}
	var attrs []slog.Attr
	for i, c := range queue {
		if c.Own {
			return append(attrs, slog.Int("ahead", i))
		}
		if i == 0 && c.Epoch > 0 {
			attrs = append(attrs, slog.String("holder", textOr(c.Process.String(), "unknown")), slog.Uint64("holder_epoch", c.Epoch))
			if !c.Since.IsZero() {
				attrs = append(attrs, slog.Time("holder_since", c.Since))
			}
		}
	}
	return attrs
}

func textOr(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return show.Bare(&text)
}
