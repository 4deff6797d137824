package goredisadapter_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/goredisadapter"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func newEngine(t testing.TB, client redis.UniversalClient, opts ...redislock.Option) *redislock.Engine {
	c, err := goredisadapter.New(client)
	require.NoError(t, err)
	e, err := redislock.New(c, append([]redislock.Option{redislock.WithQuarantine(0), redislock.WithTTL(8 * time.Second)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = e.Close(ctx)
		_ = client.Close()
	})
	return e
}

func newClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: time.Second, DialTimeout: time.Second})
}

func TestConformance(t *testing.T) {
	s := redistest.Start(t)
	networks := make(map[cohort.Engine]*cohorttest.Network)
	cohorttest.Run(t, cohorttest.Harness{
		Within: redistest.Patience,
		Engine: func() (cohort.Engine, error) {
			n := cohorttest.NewNetwork(t, s.Addr())
			e := newEngine(t, newClient(n.Addr))
			networks[e] = n
			return e, nil
		},
		Cut:  func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{Silent: true}); return nil },
		Heal: func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{}); return nil },
	})
	redistest.Eventually(t, "no entry is left", func() bool {
		_, entries := s.Left(t)
		return entries == 0
	})
}

// The client of Sentinel and that of a cluster keep the same promises.
func TestConformanceOfUniversalClients(t *testing.T) {
	master := redistest.Start(t)
	master.Replica(t)
	sentinels := addresses(master.Sentinels(t, "locks", 1))
	nodes := addresses(redistest.Cluster(t))
	for name, options := range map[string]*redis.UniversalOptions{
		"sentinel": {Addrs: sentinels, MasterName: "locks", MaxRetries: -1},
		"cluster":  {Addrs: nodes, MaxRedirects: 3},
	} {
		options.ReadTimeout, options.DialTimeout = time.Second, time.Second
		t.Run(name, func(t *testing.T) {
			cohorttest.Run(t, cohorttest.Harness{Within: redistest.Patience, Engine: func() (cohort.Engine, error) {
				return newEngine(t, redis.NewUniversalClient(options)), nil
			}})
		})
	}
}

func addresses(servers []*redistest.Server) (addrs []string) {
	for _, s := range servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// beginToWait acquires the key that another engine holds, and returns when that waits.
func beginToWait(t *testing.T, s *redistest.Server, e cohort.Engine) <-chan cohort.Grant {
	granted := make(chan cohort.Grant, 1)
	go func() {
		g, err := e.Acquire(t.Context(), "key")
		if assert.NoError(t, err) {
			granted <- g
		}
	}()
	redistest.Eventually(t, "the waiter waits", func() bool {
		_, entries := s.Left(t)
		return entries == 2
	})
	return granted
}

// A waiter hears of its grant, also when its subscription had to be made again.
func TestNotices(t *testing.T) {
	s := redistest.Start(t)
	holder := newEngine(t, newClient(s.Addr()), redislock.WithTTL(20*time.Minute))
	waiter := newEngine(t, newClient(s.Addr()), redislock.WithTTL(20*time.Minute))
	for i := range 3 {
		held, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		granted := beginToWait(t, s, waiter)
		if i > 0 {
			s.AwaitSubscribers(t, 2)
			s.Must(t, "CLIENT", "KILL", "TYPE", "pubsub")
		}
		began := time.Now()
		require.NoError(t, held.Release(t.Context()))
		g := <-granted
		assert.Less(t, time.Since(began), 4*time.Minute, "it would have looked after five")
		require.NoError(t, g.Release(t.Context()))
	}
}

// The connection of a subscription carries nothing any more, as when a NAT forgets it, and neither end is told.
func TestSubscriptionThatDiesSilentlyIsMadeAgain(t *testing.T) {
	s := redistest.Start(t)
	var mu sync.Mutex
	var subscriptions []*hushed
	client := redis.NewClient(&redis.Options{
		Addr: s.Addr(), MaxRetries: -1, ReadTimeout: time.Second,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			c := &hushed{Conn: conn}
			c.subscribes = func() {
				mu.Lock()
				defer mu.Unlock()
				subscriptions = append(subscriptions, c)
			}
			return c, err
		},
	})
	holder := newEngine(t, newClient(s.Addr()), redislock.WithTTL(20*time.Minute))
	waiter := newEngine(t, client, redislock.WithTTL(20*time.Minute))
	held, err := holder.Acquire(t.Context(), "key")
	require.NoError(t, err)
	granted := beginToWait(t, s, waiter)
	s.AwaitSubscribers(t, 2)
	mu.Lock()
	require.NotEmpty(t, subscriptions)
	for _, c := range subscriptions {
		c.silent.Store(true)
	}
	mu.Unlock()
	began := time.Now()
	require.NoError(t, held.Release(t.Context()))
	g := <-granted
	assert.Less(t, time.Since(began), 4*time.Minute, "it would have looked after five")
	require.NoError(t, g.Release(t.Context()))
}

// hushed is a connection that loses all that is said on it from either side once it is silent.
type hushed struct {
	net.Conn
	subscribes func() // is called when it is that of a subscription
	silent     atomic.Bool
}

