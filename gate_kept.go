//go:build kept && !explore

package keylock

// cell stands before an access of a caller to a cell of kept grants: word is what it has
// seen of it, and number what it has for a grant or is that of its lock; 0 when there is none.
func (gate[M]) cell(access string, word, number uint64) {}
