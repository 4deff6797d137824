package workloads

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small are all workloads, those that take long to set up in a small size.
func small() []Workload {
	workloads := []Workload{cancelOne("cancel-one/10", 100, 10), growth("growth/100", 100), memory("memory", 1000, 100)}
	workloads = append(workloads, smallPauses()...)
	for _, w := range All() {
		if !w.Heavy {
			workloads = append(workloads, w)
		}
	}
	return workloads
}

// smallPauses are all scenes in a small size.
func smallPauses() (small []Workload) {
	for name, set := range map[string]func(int) scene{
		"snapshot": heldKeys, "cycle": readers, "queue": joiners, "row": row, "top": sharers, "page": page, "keys": hugeKeys,
		"images": images, "deep": chain, "readers": readersBehind, "abandoned": abandoned,
	} {
		small = append(small, pause(name, "", 10, set))
	}
	return append(small, closedLoop("sessions/10", 10))
}

func TestEveryWorkloadMeasuresEveryPeerThatItAdmits(t *testing.T) {
	for _, w := range small() {
		t.Run(w.Name, func(t *testing.T) {
			for _, p := range peers.All() {
				if !w.Admits(p) {
					continue
				}
				t.Run(p.Name, func(t *testing.T) {
					figures := w.Measure(p, Budget{Ops: 50})
					require.NotEmpty(t, figures)
					for metric, figure := range figures {
						assert.False(t, math.IsNaN(figure) || math.IsInf(figure, 0) || figure < 0 && metric != results.PerWait, "%s is %v", metric, figure)
					}
				})
			}
		})
	}
}

func TestBudgetOfTimeIsSpent(t *testing.T) {
	const slice = 20 * time.Millisecond
	for _, w := range small() {
		if strings.HasPrefix(w.Name, "busy-") || w.Name == "memory" {
			continue // there is no telling how long those take, and this one takes what it takes
		}
		t.Run(w.Name, func(t *testing.T) {
			started := time.Now()
			w.Measure(peers.Keylock, Budget{Time: slice})
			assert.GreaterOrEqual(t, time.Since(started), slice)
		})
	}
}

func TestWorkloadsThatNeedMoreThanAPeerPromisesLeaveItOut(t *testing.T) {
	admitted := func(name string) (names []string) {
		matching, err := Matching(name + "$")
		require.NoError(t, err)
		require.Len(t, matching, 1)
		for _, p := range peers.All() {
			if matching[0].Admits(p) {
				names = append(names, p.Name)
			}
		}
		return names
	}
	assert.NotContains(t, admitted("storm"), "moby/locker", "it takes no context")
	assert.NotContains(t, admitted("many/64"), "k8s keymutex", "it would deadlock with itself")
	assert.NotContains(t, admitted("hot/1us"), "ping-pong", "it excludes no client")
	assert.NotContains(t, admitted("hot/1us"), "table", "it does not wait")
	assert.NotContains(t, admitted("shared/0us"), "channels", "it does not share")
	for _, w := range All() {
		assert.True(t, w.Admits(peers.Keylock), w.Name)
	}
}

func TestSerialPeerPlaysEveryClient(t *testing.T) {
	l := peers.Table.Open()
	defer l.Close()
	crew := newCrew(peers.Table, l, 3)
	defer crew.cancel()
	var played []int
	crew.spend(Budget{Ops: 6}, func(c *client) { played = append(played, c.n) })
	assert.Equal(t, []int{0, 1, 2, 0, 1, 2}, played)
}

func TestTallyCountsOperations(t *testing.T) {
	l := peers.FIFO.Open()
	defer l.Close()
	crew := newCrew(peers.FIFO, l, 4)
	defer crew.cancel()
	tally := crew.spend(Budget{Ops: 100}, func(*client) {})
	assert.GreaterOrEqual(t, tally.total(), 100.0)
	assert.Len(t, tally.ops, 4)
	assert.Equal(t, float64(tally.elapsed)/tally.total(), tally.figures()[results.PerOp])
}

func TestBytesPerKeyAreThoseOfTheHeldKeys(t *testing.T) {
	l := &hoarder{perLock: 4096}
	assert.InDelta(t, l.perLock, bytesPerKey(l, keys(1000)), 64)
	assert.Zero(t, len(l.hoard))
}

// hoarder is a locker that keeps something for every lock.
type hoarder struct {
	perLock int
	hoard   [][]byte
}

func (h *hoarder) Client() peers.Client { return hoarderClient{h} }
func (h *hoarder) Close()               {}

type hoarderClient struct{ *hoarder }

func (c hoarderClient) Lock(context.Context, string) error {
	c.hoarder.hoard = append(c.hoarder.hoard, make([]byte, c.perLock))
	return nil
}

func (c hoarderClient) Unlock() { c.hoarder.hoard = c.hoarder.hoard[:len(c.hoarder.hoard)-1] }

func TestWorkloadsAreFoundByTheBeginningOfTheirNames(t *testing.T) {
	matching, err := Matching("hot|uncontended")
	require.NoError(t, err)
	var names []string
	for _, w := range matching {
		names = append(names, w.Name)
	}
	assert.Equal(t, []string{"uncontended", "hot/0us", "hot/1us", "hot/10us", "hot/100us"}, names)
	assert.Equal(t, "hot", matching[1].Group())

	_, err = Matching("nothing")
	assert.ErrorContains(t, err, `no workload begins with "nothing"`)
	_, err = Matching("(")
	assert.Error(t, err)
}

func TestKeysAreDrawnAsTheyShouldBe(t *testing.T) {
	counts := make(map[string]int)
	for _, key := range zipfDraws() {
		counts[key]++
	}
	assert.Greater(t, counts["order/0"], counts["order/1"])
	assert.Greater(t, counts["order/1"], counts["order/10"])
	assert.Greater(t, len(counts), manyKeys/4)
	for _, batch := range batches() {
		require.Len(t, batch, 16)
		require.IsIncreasing(t, batch)
	}
}

func TestSpinTakesItsTime(t *testing.T) {
	started := time.Now()
	spin(turnsFor(5 * time.Millisecond))
	assert.Greater(t, time.Since(started), 2*time.Millisecond)
}
