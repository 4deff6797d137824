package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/crew"
)

// session is a lease that is renewed until it is lost or the engine closes.
type session struct {
	engine *Engine
	lease  clientv3.LeaseID
	after  int64 // a revision before anything that is put with the lease, or about it; 0 if it is not known
	began  time.Time
	ctx    context.Context // ends when the lease can no longer be trusted
	lose   context.CancelFunc

	deadline atomic.Int64 // until when the lease can be trusted, in nanoseconds since the engine's start
	revoked  atomic.Bool

	doubt  chan struct{} // receives when something hints that the lease is gone
	audits chan struct{} // receives when the etcd keys are to be compared with the entries
	opens  chan struct{} // receives when a watch is about to begin
	tries  chan string   // receives the queue of a try that has failed
	marks  chan struct{} // receives when there are entries to mark
	watch  atomic.Uint64 // generation of the stream that watches share

	period  atomic.Pointer[bounded]   // bounds the requests that begin now
	periods []context.CancelCauseFunc // of those that may be under way; owned by keepAlive

	remover remover

	mu       sync.Mutex
	entries  map[string]*entry // by etcd key, those that are in a queue or may be
	notes    map[string]bool   // by etcd key, those that are in an inbox or may be
	unmarked []*entry          // those that are to be marked as listening
	hears    bool              // the inbox is watched
	deaf     bool              // it is not, and should be
}

func (e *Engine) newSession(lease clientv3.LeaseID, sent time.Time, ttl int64) *session {
	s := &session{
		engine:  e,
		lease:   lease,
		began:   sent,
		doubt:   make(chan struct{}, 1),
		audits:  make(chan struct{}, 1),
		opens:   make(chan struct{}, 1),
		tries:   make(chan string, 16),
		marks:   make(chan struct{}, 1),
		entries: make(map[string]*entry),
		notes:   make(map[string]bool),
	}
	s.ctx, s.lose = context.WithCancel(e.ctx)
	s.beginPeriod()
	s.remover.session = s
	s.trust(sent, ttl)
	return s
}

// trust moves the deadline: the lease was renewed for ttl seconds at some moment
// after the request was sent, and is given up a fifth before its earliest end.
func (s *session) trust(sent time.Time, ttl int64) {
	until := sent.Add(time.Duration(ttl) * time.Second * 4 / 5).Sub(s.engine.start)
	if int64(until) > s.deadline.Load() { // only one goroutine renews
		s.deadline.Store(int64(until))
	}
}

// left returns for how long the lease can still be trusted.
func (s *session) left() time.Duration {
	return time.Duration(s.deadline.Load()) - time.Since(s.engine.start)
}

// alive reports whether the lease can be trusted. It goes by the clock: the process may have been
// paused, and the watchdog with it.
func (s *session) alive() bool {
	if s.ctx.Err() == nil && s.left() <= 0 {
		s.lose()
	}
	return s.ctx.Err() == nil
}

// request returns what bounds a request to etcd: the session, and the TTL or up to a quarter more. After either, etcd's
// reply would mean nothing that the end of the lease does not mean too.
func (s *session) request() context.Context {
	return s.period.Load()
}

// within bounds a request by ctx too.
func (s *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, cancel := context.WithCancelCause(s.request())
	stop := context.AfterFunc(ctx, func() { cancel(ctx.Err()) })
	return &bounded{bound}, func() { stop(); cancel(nil) }
}

// mostPeriods is for how many quarters of the TTL a request may be under way, the first included.
const mostPeriods = 5

// beginPeriod is called when a quarter of the TTL begins. All requests of one quarter have one context, which spares
// each a timer of its own here, and another one at the member, which would be told the deadline.
func (s *session) beginPeriod() {
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.period.Store(&bounded{ctx})
	s.periods = append(s.periods, cancel)
	if len(s.periods) > mostPeriods {
		s.periods[0](context.DeadlineExceeded)
		s.periods = s.periods[1:]
	}
}

// bounded is a context that ends with DeadlineExceeded if that is why it was cancelled: a request that took too
// long can be repeated, unlike one that was cancelled.
type bounded struct{ context.Context }

