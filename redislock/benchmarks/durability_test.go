package benchmarks

import (
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

// What it costs one goroutine alone that the server writes to disk, or that a replica acknowledges.
func TestFigureDurability(t *testing.T) {
	settings := []struct {
		name     string
		server   []string
		replicas int
	}{
		{"no AOF", nil, 0},
		{"appendfsync everysec", []string{"--appendonly", "yes", "--appendfsync", "everysec"}, 0},
		{"appendfsync always", []string{"--appendonly", "yes", "--appendfsync", "always"}, 0},
		{"WithReplicas(1)", nil, 1},
	}
	var locks []lockFunc
	for i, c := range settings {
		s := redistest.Start(t, c.server...)
		if c.replicas > 0 {
			s.Replica(t)
		}
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
		require.NoError(t, err)
		t.Cleanup(client.Close)
		e, err := redislock.New(rueidisadapter.New(client), redislock.WithTTL(ttl), redislock.WithQuarantine(time.Millisecond), redislock.WithReplicas(c.replicas))
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Close(t.Context()) })
		locks = append(locks, using(e, strconv.Itoa(i)))
	}
	costs := make([][]float64, len(settings))
	for n := range 300 * *rounds {
		for i := range settings {
			i = (i + n) % len(settings)
			began := time.Now()
			unlock, err := locks[i](t.Context())
			require.NoError(t, err)
			require.NoError(t, unlock())
			if n > 20 {
				costs[i] = append(costs[i], float64(time.Since(began)))
			}
		}
	}
	base := median(costs[0])
	for i, c := range settings {
		t.Logf("%-22s %8v to lock and unlock, %.2f of no AOF", c.name, time.Duration(median(costs[i])).Round(time.Microsecond), median(costs[i])/base)
	}
}
