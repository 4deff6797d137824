//go:build !kept

package keylock

import (
	"context"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

// keeping is what a manager knows of grants that are kept after their release. That is an
// experiment: it is nothing, and its hooks do nothing and compile to nothing, except with the
// build tag kept; see kept.go.
type keeping[K comparable] struct{}

// keptFor returns what a manager keeps that has these options.
func keptFor[K comparable](*Manager[K], *owner[K], options) (none keeping[K]) { return none }

// takeKept takes what is kept of the key that is wanted, if it may be.
func (m *Manager[K]) takeKept(*sessionState[K], table.Request[K]) (lock Lock[K], ok bool) {
	return lock, false
}

// takeReserved does so for a reservation, and replies to it.
func (m *Manager[K]) takeReserved(*acquire[K]) bool { return false }

// reserving returns the request to send for a reservation.
func (m *Manager[K]) reserving(r *acquire[K]) request[K] { return r }

// park keeps the grant of a lock, and reports whether there is nothing to do for the owner.
func (l Lock[K]) park() bool { return false }

// keep keeps a grant that was just made.
func (o *owner[K]) keep(*acquire[K], table.Token[K]) {}

// callAllIn calls in every grant that is kept.
func (o *owner[K]) callAllIn() {}

// stops looks at all grants, where that is due, and reports whether the owner stops serving.
func (o *owner[K]) stops() bool { return false }

// askAll is ask for a question about more than one key.
func askAll[K comparable, V any](ctx context.Context, m *Manager[K], answer func(*owner[K]) V) (V, error) {
	return ask(ctx, m, answer)
}

// A waitIdle is a call of WaitIdle.
type waitIdle[K comparable] struct{}

// begin returns what to ask the owner.
func (*waitIdle[K]) begin() func(*owner[K]) *idle { return (*owner[K]).busyPeriod }

// leave ends a call whose context has ended.
func (*waitIdle[K]) leave(*Manager[K]) {}

// A leaving is what the owner knows of a snapshot whose caller has left.
type leaving struct{}

func (leaving) set()      {}
func (leaving) has() bool { return false }

// beginKnown begins a snapshot when the owner knows of all grants.
func (s *snapshot[K]) beginKnown(o *owner[K]) { s.begin(o) }
