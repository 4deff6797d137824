package store

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// patience is how long a database may be away.
const patience = 30 * time.Second

// throughOutages calls operation again, after a while, as long as it returns an outage. It returns
// what else operation returns; the outage if the database stays away; or why ctx has ended.
func throughOutages[T any](ctx context.Context, operation func() (T, error)) (T, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 10*time.Millisecond, time.Second

	return backoff.Retry(ctx, func() (T, error) {
		result, err := operation()
		if err != nil && !isOutage(err) {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(patience))
}

// The codes of PostgreSQL's errors that matter here.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	adminShutdown        = "57P01"
	crashShutdown        = "57P02"
	cannotConnectNow     = "57P03" // it is starting up
)

// isConflict tells whether the database gave a transaction up because of another one.
func isConflict(err error) bool {
	return hasCode(err, serializationFailure, deadlockDetected)
}

// isOutage tells whether the database went away, or is not there: it said so, or the connection
// broke.
func isOutage(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return hasCode(err, adminShutdown, crashShutdown, cannotConnectNow)
	}
	var (
		connect *pgconn.ConnectError
		network *net.OpError
	)
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func hasCode(err error, codes ...string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && slices.Contains(codes, said.Code)
}
