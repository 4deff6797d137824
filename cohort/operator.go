package cohort

import "context"

// Operator is an Engine whose locks a person can list, and take away from a process that hangs. All
// engines of this project are. Its calls need no session: they work while other processes hold everything.
type Operator interface {
	Inspector

	// List calls yield for each key that is held or waited for, in all processes, with the contender
	// that is first in its queue, in no particular order, until yield returns false. Its Epoch is 0 if the key
	// is not granted to it yet. What changes meanwhile may be listed as it was or as it is, or not at all. List
	// returns an error that wraps ctx.Err() when ctx ends first.
	List(ctx context.Context, yield func(key string, first Contender) bool) error

	// Break takes key away from the holder whose grant has the epoch, as Inspect or List has shown
	// it, and grants the key to the next in the queue, with a greater epoch. It reports whether that
	// grant was still there: a later one is left alone, also one of the same process. The process
	// that held the key learns that it is lost as of any loss that it has no part in, at its
	// next renewal; until then only its smaller token keeps it out. After an error it is not known whether
	// the key was taken away; Break may be repeated.
	Break(ctx context.Context, key string, epoch uint64) (bool, error)
}
