package lockhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// A Manager is a manager of keys of any type, made by [Of].
type Manager struct {
	look    func(ctx context.Context, n, entries int) (manager, error)
	inspect func(ctx context.Context, q query, n int) (manager, error)
}

// A Source is what a page is made of: a [keylock.Manager], or what wraps one. If it has the
// Stats method of a [cohort.Manager] too, the page shows what the engine did. For a cohort, see [OfCohort].
type Source[K comparable] interface {
	Top(ctx context.Context, n int) (keylock.Top[K], error)
	Inspect(ctx context.Context, key K) (keylock.KeyInfo[K], error)
}

// Of makes a manager fit for [Handler]. A nil m panics, and so does a manager that was not made by Start.
func Of[K comparable](m Source[K]) Manager {
	if m == nil {
		panic("lockhttp: Of with a nil manager")
	}
	if m, ok := m.(interface{ Done() <-chan struct{} }); ok {
		m.Done() // panics for one that was not started
	}
	last := new(memory)
	return Manager{
		look:    func(ctx context.Context, n, entries int) (manager, error) { return look(ctx, m, last, n, entries) },
		inspect: func(ctx context.Context, q query, n int) (manager, error) { return inspect(ctx, m, q, n) },
	}
}

// An answer is what is shown, in any format. What has a unit has it in its JSON name.
type answer struct {
	At       time.Time `json:"at"`
	Host     string    `json:"host"`
	Process  string    `json:"process"`
	PID      int       `json:"pid"`
	Error    string    `json:"error,omitempty"`
	Summary  string    `json:"summary,omitempty"`
	Managers []manager `json:"managers,omitempty"` // the worst first

	Worst string   `json:"-"` // where the summary leads to
	Slow  bool     `json:"-"` // what it says is wrong
	names []string // of all managers
}

type manager struct {
	Name          string   `json:"name"`
	Query         string   `json:"query"` // leads to the manager
	Closed        bool     `json:"closed,omitempty"`
	Error         string   `json:"error,omitempty"`
	Stats         *stats   `json:"stats,omitempty"`
	Recent        *recent  `json:"recent,omitempty"`
	Engine        *engine  `json:"engine,omitempty"`
	LongestQueues []key    `json:"longest_queues,omitempty"`
	OldestHolds   []key    `json:"oldest_holds,omitempty"`
	Key           *key     `json:"key,omitempty"` // instead of these, where one was asked for
	Hints         []string `json:"hints,omitempty"`

	Typed      string        `json:"-"` // the name as it is
	Searchable bool          `json:"-"` // its keys can be typed
	OldestWait time.Duration `json:"-"` // as far as it is known
}

type key struct {
	Text    string    `json:"key"`
	Query   string    `json:"query"` // leads to the key
	At      time.Time `json:"at"`
	Held    int       `json:"held"`
	Waiting int       `json:"waiting"`
	Holders []who     `json:"holders,omitempty"`
	Waiters []who     `json:"waiters,omitempty"`

	// Of a cohort, where one key was asked for.
	Claim       *claim      `json:"claim,omitempty"`
	Engine      []contender `json:"engine,omitempty"` // first the holder
	Contenders  int         `json:"contenders,omitempty"`
	EngineError string      `json:"engine_error,omitempty"`

	quoted string // Text for a sentence
}

// A who holds or waits.
type who struct {
	Grant    uint64        `json:"grant,omitempty"`
	Position int           `json:"position,omitempty"`
	Mode     string        `json:"mode"`
	Session  string        `json:"session,omitempty"`
	Since    time.Time     `json:"since,omitzero"`
	Age      time.Duration `json:"-"`
	Seconds  float64       `json:"age_seconds,omitempty"`
	Caller   string        `json:"caller,omitempty"`
	WaitsFor string        `json:"waits_for,omitempty"`

	quoted string // Session for a sentence
}

type stats struct {
	Keys         int       `json:"keys"`
	Held         int       `json:"held"`
	Shared       int       `json:"shared"`
	Waiting      int       `json:"waiting"`
	LongestQueue int       `json:"longest_queue"`
	Acquired     uint64    `json:"acquired"`
	Waited       uint64    `json:"waited"`
	Cancelled    uint64    `json:"cancelled"`
	Rejected     uint64    `json:"rejected"`
	Released     uint64    `json:"released"`
	Busy         float64   `json:"owner_busy_share"`
	Hold         float64   `json:"oldest_hold_seconds,omitempty"`
	Wait         float64   `json:"oldest_wait_seconds,omitempty"`
	Lost         uint64    `json:"slow_log_records_lost,omitempty"`
	Uptime       float64   `json:"uptime_seconds"`
	Waits        histogram `json:"waits"`
	Holds        histogram `json:"holds"`

	All keylock.Stats `json:"-"`
}

