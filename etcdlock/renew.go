package etcdlock

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// keepAlive renews the lease, ends the session when it can no longer be trusted, and
// then revokes the lease, so that others need not wait until it runs out.
func (s *session) keepAlive() {
	var children sync.WaitGroup // the goroutines that watch for this session
	defer children.Wait()
	children.Go(s.keepAuditing)
	children.Go(s.keepListening)
	children.Go(s.keepLooking)
	children.Go(s.keepNotingTries)
	children.Go(s.keepMarking)

	watchdog := time.NewTimer(s.left())
	defer watchdog.Stop()
	next := time.NewTicker(s.engine.ttl / 4)
	defer next.Stop()
	again := time.NewTimer(0) // when the last stream has failed
	again.Stop()
	r := &renewer{session: s, replies: make(chan renewal)}
	defer r.stop()
	var retry backoff
	kept := false // the generation below is kept open
	var generation uint64
	for {
		select {
		case <-next.C: // whether or not the last one was answered: its reply may be lost
			s.beginPeriod()
			r.ask()
			signal(s.audits)
		case <-s.doubt:
			r.ask()
		case <-again.C:
			r.ask()
		case reply := <-r.replies:
			sent, ok := r.take(reply)
			switch {
			case reply.err != nil: // the watchdog decides when that is too much
				s.engine.note(reply.err)
				if len(r.streams) == 0 {
					again.Reset(retry.next())
				}
			case !ok:
			case reply.ttl <= 0:
				s.lose()
			default:
				retry = backoff{}
				s.trust(sent, reply.ttl)
				watchdog.Reset(s.left())
			}
		case <-s.opens:
			if now := s.watch.Load(); !kept || now != generation {
				kept, generation = true, now
				children.Go(func() { s.keepOpen(watchStream{s, now}) })
			}
		case <-watchdog.C:
			s.alive()
		case <-s.ctx.Done():
			if s.engine.ctx.Err() == nil { // otherwise Close revokes it
				s.engine.lost.Add(1)
				_ = s.revoke(s.engine.requests)
			}
			return
		}
	}
}

// renewer asks etcd to renew the lease. One stream serves all requests, because etcd
// checks a password for each stream that a client with a name opens. When a stream has been silent for
// a quarter of the TTL a second one is opened, which goes another way to the cluster where there is
// one; there are never more than two.
//
// Client.KeepAlive is no substitute: it counts from the receipt of a reply, and does not
// tell when the request that is answered was sent.
type renewer struct {
	session *session
	replies chan renewal
	streams []*renewalStream // the newest is the last
}

// renewal is the reply to one request on a stream, or the end of the stream.
type renewal struct {
	stream *renewalStream
	ttl    int64 // in seconds, 0 if the lease is gone
	err    error
}

// renewalStream is a stream of requests and their replies, in the same order.
type renewalStream struct {
	send       chan struct{} // a request for each
	cancel     context.CancelFunc
	unanswered []time.Time // when they were sent, or a little earlier
}

// silence returns for how long the stream has owed a reply.
func (st *renewalStream) silence() time.Duration {
	if len(st.unanswered) == 0 {
		return 0
	}
	return time.Since(st.unanswered[0])
}

// ask sends a request on every stream, and opens one if there is none that replies.
func (r *renewer) ask() {
	quarter := r.session.engine.ttl / 4
	late := quarter - quarter/8 // a tick is not exact
	if n := len(r.streams); n == 0 || r.streams[n-1].silence() > late {
		if n == 2 && r.streams[0].silence() > r.useless() {
			r.drop(r.streams[0])
		}
		if len(r.streams) < 2 {
			r.open()
		}
	}
	for _, st := range r.streams {
		select {
		case st.send <- struct{}{}:
			st.unanswered = append(st.unanswered, time.Now())
		default: // it is stuck
		}
	}
}

// useless returns how late a reply is that no longer moves the deadline by much.
func (r *renewer) useless() time.Duration { return r.session.engine.ttl * 3 / 4 }

// take accounts for a reply: it returns when its request was sent, and false when
// there is none because the stream ended, or had been dropped.
func (r *renewer) take(reply renewal) (sent time.Time, ok bool) {
	st := reply.stream
	if !slices.Contains(r.streams, st) {
		return time.Time{}, false
	}
	if reply.err != nil || len(st.unanswered) == 0 {
		r.drop(st)
		return time.Time{}, false
	}
	sent, st.unanswered = st.unanswered[0], st.unanswered[1:]
	for _, other := range slices.Clone(r.streams) {
		if other != st && other.silence() > r.useless() {
			r.drop(other)
		}
	}
	return sent, true
}

func (r *renewer) drop(st *renewalStream) {
	st.cancel()
	r.streams = slices.DeleteFunc(r.streams, func(other *renewalStream) bool { return other == st })
}

func (r *renewer) stop() {
	for _, st := range slices.Clone(r.streams) {
		r.drop(st)
	}
}

// open opens another stream.
func (r *renewer) open() {
	ctx, cancel := context.WithCancel(r.session.ctx)
	st := &renewalStream{send: make(chan struct{}, 8), cancel: cancel}
	r.streams = append(r.streams, st)
	post := func(reply renewal) {
		reply.stream = st
		select {
		case r.replies <- reply:
		case <-ctx.Done():
		}
	}
	go func() {
		stream, err := clientv3.RetryLeaseClient(r.session.engine.client).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			post(renewal{err: err})
			return
		}
		go func() {
			for {
				reply, err := stream.Recv()
				post(renewal{ttl: reply.GetTTL(), err: err})
				if err != nil {
					return
				}
			}
		}()
		for {
			select {
			case <-st.send:
				// The receiver learns of an error.
				_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(r.session.lease)})
			case <-ctx.Done():
				return
			}
		}
	}()
}
