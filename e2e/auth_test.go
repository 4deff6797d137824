package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// startNodeWithUsers starts etcd with users: root, and one who may use the prefix.
func startNodeWithUsers(t testing.TB, tokenTTL time.Duration) (addr string, admin *clientv3.Client) {
	addr, _ = startChangedNode(t, func(c *embed.Config) {
		if tokenTTL > 0 {
			c.AuthTokenTTL = uint(tokenTTL / time.Second)
		}
	})
	root := dial(t, addr)
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := root.RoleAdd(ctx, "locker"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "locker", "/locks/", "/locks0", clientv3.PermissionType(authpb.READWRITE))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "user", "secret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "user", "locker"); return err },
		func() error { _, err := root.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	} {
		require.NoError(t, step())
	}
	return addr, dialAs(t, "root", addr)
}

func dialAs(t testing.TB, name, addr string, options ...grpc.DialOption) *clientv3.Client {
	return dialWith(t, func(c *clientv3.Config) {
		c.Username, c.Password = name, "secret"
		c.DialTimeout = patience / 2 // checking a password takes a while on a busy machine
		c.DialOptions = options
	}, addr)
}

// Waits outlast the token that etcd gave the client, by far. Others of the same process can begin to wait
// meanwhile, and all get their locks.
func TestWaitsOutlastTheirToken(t *testing.T) {
	t.Parallel() // it waits
	addr, _ := startNodeWithUsers(t, time.Second)
	here, there := newManager(t, dialAs(t, "user", addr), 20*time.Second), newManager(t, dialAs(t, "user", addr), 20*time.Second)
	var held []cohort.Lock
	granted := make(chan error, 5)
	for i := range cap(granted) {
		key := fmt.Sprint("key", i)
		l, err := here.Acquire(t.Context(), key)
		require.NoError(t, err)
		held = append(held, l)
		go func() {
			l, err := there.Acquire(t.Context(), key)
			if err == nil {
				err = l.Release()
			}
			granted <- err
		}()
		time.Sleep(2500 * time.Millisecond)
	}
	assert.Empty(t, granted, "all wait")
	for _, l := range held {
		require.NoError(t, l.Release())
		require.NoError(t, receive(t, granted, "a lock"))
	}
	stats, err := there.Stats(t.Context())
	require.NoError(t, err)
	t.Log("retries:", stats.Engine.Retries)
	assert.Less(t, stats.Engine.Retries, uint64(30), "the waits watch, and do not ask again and again")
}

// For each session etcd checks the password once for the renewals and once for the watches, however often keys are
// held, waited for and given back. What the client does for itself when it connects is not counted.
func TestPasswordIsCheckedTwiceForASession(t *testing.T) {
	t.Parallel() // it waits
	addr, _ := startNodeWithUsers(t, 0)
	admin := dialAs(t, "root", addr)
	const ttl = 30 * time.Second // a busy machine must not open a second stream because the first seems to be silent
	var engines [2]*etcdlock.Engine
	var checked [2]atomic.Int64
	for i := range engines {
		client := dialAs(t, "user", addr, grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if strings.HasSuffix(method, "/Authenticate") {
				checked[i].Add(1)
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}))
		require.Equal(t, int64(1), checked[i].Swap(0), "by the client, which has no session yet")
		engines[i] = newEngine(t, client, ttl)
	}
	for until := time.Now().Add(*chaosTime); time.Now().Before(until); {
		held := acquire(t, engines[0], "key")
		granted := waitInQueue(t, admin, engines[1], "key", 2)
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, receive(t, granted, "the lock").Release(t.Context()))
	}
	for i, e := range engines {
		report := e.Report()
		t.Logf("%d checks in %v, %d retries", checked[i].Load(), *chaosTime, report.Retries)
		assert.Equal(t, uint64(1), report.Sessions)
		// A busy member ends streams; each is opened again.
		assert.LessOrEqual(t, checked[i].Load(), int64(2+report.Retries))
	}
}

// The user's role is withdrawn while a key is held and another is waited for, and given back.
func TestRoleIsWithdrawnForAMoment(t *testing.T) {
	addr, admin := startNodeWithUsers(t, 0)
	e := newEngine(t, dialAs(t, "user", addr), 20*time.Second)
	held := acquire(t, e, "key")
	blocker := acquire(t, newEngine(t, admin, 30*time.Second), "theirs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := make(chan error, 1)
	go func() {
		_, err := e.Acquire(ctx, "theirs")
		waiting <- err
	}()
	awaitQueue(t, admin, e, "theirs", 2)

	_, err := admin.UserRevokeRole(t.Context(), "user", "locker")
	require.NoError(t, err)
	require.ErrorContains(t, held.Release(t.Context()), "permission denied")
	cancel()
	if err := receive(t, waiting, "the wait"); !errors.Is(err, context.Canceled) {
		require.ErrorContains(t, err, "permission denied", "it had entered the queue, and not yet read it")
	}
	_, err = e.Acquire(t.Context(), "fresh")
	require.ErrorContains(t, err, "permission denied")
	_, err = e.TryAcquire(t.Context(), "fresh")
	require.ErrorContains(t, err, "permission denied", "and not that it is held")
	require.NotErrorIs(t, err, cohort.ErrHeld)

	_, err = admin.UserGrantRole(t.Context(), "user", "locker")
	require.NoError(t, err)
	awaitQueue(t, admin, e, "key", 0)
	awaitQueue(t, admin, e, "theirs", 1)
	require.NoError(t, held.Release(t.Context()), "the outcome")
	require.NoError(t, blocker.Release(t.Context()))
	require.NoError(t, acquire(t, e, "key").Release(t.Context()))
}

// Many keys are released at a time, by requests for more than one each. Etcd refuses some of the keys, and no other.
func TestKeyThatMayNotBeRemovedHindersNoOther(t *testing.T) {
	addr, admin := startNodeWithUsers(t, 0)
	permit := func(from, to string) error {
		_, err := admin.RoleGrantPermission(t.Context(), "locker", from, to, clientv3.PermissionType(authpb.READWRITE))
		return err
	}
	_, err := admin.RoleRevokePermission(t.Context(), "locker", "/locks/", "/locks0")
	require.NoError(t, err)
	require.NoError(t, permit("/locks/", "/locks/x"))
	require.NoError(t, permit("/locks/x", "/locks0"))
	e := newEngine(t, dialAs(t, "user", addr), 30*time.Second)
	var grants []*etcdlock.Grant
	for i := range 50 {
		key := fmt.Sprint(i)
		if i%5 == 0 {
			key = "x" + key
		}
		grants = append(grants, acquire(t, e, key))
	}
	_, err = admin.RoleRevokePermission(t.Context(), "locker", "/locks/x", "/locks0")
	require.NoError(t, err)
	var all sync.WaitGroup
	for i, g := range grants {
		all.Go(func() {
			if err := g.Release(t.Context()); i%5 == 0 {
				assert.ErrorContains(t, err, "permission denied")
			} else {
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	assert.Len(t, keysUnder(t, admin, "/locks/"), 10)
	require.NoError(t, permit("/locks/x", "/locks0"))
	awaitNoKeys(t, admin, patience)
	for _, g := range grants {
		assert.NoError(t, g.Release(t.Context()), "the outcome")
	}
}
