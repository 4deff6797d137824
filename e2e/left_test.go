package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// Whatever etcd replies, and whenever, no key is left on a lease that lives on.

var leaderMoves = flag.Int("moves", 30, "how often leadership is moved under load")

// awaitNoKeys waits until no key is left, while the engines and their leases live.
func awaitNoKeys(t testing.TB, client *clientv3.Client, within time.Duration) {
	t.Helper()
	var left []string
	require.Eventually(t, func() bool {
		left = keysUnder(t, client, "/locks/")
		return len(left) == 0
	}, within, 20*time.Millisecond, "left behind: %v", stringer(func() string { return fmt.Sprint(left) }))
}

// stringer makes a text when it is printed.
type stringer func() string

func (s stringer) String() string { return s() }

// Leadership is moved as an operator does it, or any member that is stopped in good order. No lock fails, and none stays.
func TestLeaderMovesUnderLoad(t *testing.T) {
	c := startCluster(t)
	admin := dial(t, c.endpoints()...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var locks atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		e := newEngine(t, dial(t, c.endpoints()...), 20*time.Second)
		lock := func(key string) error {
			g, err := e.Acquire(t.Context(), key)
			if err != nil {
				return err
			}
			return g.Release(t.Context())
		}
		if i%3 == 0 { // with claims that are kept, and given back by the manager
			m := cohort.Start(context.Background(), e, cohort.WithKeep(time.Second, 8), cohort.WithEngineTimeout(patience))
			defer m.Close()
			lock = func(key string) error {
				l, err := m.Acquire(t.Context(), key)
				return errors.Join(err, l.Release())
			}
		}
		for k := range 8 {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					assert.NoError(t, lock(fmt.Sprintf("%d-%d-%d", i, k, n)))
					locks.Add(1)
				}
			})
		}
	}
	moved := 0
	for until := time.Now().Add(patience); moved < *leaderMoves && time.Now().Before(until); {
		leader := c.leader(t)
		if err := c.moveLeader(t, leader, (leader+1)%3); err == nil {
			moved++
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	all.Wait()
	t.Logf("%d locks, %d moves", locks.Load(), moved)
	assert.Equal(t, *leaderMoves, moved)
	assert.Greater(t, locks.Load(), int64(moved))
	awaitNoKeys(t, admin, patience)
}

func (c *cluster) moveLeader(t testing.TB, from, to int) error {
	client := dial(t, c.configs[from].Client)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	next, err := client.Status(ctx, c.configs[to].Client)
	if err != nil {
		return err
	}
	_, err = client.MoveLeader(ctx, next.Header.MemberId)
	return err
}

// A member is stopped with requests in its sockets, whose senders abandon them. When it goes on, it
// carries them out, on a lease that has lived on through the other members.
func TestMemberIsStoppedForLong(t *testing.T) {
	t.Parallel() // it waits
	c := startCluster(t)
	admin := dial(t, c.endpoints()...)
	e := newEngine(t, dial(t, c.endpoints()...), 12*time.Second)
	for i := range 30 { // until connections to all members are warm
		require.NoError(t, acquire(t, e, fmt.Sprint("warm", i)).Release(t.Context()))
	}
	victim := (c.leader(t) + 1) % 3
	c.nodes[victim].signal(syscall.SIGSTOP)
	var all sync.WaitGroup
	var failed atomic.Int64
	for i := range 60 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer cancel()
			g, err := e.Acquire(ctx, fmt.Sprint("key", i))
			if err != nil {
				failed.Add(1)
				return
			}
			assert.NoError(t, g.Release(t.Context()))
		})
	}
	all.Wait()
	time.Sleep(26 * time.Second)
	c.nodes[victim].signal(syscall.SIGCONT)
	time.Sleep(2 * time.Second) // for what it had received
	awaitNoKeys(t, admin, patience)
	t.Logf("%d of 60 were abandoned, %d orphans were found", failed.Load(), e.Report().Orphans)
	assert.Greater(t, failed.Load(), int64(10))
	require.NoError(t, acquire(t, e, "key0").Release(t.Context()), "and the lease has lived on")
	assert.Equal(t, uint64(1), e.Report().Sessions)
}

// A request to enter a queue is carried out after its sender has given it up, and after everything that the
// sender did to take it back: the audit finds its key.
func TestRequestThatIsCarriedOutLaterIsFoundByTheAudit(t *testing.T) {
	client := dial(t, startNode(t))
	e := newEngine(t, client, 8*time.Second)
	kept := acquire(t, e, "kept")
	orphan := e.Name("key") + "/" + fmt.Sprintf("%x", leaseOf(t, kept.Key()))
	_, err := client.Put(t.Context(), orphan, "41 0 late", clientv3.WithLease(leaseOf(t, kept.Key())))
	require.NoError(t, err)
	began := time.Now()
	other := newEngine(t, client, 8*time.Second)
	require.NoError(t, acquire(t, other, "key").Release(t.Context()))
	t.Log("found after", time.Since(began))
	require.NoError(t, kept.Release(t.Context()), "what is claimed is left alone")
	assert.Equal(t, uint64(1), e.Report().Orphans)
}

