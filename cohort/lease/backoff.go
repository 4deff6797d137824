package lease

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces repeated requests.
type backoff struct {
	last time.Duration
}

// next returns the pause before the next request, longer each time up to about half a second.
func (b *backoff) next() time.Duration {
	b.last = min(2*b.last+5*time.Millisecond, 400*time.Millisecond)
	return b.last/2 + rand.N(b.last)
}

// wait waits for the pause. It returns an error when one of the contexts ends first.
func (b *backoff) wait(ctx, other context.Context) error {
	pause := time.NewTimer(b.next())
	defer pause.Stop()
	select {
	case <-pause.C:
		return context.Cause(ctx)
	case <-ctx.Done():
		return ctx.Err()
	case <-other.Done():
		return other.Err()
	}
}