type histogram struct {
	Count   uint64   `json:"count"`
	Sum     float64  `json:"sum_seconds"`
	Max     float64  `json:"max_seconds"`
	Buckets []uint64 `json:"buckets,omitempty"` // bucket i counts up to 2^(10+i) nanoseconds

	All keylock.Histogram `json:"-"`
}

// slow is how long a wait lasts that is shown as wrong.
const slow = time.Second

// look looks at a whole manager: at n keys of each list, with so many holders and waiters of
// each.
func look[K comparable](ctx context.Context, source Source[K], last *memory, n, entries int) (manager, error) {
	top, err := source.Top(ctx, n)
	if err != nil {
		return manager{}, err
	}
	s := top.Stats
	m := manager{
		Stats: &stats{
			Keys: s.Keys, Held: s.Held, Shared: s.Shared, Waiting: s.Waiting, LongestQueue: s.LongestQueue,
			Acquired: s.Acquired, Waited: s.Waited, Cancelled: s.Cancelled, Rejected: s.Rejected, Released: s.Released,
			Busy: s.Busy(), Hold: s.OldestHold.Seconds(), Wait: s.OldestWait.Seconds(), Lost: s.SlowLogLost, Uptime: s.Uptime.Seconds(),
			Waits: newHistogram(s.Waits), Holds: newHistogram(s.Holds), All: s,
		},
		LongestQueues: keys(top.LongestQueues, entries),
		OldestHolds:   keys(top.OldestHolds, entries),
		Searchable:    typeable[K](),
		OldestWait:    s.OldestWait,
	}
	before, ok := last.since(s)
	m.Recent = newRecent(before, s, ok)
	for _, k := range m.LongestQueues {
		m.OldestWait = max(m.OldestWait, k.first(k.Waiters).Age)
	}
	if c, ok := any(source).(interface {
		Stats(context.Context) (cohort.Stats, error)
	}); ok {
		s, err := c.Stats(ctx)
		if err != nil {
			return manager{}, err
		}
		m.Engine = newEngine(s, nil)
	}
	m.Hints = hints(m)
	return m, nil
}

// hints say which options would show more.
func hints(m manager) (hints []string) {
	hint := func(option, shows string) {
		if m.Engine != nil {
			option = "cohort.WithLocal(" + option + ")"
		}
		hints = append(hints, "Start the manager with "+option+" to see "+shows+".")
	}
	if !m.Stats.All.Timed {
		hint("keylock.WithHoldTimes()", "for how long keys are held")
	}
	for _, list := range [][]key{m.LongestQueues, m.OldestHolds} {
		for _, k := range list {
			if first := cmp.Or(k.first(k.Holders), k.first(k.Waiters)); first.Mode != "" {
				if first.Caller == "" {
					hint("keylock.WithCallers()", "from which line of code locks are asked for")
				}
				return hints
			}
		}
	}
	return hints
}

// worstFirst orders managers by the time that is lost to waiting: the requests that wait, times
// the oldest wait, and the same for those that wait at the engine. Those that do not reply come before
// all, those that have ended after all.
func worstFirst(a, b manager) int {
	rank := func(m manager) int {
		switch {
		case m.Error != "":
			return 0
		case m.Closed:
			return 2
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.lostTime(), a.lostTime()))
}

func (m manager) lostTime() float64 {
	if m.Stats == nil {
		return 0
	}
	lost := float64(m.Stats.Waiting) * m.OldestWait.Seconds()
	if c := m.oldestClaim(); c != nil {
		lost += float64(m.Engine.Waiting) * c.Age.Seconds()
	}
	return lost
}

// Waiting is how many requests wait, also at the engine.
func (m manager) Waiting() (waiting int) {
	if m.Stats != nil {
		waiting = m.Stats.Waiting
	}
	if m.Engine != nil {
		waiting += m.Engine.Waiting
	}
	return waiting
}

