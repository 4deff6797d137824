package benchmarks

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// The least that the figures can be: the requests that an engine sends, and nothing of Go around them.

// recorder is a redislock.Client that keeps the last calls.
type recorder struct {
	redislock.Client
	mu   sync.Mutex
	last []redislock.Call
}

func (r *recorder) Run(ctx context.Context, call redislock.Call) ([]string, int, error) {
	r.mu.Lock()
	r.last = append(r.last, call)
	r.mu.Unlock()
	return r.Client.Run(ctx, call)
}

func newClient(t testing.TB, s *redistest.Server) rueidis.Client {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// script is what an engine has sent for its last lock of a key.
type script struct {
	client       redislock.Client
	session      string
	enter, leave redislock.Call
}

func record(t testing.TB, s *redistest.Server, key string) script {
	r := &recorder{Client: rueidisadapter.New(newClient(t, s))}
	e, err := redislock.New(r, redislock.WithTTL(time.Hour), redislock.WithQuarantine(time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	for range 2 { // the first begins the session
		g, err := e.Acquire(t.Context(), key)
		require.NoError(t, err)
		require.NoError(t, g.Release(t.Context()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return script{r.Client, e.Report().Session, r.last[len(r.last)-2], r.last[len(r.last)-1]}
}

func (c script) run(call redislock.Call) ([]string, error) {
	reply, _, err := c.client.Run(context.Background(), call)
	return reply, err
}

// replayed sends the two scripts of a lock again, on the goroutine that locks.
var replayed = library{"its two scripts alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	c := record(t, s, key)
	return func(context.Context) (func() error, error) {
		_, err := c.run(c.enter)
		return func() error { _, err := c.run(c.leave); return err }, err
	}
}}

// turns sends the scripts again, and waits for the notice of the grant where it has to. Nothing repairs a notice that is lost.
var turns = library{"its scripts and notices alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	c := record(t, s, key)
	granted := make(chan struct{}, 1)
	subscribed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		_ = c.client.Subscribe(ctx, "kl:"+c.session, func() { subscribed <- struct{}{} }, func(message string) {
			if strings.HasPrefix(message, "granted") {
				select {
				case granted <- struct{}{}:
				default: // the one before came too late
				}
			}
		})
	}()
	<-subscribed
	return func(ctx context.Context) (func() error, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reply, err := c.run(c.enter)
		if err != nil {
			return nil, err
		}
		if reply[0] == "waits" {
			select {
			case <-granted:
			case <-ctx.Done():
				_, err := c.run(c.leave)
				return nil, errors.Join(ctx.Err(), err)
			}
		}
		return func() error { _, err := c.run(c.leave); return err }, nil
	}
}}

// pings are two requests that do nothing.
var pings = library{"two PINGs", func(t testing.TB, s *redistest.Server, _ string) lockFunc {
	client := newClient(t, s)
	ping := func() error { return client.Do(context.Background(), client.B().Ping().Build()).Error() }
	return func(context.Context) (func() error, error) { return ping, ping() }
}}

// tokens pass a turn on by a PUBLISH to the other process, and nothing else.
var tokens = library{"a PUBLISH for each turn", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	client := newClient(t, s)
	mine, other := key+"/a", key+"/b"
	turn := make(chan struct{}, 1)
	subscribed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	if s.Must(t, "PUBLISH", mine, "") == "0" {
		turn <- struct{}{} // the first process begins
	} else {
		mine, other = other, mine
	}
	go func() {
		ctx := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { subscribed <- struct{}{} })
		_ = client.Dedicated(func(own rueidis.DedicatedClient) error {
			return own.Receive(ctx, own.B().Subscribe().Channel(mine).Build(), func(m rueidis.PubSubMessage) {
				if m.Message != "" {
					turn <- struct{}{}
				}
			})
		})
	}()
	<-subscribed
	return func(ctx context.Context) (func() error, error) {
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return func() error {
			return client.Do(context.Background(), client.B().Publish().Channel(other).Message("turn").Build()).Error()
		}, nil
	}
}}
