package keylock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// testMeter is a meter of an owner whose table says how much it has done.
func testMeter() (w *meter, work *uint64) {
	work = new(uint64)
	m := newMeter(func() uint64 { return *work })
	return &m, work
}

// An owner that never pauses uses a reading of the clock again, but not for long.
func TestBusyOwnerReadsItsClockEverySixteenthRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, work := testMeter()
		w.sample = 1000
		assert.Zero(t, w.now())
		time.Sleep(time.Second)
		for range 15 {
			w.next(1)
			assert.Zero(t, w.now())
		}
		w.next(1)
		assert.Equal(t, time.Second, w.now())

		time.Sleep(time.Second)
		w.next(0)
		assert.Equal(t, time.Second, w.now())
		w.next(1) // there was a pause before it
		assert.Equal(t, 2*time.Second, w.now())

		time.Sleep(time.Second)
		w.next(1)
		*work += 15 // one request has done much
		assert.Equal(t, 3*time.Second, w.now())

		w.long(func() { time.Sleep(time.Second) })
		assert.Equal(t, 4*time.Second, w.now())
	})
}

// serve receives and serves a request that takes a while.
func serve(w *meter, more int, took time.Duration) {
	w.next(more)
	time.Sleep(took)
	if w.timing {
		w.served()
	}
}

// One request in about sixty is timed, and stands for all since the one before it.
func TestTimeOfAllRequestsIsEstimatedFromSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := testMeter()
		for range 1000 {
			serve(w, 1, time.Millisecond)
		}
		assert.InDelta(t, time.Second, w.serving, float64(70*time.Millisecond))

		before := w.serving
		for range 1000 {
			serve(w, 0, time.Millisecond)
			time.Sleep(time.Second) // it waits for the next
		}
		assert.InDelta(t, before+time.Second, w.serving, float64(70*time.Millisecond), "to wait is not to be busy")
	})
}

// A long request that happens to be timed does not stand for the short ones before it, and
// those that may be long are timed always.
func TestServingIsNeverMoreThanHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, always := range []bool{false, true} {
			w, _ := testMeter()
			begun := time.Now()
			for range 100 {
				for range 60 { // it is quiet
					serve(w, 0, time.Microsecond)
					time.Sleep(time.Millisecond)
				}
				w.sample = 0
				w.next(0)
				if always {
					w.long(func() { time.Sleep(time.Second) })
				} else {
					time.Sleep(time.Second)
				}
				if w.timing {
					w.served()
				}
				require.LessOrEqual(t, w.serving, time.Since(begun))
			}
			assert.InDelta(t, 100*time.Second, w.serving, float64(7*time.Second))
		}
	})
}

// Requests for many keys are few, so a sample of requests says nothing of them: a manager
// that had done little else was said to be 1 % busy.
func TestRequestsForManyKeysAreTimed(t *testing.T) {
	m := Start[int](t.Context())
	defer m.Close()
	keys := make([]int, 100_000)
	for i := range keys {
		keys[i] = i
	}
	for range 20 {
		locks, ok := m.TryAcquireSet(exclusively(keys...)...)
		require.True(t, ok)
		locks.Release()
	}
	stats, err := m.Stats(t.Context())
	require.NoError(t, err)
	assert.Greater(t, stats.Busy(), 0.25)
	assert.LessOrEqual(t, stats.Serving, stats.Uptime)
}

// What changes a grant of very many keys is timed by itself, and of few keys it is a request like
// others, also when the grant has ended.
func TestChangesOfGrantsOfManyKeysAreTimed(t *testing.T) {
	for n, long := range map[int]bool{1: false, keptKeys: false, keptKeys + 1: true} {
		m, o := newManager[int](nil, options{}, mailboxSize)
		keys := make([]int, n)
		for i := range keys {
			keys[i] = i
		}
		grant := o.table.Join(&table.Request[int]{Keys: keys, Tag: m.newAcquire(nil, table.Request[int]{})}).Token
		timed := func(r request[int]) bool {
			before := o.meter.sampled
			m.long.Add(1)
			r.serve(o)
			return o.meter.sampled > before
		}
		assert.Equal(t, long, timed(&downgrade[int]{grant, true}), "%d keys", n)
		assert.Equal(t, 1, o.table.Counts().Shared, "%d keys", n)
		assert.Equal(t, long, timed(&releaseAll[int]{grant}), "%d keys", n)
		assert.Zero(t, o.table.Counts().Held, "%d keys", n)
		assert.False(t, timed(&releaseAll[int]{grant}), "it has ended")
		assert.Zero(t, m.long.Load())
	}
}

// What the owner does between two requests is timed, and is none of the requests that the next sample stands for.
func TestWorkBetweenRequestsIsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, o := newManager[int](nil, options{}, mailboxSize)
		for range 3 {
			o.long(func() { time.Sleep(time.Second) })
		}
		assert.Equal(t, 3*time.Second, o.meter.serving)
		o.meter.sample = 0
		serve(&o.meter, 0, time.Second)
		assert.Equal(t, 4*time.Second, o.meter.serving)
	})
}