// LongestWait is how long the oldest of these has waited, as far as it is known.
func (m manager) LongestWait() time.Duration {
	if c := m.oldestClaim(); c != nil {
		return max(c.Age, m.OldestWait)
	}
	return m.OldestWait
}

// oldestClaim is the claim that has waited at the engine for longest; nil when none is known.
func (m manager) oldestClaim() *claim {
	if m.Engine == nil || len(m.Engine.OldestWaits) == 0 {
		return nil
	}
	return &m.Engine.OldestWaits[0]
}

// lostTime is what the waiters of a key lose, as that of a manager is.
func (k key) lostTime() float64 { return float64(k.Waiting) * k.first(k.Waiters).Age.Seconds() }

// worst returns the key whose waiters lose most time; nil when nothing waits.
func (m manager) worst() *key {
	var worst *key
	for i := range m.LongestQueues {
		if k := &m.LongestQueues[i]; worst == nil || k.lostTime() > worst.lostTime() {
			worst = k
		}
	}
	return worst
}

// summarize says what is worst, in a sentence or two.
func (a *answer) summarize() {
	waiting, unknown := 0, 0
	for _, m := range a.Managers {
		if m.Key != nil {
			return
		}
		if m.Error != "" {
			unknown++
		}
		waiting += m.Waiting()
	}
	var sentences []string
	if a.Slow = unknown > 0; a.Slow {
		sentences = append(sentences, plural(unknown, "manager")+" could not be asked.")
	}
	switch {
	case waiting > 0:
		worst := slices.IndexFunc(a.Managers, func(m manager) bool { return m.Waiting() > 0 })
		sentences = append(sentences, a.summarizeWaits(waiting, a.Managers[worst]))
	case unknown > 0 && unknown < len(a.Managers):
		sentences = append(sentences, "Nothing waits in the others.")
	case unknown < len(a.Managers):
		sentences = append(sentences, "Nothing waits.")
	}
	a.Summary = strings.Join(sentences, " ")
}

// summarizeWaits says which key of a manager is the worst.
func (a *answer) summarizeWaits(waiting int, m manager) string {
	text := plural(waiting, "request") + " wait" + verb(waiting)
	if len(a.Managers) > 1 {
		text += ", most of all in manager " + m.Name
	}
	text += "."
	k, c := m.worst(), m.oldestClaim()
	switch {
	case k != nil && (c == nil || c.Query == k.Query || c.Age.Seconds() < k.lostTime()):
		text += fmt.Sprintf(" Key %s has %s, the first for %s", k.quoted, plural(k.Waiting, "waiter"), age(k.first(k.Waiters).Age))
		switch {
		case c != nil && c.Query == k.Query:
			text += "; it has waited at the engine for " + age(c.Age)
		case k.Held > 0:
			text += "; it " + k.heldBy()
		}
		a.Worst, a.Slow = "?"+m.Query+"&"+k.Query, a.Slow || k.Slow()
		return text + "."
	case c != nil:
		text += fmt.Sprintf(" Key %s has waited at the engine for %s.", c.quoted, age(c.Age))
		a.Worst, a.Slow = "?"+m.Query+"&"+c.Query, a.Slow || c.Age >= slow
	}
	return text
}

// heldBy says who holds the key, as far as it is known.
func (k key) heldBy() (text string) {
	h := k.first(k.Holders)
	text = "is held"
	if !h.Since.IsZero() {
		text = "has been held for " + age(h.Age)
	}
	if h.Session != "" {
		text += " by session " + h.quoted
	}
	if k.Held > 1 {
		text += fmt.Sprintf(" and %d more", k.Held-1)
	}
	if h.Caller != "" {
		text += ", called from " + h.Caller
	}
	return text
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return count(n) + " " + what
}

func verb(n int) string {
	if n == 1 {
		return "s"
	}
	return ""
}

func newHistogram(h keylock.Histogram) histogram {
	shown := histogram{Count: h.Count, Sum: h.Sum, Max: h.Max.Seconds(), All: h}
	if h.Count > 0 {
		shown.Buckets = h.Buckets[:]
	}
	return shown
}

// errGone is what a link gets that leads nowhere any more.
var errGone = errors.New("this key is not held or waited for any more, or not among the first 1000 of either list")

// A badKey is what was typed and is no key.
type badKey struct{ text string }

