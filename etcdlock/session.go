package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// session is a lease that is renewed until it is lost or the engine closes.
type session struct {
	engine *Engine
	lease  clientv3.LeaseID
	ctx    context.Context // ends when the lease can no longer be trusted
	lose   context.CancelFunc
	doubt  chan struct{} // receives when something hints that the lease is gone

	deadline time.Time // until when the lease can be trusted; owned by the keepAlive goroutine
	revoked  atomic.Bool
}

// request bounds a request to etcd by the session and by the TTL: after either, etcd's
// answer would say nothing that the end of the lease does not say too.
func (s *session) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.engine.ttl)
}

type sessionReply struct {
	session *session
	err     error
}

// session returns the engine's session, a new one if the last was lost.
func (e *Engine) session(ctx context.Context) (*session, error) {
	if s := e.current.Load(); s != nil && s.ctx.Err() == nil {
		return s, nil
	}
	replied := make(chan sessionReply, 1)
	select {
	case e.asks <- replied:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, cohort.ErrClosed
	}
	select {
	case a := <-replied:
		return a.session, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, cohort.ErrClosed
	}
}

// keepSession owns the engine's session: it hands it out, and starts another when it is lost.
func (e *Engine) keepSession() {
	defer close(e.kept)
	var (
		waiting  []chan<- sessionReply
		starting chan sessionReply // nil while none is being started
	)
	for {
		select {
		case ask := <-e.asks:
			if s := e.current.Load(); s != nil && s.ctx.Err() == nil { // it came after the ask was sent
				ask <- sessionReply{s, nil}
				break
			}
			waiting = append(waiting, ask)
			if starting == nil {
				starting = make(chan sessionReply, 1)
				go func() {
					s, err := e.startSession()
					starting <- sessionReply{s, err}
				}()
			}
		case a := <-starting:
			starting = nil
			e.begin(a.session)
			for _, ask := range waiting {
				ask <- a
			}
			waiting = nil
		case <-e.ctx.Done():
			if starting != nil { // its lease must not be left behind
				a := <-starting
				e.begin(a.session)
			}
			return
		}
	}
}

// begin makes s the engine's session, unless it is nil because it could not be started.
func (e *Engine) begin(s *session) {
	if s != nil {
		e.current.Store(s)
		e.sessions.Go(s.keepAlive)
	}
}

// startSession obtains a lease. It does not end with any caller's context, so that no
// lease is left behind whose number nobody knows.
func (e *Engine) startSession() (*session, error) {
	ctx, cancel := context.WithTimeout(e.requests, e.ttl)
	defer cancel()
	sent := time.Now()
	granted, err := e.client.Grant(ctx, int64(e.ttl/time.Second))
	if err != nil {
		return nil, fmt.Errorf("no lease: %w", err)
	}
	s := &session{engine: e, lease: granted.ID, doubt: make(chan struct{}, 1)}
	s.ctx, s.lose = context.WithCancel(e.ctx)
	s.trust(sent, granted.TTL)
	return s, nil
}

// trust moves the deadline: the lease was renewed for ttl seconds at some moment
// after the request was sent, and is given up a fifth before its earliest end.
func (s *session) trust(sent time.Time, ttl int64) {
	until := sent.Add(time.Duration(ttl) * time.Second * 4 / 5)
	if until.After(s.deadline) {
		s.deadline = until
	}
}

// renewal is the outcome of one request to keep the lease alive.
type renewal struct {
	sent time.Time
	ttl  int64 // in seconds, 0 if the lease is gone
	err  error
}

// keepAlive renews the lease, ends the session when it can no longer be trusted, and
// then revokes the lease, so that nobody has to wait until it runs out.
func (s *session) keepAlive() {
	watchdog := time.NewTimer(time.Until(s.deadline))
	defer watchdog.Stop()
	next := time.NewTicker(s.engine.ttl / 4)
	defer next.Stop()
	renewed := make(chan renewal)
	for {
		select {
		case <-next.C: // whether or not the last one was replied: its answer may be lost
			go s.renew(renewed)
		case <-s.doubt:
			go s.renew(renewed)
		case r := <-renewed:
			if r.err != nil {
				break // the watchdog decides when that is too much
			}
			if r.ttl <= 0 {
				s.lose()
				return
			}
			s.trust(r.sent, r.ttl)
			watchdog.Reset(time.Until(s.deadline))
		case <-watchdog.C:
			s.lose()
		case <-s.ctx.Done():
			if s.engine.ctx.Err() == nil { // otherwise Close revokes it
				_ = s.revoke(s.engine.requests)
			}
			return
		}
	}
}

// renew sends one request to keep the lease alive. It does so over a stream of its own, because
// Client.KeepAlive does not tell when the request that is replied was sent, and
// Client.KeepAliveOnce retries without a pause while there is no connection.
func (s *session) renew(renewed chan<- renewal) {
	ctx, cancel := context.WithTimeout(s.ctx, s.engine.ttl)
	defer cancel()
	r := renewal{sent: time.Now()}
	r.ttl, r.err = func() (int64, error) {
		stream, err := pb.NewLeaseClient(s.engine.client.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			return 0, err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(s.lease)}); err != nil {
			return 0, err
		}
		answer, err := stream.Recv()
		return answer.GetTTL(), err
	}()
	select {
	case renewed <- r:
	case <-s.ctx.Done():
	}
}

// suspect has the lease renewed now: something was missing that it should have kept.
func (s *session) suspect() {
	select {
	case s.doubt <- struct{}{}:
	default:
	}
}

// revoke ends the lease at etcd, and with it every key of the session. It tries until
// ctx ends, or until the lease must have run out by itself.
func (s *session) revoke(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.engine.ttl)
	defer cancel()
	for retry := (backoff{}); !s.revoked.Load(); {
		_, err := s.engine.client.Revoke(ctx, s.lease)
		switch {
		case err == nil, errors.Is(err, rpctypes.ErrLeaseNotFound):
			s.revoked.Store(true)
		case !passes(err) || retry.wait(ctx) != nil:
			return fmt.Errorf("lease %x is left to run out: %w", int64(s.lease), err)
		}
	}
	return nil
}

var errSessionLost = errors.New("the session was lost")