func (c *hushed) Write(data []byte) (int, error) {
	if bytes.Contains(bytes.ToLower(data), []byte("\nsubscribe\r")) {
		c.subscribes()
	}
	if c.silent.Load() {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func (c *hushed) Read(data []byte) (int, error) {
	for {
		n, err := c.Conn.Read(data)
		if err != nil || !c.silent.Load() {
			return n, err
		}
	}
}

// A slot moves to another master: what was subscribed in it ends, and is heard at the other the next time.
func TestSubscriptionEndsWhenItsSlotMoves(t *testing.T) {
	nodes := redistest.Cluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses(nodes), ReadTimeout: redistest.Patience, ClusterStateReloadInterval: time.Hour})
	defer client.Close()
	adapter, err := goredisadapter.New(client)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const channel = "{kl3}:session"
	begun, heard, ended := make(chan bool, 100), make(chan string, 100), make(chan error)
	subscribe := func() {
		ended <- adapter.Subscribe(ctx, channel, func() { begun <- true }, func(message string) { heard <- message })
	}
	go subscribe()
	<-begun
	var from, to *redistest.Server
	for _, n := range nodes {
		switch {
		case n.Must(t, "PUBSUB", "SHARDCHANNELS") != "":
			from = n
		case strings.Contains(n.Must(t, "INFO", "replication"), "role:master"):
			to = n
		}
	}
	slot, id := to.Must(t, "CLUSTER", "KEYSLOT", channel), to.Must(t, "CLUSTER", "MYID")
	to.Must(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	from.Must(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-begun:
		require.Fail(t, "what has ended was taken for a subscription")
	}
	for again := true; again; {
		go subscribe()
		select {
		case <-begun:
			again = false
		case <-ended: // the client has yet to learn of the other master
		}
	}
	to.Must(t, "SPUBLISH", channel, "message")
	assert.Equal(t, "message", <-heard)
	cancel()
	<-ended
}

// More locks are asked for at once than the connections of the client carry in a TTL. What the process holds it keeps meanwhile.
func TestBurstOfLocksDelaysNoRenewal(t *testing.T) {
	s := redistest.Start(t)
	n := cohorttest.NewNetwork(t, s.Addr())
	client := redis.NewClient(&redis.Options{Addr: n.Addr, MaxRetries: -1, PoolSize: 6, ReadTimeout: redistest.Patience})
	e := newEngine(t, client, redislock.WithTTL(8*time.Second))
	held, err := e.Acquire(t.Context(), "held")
	require.NoError(t, err)
	locktest.OutlastBurst(t, e, held, n, 8*time.Second)
	require.NoError(t, held.Release(t.Context()))
}

func TestReplicasAcknowledge(t *testing.T) {
	master := redistest.Start(t)
	replica := master.Replica(t)
	e := newEngine(t, newClient(master.Addr()), redislock.WithReplicas(1))
	g, err := e.Acquire(t.Context(), "key")
	require.NoError(t, err)
	hash, field, epoch := g.(*redislock.Grant).Guard()
	assert.Equal(t, epoch, replica.Must(t, "HGET", hash, field))
	require.NoError(t, g.Release(t.Context()))
	master.CutReplicas(t)
	for patience := time.Second; ; patience *= 2 { // on a busy machine the reply may not have come by then
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = e.Acquire(ctx, "key")
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if patience > redistest.Patience || strings.Contains(err.Error(), "acknowledged") {
			break
		}
	}
	require.ErrorContains(t, err, "too few replicas acknowledged")
}

func TestClientsThatDoNotFitAreRefused(t *testing.T) {
	repeats := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer repeats.Close()
	_, err := goredisadapter.New(repeats)
	require.ErrorContains(t, err, "MaxRetries")
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, MaxRetries: 2})
	defer cluster.Close()
	_, err = goredisadapter.New(cluster)
	require.ErrorContains(t, err, "MaxRetries")
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	_, err = goredisadapter.New(ring)
	require.ErrorContains(t, err, "Ring")
	for _, absent := range []redis.UniversalClient{nil, (*redis.Client)(nil), (*redis.ClusterClient)(nil)} {
		_, err = goredisadapter.New(absent)
		require.EqualError(t, err, "goredisadapter: nil client")
	}
	few := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, PoolSize: 20, MaxActiveConns: 6})
	defer few.Close()
	_, err = goredisadapter.New(few)
	require.ErrorContains(t, err, "MaxActiveConns")
	fewInCluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, PoolSize: 20, MaxActiveConns: 6})
	defer fewInCluster.Close()
	_, err = goredisadapter.New(fewInCluster)
	require.ErrorContains(t, err, "MaxActiveConns")
	patient := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, ReadTimeout: -1})
	defer patient.Close()
	_, err = goredisadapter.New(patient)
	require.ErrorContains(t, err, "ReadTimeout")
	patientCluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ReadTimeout: -1})
	defer patientCluster.Close()
	_, err = goredisadapter.New(patientCluster)
	require.ErrorContains(t, err, "ReadTimeout")
}

// A service's locks, by the client that it has already.
func ExampleNew() {
	client, err := goredisadapter.New(redis.NewClient(&redis.Options{
		Addr:       "127.0.0.1:6379",
		MaxRetries: -1, // the engine repeats what is worth repeating
	}))
	if err != nil {
		return
	}
	engine, err := redislock.New(client)
	if err != nil {
		return
	}
	locks := cohort.Start(context.Background(), engine)
	defer locks.Close()
}
