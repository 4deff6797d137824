package benchmarks

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
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

// replayed sends the two scripts of a lock, as they were sent for the first, on the goroutine that locks.
var replayed = library{"its two scripts alone", func(t testing.TB, s *redistest.Server, key string) lockFunc {
	r := &recorder{Client: rueidisadapter.New(newClient(t, s))}
	e, err := redislock.New(r, redislock.WithTTL(time.Hour), redislock.WithQuarantine(time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	var g cohort.Grant
	for range 2 { // the first begins the session
		g, err = e.Acquire(t.Context(), key)
		require.NoError(t, err)
		require.NoError(t, g.Release(t.Context()))
	}
	r.mu.Lock()
	enter, leave := r.last[len(r.last)-2], r.last[len(r.last)-1]
	r.mu.Unlock()
	return func(context.Context) (func() error, error) {
		_, _, err := r.Client.Run(context.Background(), enter)
		return func() error { _, _, err := r.Client.Run(context.Background(), leave); return err }, err
	}
}}

// pings are two requests that do nothing.
var pings = library{"two PINGs", func(t testing.TB, s *redistest.Server, _ string) lockFunc {
	client := newClient(t, s)
	ping := func() error { return client.Do(context.Background(), client.B().Ping().Build()).Error() }
	return func(context.Context) (func() error, error) { return ping, ping() }
}}

// Two processes take turns with nothing but a PUBLISH, which each sends when it has received that of the other.
func TestFigureFloorOfTurns(t *testing.T) {
	s := server(t)
	rates := make(map[string][]float64)
	for range *rounds {
		for _, c := range []struct {
			name    string
			scripts int // the requests of a turn
		}{{"PUBLISH", 1}, {"PUBLISH and PING", 2}} {
			ctx, cancel := context.WithCancel(t.Context())
			var turns atomic.Int64
			var clients []rueidis.Client
			for range 2 {
				clients = append(clients, newClient(t, s))
			}
			var all sync.WaitGroup
			for i, client := range clients {
				other := "turn" + string(rune('a'+1-i))
				mine := "turn" + string(rune('a'+i))
				turn := make(chan struct{}, 1)
				all.Go(func() {
					_ = client.Dedicated(func(own rueidis.DedicatedClient) error {
						return own.Receive(ctx, own.B().Subscribe().Channel(mine).Build(), func(rueidis.PubSubMessage) { turn <- struct{}{} })
					})
				})
				all.Go(func() {
					for {
						select {
						case <-turn:
						case <-ctx.Done():
							return
						}
						turns.Add(1)
						assert.NoError(t, client.Do(context.Background(), client.B().Publish().Channel(other).Message("x").Build()).Error())
						if c.scripts == 2 {
							assert.NoError(t, client.Do(context.Background(), client.B().Ping().Build()).Error())
						}
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			require.NoError(t, clients[0].Do(ctx, clients[0].B().Publish().Channel("turna").Message("x").Build()).Error())
			before, began := turns.Load(), time.Now()
			time.Sleep(500 * time.Millisecond)
			rates[c.name] = append(rates[c.name], float64(turns.Load()-before)/time.Since(began).Seconds())
			cancel()
			all.Wait()
		}
	}
	for name, r := range rates {
		t.Logf("%-18s %9.0f turns/s", name, median(r))
	}
}
