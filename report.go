package keylock

import (
	"fmt"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Stats are a manager's totals at one point of its history. Acquired - Released == Held
// always.
type Stats struct {
	Keys         int // keys that are held or waited for now
	Held         int // grants that are live now; one for many keys counts once
	Shared       int // those of them that are shared
	Waiting      int // requests that wait now
	LongestQueue int // the most waiters that any key has now

	Acquired  uint64 // grants since Start
	Waited    uint64 // those of them that had to queue
	Cancelled uint64 // waits that ended without a grant: by context, Cancel or close
	Rejected  uint64 // requests refused at once: a full queue, a failed try, a deadlock, a closing manager or session
	Released  uint64 // grants that have ended

	// Waits are how long those had to wait who had to queue, whether they were granted in
	// the end or cancelled. Who was served at once is not counted.
	Waits Histogram

	Timed      bool          // WithHoldTimes is on; else these are zero:
	Holds      Histogram     // how long the grants that have ended were held
	OldestHold time.Duration // how long the oldest live grant has been held
	OldestWait time.Duration // how long the request that has waited for longest has

	// How busy the owner has been since Start. Serving is estimated: about every 64th
	// request is timed.
	Requests uint64        // of any kind, that it received
	Serving  time.Duration // that these took it
	Uptime   time.Duration // since Start

	SlowLogLost uint64 // lines that WithSlowLog did not log
}

// Busy returns how much of its time since Start the owner has been busy, from 0, when it
// waits for requests, to 1, when requests wait for it. For a share of late, divide the
// differences of Serving and Uptime between two Stats.
func (s Stats) Busy() float64 {
	if s.Uptime == 0 {
		return 0
	}
	return min(s.Serving.Seconds()/s.Uptime.Seconds(), 1)
}

// String tells the totals in one line, for people.
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keys %d, held %d (shared %d), waiting %d (longest queue %d), acquired %d (waited %d), cancelled %d, rejected %d, released %d, waits %v",
		s.Keys, s.Held, s.Shared, s.Waiting, s.LongestQueue, s.Acquired, s.Waited, s.Cancelled, s.Rejected, s.Released, s.Waits)
	if s.Timed {
		fmt.Fprintf(&b, ", holds %v, oldest hold %v, oldest wait %v", s.Holds, brief(s.OldestHold), brief(s.OldestWait))
	}
	fmt.Fprintf(&b, ", owner busy %.0f%%", 100*s.Busy())
	if s.SlowLogLost > 0 {
		fmt.Fprintf(&b, ", slow log records lost %d", s.SlowLogLost)
	}
	return b.String()
}

// KeyInfo describes one key at one point of the manager's history.
type KeyInfo[K comparable] struct {
	Key     K
	At      time.Time // when
	Held    int       // how many hold it
	Waiting int       // how many wait for it

	// Holders and waiters in their order: at most the first 1,000 of either, of Top the first
	// 16. Those that are left out are missing at the end.
	Holders []Holder
	Waiters []Waiter
}

// A Holder is a live grant of a key.
type Holder struct {
	Seq     uint64    // the number of the grant, as in Lock.Seq
	Mode    Mode      //
	Session string    // the label of its session; empty when it has none
	Since   time.Time // when it was granted; zero unless WithHoldTimes
	Caller  Caller    // who asked for it; empty unless WithCallers
}

// A Waiter is a request that waits for a key. One that asks for many keys waits for
// each of them until it has them all.
type Waiter struct {
	Position int       // in the line of the key; 1 is next
	Mode     Mode      //
	Session  string    // the label of its session; empty when it has none
	Since    time.Time // when it began to wait
	Caller   Caller    // who asks; empty unless WithCallers

	// What it waits for. Behind is the position of the last waiter before it that it has to
	// let in first, and that has to be gone before it can be granted; 0 when only holders, or
	// nobody, are in its way here. Of the Keys that its request names, Blocked are those that
	// it could not be granted yet.
	Behind  int
	Keys    int
	Blocked int
}

// String tells who holds the key and who is first in its line, in one line, for people.
func (k KeyInfo[K]) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "key %s: held by %d", show.Quoted(&k.Key), k.Held)
	for i, h := range k.Holders {
		if i == shownPlaces {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; grant %d %v", h.Seq, whoText(h.Mode, h.Session, k.At, h.Since, h.Caller))
	}
	fmt.Fprintf(&b, "; waiting %d", k.Waiting)
	for i, w := range k.Waiters {
		if i == shownPlaces {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; %d. %v", w.Position, whoText(w.Mode, w.Session, k.At, w.Since, w.Caller))
		if w.Keys > 1 {
			fmt.Fprintf(&b, " and for %d of its %d keys", w.Blocked, w.Keys)
		}
	}
	return b.String()
}

// shownPlaces is how many holders and waiters are shown in one line of text.
const shownPlaces = 4

// whoText tells what is known of a holder or of a waiter.
func whoText(mode Mode, session string, at, since time.Time, caller Caller) string {
	text := mode.String()
	if session != "" {
		text += " " + show.Quoted(&session)
	}
	if !since.IsZero() {
		text += " for " + brief(at.Sub(since)).String()
	}
	if where := caller.String(); where != "" {
		text += " from " + where
	}
	return text
}

// A Top is what one would look at first, at one point of the manager's history.
type Top[K comparable] struct {
	Stats         Stats
	LongestQueues []KeyInfo[K] // the keys with the most waiters, most first
	OldestHolds   []KeyInfo[K] // the keys that have been held for longest, longest first
}

// A Mode says with whom a lock is shared.
type Mode uint8

const (
	Exclusive Mode = iota // with nobody
	Shared                // with other shared locks of the key
)

// String returns "exclusive" or "shared".
func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}
