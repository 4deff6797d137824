package keylock

import (
	"fmt"
	"math"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// A Want is one key that a request asks for, and on what terms.
type Want[K comparable] struct {
	Key  K
	Mode Mode // one that is neither Exclusive nor Shared panics in the call

	// Limit is for a shared one: it is granted while fewer than so many hold the key. 0 is the
	// limit of WithSharedLimit, if there is one. Requests for one key may have different limits,
	// or none. An exclusive one has no use for it. A negative Limit panics in the call.
	Limit int
}

// wantSet asks for all that is wanted, at once.
func (m *Manager[K]) wantSet(wants []Want[K]) table.Request[K] {
	if len(wants) == 1 {
		return wantOne(wants[0].Key, wants[0].terms())
	}
	set := table.Request[K]{Keys: make([]K, 0, len(wants)), Each: make([]table.Terms, 0, len(wants))}
	seen := make(map[K]int, len(wants))
	for _, w := range wants {
		is := w.terms()
		if i, twice := seen[w.Key]; twice {
			m.mustBeStarted()
			set.Each[i] = stricter(m.limited(set.Each[i]), m.limited(is))
			continue
		}
		seen[w.Key] = len(set.Keys)
		set.Keys, set.Each = append(set.Keys, w.Key), append(set.Each, is)
	}
	if len(set.Keys) == 1 {
		return wantOne(set.Keys[0], set.Each[0])
	}
	return set
}

// wantOne asks for one key.
func wantOne[K comparable](key K, is table.Terms) table.Request[K] {
	return table.Request[K]{Key: key, Mode: is.Mode, Limit: is.Limit}
}

// terms are what the table knows of it.
func (w *Want[K]) terms() table.Terms {
	switch {
	case w.Limit < 0:
		panic(fmt.Sprintf("keylock: Want with the Limit %d: want 0 or more", w.Limit))
	case w.Mode > Shared:
		panic(fmt.Sprintf("keylock: Want with the Mode %d: want Exclusive or Shared", w.Mode))
	case w.Mode != Shared:
		return table.Terms{}
	}
	return table.Terms{Mode: table.Shared, Limit: int32(min(w.Limit, math.MaxInt32))}
}

// limited returns terms with the limit of the manager where they have none.
func (m *Manager[K]) limited(is table.Terms) table.Terms {
	if is.Limit == 0 {
		is.Limit = m.limit
	}
	return is
}

// stricter returns the terms that fulfil both.
func stricter(a, b table.Terms) table.Terms {
	switch {
	case a.Mode == table.Exclusive || b.Mode == table.Exclusive:
		return table.Terms{}
	case a.Limit == 0 || b.Limit > 0 && b.Limit < a.Limit:
		a.Limit = b.Limit
	}
	return a
}
