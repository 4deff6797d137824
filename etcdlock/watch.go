package etcdlock

import (
	"context"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// watchStream is the stream that the watches of a session share.
//
// etcd's client puts watches with like metadata on one stream, and etcd checks the token that a
// stream was opened with whenever a watch begins on it. When the token has expired, those that
// have begun go on, and no other can begin: the next ones need another stream. So a
// stream has a generation, which its metadata carry.
type watchStream struct {
	session    *session
	generation uint64
}

// stream returns the stream for the next watch, and has it kept open.
func (s *session) stream() watchStream {
	w := watchStream{s, s.watch.Load()}
	signal(s.opens)
	return w
}

// with returns the context of a watch on the stream. A member that is cut off from the others
// ends the watch, instead of keeping it waiting forever.
func (w watchStream) with(ctx context.Context) context.Context {
	id := strconv.FormatInt(int64(w.session.lease), 16) + "-" + strconv.FormatUint(w.generation, 10)
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "keylock-stream", id)
}

// failed takes the error with which a watch ended.
func (w watchStream) failed(err error) {
	if isTokenError(err) {
		w.session.watch.CompareAndSwap(w.generation, w.generation+1)
	}
}

// keepOpen keeps the stream open while no wait needs it, by a watch on a key that is
// never put: opening a stream makes etcd check a password, which is slow on purpose.
func (s *session) keepOpen(w watchStream) {
	if s.engine.client.Username == "" {
		return
	}
	never := s.engine.prefix + separator
	for retry := (backoff{}); s.watch.Load() == w.generation; {
		for resp := range s.engine.client.Watch(w.with(s.ctx), never) {
			if err := resp.Err(); err != nil {
				s.engine.note(err)
				w.failed(err)
			}
		}
		if retry.wait(s.ctx) != nil {
			return
		}
	}
}

// guard watches one entry that has been in its queue for a while, and has the session looked
// at when its etcd key is deleted. When a lease is revoked all its keys are, so that
// one watch is enough to notice that at once.
func (s *session) guard(ctx context.Context, p *entry) {
	w := s.stream()
	for resp := range s.engine.client.Watch(w.with(ctx), p.key, clientv3.WithFilterPut()) {
		if err := resp.Err(); err != nil {
			s.engine.note(err)
			w.failed(err)
			return
		}
		if len(resp.Events) > 0 {
			s.suspect()
			return
		}
	}
}
