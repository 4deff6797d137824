package lockhttp

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-46f81e6d/keylock"
)

// A Manager is a manager of keys of any type, made by [Of].
type Manager struct {
	look    func(ctx context.Context, n int) manager
	inspect func(ctx context.Context, query url.Values) (key, error)
}

// A Source is what a page is made of: a [keylock.Manager], or what wraps one. What has also
// the Stats of a cohort is shown with them.
type Source[K comparable] interface {
	Top(ctx context.Context, n int) (keylock.Top[K], error)
	Inspect(ctx context.Context, key K) (keylock.KeyInfo[K], error)
}

// Of makes a manager fit for [Handler].
func Of[K comparable](m Source[K]) Manager {
	return Manager{
		look:    func(ctx context.Context, n int) manager { return look(ctx, m, n) },
		inspect: func(ctx context.Context, query url.Values) (key, error) { return inspect(ctx, m, query) },
	}
}

// An answer is what is shown, in any format. What has a unit has it in its JSON name.
type answer struct {
	Error    string    `json:"error,omitempty"`
	Managers []manager `json:"managers,omitempty"`
}

type manager struct {
	Name          string `json:"name"`
	Closed        bool   `json:"closed,omitempty"`
	Error         string `json:"error,omitempty"`
	Stats         *stats `json:"stats,omitempty"`
	LongestQueues []key  `json:"longest_queues,omitempty"`
	OldestHolds   []key  `json:"oldest_holds,omitempty"`
	Key           *key   `json:"key,omitempty"` // instead of these, where one was asked for

	Searchable bool `json:"-"` // its keys can be typed
}

type key struct {
	Text    string    `json:"key"`
	Bytes   int       `json:"key_bytes,omitempty"` // where the text is cut
	Query   string    `json:"query"`               // leads to the key
	At      time.Time `json:"at"`
	Held    int       `json:"held"`
	Waiting int       `json:"waiting"`
	Holders []who     `json:"holders,omitempty"`
	Waiters []who     `json:"waiters,omitempty"`
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
	Waits        histogram `json:"waits"`
	Holds        histogram `json:"holds"`

	All keylock.Stats `json:"-"`
}

type histogram struct {
	Count   uint64   `json:"count"`
	Sum     float64  `json:"sum_seconds"`
	Max     float64  `json:"max_seconds"`
	Buckets []uint64 `json:"buckets,omitempty"` // bucket i counts up to 2^(10+i) nanoseconds
}

// look looks at a whole manager.
func look[K comparable](ctx context.Context, m Source[K], n int) manager {
	top, err := m.Top(ctx, n)
	if err != nil {
		return manager{Closed: errors.Is(err, keylock.ErrClosed), Error: err.Error()}
	}
	s := top.Stats
	return manager{
		Stats: &stats{
			Keys: s.Keys, Held: s.Held, Shared: s.Shared, Waiting: s.Waiting, LongestQueue: s.LongestQueue,
			Acquired: s.Acquired, Waited: s.Waited, Cancelled: s.Cancelled, Rejected: s.Rejected, Released: s.Released,
			Busy: s.Busy(), Hold: s.OldestHold.Seconds(), Wait: s.OldestWait.Seconds(), Lost: s.SlowLogLost,
			Waits: newHistogram(s.Waits), Holds: newHistogram(s.Holds), All: s,
		},
		LongestQueues: keys(top.LongestQueues),
		OldestHolds:   keys(top.OldestHolds),
		Searchable:    typeable[K](),
	}
}

func newHistogram(h keylock.Histogram) histogram {
	shown := histogram{Count: h.Count, Sum: h.Sum.Seconds(), Max: h.Max.Seconds()}
	if h.Count > 0 {
		shown.Buckets = h.Buckets[:]
	}
	return shown
}

// errGone is what a link gets that leads nowhere any more.
var errGone = errors.New("this key is not held or waited for any more, or not among the first 1000 of either list")

// inspect looks at the key that a query names: by itself or, where that is not possible,
// by its hash, among the keys that a page may have shown.
func inspect[K comparable](ctx context.Context, m Source[K], query url.Values) (key, error) {
	if query.Has("key") {
		wanted, err := parse[K](query.Get("key"))
		if err != nil {
			return key{}, err
		}
		info, err := m.Inspect(ctx, wanted)
		return newKey(info), err
	}
	top, err := m.Top(ctx, maxRows)
	if err != nil {
		return key{}, err
	}
	for _, shown := range [][]keylock.KeyInfo[K]{top.LongestQueues, top.OldestHolds} {
		for _, k := range shown {
			if hash(k.Key) == query.Get("id") {
				info, err := m.Inspect(ctx, k.Key)
				return newKey(info), err
			}
		}
	}
	return key{}, errGone
}

func keys[K comparable](infos []keylock.KeyInfo[K]) []key {
	shown := make([]key, len(infos))
	for i, info := range infos {
		shown[i] = newKey(info)
	}
	return shown
}

func newKey[K comparable](info keylock.KeyInfo[K]) key {
	k := key{Query: reference(info.Key), At: info.At, Held: info.Held, Waiting: info.Waiting}
	k.Text, k.Bytes = cut(fmt.Sprintf("%+v", info.Key))
	for _, h := range info.Holders {
		w := newWho(h.Mode, h.Session, info.At, h.Since, h.Caller)
		w.Grant = h.Seq
		k.Holders = append(k.Holders, w)
	}
	for _, q := range info.Waiters {
		w := newWho(q.Mode, q.Session, info.At, q.Since, q.Caller)
		w.Position, w.WaitsFor = q.Position, waitsFor(q, info.Held)
		k.Waiters = append(k.Waiters, w)
	}
	return k
}

func newWho(mode keylock.Mode, session string, at, since time.Time, caller keylock.Caller) who {
	w := who{Mode: mode.String(), Since: since, Caller: caller.String()}
	w.Session, _ = cut(session)
	if !since.IsZero() {
		w.Age = at.Sub(since)
		w.Seconds = w.Age.Seconds()
	}
	return w
}

// waitsFor says in words what a waiter waits for.
func waitsFor(w keylock.Waiter, held int) string {
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

// maxText is how many bytes of a key or of a label are shown.
const maxText = 256

// cut returns text that is harmless anywhere: on one line, valid, without characters
// that cannot be seen, and not longer than maxText or so. Where it is cut it also says
// how many bytes there were.
func cut(text string) (shown string, bytes int) {
	if len(text) > maxText {
		text, bytes = strings.ToValidUTF8(text[:maxText], ""), len(text)
	}
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text, bytes
	}
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1], bytes
}

// reference is the part of a query that leads to a key.
func reference[K comparable](k K) string {
	if typeable[K]() {
		text := url.Values{"key": {typed(k)}}.Encode()
		if len(text) <= 1024 {
			return text
		}
	}
	return url.Values{"id": {hash(k)}}.Encode()
}

var seed = maphash.MakeSeed()

func hash[K comparable](k K) string { return strconv.FormatUint(maphash.Comparable(seed, k), 36) }

// typeable reports whether parse can make keys of a type.
func typeable[K comparable]() bool {
	kind := reflect.TypeFor[K]().Kind()
	return kind == reflect.String || kind <= reflect.Uint64 // booleans and integers come first
}

// typed is the text from which parse makes a key again. It asks no method of the key.
func typed[K comparable](k K) string {
	v := reflect.ValueOf(k)
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

// parse makes a key of what somebody typed.
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
		err = errors.New("keys of this type cannot be typed")
	}
	return k, err
}
