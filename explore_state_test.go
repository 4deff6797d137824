//go:build explore

package keylock

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A fingerprint is the same for two states of a world that differ in nothing that can
// ever matter. It covers everything that can be reached from the owner and from the
// actors, field by field, with two kinds of exceptions: where objects lie in memory does
// not count, only which of them are the same; and neither does what irrelevant names,
// because no decision depends on it. A field that the code gains one day is covered
// until it is listed as irrelevant, so the explorer may become slow by it, but
// not blind.
type fingerprint struct {
	bytes   []byte
	objects []object // met so far; a pointer is written as its index
	shapes  map[reflect.Type]*shape
	cuts    reflect.Value // that are under way, of the world's table
	watched reflect.Value // grants, likewise
	parts   reflect.Value // queues that are postponed, likewise
	kept    keptCells     // of the world
}

func newFingerprint() *fingerprint { return &fingerprint{shapes: make(map[reflect.Type]*shape)} }

type object struct {
	at unsafe.Pointer
	of reflect.Type // the first field of a struct lies where the struct does
}

// irrelevant are fields that only count, only report, or are blank between requests.
var irrelevant = map[string]map[string]bool{
	"Table": {
		"counts": true, "seq": true, "enough": true, // count
		"arrivals": true,                                             // numbers the tickets as they come, and so do the queues
		"worked":   true,                                             // counts
		"watches":  true,                                             // whether a grant is watched is written where its ticket is met
		"ranking":  true,                                             // only Top looks at it
		"granted":  true, "led": true, "spare": true, "search": true, // blank, as Check says
	},
	"queue":    {"hash": true, "chain": true, "rank": true, "above": true, "below": true, "scan": true, "cut": true}, // where it is in the index, in the ranking and in a search
	"cuts":     {"begun": true},                                                                                      // which queue a cut has seen is written where a queue is met,
	"Cut":      {"number": true, "position": true, "blocked": true},                                                  // and what it keeps of a ticket where that is
	"snapshot": {"at": true, "seen": true},
	"many":     {"search": true}, // likewise
	"Session":  {"node": true},   // of a search that is over
	// Grants and generations are numbered without end. Which ticket is granted is known from its
	// queue, whose next is the first that is not, as Check says; which actor has which grant and
	// generation is written where a token or a reservation is met.
	"Ticket": {"number": true}, "Token": {"seq": true},
	"abandon": {"generation": true, "since": true, "many": true}, "countedReservation": {"generation": true, "since": true, "many": true},
	"acquire": {"generation": true, "since": true, "many": true}, "Reservation": {"generation": true}, "cancelReservation": {"generation": true},
	"owner":      {"meter": true, "tracking": true},                                                                        // counts and times
	"tracked":    {"caller": true, "since": true, "list": true, "prev": true, "next": true, "seq": true},                   // as long as the rules hold
	"slowRecord": {"lasted": true, "queue": true, "seq": true, "caller": true, "lost": true, "holder": true, "held": true}, // what is written
	"Manager":    {"pool": true, "gate": true},                                                                             // the world knows what is in it
	"postponed":  {"at": true},                                                                                             // where a queue is in the list of these
	"passed":     {"until": true},                                                                                          // a ticket says whether it is for it
	// Grants are numbered and times pass.
	"abandonSnapshot": {"at": true, "seen": true},
	"KeyInfo":         {"At": true}, "Entry": {"Seq": true, "Since": true, "Caller": true},
	"actor":  {"name": true, "yield": true, "resume": true, "stop": true, "chosen": true, "did": true},
	"caller": {"w": true, "mate": true},
	// What the word of a cell says is written where a cell, a token or what a caller has seen is met.
	"kept": {"gate": true, "seed": true, "_": true}, "cell": {"word": true, "_": true},
	"keptCaller": {"had": true, "moments": true, "took": true}, // by what the program has done
}

