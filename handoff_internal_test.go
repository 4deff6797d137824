package keylock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// The context of the next waiter ends, the holder hands off the lock, and the owner
// serves that before it learns that the waiter has left: the value goes to the one behind,
// and where there is none it stays with the holder.
func TestHandoffPassesOverAWaiterWhoHasLeft(t *testing.T) {
	m := &Manager[string]{mailbox: make(chan message[string], 1)}
	m.pool.New = func() any { return &acquire[string]{replied: make(chan bool, 2)} }
	o := &owner[string]{m: m, table: table.New[string](table.Config{})}
	ask := func() *acquire[string] {
		r := m.newAcquire(nil, table.Request[string]{Key: "k"})
		r.serve(o)
		return r
	}
	handOff := func(of table.Token[string], value any) bool {
		r := &handoff[string]{grant: of, value: value, passed: make(chan bool, 1)}
		r.serve(o)
		return <-r.passed
	}

	holder, gone, next := ask(), ask(), ask()
	require.True(t, m.abandonRequest(gone))
	m.leave(gone)
	require.True(t, handOff(holder.token, "state"))
	require.Len(t, next.replied, 1)
	assert.Equal(t, "state", next.value)
	(<-m.mailbox).serve(o)
	assert.True(t, next.token.Live(), "the late withdrawal takes nothing from anybody")

	gone = ask()
	require.True(t, m.abandonRequest(gone))
	m.leave(gone)
	assert.False(t, handOff(next.token, "state"))
	assert.True(t, next.token.Live(), "the holder keeps the lock, and the value")
	(<-m.mailbox).serve(o)
	assert.Equal(t, table.Counts{Keys: 1, Held: 1, Acquired: 2, Waited: 1, Cancelled: 2, Released: 1}, o.table.Counts())
}
