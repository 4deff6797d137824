package cohort

import (
	"context"
	"sync/atomic"
)

// transit lists the tenures that are between two local holders.
//
// A local hand-over can miss: the waiter that it was for gives up at the same moment, and
// the local lock goes to another, or becomes free, without what came with it. Whoever
// then gets the local lock finds the tenure here, and whoever gave up looks whether it was
// left behind. Only who holds a key's local lock changes its entry.
type transit struct {
	changes chan func(map[string]*tenure) // carried out in order by keep, which owns the list
	entered atomic.Int64                  // entries, including those on their way
	closed  context.Context
}

func newTransit(closed context.Context) *transit {
	return &transit{changes: make(chan func(map[string]*tenure), 64), closed: closed}
}

// keep owns the list until it is closed.
func (tr *transit) keep() {
	list := make(map[string]*tenure)
	for {
		select {
		case change := <-tr.changes:
			change(list)
		case <-tr.closed.Done():
			return
		}
	}
}

// enter adds the tenure; it is in the list for everybody who is told of it afterwards.
func (tr *transit) enter(key string, t *tenure) {
	tr.entered.Add(1)
	tr.send(func(list map[string]*tenure) { list[key] = t })
}

// remove takes an entry out.
func (tr *transit) remove(key string) {
	tr.send(func(list map[string]*tenure) {
		delete(list, key)
		tr.entered.Add(-1)
	})
}

// take takes an entry out and returns it, nil if there is none.
func (tr *transit) take(key string) *tenure {
	t := tr.look(key)
	if t != nil {
		tr.remove(key)
	}
	return t
}

// has reports whether there is an entry.
func (tr *transit) has(key string) bool {
	return tr.look(key) != nil
}

func (tr *transit) look(key string) *tenure {
	if tr.entered.Load() == 0 {
		return nil
	}
	found := make(chan *tenure, 1)
	tr.send(func(list map[string]*tenure) { found <- list[key] })
	select {
	case t := <-found:
		return t
	case <-tr.closed.Done():
		return nil
	}
}

func (tr *transit) send(change func(map[string]*tenure)) {
	select {
	case tr.changes <- change:
	case <-tr.closed.Done():
	}
}