// of returns the fingerprint of a world. Callers who do the same are interchangeable, so
// they come in an order that depends only on the state in which they are. Where that is
// not wanted they come in the order in which they are.
func (f *fingerprint) of(w *world, plain bool) uint64 {
	f.bytes, f.objects = f.bytes[:0], f.objects[:0]
	f.cuts = reflect.ValueOf(w.o.table).Elem().FieldByName("cuts").FieldByName("running")
	f.watched = reflect.ValueOf(w.o.table).Elem().FieldByName("watches").FieldByName("tags")
	f.parts = reflect.ValueOf(w.o.table).Elem().FieldByName("postponed").FieldByName("queues")
	f.kept = w.cells()
	f.numbers(w)
	f.roots(w.o, w.ctx)
	if plain {
		for _, a := range w.actors {
			f.roots(a)
		}
		return maphash.Bytes(seed, f.bytes)
	}
	f.actors(w.others)
	for _, same := range w.callers {
		if len(same) > 1 {
			same = slices.Clone(same)
			slices.SortStableFunc(same, func(a, b []*actor) int { return bytes.Compare(f.alone(a), f.alone(b)) })
		}
		for _, actors := range same {
			f.actors(actors)
		}
	}
	return maphash.Bytes(seed, f.bytes)
}

// alone returns what the fingerprint says of actors if they come next.
func (f *fingerprint) alone(actors []*actor) []byte {
	length, objects := len(f.bytes), len(f.objects)
	f.actors(actors)
	said := slices.Clone(f.bytes[length:])
	f.bytes, f.objects = f.bytes[:length], f.objects[:objects]
	return said
}

// actors covers actors; of a caller that no other will ever meet again only what it holds,
// and what it remembers.
func (f *fingerprint) actors(actors []*actor) {
	for _, a := range actors {
		if c, ok := a.memory.(*caller); ok && a.over && c.last() && c.w.scenario.apart {
			f.roots(&c.holds, &c.returned)
			continue
		}
		f.roots(a)
	}
}

// roots covers all that the roots, which are pointers, lead to.
func (f *fingerprint) roots(roots ...any) {
	for _, root := range roots {
		f.value(reflect.ValueOf(root))
	}
}

func (f *fingerprint) number(n uint64) { f.bytes = binary.AppendUvarint(f.bytes, n) }

func (f *fingerprint) bool(b bool) {
	if b {
		f.number(1)
	} else {
		f.number(0)
	}
}

func (f *fingerprint) text(s string) {
	f.number(uint64(len(s)))
	f.bytes = append(f.bytes, s...)
}

func (f *fingerprint) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		f.bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		f.number(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		f.number(v.Uint())
	case reflect.String:
		f.text(v.String())
	case reflect.Pointer:
		f.pointer(v)
	case reflect.Interface:
		if v.IsNil() {
			f.number(0)
			return
		}
		f.text(v.Elem().Type().String())
		f.value(v.Elem())
	case reflect.Slice, reflect.Array:
		f.number(uint64(v.Len()))
		for i := range v.Len() {
			f.value(v.Index(i))
		}
	case reflect.Chan:
		f.channel(v)
	case reflect.Struct:
		f.structure(v)
	case reflect.Func:
		f.bool(v.IsNil())
	default:
		panic("fingerprint: " + v.Type().String())
	}
}

func (f *fingerprint) pointer(v reflect.Value) {
	if v.IsNil() {
		f.number(0)
		return
	}
	o := object{v.UnsafePointer(), v.Type()}
	if i := slices.Index(f.objects, o); i >= 0 {
		f.number(uint64(i) + 2)
		return
	}
	f.objects = append(f.objects, o)
	f.number(1)
	f.value(v.Elem())
}

// channel covers what is in a channel, by taking it out and putting it back; of one
// without room, whether it is closed.
func (f *fingerprint) channel(v reflect.Value) {
	if v.IsNil() {
		f.number(0)
		return
	}
	v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem() // reflect does not receive from unexported fields
	n := v.Len()
	f.number(uint64(n) + 1)
	if v.Cap() == 0 {
		item, _ := v.TryRecv()
		f.bool(item.IsValid())
	}
	for range n {
		item, _ := v.Recv()
		v.Send(item)
		f.value(addressable(item))
	}
}

// addressable returns the value, or a copy of a struct whose fields can be addressed.
func addressable(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Struct {
		return v
	}
	held := reflect.New(v.Type()).Elem()
	held.Set(v)
	return held
}