func (b *bounded) Err() error {
	if err := b.Context.Err(); err == nil || context.Cause(b.Context) != context.DeadlineExceeded {
		return err
	}
	return context.DeadlineExceeded
}

// add makes the entry known to the audit, before it is sent to etcd.
func (s *session) add(p *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[p.key] = p
}

// remove is for an entry that is gone from etcd, or left to the audit.
func (s *session) remove(p *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[p.key] == p {
		delete(s.entries, p.key)
	}
}

// suspect has the lease renewed now, and the entries looked for: something was missing that it should have kept.
func (s *session) suspect() {
	signal(s.doubt)
	signal(s.audits)
}

// signal sends to a channel of one, unless there is a signal in it already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// verify reports whether etcd knows the lease.
func (s *session) verify(ctx context.Context) (bool, error) {
	resp, err := s.engine.client.TimeToLive(ctx, s.lease)
	if err != nil {
		return false, err
	}
	if resp.TTL < 0 {
		s.suspect()
	}
	return resp.TTL >= 0, nil
}

type sessionReply struct {
	session *session
	err     error
}

// session returns the engine's session, a new one if the last was lost.
func (e *Engine) session(ctx context.Context) (*session, error) {
	if s := e.current.Load(); s != nil && s.alive() {
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
			if s := e.current.Load(); s != nil && s.alive() { // it came after the ask was sent
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
		e.begun.Add(1)
		e.current.Store(s)
		e.sessions.Go(s.keepAlive)
	}
}

// startSession obtains a lease. It does not end with any caller's context, and this process chooses
// the lease's ID, so that no lease is left behind whose ID it does not know. After an attempt without a
// reply the next one has the same ID: whichever is carried out first, there is one lease.
func (e *Engine) startSession() (*session, error) {
	ctx, cancel := context.WithTimeout(e.requests, e.ttl)
	defer cancel()
	if e.unconfirmed == 0 {
		e.unconfirmed = 1 + rand.Int64N(math.MaxInt64-1)
	}
	request := &pb.LeaseGrantRequest{ID: e.unconfirmed, TTL: int64(e.ttl / time.Second)}
	var to peer.Peer // no address if the request was not sent
	sent := time.Now()
	granted, err := clientv3.RetryLeaseClient(e.client).LeaseGrant(ctx, request, grpc.Peer(&to))
	err = clientv3.ContextError(ctx, err)
	e.sent = e.sent || to.Addr != nil
	switch {
	case errors.Is(err, rpctypes.ErrLeaseExist): // since an earlier attempt, and it is not known since when
		if err := e.revoke(ctx, clientv3.LeaseID(e.unconfirmed)); err == nil {
			e.unconfirmed, e.sent = 0, false
		}
		return nil, fmt.Errorf("no lease: %w", err)
	case err != nil:
		return nil, fmt.Errorf("no lease: %w", err)
	}
	e.unconfirmed, e.sent = 0, false
	s := e.newSession(clientv3.LeaseID(granted.ID), sent, granted.TTL)
	s.after = granted.GetHeader().GetRevision()
	return s, nil
}

// revoke ends the lease at etcd, and with it every key of the session. It tries until
// ctx ends, or until the lease must have run out by itself.
func (s *session) revoke(ctx context.Context) error {
	if s.revoked.Load() {
		return nil
	}
	err := s.engine.revoke(ctx, s.lease)
	if err == nil {
		s.revoked.Store(true)
	}
	return err
}

func (e *Engine) revoke(ctx context.Context, lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, e.ttl)
	defer cancel()
	for retry := (crew.Backoff{}); ; {
		_, err := e.client.Revoke(ctx, lease)
		if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		if !passes(err) || retry.Wait(ctx, ctx) != nil {
			return fmt.Errorf("lease %x is left to run out: %w", int64(lease), err)
		}
	}
}

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
	var retry crew.Backoff
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
					again.Reset(retry.Next())
				}
			case !ok:
			case reply.ttl <= 0:
				s.lose()
			default:
				retry = crew.Backoff{}
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
