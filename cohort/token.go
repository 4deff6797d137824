package cohort

import (
	"cmp"
	"fmt"
)

// Token numbers the holders of one key over all processes: a later holder of the
// key has the greater token. The resource that a lock protects should
// remember the greatest token it has seen and refuse a smaller one: that, and
// not the lock, keeps out a holder that was paused past its lease.
type Token struct {
	Epoch uint64 // the engine's number for the grant; the same for all who share it
	Seq   uint64 // the position among those that share it, from 1
}

// Compare returns -1, 0 or +1 as t is smaller than, equal to or greater than u:
// by Epoch first, then by Seq.
func (t Token) Compare(u Token) int {
	return cmp.Or(cmp.Compare(t.Epoch, u.Epoch), cmp.Compare(t.Seq, u.Seq))
}

// String returns the token in a form whose alphabetical order is Compare's, for
// stores that compare text.
func (t Token) String() string {
	return fmt.Sprintf("%016x-%016x", t.Epoch, t.Seq)
}
