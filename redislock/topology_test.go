package redislock_test

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
)

func dialSentinels(t testing.TB, sentinels []*redistest.Server) rueidis.Client {
	var addrs []string
	for _, s := range sentinels {
		addrs = append(addrs, s.Addr())
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:      addrs,
		Sentinel:         rueidis.SentinelOption{MasterSet: "locks"},
		ConnWriteTimeout: time.Second,
		Dialer:           net.Dialer{Timeout: time.Second, KeepAlive: 500 * time.Millisecond},
		DisableCache:     true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// Sentinel promotes a replica that lags behind after the master was killed: what the first holder
// was granted is forgotten, and still no two believe at once.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	master := redistest.Start(t)
	master.Replica(t)
	master.Replica(t)
	sentinels := master.Sentinels(t, "locks", 2)
	opts := []redislock.Option{redislock.WithTTL(ttl), redislock.WithQuarantine(ttl)}
	first := newEngine(t, dialSentinels(t, sentinels), opts...)
	second := newEngine(t, dialSentinels(t, sentinels), opts...)
	require.NoError(t, acquire(t, first, "another").Release(t.Context()))
	require.NoError(t, acquire(t, second, "another").Release(t.Context()))
	master.CutReplicas(t)
	held := acquire(t, first, "key")
	master.Kill()
	killed := time.Now()
	g := acquire(t, second, "key")
	t.Logf("the second grant came %v after the master was killed", time.Since(killed).Round(time.Millisecond))
	select {
	case <-held.Lost():
	default:
		assert.Fail(t, "two believe that they hold the key")
	}
	assert.Greater(t, g.Epoch(), held.Epoch())
	require.ErrorIs(t, held.Release(t.Context()), cohort.ErrLost)
	require.NoError(t, g.Release(t.Context()))
	again := acquire(t, first, "key")
	assert.Greater(t, again.Epoch(), g.Epoch())
	require.NoError(t, again.Release(t.Context()))
}

// paths are a client's ways to the nodes of a cluster, whichever it finds, each through a network of its own.
type paths struct {
	t       testing.TB
	mu      sync.Mutex
	to      map[string]*cohorttest.Network
	weather cohorttest.Weather
}

func dialThrough(t testing.TB, addrs ...string) (rueidis.Client, *paths) {
	p := &paths{t: t, to: make(map[string]*cohorttest.Network)}
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:      addrs,
		ConnWriteTimeout: 10 * time.Second,
		Dialer:           net.Dialer{Timeout: 10 * time.Second, KeepAlive: 500 * time.Millisecond},
		DialCtxFn: func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", p.network(addr).Addr)
		},
		DisableCache: true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client, p
}

func (p *paths) network(addr string) *cohorttest.Network {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.to[addr]
	if n == nil {
		n = cohorttest.NewNetwork(p.t, addr)
		n.Set(p.weather)
		p.to[addr] = n
	}
	return n
}

func (p *paths) set(w cohorttest.Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	for _, n := range p.to {
		n.Set(w)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Addr())
	}
	t.Run("conformance", func(t *testing.T) {
		paths := make(map[cohort.Engine]*paths)
		cohorttest.Run(t, cohorttest.Harness{
			Within: redistest.Patience,
			Engine: func() (cohort.Engine, error) {
				client, p := dialThrough(t, addrs...)
				e := newEngine(t, client, redislock.WithTTL(8*time.Second))
				paths[e] = p
				return e, nil
			},
			Cut:  func(e cohort.Engine) error { paths[e].set(cohorttest.Weather{Silent: true}); return nil },
			Heal: func(e cohort.Engine) error { paths[e].set(cohorttest.Weather{}); return nil },
		})
	})
	t.Run("notices come in every bucket", func(t *testing.T) {
		holder := newEngine(t, dial(t, addrs...), redislock.WithTTL(20*time.Minute))
		waiter := newEngine(t, dial(t, addrs...), redislock.WithTTL(20*time.Minute))
		began := time.Now()
		heard := make(map[string]bool)
		for i := 0; len(heard) < 64; i++ {
			key := strconv.Itoa(i)
			if heard[hashOf(holder, key)] {
				continue
			}
			heard[hashOf(holder, key)] = true
			held := acquire(t, holder, key)
			granted := make(chan *redislock.Grant, 1)
			go func() {
				if g, err := waiter.Acquire(t.Context(), key); assert.NoError(t, err) {
					granted <- g.(*redislock.Grant)
				}
			}()
			redistest.Eventually(t, "the waiter waits", func() bool {
				queue, err := holder.Inspect(t.Context(), key)
				return err == nil && len(queue) == 2
			})
			require.NoError(t, held.Release(t.Context()))
			require.NoError(t, receive(t, granted, "the grant").Release(t.Context()))
		}
		assert.Less(t, time.Since(began), 4*time.Minute, "they would look after five")
	})
	t.Run("a script of the user is in the same slot", func(t *testing.T) {
		client := dial(t, addrs...)
		e := newEngine(t, client)
		g := acquire(t, e, "key")
		hash, field, epoch := g.Guard()
		script := rueidis.NewLuaScript(`return redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and redis.call('INCR', KEYS[2])`)
		n, err := script.Exec(t.Context(), client, []string{hash, e.Tag("key") + ":data"}, []string{field, epoch}).AsInt64()
		require.NoError(t, err)
		assert.Equal(t, int64(1), n)
		require.NoError(t, g.Release(t.Context()))
	})
	t.Run("a master is killed", func(t *testing.T) {
		const ttl = 2 * time.Second
		opts := []redislock.Option{redislock.WithTTL(ttl), redislock.WithQuarantine(ttl)}
		first, second := newEngine(t, dial(t, addrs...), opts...), newEngine(t, dial(t, addrs...), opts...)
		held := acquire(t, first, "key")
		require.NoError(t, acquire(t, second, "another").Release(t.Context()))
		var master *redistest.Server
		for _, n := range nodes {
			slots := n.Must(t, "CLUSTER", "KEYSLOT", hashOf(first, "key"))
			if keys, err := n.Do("CLUSTER", "COUNTKEYSINSLOT", slots); err == nil && keys != "0" && strings.Contains(n.Must(t, "INFO", "replication"), "role:master") {
				master = n
			}
		}
		require.NotNil(t, master)
		master.Kill()
		killed := time.Now()
		g := acquire(t, second, "key")
		t.Logf("the second grant came %v after the master was killed", time.Since(killed).Round(time.Millisecond))
		select {
		case <-held.Lost():
		default:
			assert.Fail(t, "two believe that they hold the key")
		}
		assert.Greater(t, g.Epoch(), held.Epoch())
		require.NoError(t, g.Release(t.Context()))
	})
}
