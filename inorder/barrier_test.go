package inorder_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/inorder"
)

// What a group is for, in fake time, where nothing but the waits counts: 6,000 works of 50 keys, in
// batches of 500 with a barrier, and as they come with a window of 500.
func TestGroupSparesTheBarrier(t *testing.T) {
	type job struct {
		key   int
		takes time.Duration
	}
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		job            func(i int) job
		floor, barrier time.Duration
	}{
		"every one takes 1 ms": {func(i int) job { return job{i % 50, ms} }, 120 * ms, 120 * ms},
		"one in 500 takes 100 ms": {func(i int) job {
			if i%500 == 250 {
				return job{i / 500 % 5, 100 * ms}
			}
			return job{i % 50, ms}
		}, 417 * ms, 12 * 109 * ms},
		"one key takes 20 ms": {func(i int) job { // no way makes a slow key faster
			if i%50 == 0 {
				return job{0, 20 * ms}
			}
			return job{i % 50, ms}
		}, 2400 * ms, 2400 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				jobs := make([]job, 6000)
				perKey := make(map[int]time.Duration)
				for i := range jobs {
					jobs[i] = test.job(i)
					perKey[jobs[i].key] += jobs[i].takes
				}
				floor := time.Duration(0)
				for _, takes := range perKey {
					floor = max(floor, takes)
				}
				key := func(j job) int { return j.key }
				do := func(_ context.Context, j job) error { time.Sleep(j.takes); return nil }

				began := time.Now()
				for batch := range slices.Chunk(jobs, 500) {
					require.NoError(t, inorder.Each(t.Context(), 1000, slices.Values(batch), key, do))
				}
				barrier := time.Since(began)

				began = time.Now()
				g := inorder.New[int](t.Context(), 1000, inorder.WithQueue(500))
				for _, j := range jobs {
					require.NoError(t, g.Go(t.Context(), j.key, func(ctx context.Context) error { return do(ctx, j) }))
				}
				require.NoError(t, g.Wait())
				streaming := time.Since(began)

				t.Log("floor", floor, "barrier", barrier, "streaming", streaming)
				assert.LessOrEqual(t, streaming, floor+floor/10)
				assert.LessOrEqual(t, streaming, barrier)
				assert.GreaterOrEqual(t, barrier, test.barrier)
				if test.barrier > 2*test.floor {
					assert.LessOrEqual(t, streaming, barrier/2)
				}
			})
		})
	}
}

// The same for work that comes while other work is done, ten in a millisecond for two seconds, and one
// key of 50 that takes 4 ms: what the other keys feel of it.
func TestGroupSparesOtherKeysTheSlowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type job struct {
			key   int
			came  time.Time
			takes time.Duration
		}
		const n = 20_000
		come := func() <-chan job {
			jobs := make(chan job, n)
			go func() {
				defer close(jobs)
				random := rand.New(rand.NewPCG(1, 7))
				for i := range n {
					if i%10 == 0 {
						time.Sleep(time.Millisecond)
					}
					j := job{random.IntN(50), time.Now(), time.Millisecond}
					if j.key == 0 {
						j.takes = 4 * time.Millisecond
					}
					jobs <- j
				}
			}()
			return jobs
		}
		var mu sync.Mutex
		var waits []time.Duration // of the other keys
		do := func(_ context.Context, j job) error {
			time.Sleep(j.takes)
			if j.key != 0 {
				mu.Lock()
				waits = append(waits, time.Since(j.came))
				mu.Unlock()
			}
			return nil
		}
		p99 := func() time.Duration {
			defer func() { waits = nil }()
			slices.Sort(waits)
			return waits[len(waits)*99/100]
		}

		jobs := come()
		for j := range jobs {
			batch := []job{j}
			for len(batch) < 500 && len(jobs) > 0 {
				batch = append(batch, <-jobs)
			}
			require.NoError(t, inorder.Each(t.Context(), 1000, slices.Values(batch), func(j job) int { return j.key }, do))
		}
		barrier := p99()

		g := inorder.New[int](t.Context(), 1000, inorder.WithQueue(500))
		for j := range come() {
			require.NoError(t, g.Go(t.Context(), j.key, func(ctx context.Context) error { return do(ctx, j) }))
		}
		require.NoError(t, g.Wait())
		streaming := p99()

		t.Log("p99 of the other keys: barrier", barrier, "streaming", streaming)
		assert.LessOrEqual(t, streaming, barrier/5)
	})
}
