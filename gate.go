//go:build !explore

package keylock

import (
	"context"
	"sync"
)

// A gate stands before each access to what a caller and the owner, or two callers, use at
// the same time. It does nothing and compiles to nothing, except with the build tag explore:
// then the explorer decides there which goroutine goes on. See verify/README.md.
type gate[K comparable] struct{}

// sends stands before a message is put into the mailbox, unless done is closed first.
func (gate[K]) sends(done <-chan struct{}, msg message[K]) {}

// tries stands before a message is put into the mailbox if that has room.
func (gate[K]) tries(message[K]) {}

// receives stands before the owner takes a message out of the mailbox.
func (gate[K]) receives() {}

// hears stands before a receive from a channel; of is what the channel belongs to.
func (gate[K]) hears(channel, of any) {}

// selects stands before a select between a channel and the end of ctx.
func (gate[K]) selects(ctx context.Context, channel, of any) {}

// before stands before any other access.
func (gate[K]) before(access string) {}

// starts starts a goroutine.
func (gate[K]) starts(run func()) { go run() }

// A requestPool keeps requests for their next use.
type requestPool = sync.Pool
