package etcdlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errWatchEnded = errors.New("the watch ended")

// passes reports whether what went wrong may go well another time.
func passes(err error) bool {
	for _, passing := range []error{
		errSessionLost, errEntryGone, errLeftover, errWatchEnded,
		context.DeadlineExceeded, rpctypes.ErrTooManyRequests,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	code := status.Code(err)
	var fromServer rpctypes.EtcdError
	if errors.As(err, &fromServer) {
		code = fromServer.Code()
	}
	return code == codes.Unavailable || code == codes.Internal || code == codes.DeadlineExceeded
}

// backoff spaces repeated attempts.
type backoff struct {
	last time.Duration
}

// wait waits before the next attempt, longer each time up to about half a second, and
// returns ctx.Err() when ctx ends first.
func (b *backoff) wait(ctx context.Context) error {
	b.last = min(2*b.last+5*time.Millisecond, 400*time.Millisecond)
	pause := time.NewTimer(b.last/2 + rand.N(b.last))
	defer pause.Stop()
	select {
	case <-pause.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