func (e badKey) Error() string { return e.text }

// inspect looks at the key that a query names: by itself or, where that is not possible,
// by its hash, among the keys that a page may have shown. It shows n of its holders and
// waiters.
func inspect[K comparable](ctx context.Context, m Source[K], q query, n int) (manager, error) {
	found := func(wanted K) (manager, error) {
		info, err := m.Inspect(ctx, wanted)
		if err != nil {
			return manager{}, err
		}
		k := newKey(&info, n)
		return manager{Key: &k}, nil
	}
	if q.key != nil {
		wanted, err := parse[K](*q.key)
		if err != nil {
			return manager{}, err
		}
		return found(wanted)
	}
	top, err := m.Top(ctx, maxRows)
	if err != nil {
		return manager{}, err
	}
	for _, shown := range [][]keylock.KeyInfo[K]{top.LongestQueues, top.OldestHolds} {
		for i := range shown {
			if hash(shown[i].Key) == *q.id {
				return found(shown[i].Key)
			}
		}
	}
	return manager{}, errGone
}

func keys[K comparable](infos []keylock.KeyInfo[K], entries int) []key {
	shown := make([]key, len(infos))
	for i := range infos {
		shown[i] = newKey(&infos[i], entries)
	}
	return shown
}

// newKey makes texts of a key and of at most so many of its holders and waiters each.
func newKey[K comparable](info *keylock.KeyInfo[K], entries int) key {
	k := key{
		Text: show.Bare(&info.Key), Query: reference(&info.Key), At: info.At, Held: info.Held, Waiting: info.Waiting,
		quoted: show.Quoted(&info.Key),
	}
	for _, h := range info.Holders[:min(entries, len(info.Holders))] {
		w := newWho(h.Mode, h.Session, info.At, h.Since, h.Caller)
		w.Grant = h.Seq
		k.Holders = append(k.Holders, w)
	}
	for _, q := range info.Waiters[:min(entries, len(info.Waiters))] {
		w := newWho(q.Mode, q.Session, info.At, q.Since, q.Caller)
		w.Position, w.WaitsFor = q.Position, waitsFor(q, info.Held)
		k.Waiters = append(k.Waiters, w)
	}
	return k
}

// first returns the first of the holders or of the waiters; the zero who if there is none.
func (key) first(all []who) (first who) {
	if len(all) > 0 {
		first = all[0]
	}
	return first
}

// Slow reports whether requests wait for the key for too long.
func (k key) Slow() bool { return k.first(k.Waiters).Age >= slow }

func newWho(mode keylock.Mode, session string, at, since time.Time, caller keylock.Caller) who {
	w := who{Mode: mode.String(), Since: since, Caller: caller.String()}
	if session != "" {
		w.Session, w.quoted = show.Bare(&session), show.Quoted(&session)
	}
	if !since.IsZero() {
		w.Age = at.Sub(since)
		w.Seconds = w.Age.Seconds()
	}
	return w
}

// waitsFor says in words what a waiter waits for.
func waitsFor(w keylock.Entry, held int) string {
	var text string
	switch {
	case w.Behind > 0:
		text = fmt.Sprintf("waiter %d", w.Behind)
	case held > 0:
		text = "the holder"
		if held > 1 {
			text = fmt.Sprintf("%d holders", held)
		}
	default:
		text = "its other keys"
	}
	if w.Keys > 1 {
		text += fmt.Sprintf(" (%d of its %d keys)", w.Blocked, w.Keys)
	}
	return text
}

// maxTyped is how many bytes of a key an address has, at most.
const maxTyped = 256

// reference is the part of a query that leads to a key.
func reference[K comparable](k *K) string {
	if typeable[K]() {
		if text := typed(k); len(text) <= maxTyped {
			return url.Values{"key": {text}}.Encode()
		}
	}
	return url.Values{"id": {hash(*k)}}.Encode()
}

var seed = maphash.MakeSeed()

func hash[K comparable](k K) string { return strconv.FormatUint(maphash.Comparable(seed, k), 36) }

// typeable reports whether parse can make keys of a type.
func typeable[K comparable]() bool {
	kind := reflect.TypeFor[K]().Kind()
	return kind == reflect.String || kind <= reflect.Uint64 // booleans and integers come first
}

