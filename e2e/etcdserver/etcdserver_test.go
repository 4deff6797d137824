package etcdserver

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A member once found its port taken: the system had given it to a connection of the test's
// own, between the look for a free one and the member's start.
func TestFreeAddressIsNoneThatTheSystemGivesAway(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		addr, err := FreeAddress()
		require.NoError(t, err)
		at, err := net.ResolveTCPAddr("tcp", addr)
		require.NoError(t, err)
		assert.Less(t, at.Port, 32768, "systems give away those from 32768 or above")
		assert.False(t, seen[addr], addr)
		seen[addr] = true
	}
}

func TestFreeAddressPassesOverOneThatIsTaken(t *testing.T) {
	addr, err := FreeAddress()
	require.NoError(t, err)
	taken, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	defer taken.Close()
	nextPort.Store(uint32(taken.Addr().(*net.TCPAddr).Port - firstPort - 1)) // it is the next to be tried
	other, err := FreeAddress()
	require.NoError(t, err)
	assert.NotEqual(t, addr, other)
}
