package etcdlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// enteringGrant returns a grant whose entry etcd has not confirmed yet, and what confirms it.
func enteringGrant(t *testing.T) (g *Grant, enter func(revision int64)) {
	g = pausedGrant(t)
	p := g.entry.engine.newEntry(g.entry.session, "another key")
	return newGrant(p, g.turn), func(revision int64) {
		p.revision = revision
		close(p.entered)
		p.heedNotes()
	}
}

// calls has OnWanted count in the result.
func calls(g *Grant) *int {
	n := new(int)
	g.OnWanted(func() { *n++ })
	return n
}

func (s *session) deliver(n neighbour) { s.read(&mvccpb.KeyValue{Value: []byte(n.note())}) }

func TestNoteIsForOneEntry(t *testing.T) {
	g, enter := enteringGrant(t)
	p := g.entry
	enter(7)
	wanted := calls(g)
	for _, other := range []neighbour{{key: p.key, revision: 6}, {key: p.key + "0", revision: 7}, {}} {
		p.session.deliver(other)
		require.Zero(t, *wanted, "%+v", other)
	}
	for range 2 {
		p.session.deliver(neighbour{key: p.key, revision: 7})
		assert.Equal(t, 1, *wanted)
	}
}

// A note can come before the reply that has the entry's revision, and before OnWanted is called.
func TestNoteThatComesEarly(t *testing.T) {
	g, enter := enteringGrant(t)
	g.entry.session.deliver(neighbour{key: g.entry.key, revision: 7})
	enter(7)
	assert.Equal(t, 1, *calls(g))

	g, enter = enteringGrant(t)
	wanted := calls(g)
	g.entry.session.deliver(neighbour{key: g.entry.key, revision: 7})
	assert.Zero(t, *wanted, "it may be for an earlier entry")
	enter(7)
	assert.Equal(t, 1, *wanted)

	g, enter = enteringGrant(t)
	wanted = calls(g)
	g.entry.session.deliver(neighbour{key: g.entry.key, revision: 7})
	enter(8)
	assert.Zero(t, *wanted, "it was for an earlier entry")
}

func TestWhatCannotBeHeardOrIsLostCountsAsWanted(t *testing.T) {
	g, enter := enteringGrant(t)
	enter(7)
	wanted := calls(g)
	g.entry.session.opened() // although the watch has not begun
	assert.Equal(t, 1, *wanted)
	later, _ := enteringGrant(t)
	later.entry.session.deafen()
	assert.Equal(t, 1, *calls(later))

	g, enter = enteringGrant(t)
	enter(7)
	wanted = calls(g)
	g.entry.lose()
	assert.Equal(t, 1, *wanted)
	assert.Equal(t, 1, *calls(g), "a second function is called at once")
}