// A few requests to remove a key are refused, by etcd or by something between.
func TestReleaseThatIsRefusedIsRepeated(t *testing.T) {
	for _, code := range []codes.Code{codes.Unknown, codes.ResourceExhausted, codes.DataLoss, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument} {
		t.Run(code.String(), func(t *testing.T) {
			node := startNode(t)
			var armed atomic.Int32 // how many requests are still refused
			client := dialWith(t, func(c *clientv3.Config) {
				c.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					if strings.HasSuffix(method, "/Txn") && armed.Add(-1) >= 0 {
						return status.Error(code, "a proxy refuses")
					}
					return invoke(ctx, method, req, reply, cc, opts...)
				})}
			}, node)
			direct := dial(t, node)
			e := newEngine(t, client, 20*time.Second)
			held := acquire(t, e, "key")
			armed.Store(3)
			t.Log("release:", held.Release(t.Context()))
			awaitNoKeys(t, direct, patience)
			require.NoError(t, held.Release(t.Context()), "the outcome")

			blocker := acquire(t, newEngine(t, direct, 20*time.Second), "key")
			ctx, cancel := context.WithCancel(t.Context())
			given := make(chan error, 1)
			go func() {
				_, err := e.Acquire(ctx, "key")
				given <- err
			}()
			awaitQueue(t, direct, e, "key", 2)
			armed.Store(3)
			cancel()
			require.ErrorIs(t, receive(t, given, "the wait"), context.Canceled)
			awaitQueue(t, direct, e, "key", 1)
			require.NoError(t, blocker.Release(t.Context()))
		})
	}
}

// etcd refuses everything while its alarm is raised.
func TestAlarmDuringARelease(t *testing.T) {
	node, server := startChangedNode(t, nil)
	client := dial(t, node)
	e := newEngine(t, client, 20*time.Second)
	held := acquire(t, e, "key")
	alarm := pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(server.Server.MemberID()), Alarm: pb.AlarmType_CORRUPT}
	_, err := server.Server.Alarm(t.Context(), &alarm)
	require.NoError(t, err)
	for patient := 300 * time.Millisecond; ; patient *= 2 { // on a busy machine etcd may not have replied by then
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		err := held.Release(ctx)
		if strings.Contains(err.Error(), "corrupt") || patient > patience {
			require.ErrorContains(t, err, "corrupt")
			_, err = e.Acquire(ctx, "other")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
	}
	alarm.Action = pb.AlarmRequest_DEACTIVATE
	_, err = server.Server.Alarm(t.Context(), &alarm)
	require.NoError(t, err)
	awaitNoKeys(t, client, patience)
	require.NoError(t, acquire(t, e, "key").Release(t.Context()))
}

// etcd never lets a key be removed: then the lease is given up, and with it the key.
func TestReleaseThatIsAlwaysRefusedGivesUpTheLease(t *testing.T) {
	t.Parallel() // it waits
	node := startNode(t)
	var armed atomic.Bool
	client := dialWith(t, func(c *clientv3.Config) {
		c.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if armed.Load() && (strings.HasSuffix(method, "/Txn") || strings.HasSuffix(method, "/LeaseRevoke")) {
				return status.Error(codes.PermissionDenied, "a proxy refuses")
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		})}
	}, node)
	e := newEngine(t, client, 4*time.Second)
	held, other := acquire(t, e, "key"), acquire(t, e, "other")
	armed.Store(true)
	began := time.Now()
	require.ErrorContains(t, held.Release(t.Context()), "refuses")
	select {
	case <-other.Lost():
		assert.Fail(t, "it is not waited for what does not pass")
	default:
	}
	awaitNoKeys(t, dial(t, node), patience)
	t.Log("gone after", time.Since(began))
	receive(t, other.Lost(), "the loss of the other key")
	require.Error(t, held.Release(t.Context()))
}

// A grant of a lease is carried out and its reply is lost: Close knows the lease's ID and revokes it.
func TestCloseRevokesALeaseWhoseGrantGotNoReply(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	n := newNetwork()
	client := dial(t, n.to(t, "n0", node))
	_, err := client.Get(t.Context(), "connected")
	require.NoError(t, err)
	e, err := etcdlock.New(client, etcdlock.WithTTL(30*time.Second))
	require.NoError(t, err)
	n.set(func(_, _ string) weather { return weather{NoReplies: true} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	acquired := make(chan error, 1)
	go func() {
		_, err := e.Acquire(ctx, "key")
		acquired <- err
	}()
	leases := func() int {
		resp, err := direct.Leases(t.Context())
		require.NoError(t, err)
		return len(resp.Leases)
	}
	require.Eventually(t, func() bool { return leases() == 1 }, patience, 5*time.Millisecond, "the grant was carried out")
	cancel()
	require.Error(t, receive(t, acquired, "Acquire"))
	n.heal()
	require.NoError(t, e.Close(t.Context()))
	assert.Zero(t, leases(), "Close returned nil")
}

// A grant is carried out, its reply is lost, and no other is tried: Close revokes the lease all the same.
func TestCloseRevokesALeaseThatMayHaveBeenGranted(t *testing.T) {
	node := startNode(t)
	direct := dial(t, node)
	var grants atomic.Int32
	client := dialWith(t, func(c *clientv3.Config) {
		c.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if !strings.HasSuffix(method, "/LeaseGrant") {
				return invoke(ctx, method, req, reply, cc, opts...)
			}
			if grants.Add(1) == 1 {
				_ = invoke(ctx, method, req, reply, cc, opts...)
				return status.Error(codes.Unknown, "the reply is lost")
			}
			return status.Error(codes.PermissionDenied, "a proxy refuses")
		})}
	}, node)
	e, err := etcdlock.New(client, etcdlock.WithTTL(30*time.Second))
	require.NoError(t, err)
	_, err = e.Acquire(t.Context(), "key")
	require.ErrorContains(t, err, "refuses")
	leases, err := direct.Leases(t.Context())
	require.NoError(t, err)
	require.Len(t, leases.Leases, 1, "the fault that this test is about")
	require.NoError(t, e.Close(t.Context()))
	leases, err = direct.Leases(t.Context())
	require.NoError(t, err)
	assert.Empty(t, leases.Leases, "Close returned nil")
}
