package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
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

// waitInQueue starts an Acquire and returns when it is the nth in key's queue. The holders before it must have ceased to
// believe in their locks when it is granted.
func waitInQueue(t testing.TB, client *clientv3.Client, e *etcdlock.Engine, key string, nth int, holders ...cohort.Grant) <-chan cohort.Grant {
	granted := make(chan cohort.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), key)
		for _, holder := range holders {
			select {
			case <-holder.Lost():
			default:
				assert.Fail(t, "two believe that they hold the key")
			}
		}
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
	t.Parallel() // it waits
	node := startNode(t)
	direct := dial(t, node)
	networks, gates := make(map[cohort.Engine]*network), make(map[cohort.Engine]*gate)
	cohorttest.Run(t, cohorttest.Harness{
		Within: patience,
		Engine: func() (cohort.Engine, error) {
			n, g := newNetwork(), new(gate)
			client := dialWith(t, func(c *clientv3.Config) { c.DialOptions = []grpc.DialOption{g.option()} }, n.to(t, "n0", node))
			e := newEngine(t, client, 8*time.Second) // which is not lost because the machine is busy
			networks[e], gates[e] = n, g
			return e, nil
		},
		Revoke: func(e cohort.Engine) error { revoke(t, direct, e); return nil },
		Cut:    func(e cohort.Engine) error { networks[e].set(silence); return nil },
		Heal:   func(e cohort.Engine) error { networks[e].heal(); return nil },
		Refuse: func(e cohort.Engine, call cohorttest.Call, forGood bool) error {
			if call == cohorttest.Wait {
				compact(t, direct)
				require.Eventually(t, func() bool { return networks[e].connections() > 0 }, patience, time.Millisecond)
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
	for _, g := range gates {
		assert.Nil(t, g.refuse.Load(), "what was to be refused was never asked")
		assert.False(t, g.late.Load(), "nor what was to be late")
	}
}

// Users of concurrency.Mutex and of an Engine wait in the same queue, in the order in which they came.
func TestStockMutexAndEngineExcludeEachOther(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 30*time.Second)
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	require.NoError(t, err)
	defer session.Close()
	stock := concurrency.NewMutex(session, e.Name("hot/key"))

	t.Run("ours waits for theirs", func(t *testing.T) {
		require.NoError(t, stock.Lock(t.Context()))
		granted := waitInQueue(t, client, e, "hot/key", 2)
		assert.Empty(t, granted)
		require.NoError(t, stock.Unlock(t.Context()))
		require.NoError(t, receive(t, granted, "our lock").Release(t.Context()))
	})
	t.Run("theirs waits for ours", func(t *testing.T) {
		ours := acquire(t, e, "hot/key")
		require.ErrorIs(t, stock.TryLock(t.Context()), concurrency.ErrLocked)
		locked := make(chan error, 1)
		go func() { locked <- stock.Lock(t.Context()) }()
		awaitQueue(t, client, e, "hot/key", 2)
		assert.Empty(t, locked)
		require.NoError(t, ours.Release(t.Context()))
		require.NoError(t, receive(t, locked, "their lock"))
		require.NoError(t, stock.Unlock(t.Context()))
	})
	t.Run("both in a hurry", func(t *testing.T) {
		var inside, overlaps, shared int
		var all sync.WaitGroup
		work := func(lock, unlock func() error) {
			for range 40 {
				if !assert.NoError(t, lock()) {
					return
				}
				inside++
				if inside > 1 {
					overlaps++
				}
				shared++ // the race detector watches too
				inside--
				if !assert.NoError(t, unlock()) {
					return
				}
			}
		}
		for range 2 {
			engine := newEngine(t, client, 30*time.Second)
			all.Go(func() {
				var unlock func() error
				work(func() error {
					g, err := engine.Acquire(t.Context(), "hot/key")
					unlock = func() error { return g.Release(t.Context()) }
					return err
				}, func() error { return unlock() })
			})
			session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
			require.NoError(t, err)
			mutex := concurrency.NewMutex(session, engine.Name("hot/key"))
			all.Go(func() {
				defer session.Close()
				work(func() error { return mutex.Lock(t.Context()) }, func() error { return mutex.Unlock(t.Context()) })
			})
		}
		all.Wait()
		assert.Zero(t, overlaps)
		assert.Equal(t, 160, shared)
	})
}

// A process hangs with a lock. The command shows which, and takes the key away; the process learns of it.
func TestCommandBreaksLockOfHangingProcess(t *testing.T) {
	command := filepath.Join(t.TempDir(), "etcdlocks")
	built, err := exec.Command("go", "build", "-o", command, "github.com/seed-46f81e6d/keylock/etcdlock/cmd/etcdlocks").CombinedOutput()
	require.NoError(t, err, "%s", built)
	addr := startNode(t)
	client := dial(t, addr)
	engine, err := etcdlock.New(client, etcdlock.WithLabel("reports"), etcdlock.WithTTL(20*time.Second))
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
	assert.Contains(t, run("break", "order/42, all", epoch), "was held with epoch "+epoch+", and is not any more")
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