// typed is the text from which parse makes a key again. It calls no method of the key.
func typed[K comparable](k *K) string {
	v := reflect.ValueOf(k).Elem()
	switch {
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return v.String()
}

// parse makes a key of what was typed.
func parse[K comparable](text string) (k K, err error) {
	v := reflect.ValueOf(&k).Elem()
	switch kind := v.Kind(); {
	case kind == reflect.String:
		v.SetString(text)
	case kind == reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v.SetBool(b)
	case v.CanInt():
		var i int64
		i, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(i)
	case v.CanUint():
		var u uint64
		u, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(u)
	default:
		return k, badKey{"keys of type " + show.Type[K]() + " cannot be typed; follow the links to them"}
	}
	if err != nil {
		return k, badKey{show.Quoted(&text) + " is no key of type " + show.Type[K]()}
	}
	return k, nil
}

// A memory keeps the totals that were seen in the last looks at a manager, so that the next
// look can tell what has happened since.
type memory struct {
	seen atomic.Pointer[[]keylock.Stats] // oldest first, never changed
}

const (
	window   = 10 * time.Second // that rates are of, if there was a look so long ago
	spacing  = time.Second      // between what is kept
	longest  = time.Minute      // that rates are of
	shortest = spacing / 2
)

// since keeps the totals, and returns those to compare them with; false when there was no
// look lately.
func (m *memory) since(now keylock.Stats) (before keylock.Stats, ok bool) {
	for {
		old := m.seen.Load()
		var kept []keylock.Stats
		if old != nil {
			kept = *old
		}
		for len(kept) > 0 && (now.Uptime-kept[0].Uptime > longest || len(kept) > 1 && now.Uptime-kept[1].Uptime >= window) {
			kept = kept[1:] // a later one is as good
		}
		ok = len(kept) > 0 && now.Uptime-kept[0].Uptime >= shortest
		if ok {
			before = kept[0]
		}
		if len(kept) == 0 || now.Uptime-kept[len(kept)-1].Uptime >= spacing {
			kept = append(kept[:len(kept):len(kept)], now)
		}
		if m.seen.CompareAndSwap(old, &kept) {
			return before, ok
		}
	}
}

// A recent is what has happened in the last seconds.
type recent struct {
	Seconds   float64 `json:"seconds"`
	Acquired  float64 `json:"acquired_per_second"`
	Waited    float64 `json:"waited_per_second"`
	Cancelled float64 `json:"cancelled_per_second"`
	Rejected  float64 `json:"rejected_per_second"`
	Released  float64 `json:"released_per_second"`
	Busy      float64 `json:"owner_busy_share"`

	Waits histogram `json:"waits"`
	Holds histogram `json:"holds"`
}

// newRecent compares two looks; nil when there is none before.
func newRecent(before, now keylock.Stats, ok bool) *recent {
	if !ok {
		return nil
	}
	passed := now.Uptime - before.Uptime
	perSecond := func(before, now uint64) float64 { return float64(now-before) / passed.Seconds() }
	return &recent{
		Seconds:   passed.Seconds(),
		Acquired:  perSecond(before.Acquired, now.Acquired),
		Waited:    perSecond(before.Waited, now.Waited),
		Cancelled: perSecond(before.Cancelled, now.Cancelled),
		Rejected:  perSecond(before.Rejected, now.Rejected),
		Released:  perSecond(before.Released, now.Released),
		Busy:      min(max(float64(now.Serving-before.Serving)/float64(passed), 0), 1),
		Waits:     newHistogram(difference(before.Waits, now.Waits)),
		Holds:     newHistogram(difference(before.Holds, now.Holds)),
	}
}

// difference counts what a histogram has more than an earlier one. Its longest duration is
// known as far as its bucket.
func difference(before, now keylock.Histogram) keylock.Histogram {
	d := keylock.Histogram{Count: now.Count - before.Count, Sum: now.Sum - before.Sum}
	for i, n := range now.Buckets {
		if d.Buckets[i] = n - before.Buckets[i]; d.Buckets[i] > 0 {
			d.Max = min(now.Bound(i), now.Max)
		}
	}
	return d
}

// bucket returns the bucket of a histogram that counts a duration.
func bucket(d time.Duration) int {
	return min(max(bits.Len64(uint64(d)/uint64(keylock.Histogram{}.Bound(0))), 0), len(keylock.Histogram{}.Buckets)-1)
}
