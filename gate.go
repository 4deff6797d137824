//go:build !explore

package keylock

import (
	"context"
	"sync"
)

// A gate stands before each access to what a caller and the owner, or two callers, use at
// the same time. It does nothing and compiles to nothing, except with the build tag explore:
// then the explorer decides there which goroutine goes on. See verify/README.md. M is the
// type of the messages in the mailbox.
type gate[M any] struct{}

// sends stands before a message is put into the mailbox, unless done is closed first.
func (gate[M]) sends(done <-chan struct{}, msg M) {}

// tries stands before a message is put into the mailbox if that has room.
func (gate[M]) tries(M) {}

// receives stands before the owner takes a message out of the mailbox.
func (gate[M]) receives() {}

// hears stands before a receive from a channel; of is what the channel belongs to.
func (gate[M]) hears(channel, of any) {}

// selects stands before a select between a channel and the end of ctx.
func (gate[M]) selects(ctx context.Context, channel, of any) {}

// before stands before any other access.
func (gate[M]) before(access string) {}

// starts starts a goroutine.
func (gate[M]) starts(run func()) { go run() }

// A cellGate stands before accesses to grants that are kept.
type cellGate struct{}

// before stands before an access, as that of a gate does.
func (cellGate) before(access string) {}

// cell stands before an access of a caller to a cell: word is what it has seen of it, and number
// what it has for a grant or is that of its lock; 0 when there is none.
func (cellGate) cell(access string, word, number uint64) {}

// A requestPool keeps requests for their next use.
type requestPool = sync.Pool
