package e2e

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// waitInQueue starts an Acquire and returns when it is the nth in key's queue.
func waitInQueue(t testing.TB, client *clientv3.Client, e *etcdlock.Engine, key string, nth int) <-chan cohort.Grant {
	granted := make(chan cohort.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), key)
		if assert.NoError(t, err) {
			granted <- g
		}
	}()
	awaitQueue(t, client, e, key, nth)
	return granted
}

// awaitQueue waits until the queue for key has n contenders, and returns their keys.
func awaitQueue(t testing.TB, client *clientv3.Client, e *etcdlock.Engine, key string, n int) (queue []string) {
	require.Eventually(t, func() bool {
		queue = keysUnder(t, client, e.Name(key)+"/")
		return len(queue) == n
	}, patience, 5*time.Millisecond, "the queue never had %d contenders", n)
	return queue
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

func silence(_, _ string) weather { return weather{Silent: true} }

// gate is what stands between an engine and etcd, and can refuse the next transaction.
type gate struct {
	refuse atomic.Pointer[error]
	late   atomic.Bool // the next transaction is carried out after its sender was told that it failed
}

func (g *gate) option() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/Txn") {
			if err := g.refuse.Swap(nil); err != nil {
				return *err
			}
			if g.late.CompareAndSwap(true, false) {
				time.AfterFunc(300*time.Millisecond, func() {
					_ = invoke(context.WithoutCancel(ctx), method, req, new(pb.TxnResponse), cc)
				})
				return status.Error(codes.Unknown, "no reply")
			}
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
}

func TestConformance(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	networks, gates := make(map[cohort.Engine]*network), make(map[cohort.Engine]*gate)
	cohorttest.Run(t, cohorttest.Harness{
		Engine: func() (cohort.Engine, error) {
			n, g := newNetwork(), new(gate)
			client := dialWith(t, func(c *clientv3.Config) { c.DialOptions = []grpc.DialOption{g.option()} }, n.to(t, "n0", node))
			e := newEngine(t, client, 2*time.Second)
			networks[e], gates[e] = n, g
			return e, nil
		},
		Revoke: func(e cohort.Engine) error { revoke(t, direct, e); return nil },
		Cut:    func(e cohort.Engine) error { networks[e].set(silence); return nil },
		Heal:   func(e cohort.Engine) error { networks[e].heal(); return nil },
		Refuse: func(e cohort.Engine, call cohorttest.Call, forGood bool) error {
			if call == cohorttest.Wait {
				compact(t, direct)
				networks[e].set(func(_, _ string) weather { return weather{Down: true} })
				time.Sleep(100 * time.Millisecond)
				networks[e].heal()
				return nil
			}
			err := status.Error(codes.Unknown, "raft proposal dropped")
			if forGood {
				err = status.Error(codes.PermissionDenied, "a proxy refuses")
			}
			gates[e].refuse.Store(&err)
			return nil
		},
		Delete: func(key string) error {
			for e := range networks {
				_, err := direct.Delete(t.Context(), e.(*etcdlock.Engine).Name(key)+"/", clientv3.WithPrefix())
				return err
			}
			return nil
		},
		Late: func(e cohort.Engine) error { gates[e].late.Store(true); return nil },
	})
}
