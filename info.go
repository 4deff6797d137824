package keylock

// Stats are a manager's totals at one point of its history. Acquired - Released == Held
// always.
type Stats struct {
	Keys    int // keys that are held or waited for now
	Held    int // grants that are live now
	Waiting int // requests that wait now

	Acquired  uint64 // grants since Start
	Waited    uint64 // those of them that had to queue
	Cancelled uint64 // waits that ended without a grant: by context, Cancel or close
	Rejected  uint64 // requests refused at once: a full queue, a failed try, during a shutdown
	Released  uint64 // grants that have ended
}

// KeyInfo describes one key that is held or waited for.
type KeyInfo[K comparable] struct {
	Key     K
	Held    int // grants of the key that are live
	Waiting int // requests that wait for the key
}
