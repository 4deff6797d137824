package keylock

import "time"

// A meter is the owner's clock, and what it has measured: how long waits took, and how
// busy it is. Only the owner touches it.
type meter struct {
	started time.Time // the zero of the owner's clock
	waits   Histogram

	reading time.Duration // the last of the clock; unread when it is not good any more
	readAt  uint64        // the request at which it was
	paused  bool          // the owner may have to wait for the next request

	// How busy the owner is. Now and then it takes the time that one request takes, and
	// counts all since the last such one as if each had taken as long.
	requests uint64        // received
	serving  time.Duration // the time that they took
	counted  uint64        // the request up to which serving goes
	sample   uint64        // the request from which on the next is to be timed
	sampling time.Duration // when the one that is being timed began; unread when none is
}

func newMeter() meter {
	return meter{started: time.Now(), reading: unread, sampling: unread}
}

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
		w.time()
	}
}

// time begins to take the time of a request, or ends it when the next one was received:
// only of one after which more are there, because the owner would have to wait otherwise.
func (w *meter) time() {
	switch {
	case w.sampling != unread:
		took := time.Since(w.started) - w.sampling
		w.serving += took * time.Duration(w.requests-w.counted)
		w.counted, w.sample, w.sampling = w.requests, w.requests+64, unread
	case !w.paused:
		w.sampling = time.Since(w.started)
	}
}

// now reads the owner's clock: when a request has to queue and when its wait is over,
// never for a request that is served at once, unless an option asks for it. An owner who
// has had no pause since looks again only at the 16th request, because on a key that
// everybody wants, to read the clock twice per grant would be a quarter of its work.
func (w *meter) now() time.Duration {
	if w.reading == unread || w.requests-w.readAt >= 16 {
		w.reading, w.readAt = time.Since(w.started), w.requests
	}
	return w.reading
}

// at is the date of a reading; zero when there was none.
func (w *meter) at(reading time.Duration) time.Time {
	if reading == unread {
		return time.Time{}
	}
	return w.started.Add(reading)
}

// unread stands for a clock that nobody read.
const unread time.Duration = -1
