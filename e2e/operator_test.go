package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// A process hangs with a lock. The command shows which, and takes the key away; the process learns of it.
func TestCommandBreaksLockOfHangingProcess(t *testing.T) {
	command := filepath.Join(t.TempDir(), "etcdlocks")
	built, err := exec.Command("go", "build", "-o", command, "github.com/seed-46f81e6d/keylock/etcdlock/cmd/etcdlocks").CombinedOutput()
	require.NoError(t, err, "%s", built)
	addr := startNode(t)
	client := dial(t, addr)
	engine, err := etcdlock.New(client, etcdlock.WithLabel("reports"), etcdlock.WithTTL(2*time.Second))
	require.NoError(t, err)
	locks := cohort.Start(t.Context(), engine)
	defer locks.Close()
	stuck, err := locks.Acquire(t.Context(), "order/42, all")
	require.NoError(t, err)
	run := func(args ...string) string {
		out, err := exec.Command(command, append([]string{"-endpoints", addr}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	assert.Contains(t, run("list"), `"order/42, all"`)
	assert.Contains(t, run("show", "order/42, all"), " reports\n")
	epoch := strconv.FormatUint(stuck.Token().Epoch, 10)
	assert.Contains(t, run("break", "order/42, all", epoch), "is not held with epoch "+epoch+" any more")
	assert.Contains(t, run("show", "order/42, all"), "is free")
	receive(t, stuck.Context().Done(), "the notice")
	require.ErrorIs(t, context.Cause(stuck.Context()), cohort.ErrLost)
	require.ErrorIs(t, stuck.Release(), cohort.ErrLost)
	assert.Error(t, exec.Command(command, "-endpoints", addr, "break", "order/42, all", epoch).Run(), "again, it finds nothing to break")
}

// Listing goes through all queues, each once, whatever is stored beside them.
func TestListOfManyKeys(t *testing.T) {
	client := dial(t, startNode(t))
	engine := func(prefix string) *etcdlock.Engine {
		e, err := etcdlock.New(client, etcdlock.WithPrefix(prefix))
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Close(context.Background()) })
		return e
	}
	e, nested, other := engine("/locks/"), engine("/locks/nested/"), engine("/locks/")
	const keys = 1500
	for i := range keys {
		acquire(t, e, "key/"+strconv.Itoa(i))
	}
	held := acquire(t, e, "busy, key")
	acquire(t, nested, "elsewhere")
	_, err := client.Put(t.Context(), "/locks/no queue", "")
	require.NoError(t, err)
	granted := waitInQueue(t, client, other, "busy, key", 2)
	seen := make(map[string]cohort.Contender)
	require.NoError(t, other.List(t.Context(), func(key string, first cohort.Contender) bool {
		assert.NotContains(t, seen, key)
		seen[key] = first
		return true
	}))
	assert.Len(t, seen, keys+1)
	assert.Equal(t, held.Epoch(), seen["busy, key"].Epoch)
	assert.False(t, seen["busy, key"].Own)
	n := 0
	require.NoError(t, other.List(t.Context(), func(string, cohort.Contender) bool { n++; return n < 10 }))
	assert.Equal(t, 10, n, "it stops when it is told to")
	require.NoError(t, held.Release(t.Context()))
	require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
}
