package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What goes wrong on the way to a lock without an error from etcd.
var (
	errSessionLost = errors.New("the session was lost")
	errEntryGone   = errors.New("the entry in the queue is gone")
	errLeftover    = errors.New("an earlier attempt had left its key behind")
	errWatchEnded  = errors.New("the watch ended")
)

// passes reports whether what went wrong can go well another time, if only this process waits:
// because the cluster, a member, or the way there is in trouble, or because something
// changed meanwhile. It is false for what etcd thinks of this request, this client or
// this user, which stays as it is until a person changes it.
func passes(err error) bool {
	for _, own := range []error{errSessionLost, errEntryGone, errLeftover, errWatchEnded, context.DeadlineExceeded} {
		if errors.Is(err, own) {
			return true
		}
	}
	if changesByItself[messageOf(err)] {
		return true
	}
	switch codeOf(err) {
	case codes.Unavailable, codes.Internal, codes.DeadlineExceeded, codes.Aborted,
		codes.Unknown,           // what etcd has no code for: a proposal dropped while leadership moves, a disk that fails
		codes.ResourceExhausted, // too many requests, a database that is full, a proxy's limit
		codes.DataLoss,          // members disagree, until the alarm is disarmed
		codes.Unauthenticated:   // a token that has expired; the client fetches another
		return etcdOrTheWay(err)
	default:
		return false
	}
}

// changesByItself holds what etcd says with a code that otherwise means that the request is wrong.
var changesByItself = func() map[string]bool {
	changes := make(map[string]bool)
	for _, err := range []error{
		rpctypes.ErrGRPCAuthOldRevision,           // users or roles were changed while the request was served
		rpctypes.ErrGRPCLeaseNotFound,             // so the session has ended, and another can begin
		rpctypes.ErrGRPCLeaseExist,                // another lease has the number that this process chose
		rpctypes.ErrGRPCCompacted,                 // a watch was resumed from a revision that etcd has forgotten
		rpctypes.ErrGRPCFutureRev,                 // a watch was resumed at a member that is behind
		rpctypes.ErrGRPCMemberNotFound,            // the member was removed from the cluster; there are others
		rpctypes.ErrGRPCNotLeader,                 // leadership has just moved
		rpctypes.ErrGRPCNotSupportedForLearner,    // the member does not vote yet; there are others
		rpctypes.ErrGRPCNotCapable,                // the cluster is being upgraded
		rpctypes.ErrGRPCClusterVersionUnavailable, // the same
		rpctypes.ErrGRPCCanceled,                  // by the member, which stops
		rpctypes.ErrGRPCWatchCanceled,             // the same
	} {
		changes[messageOf(err)] = true
	}
	return changes
}()

// etcdOrTheWay reports whether err came from etcd or from gRPC; codeOf knows no other error, and calls it Unknown.
func etcdOrTheWay(err error) bool {
	var etcd rpctypes.EtcdError
	var grpc interface{ GRPCStatus() *status.Status }
	return errors.As(err, &etcd) || errors.As(err, &grpc)
}

// codeOf returns the code of an error that etcd, or the way there, has sent.
func codeOf(err error) codes.Code {
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return etcd.Code()
	}
	return status.Code(err)
}

// messageOf returns what etcd said, without the code.
func messageOf(err error) string {
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return etcd.Error()
	}
	var grpc interface{ GRPCStatus() *status.Status }
	if errors.As(err, &grpc) {
		return grpc.GRPCStatus().Message()
	}
	return err.Error()
}

// isTokenError reports whether etcd refused a watch because of the token that its stream was opened
// with. A watch has only the text of the error.
func isTokenError(err error) bool {
	for _, token := range []error{rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty} {
		if strings.Contains(err.Error(), messageOf(token)) {
			return true
		}
	}
	return false
}

// keyText quotes a key for an error, and cuts it where it would flood a log.
func keyText(key string) string {
	const most = 128
	if len(key) <= most {
		return strconv.Quote(key)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(key[cut]) {
		cut--
	}
	return fmt.Sprintf("%q… (%d bytes)", key[:cut], len(key))
}