func (f *fingerprint) structure(v reflect.Value) {
	s := f.shapeOf(v.Type())
	if len(s.fields) == 0 {
		return
	}
	if s.comparable && v.IsZero() { // as most are
		f.number(0)
		return
	}
	f.number(1)
	if s.special != nil && s.special(f, v) {
		return
	}
	for _, i := range s.fields {
		f.value(v.Field(i))
	}
}

// A shape is what the fingerprint knows of a struct type.
type shape struct {
	fields     []int // those that matter
	comparable bool
	// special covers what the fields do not say, and reports whether nothing else matters;
	// nil when there is no such thing.
	special func(*fingerprint, reflect.Value) bool
}

func (f *fingerprint) shapeOf(t reflect.Type) *shape {
	if s, known := f.shapes[t]; known {
		return s
	}
	name, _, _ := strings.Cut(t.Name(), "[")
	s := &shape{comparable: t.Comparable(), special: special(name)}
	for i := range t.NumField() {
		if field := t.Field(i).Name; !irrelevant[name][field] {
			s.fields = append(s.fields, i)
		}
	}
	f.shapes[t] = s
	return s
}

// special returns what there is to say of a type beside its fields.
func special(name string) func(*fingerprint, reflect.Value) bool {
	switch name {
	case "Token": // grant numbers are not used again, so all tokens of ended grants are alike
		return func(f *fingerprint, v reflect.Value) bool {
			token := (*table.Token[int])(v.Addr().UnsafePointer())
			live, cell := token.Live(), f.kept.cellOf(token.Seq())
			f.bool(live)
			f.number(cell)
			return !live && cell == 0
		}
	case "Reservation":
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*Reservation[int])(v.Addr().UnsafePointer())
			return f.turn(r.r, r.generation)
		}
	case "cancelReservation":
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*cancelReservation[int])(v.Addr().UnsafePointer())
			return f.turn(r.acquire, r.generation)
		}
	case "queue":
		return func(f *fingerprint, v reflect.Value) bool {
			for i := range f.cuts.Len() {
				f.bool(f.cuts.Index(i).Elem().FieldByName("number").Uint() > v.FieldByName("cut").Uint())
			}
			return false
		}
	case "Ticket":
		return func(f *fingerprint, v reflect.Value) bool {
			f.bool(f.watched.MapIndex(v.Addr()).IsValid())
			for i := range f.parts.Len() {
				if with := f.parts.Index(i).FieldByName("passed"); !with.FieldByName("value").IsNil() && !v.FieldByName("granted").Bool() {
					f.bool(v.FieldByName("number").Uint() <= with.FieldByName("until").Uint())
				}
			}
			for i := range f.cuts.Len() {
				if kept := f.cuts.Index(i).Elem().FieldByName("blocked").MapIndex(v.Addr()); kept.IsValid() {
					f.number(uint64(kept.Int()) + 1)
				}
			}
			return false
		}
	case "Pointer": // an atomic one
		return func(f *fingerprint, v reflect.Value) bool {
			r := (*atomic.Pointer[acquire[int]])(v.Addr().UnsafePointer()).Load()
			f.value(reflect.ValueOf(r))
			return true
		}
	case "index":
		return func(f *fingerprint, v reflect.Value) bool { f.index(v); return true }
	}
	return keptSpecial(name)
}

// index covers the queues, in the order of their keys. In which bucket they are is chance.
func (f *fingerprint) index(v reflect.Value) {
	var queues []reflect.Value
	segments := v.FieldByName("segments")
	for i := range segments.Len() {
		for j := range segments.Index(i).Len() {
			for l := segments.Index(i).Index(j).FieldByName("head"); !l.IsNil(); l = l.Elem().FieldByName("chain") {
				queues = append(queues, l)
			}
		}
	}
	key := func(l reflect.Value) int64 { return l.Elem().FieldByName("key").Int() }
	slices.SortFunc(queues, func(a, b reflect.Value) int { return cmp.Compare(key(a), key(b)) })
	f.number(uint64(len(queues)))
	for _, l := range queues {
		f.pointer(l)
	}
}

// turn covers how far a reservation's request is ahead of it, and reports whether they
// have nothing to do with each other any more.
func (f *fingerprint) turn(r *acquire[int], generation uint64) bool {
	if r == nil {
		f.number(0)
		return true
	}
	ahead := min(r.generation.Load()-generation, 2)
	f.number(1 + ahead)
	return ahead == 2
}
