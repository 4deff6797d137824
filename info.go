package keylock

// Stats are a manager's totals at one point of its history. Acquired - Released == Held
// always.
type Stats struct {
	Keys    int // keys that are held or waited for now
	Held    int // grants that are live now; one for many keys counts once
	Shared  int // those of them that are shared
	Waiting int // requests that wait now

	Acquired  uint64 // grants since Start
	Waited    uint64 // those of them that had to queue
	Cancelled uint64 // waits that ended without a grant: by context, Cancel or close
	Rejected  uint64 // requests refused at once: a full queue, a failed try, a deadlock, a closing manager or session
	Released  uint64 // grants that have ended
}

// KeyInfo describes one key that is held or waited for.
type KeyInfo[K comparable] struct {
	Key     K
	Held    int // len(Holders)
	Waiting int // len(Waiters)

	Holders []Holder // in the order in which they asked
	Waiters []Waiter // in the order in which they will be granted
}

// A Holder is a live grant of a key.
type Holder struct {
	Seq     uint64 // the number of the grant, as in Lock.Seq
	Mode    Mode
	Session string // the label of its session; empty when it has none
}

// A Waiter is a request that waits for a key. One that asks for many keys waits for
// each of them until it has them all.
type Waiter struct {
	Mode    Mode
	Session string // the label of its session; empty when it has none
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
