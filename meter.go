package keylock

import "time"

// A meter is the owner's clock, and what it has measured: how long waits took, and how
// busy it is. Only the owner touches it.
type meter struct {
	started time.Time // the zero of the owner's clock
	waits   histogram
	worked  func() uint64 // how much the table has done since the manager began; nil for nothing

	reading time.Duration // the last of the clock; unread when it is not good any more
	readAt  uint64        // requests, and what the table had done, at that time
	paused  bool          // the owner may have to wait for the next request

	// How busy the owner is. One request in some sixty is timed, and stands for all since the
	// last that was; what may take long is timed always.
	requests uint64        // received
	serving  time.Duration // the time that they took; never more than has passed
	sample   uint64        // the request that is timed next
	sampled  uint64        // requests that are in serving
	until    time.Duration // when the last sample was complete
	timed    time.Duration // what was timed always since then
	timing   bool          // the request that is being served is timed
	begun    time.Duration // when it was received
}

func newMeter(worked func() uint64) meter {
	return meter{started: time.Now(), worked: worked, reading: unread}
}

const (
	sampleEvery = 61 // an odd number, because acquisitions and releases take turns
	readEvery   = 16
)

// next notes that the owner has received a request, and how many more are there. It costs
// a few additions and comparisons, and the length of a channel whose memory has just been
// touched.
func (w *meter) next(more int) {
	w.requests++
	if w.paused {
		w.reading = unread
	}
	w.paused = more == 0
	if w.requests >= w.sample {
		w.timing, w.begun = true, w.read()
	}
}

// served ends the timing of a request.
func (w *meter) served() {
	now := time.Since(w.started)
	took, passed := now-w.begun, now-w.until-w.timed
	if all := took * time.Duration(w.requests-w.sampled); all/time.Duration(w.requests-w.sampled) == took {
		took = all
	}
	// A long request stands for no more than could have been.
	w.serving += min(took, passed)
	w.sampled, w.sample = w.requests, w.requests+sampleEvery
	w.until, w.timed, w.timing = now, 0, false
}

// long does what may take long, and times it.
func (w *meter) long(serve func()) {
	if w.timing {
		w.timing, w.sample = false, w.requests+1 // the next one is timed instead
	}
	start := time.Since(w.started)
	serve()
	w.reading = unread
	took := time.Since(w.started) - start
	w.serving += took
	w.timed += took
	w.sampled++
}

// now reads the owner's clock: when a request has to queue and when its wait is over,
// never for a request that is served at once, unless an option asks for it. An owner that
// has had no pause since uses a reading again until it has done a little, sixteen short
// requests or as much within a long one, because on a key that many want, to read the
// clock twice per grant would be a quarter of its work. So a reading is late by what that
// takes, which is microseconds, unless the system stops the owner meanwhile.
func (w *meter) now() time.Duration {
	if w.reading == unread || w.work()-w.readAt >= readEvery {
		return w.read()
	}
	return w.reading
}

// work is how much the owner has done.
func (w *meter) work() uint64 {
	if w.worked == nil {
		return w.requests
	}
	return w.requests + w.worked()
}

// read reads the clock.
func (w *meter) read() time.Duration {
	w.reading, w.readAt = time.Since(w.started), w.work()
	return w.reading
}

// at is the date of a reading; zero when there was none.
func (w *meter) at(reading time.Duration) time.Time {
	if reading == unread {
		return time.Time{}
	}
	return w.started.Add(reading)
}

// unread stands for a clock that was not read.
const unread time.Duration = -1
