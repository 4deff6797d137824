package redislock_test

import (
	"cmp"
	"context"
	"flag"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// The test binary is also the worker processes of the chaos test.
func TestMain(m *testing.M) {
	if addrs := os.Getenv(workerVariable); addrs != "" {
		if err := workerMain(addrs); err != nil {
			os.Stderr.WriteString("worker: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// dial returns a client that is closed when the test ends.
func dial(t testing.TB, addrs ...string) rueidis.Client {
	return newClient(t, rueidis.ClientOption{InitAddress: addrs})
}

// dialOnce is dial for a network that will withhold replies. A client has several connections, and makes each when a
// request is the first to use it: that request would not be sent, because a new connection waits for a reply first. Nor would
// one be sent aside while a PING, which is sent as often as KeepAlive says, waits for its reply.
func dialOnce(t testing.TB, addr string) rueidis.Client {
	return newClient(t, rueidis.ClientOption{
		InitAddress: []string{addr}, PipelineMultiplex: -1, Dialer: net.Dialer{KeepAlive: redistest.Patience},
	})
}

// newClient gives a server 10 s to reply, which a busy machine can need, unless the option says otherwise.
func newClient(t testing.TB, option rueidis.ClientOption) rueidis.Client {
	option.ConnWriteTimeout = cmp.Or(option.ConnWriteTimeout, 10*time.Second)
	option.Dialer.Timeout = 10 * time.Second
	option.Dialer.KeepAlive = cmp.Or(option.Dialer.KeepAlive, 500*time.Millisecond)
	option.DisableCache = true
	option.ForceSingleClient = len(option.InitAddress) == 1
	client, err := rueidis.NewClient(option)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// newEngine returns an engine that is closed when the test ends. It has no quarantine, unless opts say otherwise.
func newEngine(t testing.TB, client rueidis.Client, opts ...redislock.Option) *redislock.Engine {
	e, err := redislock.New(rueidisadapter.New(client), append([]redislock.Option{redislock.WithQuarantine(0)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { closeEngine(e) })
	return e
}

func closeEngine(e cohort.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = e.Close(ctx)
}

func acquire(t testing.TB, e cohort.Engine, key string) *redislock.Grant {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), redistest.Patience)
	defer cancel()
	g, err := e.Acquire(ctx, key)
	require.NoError(t, err)
	return g.(*redislock.Grant)
}

// newPatientEngine returns an engine that gives up no request, however busy the machine is.
func newPatientEngine(t testing.TB, s *redistest.Server) *redislock.Engine {
	client := newClient(t, rueidis.ClientOption{InitAddress: []string{s.Addr()}, ConnWriteTimeout: redistest.Patience})
	return newEngine(t, client, redislock.WithTTL(4*redistest.Patience))
}

func receive[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(redistest.Patience):
		require.Fail(t, "waited in vain for "+what)
	}
	return v
}

// listen returns the notices for a session, once its subscription has begun.
func listen(t testing.TB, store lease.Store, session lease.Session) <-chan lease.Notice {
	t.Helper()
	notices := make(chan lease.Notice, 10)
	go func() { _ = store.Listen(t.Context(), session, func(n lease.Notice) { notices <- n }) }()
	require.Equal(t, lease.Notice{Kind: lease.Look}, receive(t, notices, "the subscription"))
	return notices
}

// revoke makes the server drop the engine's session behind its back, with its entries.
func revoke(t testing.TB, s *redistest.Server, e cohort.Engine) {
	g := acquire(t, e, "which session is it")
	s.Must(t, "EVAL", `
		for _, name in ipairs(redis.call('KEYS', '{kl*}:sessions')) do
			redis.call('ZREM', name, ARGV[1])
		end
		for _, name in ipairs(redis.call('KEYS', '{kl*}:locks')) do
			local all = redis.call('HGETALL', name)
			for i = 1, #all, 2 do
				if string.sub(all[i], 1, 2) == 'q:' then
					local kept = string.gsub(all[i + 1], ARGV[1] .. ':%d+w? ?', '')
					if kept == '' then
						redis.call('HDEL', name, all[i], 'g:' .. string.sub(all[i], 3), 'w:' .. string.sub(all[i], 3))
					elseif kept ~= all[i + 1] then
						redis.call('HSET', name, all[i], kept)
					end
				end
			end
		end
		return 'OK'`, "0", g.Entry().Session.ID)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	networks := make(map[cohort.Engine]*cohorttest.Network)
	cohorttest.Run(t, cohorttest.Harness{
		Within: redistest.Patience,
		Engine: func() (cohort.Engine, error) {
			n := cohorttest.NewNetwork(t, s.Addr())
			e := newEngine(t, dial(t, n.Addr), redislock.WithTTL(8*time.Second)) // which is not lost because the machine is busy
			networks[e] = n
			return e, nil
		},
		Revoke: func(e cohort.Engine) error { revoke(t, s, e); return nil },
		Cut:    func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{Silent: true}); return nil },
		Heal:   func(e cohort.Engine) error { networks[e].Set(cohorttest.Weather{}); return nil },
	})
	assert.Eventually(t, func() bool {
		_, entries := s.Left(t)
		return entries == 0
	}, redistest.Patience, 20*time.Millisecond, "entries are left behind")
}

// Two processes take turns on a key, so that most notices of a grant overtake the reply to the entry that waits for it:
// nothing of the entries stays in sessions that live on.
func TestTurnsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	// A request that is given up and sent again leaves a note behind, so they get all the time that they need.
	engines := []*redislock.Engine{newPatientEngine(t, s), newPatientEngine(t, s)}
	var both sync.WaitGroup
	for _, e := range engines {
		both.Go(func() {
			for range 300 {
				g, err := e.Acquire(t.Context(), "key")
				if !assert.NoError(t, err) {
					return
				}
				assert.NoError(t, g.Release(t.Context()))
			}
		})
	}
	both.Wait()
	assert.NotContains(t, s.Must(t, "HGETALL", hashOf(engines[0], "key")), "x:")
}
