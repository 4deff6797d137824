package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Processes increment a counter under a lock, while processes and members are
// killed, stopped, cut off and started again. No increment may be lost or doubled, tokens grow,
// all get on in the end, and nothing is left behind.

// Of four, two keep claims.

func TestChaosTwoProcesses(t *testing.T)  { chaos(t, 2, 0) }
func TestChaosFourProcesses(t *testing.T) { chaos(t, 4, 2) }

func chaos(t *testing.T, processes, keepers int) {
	t.Parallel() // other processes do the work
	c := startCluster(t)
	client := dial(t, c.endpoints()...)
	seed := rand.Uint64()
	t.Log("seed", seed)
	until := time.Now().Add(*chaosTime)

	start := func(i int) *process { return startWorker(t, "worker", i < keepers, c.endpoints()...) }
	workers := make([]*process, processes)
	var past []*process // killed
	for i := range workers {
		workers[i] = start(i)
	}
	var members sync.WaitGroup
	members.Go(func() { troubleMembers(t, c, rand.New(rand.NewPCG(seed, 1)), until) })
	random := rand.New(rand.NewPCG(seed, 2))
	for time.Now().Before(until) {
		time.Sleep(time.Duration(500+random.IntN(1500)) * time.Millisecond)
		i := random.IntN(processes)
		switch random.IntN(2) {
		case 0:
			workers[i].kill()
			past = append(past, workers[i])
			workers[i] = start(i)
		case 1:
			workers[i].signal(syscall.SIGSTOP)
			time.Sleep(workerTTL + time.Duration(1000+random.IntN(1000))*time.Millisecond) // others have its lock by then
			workers[i].signal(syscall.SIGCONT)
		}
	}
	members.Wait()

	for i, w := range workers { // all get on, now that the world is whole
		soFar := len(increments(w))
		require.Eventually(t, func() bool { return len(increments(w)) > soFar+10 }, patience, 20*time.Millisecond,
			"worker %d does not get on; it printed %q", i, w.output())
	}
	for _, w := range workers {
		w.terminate(t)
	}
	require.Eventually(t, func() bool {
		leases, err := client.Leases(t.Context())
		return err == nil && len(leases.Leases) == 0
	}, patience, 100*time.Millisecond, "a lease is left behind")
	assert.Empty(t, keysUnder(t, client, "/locks/"), "a key is left behind")

	verify(t, client.Ctx(), counter{client: client, name: "/counter"}, append(past, workers...))
}

// troubleMembers does something to one member of the cluster at a time.
func troubleMembers(t *testing.T, c *cluster, random *rand.Rand, until time.Time) {
	for time.Now().Before(until) {
		time.Sleep(time.Duration(1000+random.IntN(2000)) * time.Millisecond)
		i := random.IntN(len(c.nodes))
		if random.IntN(2) == 0 {
			i = c.leader(t)
		}
		pause := time.Duration(500+random.IntN(2000)) * time.Millisecond
		switch random.IntN(3) {
		case 0:
			c.nodes[i].kill()
			time.Sleep(pause)
			c.start(t, i)
			c.nodes[i].await(t, "ready")
		case 1:
			c.nodes[i].signal(syscall.SIGSTOP)
			time.Sleep(pause)
			c.nodes[i].signal(syscall.SIGCONT)
		case 2:
			c.peers.isolate(c.configs[i].Name)
			time.Sleep(pause)
			c.peers.heal()
		}
	}
}

// increments returns what the worker reported, the count by the token.
func increments(w *process) map[string]int {
	done := make(map[string]int)
	for _, line := range w.output() {
		var count int
		var token string
		if n, _ := fmt.Sscanf(line, "done %d %s", &count, &token); n == 2 {
			done[token] = count
		}
	}
	return done
}

// verify compares what the workers reported with what is in etcd.
func verify(t *testing.T, ctx context.Context, c counter, workers []*process) {
	counts, tokens, err := c.written(ctx)
	require.NoError(t, err)
	written := make(map[string]int)
	for i, n := range counts {
		if !assert.Equal(t, i+1, n, "the increment with the token %s: one was lost or doubled", tokens[i]) {
			break
		}
		written[tokens[i]] = n
	}
	reported, fenced, failed := 0, 0, 0
	for _, w := range workers {
		for token, n := range increments(w) {
			reported++
			assert.Equal(t, n, written[token], "reported by a worker with token %s", token)
		}
		for _, line := range w.output() {
			if strings.HasPrefix(line, "failed") {
				failed++
			}
			if strings.HasSuffix(line, errFenced.Error()) {
				fenced++
			}
		}
	}
	t.Logf("%d increments by %d processes, %d of them reported, %d attempts failed, %d of them fenced off",
		len(counts), len(workers), reported, failed, fenced)
	assert.Greater(t, len(counts), int(chaosTime.Seconds()), "they hardly got on")
}
