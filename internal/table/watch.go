package table

// watches are grants whose holders want to hear when a request has to wait for one of their
// keys. They are kept apart from tickets and queues, so that they cost nothing where there
// are none.
type watches[K comparable] struct {
	tags map[*Ticket[K]]any
	at   map[*queue[K]]map[*Ticket[K]]struct{} // the same, by the queues of their keys
	over []any                                 // tags of those that have ended, see Over
	keys int                                   // of all these grants
	most int                                   // that there were since the maps were made
}

// fewWatched are so many keys that their watches may be copied at once.
const fewWatched = 1024

// Watch watches a live grant that no request waits for, until one has to wait for one of its
// keys, or the grant ends: then Over returns the tag. It returns the tag with which the grant
// is watched, which is that of the first Watch; nil when there is nothing to watch, because the
// grant has ended or a request waits for it.
func (t *Table[K]) Watch(token Token[K], tag any) any {
	if t.keeper != nil {
		t.CallIn(token.ticket)
	}
	if !token.Live() {
		return nil
	}
	k := token.ticket
	w := &t.watches
	if first, watched := w.tags[k]; watched {
		return first
	}
	entries := k.entries()
	for i := range entries {
		if q := entries[i].queue; q.blocked != nil && !t.postponed.has(q) {
			return nil
		}
	}
	if w.tags == nil {
		w.empty()
	}
	w.add(k, tag)
	t.worked += uint64(len(entries))
	return tag
}

// add adds a ticket with its tag.
func (w *watches[K]) add(k *Ticket[K], tag any) {
	w.tags[k] = tag
	entries := k.entries()
	w.keys += len(entries)
	w.most = max(w.most, w.keys)
	for i := range entries {
		q := entries[i].queue
		if w.at[q] == nil {
			w.at[q] = make(map[*Ticket[K]]struct{})
		}
		w.at[q][k] = struct{}{}
	}
}

// Over returns the tags of the watches that have ended since it was last called.
func (t *Table[K]) Over() []any {
	over := t.watches.over
	t.watches.over = nil
	return over
}

// Unwatch ends all watches.
func (t *Table[K]) Unwatch() {
	for k := range t.watches.tags {
		t.watches.end(k)
	}
}

// want ends the watches of those who hold a key for which a request has to wait now.
func (t *Table[K]) want(q *queue[K]) {
	at := t.watches.at[q]
	t.worked += uint64(len(at))
	for k := range at {
		t.watches.end(k)
	}
}

// end ends the watch of a ticket, if there is one.
func (w *watches[K]) end(k *Ticket[K]) {
	tag, watched := w.tags[k]
	if !watched {
		return
	}
	w.over = append(w.over, tag)
	delete(w.tags, k)
	entries := k.entries()
	for i := range entries {
		q := entries[i].queue
		if delete(w.at[q], k); len(w.at[q]) == 0 {
			delete(w.at, q)
		}
	}
	w.keys -= len(entries)
	switch { // maps do not shrink
	case len(w.tags) == 0:
		w.tags, w.at, w.most = nil, nil, 0
	case w.keys <= fewWatched && w.most > 8*fewWatched:
		tags := w.tags
		w.empty()
		for k, tag := range tags {
			w.add(k, tag)
		}
	}
}

// empty makes the maps anew.
func (w *watches[K]) empty() {
	w.tags, w.at, w.most = make(map[*Ticket[K]]any), make(map[*queue[K]]map[*Ticket[K]]struct{}), 0
	w.keys = 0
}
