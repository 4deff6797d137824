//go:build !kept

package table

// keeping is what a table knows of grants that are kept outside of it. That is nothing, and
// compiles to nothing, except with the build tag kept; see kept.go.
type keeping struct{}

// next returns the number of the next grant after the last one of the table.
func (keeping) next(last uint64) uint64 { return last + 1 }

// skips reports whether there are numbers of grants that the table does not know of.
func (keeping) skips() bool { return false }

// find returns the queue of a key, in which nothing is kept, nil when there is none; and the
// hash of the key.
func (t *Table[K]) find(key K) (*queue[K], uint64) { return t.queues.find(key) }

// callAllIn calls in what is kept of the keys of a request.
func (t *Table[K]) callAllIn(*Request[K]) {}

// live reports whether a grant has not ended, and calls it in if it is kept.
func (t *Table[K]) live(token Token[K]) bool { return token.Live() }
