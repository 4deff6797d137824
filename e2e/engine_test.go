package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// newEngine returns an engine that is closed when the test ends.
func newEngine(t testing.TB, client *clientv3.Client, ttl time.Duration) *etcdlock.Engine {
	e, err := etcdlock.New(client, etcdlock.WithTTL(ttl))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = e.Close(ctx)
	})
	return e
}

func acquire(t testing.TB, e cohort.Engine, key string) *etcdlock.Grant {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	g, err := e.Acquire(ctx, key)
	require.NoError(t, err)
	return g.(*etcdlock.Grant)
}

// waitInLine starts an Acquire and returns when it is the nth in key's line.
func waitInLine(t testing.TB, client *clientv3.Client, e *etcdlock.Engine, key string, nth int) <-chan cohort.Grant {
	granted := make(chan cohort.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), key)
		if assert.NoError(t, err) {
			granted <- g
		}
	}()
	awaitLine(t, client, e, key, nth)
	return granted
}

// awaitLine waits until the line for key has n contenders, and returns their keys.
func awaitLine(t testing.TB, client *clientv3.Client, e *etcdlock.Engine, key string, n int) (line []string) {
	require.Eventually(t, func() bool {
		line = keysUnder(t, client, e.Name(key)+"/")
		return len(line) == n
	}, patience, 5*time.Millisecond, "the line never had %d contenders", n)
	return line
}

func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	select {
	case v = <-c:
	case <-time.After(patience):
		require.Fail(t, "waited in vain for "+what)
	}
	return v
}

// revoke makes etcd drop the engine's lease behind its back.
func revoke(t testing.TB, client *clientv3.Client, e cohort.Engine) {
	g := acquire(t, e, "which lease is it")
	_, err := client.Revoke(t.Context(), leaseOf(t, g.Key()))
	require.NoError(t, err)
}

func silence(_, _ string) weather { return weather{silent: true} }

func TestConformance(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	networks := make(map[cohort.Engine]*network)
	cohorttest.Run(t, cohorttest.Harness{
		Engine: func() (cohort.Engine, error) {
			n := newNetwork(t)
			e := newEngine(t, dial(t, n.to(t, "n0", node)), 2*time.Second)
			networks[e] = n
			return e, nil
		},
		Revoke: func(e cohort.Engine) error { revoke(t, direct, e); return nil },
		Cut:    func(e cohort.Engine) error { networks[e].set(silence); return nil },
		Heal:   func(e cohort.Engine) error { networks[e].heal(); return nil },
	})
}
