package keylock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// An owner that never pauses uses a reading of the clock again, but not for long.
func TestBusyOwnerReadsItsClockEverySixteenthRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMeter()
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
	})
}

// One request in about 64 is timed, and stands for all since the one before it.
func TestTimeOfAllRequestsIsEstimatedFromSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMeter()
		for range 1000 {
			w.next(1)
			time.Sleep(time.Millisecond) // it serves
		}
		w.next(0)
		assert.InDelta(t, time.Second, w.serving, float64(70*time.Millisecond))

		before := w.serving
		for range 1000 {
			w.next(0)
			time.Sleep(time.Second) // it waits for the next
		}
		assert.InDelta(t, before, w.serving, float64(70*time.Millisecond), "to wait is not to be busy")
	})
}
