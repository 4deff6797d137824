package redislock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lease"
)

// buckets is into how many parts the keys are divided, each in one slot of a
// cluster. It bounds what stays at the server, and what a renewal asks of it.
const buckets = 64

func bucketOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % buckets)
}

//go:embed scripts.lua
var sections string

// section returns a section of scripts.lua.
func section(name string) string {
	_, text, _ := strings.Cut(sections, "\n---- "+name+"\n")
	text, _, _ = strings.Cut(text, "\n---- ")
	return text + "\n"
}

// scripts are those of an engine. What is the same in all of its calls is written in them: that is
// less for the server to read each time.
type scripts struct {
	begin, renew, enter, leave, warn, end, inspect, list, force *Script
}

func newScripts(o options, cluster bool) *scripts {
	settings := fmt.Sprintf("local quarantine, prefix, cluster = %d, %s, %t\n", o.quarantine.Milliseconds(), literal(o.prefix+":"), cluster)
	script := func(names ...string) *Script {
		source := settings + section("head")
		for _, name := range names {
			source += section(name)
		}
		return newScript(source)
	}
	return &scripts{
		begin:   script("bucket", "begin"),
		renew:   script("bucket", "renew"),
		enter:   script("enter at once", "bucket", "enter"),
		leave:   script("leave at once", "bucket", "leave"),
		warn:    script("warn"),
		end:     script("bucket", "end"),
		inspect: script("bucket", "inspect"),
		list:    script("bucket", "list"),
		force:   script("bucket", "break"),
	}
}

// literal returns text as Lua writes it.
func literal(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, c := range []byte(text) {
		if c == '_' || c >= '0' && c <= ':' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\%03d", c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// ErrEvicts means that the server removes keys when its memory is full, whichever they
// are, and with them the locks: its maxmemory-policy is one of the allkeys policies.
// It is returned by Acquire and TryAcquire. With noeviction or a volatile policy nothing of ours is removed.
var ErrEvicts = errors.New("redislock: the server's maxmemory-policy may evict locks")

// store is the lease.Store in Redis.
type store struct {
	client Client
	options
	single, clustered *scripts
	asides            chan struct{} // has room for as many calls as may have connections of their own

	mu       sync.Mutex
	sessions map[string]*session // by ID, from Begin to End
}

// session is what is known of a session here.
type session struct {
	touched time.Time // when it was last asked about; guarded by the store's mu

	mu      sync.Mutex
	cluster bool             // written by Begin, before anything else asks
	buckets [buckets]*bucket // those that the session begins or has begun
	tried   [buckets]bool    // those that it may have begun
	fresh   chan struct{}    // closed and replaced when one was begun
}

// bucket is a session in one bucket.
type bucket struct {
	replied chan struct{} // closed when err is known
	err     error
	begun   bool // guarded by the session's mu
}

func (s *store) tag(b int) string { return "{" + s.prefix + strconv.Itoa(b) + "}" }

// names returns the keys of a bucket.
func (s *store) names(b int) []string {
	return []string{s.tag(b) + ":locks", s.tag(b) + ":sessions"}
}

// scripts returns those for a cluster, or for a single server.
func (s *store) scripts(cluster bool) *scripts {
	if cluster {
		return s.clustered
	}
	return s.single
}

// channels returns what the name of a session's channel begins with.
func (s *store) channels(b int, cluster bool) string {
	if cluster {
		return s.tag(b) + ":"
	}
	return s.prefix + ":"
}

// run runs a script on a bucket. With replicas it returns an error when fewer acknowledged than are wanted.
func (s *store) run(ctx context.Context, script *Script, b int, replicas int, args ...string) ([]string, error) {
	return s.send(ctx, b, Call{Script: script, Args: args, Replicas: replicas})
}

// mostAside is how many calls that no lock waits for have connections of their own at a time. There can be one such call for
// each key that is held, and some clients keep each connection that they have made.
const mostAside = 4

// send is run for a call without Keys and Within. Of those with Aside, only mostAside keep it.
func (s *store) send(ctx context.Context, b int, call Call) ([]string, error) {
	if call.Aside {
		select {
		case s.asides <- struct{}{}:
			defer func() { <-s.asides }()
		default:
			call.Aside = false
		}
	}
	call.Keys, call.Within = s.names(b), s.ttl/8
	reply, acknowledged, err := s.client.Run(ctx, call)
	switch {
	case err != nil:
		return nil, judge(err)
	case len(reply) == 0:
		return nil, errors.New("an empty reply")
	case reply[0] == "gone":
		return nil, lease.ErrSessionGone
	case acknowledged < call.Replicas:
		return reply, fmt.Errorf("%w: %d of %d", errFewReplicas, acknowledged, call.Replicas)
	}
	return reply, nil
}

var errFewReplicas = errors.New("too few replicas acknowledged")

// judge marks what waiting does not mend.
func judge(err error) error {
	text := strings.TrimPrefix(err.Error(), "ERR ") // which some clients leave out
	for _, refusal := range []string{"NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE", "unknown command", "The user executing the script can't"} {
		if strings.HasPrefix(text, refusal) {
			return lease.Refused(err)
		}
	}
	return err
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(d.Milliseconds(), 10)
}

func (s *store) session(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.sessions[id]
	if own == nil {
		for other, o := range s.sessions { // whose End never succeeded
			if time.Since(o.touched)/4 > s.ttl {
				delete(s.sessions, other)
			}
		}
		own = &session{fresh: make(chan struct{})}
		s.sessions[id] = own
	}
	own.touched = time.Now()
	return own
}

// Begin opens every bucket that it can reach, so that a quarantine is over everywhere by the time when
// the last bucket is used. The session begins in a bucket when it is used.
func (s *store) Begin(ctx context.Context, id lease.Session) error {
	var reached, cluster atomic.Bool
	err := s.each(func(b int) error {
		in, err := s.begin(ctx, b, id, 0)
		if err == nil {
			reached.Store(true)
			cluster.Store(in)
		}
		return err
	})
	s.session(id.ID).cluster = cluster.Load()
	if reached.Load() && !lease.IsRefused(err) {
		return nil // a part of a cluster is down
	}
	return err
}

// each calls f for every bucket and returns the error that decides. It has two calls under way, and more when the server is
// so far away that all would take longer than a quarter of the TTL.
func (s *store) each(f func(b int) error) error {
	var all sync.WaitGroup
	errs := make([]error, buckets)
	returned := make(chan struct{}, buckets)
	patience := time.NewTicker(s.ttl / (4 * buckets))
	defer patience.Stop()
	for b := range buckets {
		if b >= 2 {
			select {
			case <-returned:
			case <-patience.C:
			}
		}
		all.Go(func() {
			errs[b] = f(b)
			returned <- struct{}{}
		})
	}
	all.Wait()
	return first(errs)
}

// first returns the error that decides: that the session is gone, or a refusal, before any other.
func first(errs []error) (err error) {
	for _, e := range errs {
		switch {
		case errors.Is(e, lease.ErrSessionGone):
			return e
		case err == nil, e != nil && lease.IsRefused(e):
			err = e
		}
	}
	return err
}

// begin opens a bucket, and begins the session in it unless the TTL is 0. The reply must come early in the life
// that it vouches for: no renewal has covered the bucket yet, while others have prolonged the engine's trust.
func (s *store) begin(ctx context.Context, b int, id lease.Session, ttl time.Duration) (cluster bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, id.TTL/8)
	defer cancel()
	reply, err := s.send(ctx, b, Call{
		Script: s.single.begin, Args: []string{id.ID, milliseconds(ttl), id.Process.String()}, Aside: ttl == 0, Urgent: true,
	})
	if err != nil {
		return false, err
	}
	if reply[0] == "evicts" {
		return false, lease.Refused(fmt.Errorf("%w: %s", ErrEvicts, reply[1]))
	}
	return reply[1] == "1", nil
}

// use begins the session in the bucket unless it has, and returns whether it is in a cluster.
func (s *store) use(ctx context.Context, b int, id lease.Session) (cluster bool, err error) {
	own := s.session(id.ID)
	own.mu.Lock()
	in := own.buckets[b]
	begins := in == nil
	if begins {
		in = &bucket{replied: make(chan struct{})}
		own.buckets[b], own.tried[b] = in, true
	}
	cluster = own.cluster
	own.mu.Unlock()
	if !begins {
		select {
		case <-in.replied:
			return cluster, in.err
		case <-ctx.Done():
			return cluster, ctx.Err()
		}
	}
	_, in.err = s.begin(ctx, b, id, id.TTL)
	own.mu.Lock()
	if in.err != nil {
		own.buckets[b] = nil // the next Enter tries again
	} else {
		in.begun = true
		close(own.fresh)
		own.fresh = make(chan struct{})
	}
	own.mu.Unlock()
	close(in.replied)
	return cluster, in.err
}

// used returns the buckets in which the session has begun, and a channel that is closed when there are more.
func (s *store) used(id lease.Session) (own *session, in [buckets]bool, more <-chan struct{}) {
	own = s.session(id.ID)
	own.mu.Lock()
	defer own.mu.Unlock()
	for b, u := range own.buckets {
		in[b] = u != nil && u.begun
	}
	return own, in, own.fresh
}

// Renew prolongs the session in every bucket. A bucket that does not know it loses it as a whole.
func (s *store) Renew(ctx context.Context, id lease.Session, held []lease.Held) (missing []lease.Held, err error) {
	own, in, _ := s.used(id)
	byBucket := make(map[int][]lease.Held)
	for _, h := range held {
		b := bucketOf(h.Key)
		byBucket[b] = append(byBucket[b], h)
	}
	var mu sync.Mutex
	err = s.each(func(b int) error {
		if !in[b] {
			return nil
		}
		args := []string{id.ID, milliseconds(id.TTL)}
		for _, h := range byBucket[b] {
			args = append(args, h.Key, strconv.FormatUint(h.Epoch, 10))
		}
		reply, err := s.send(ctx, b, Call{
			Script: s.scripts(own.cluster).renew, Args: args, Aside: true, Urgent: true, Replicas: s.replicas,
		})
		if err != nil {
			return err
		}
		for _, position := range reply[1:] {
			i, err := strconv.Atoi(position)
			if err != nil || i >= len(byBucket[b]) {
				return fmt.Errorf("the reply %q to a renewal", reply)
			}
			mu.Lock()
			missing = append(missing, byBucket[b][i])
			mu.Unlock()
		}
		return nil
	})
	return missing, err
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// nameOf returns what an entry is called in the scripts.
func nameOf(e lease.Entry) string {
	if e.Warn {
		return e.ID() + "w"
	}
	return e.ID()
}

func (s *store) Enter(ctx context.Context, e lease.Entry, try bool) (lease.Standing, error) {
	b := bucketOf(e.Key)
	cluster, err := s.use(ctx, b, e.Session)
	if err != nil {
		return lease.Standing{}, err
	}
	reply, err := s.run(ctx, s.scripts(cluster).enter, b, s.replicas, e.Session.ID, nameOf(e), e.Key, flag(try), flag(s.replicas > 0))
	if errors.Is(err, errFewReplicas) && reply[0] != "granted" {
		err = nil // a waiter has nothing to lose
	}
	if err != nil {
		// What may be forgotten must not be held. The entry stays all the same: to leave and to enter again could arrive in
		// the other order.
		return lease.Standing{}, err
	}
	switch {
	case reply[0] == "granted" && len(reply) == 3:
		epoch, err := strconv.ParseUint(reply[1], 10, 64)
		return lease.Standing{Epoch: epoch, Wanted: reply[2] == "1"}, err
	case reply[0] == "waits" && len(reply) == 2:
		again, err := strconv.ParseInt(reply[1], 10, 64)
		return lease.Standing{Again: time.Duration(again) * time.Millisecond}, err
	case reply[0] == "held" && len(reply) == 4:
		epoch, err := strconv.ParseUint(reply[1], 10, 64)
		if err != nil {
			return lease.Standing{}, fmt.Errorf("the reply %q to an entry", reply)
		}
		return lease.Standing{}, &cohort.HeldError{Holder: cohort.Contender{
			Process: cohort.ParseProcess(reply[3]), Since: time.UnixMicro(int64(epoch)), Epoch: epoch, Own: reply[2] == e.Session.ID,
		}}
	case reply[0] == "held":
		return lease.Standing{}, cohort.ErrHeld
	default: // "left" cannot be the reply to a request that is waited for
		return lease.Standing{}, fmt.Errorf("the reply %q to an entry", reply)
	}
}

func (s *store) Leave(ctx context.Context, e lease.Entry, late bool) (found bool, err error) {
	own, in, _ := s.used(e.Session)
	if !in[bucketOf(e.Key)] {
		return false, nil // nothing was ever sent that could have entered it
	}
	reply, err := s.run(ctx, s.scripts(own.cluster).leave, bucketOf(e.Key), 0, e.Session.ID, nameOf(e), e.Key, flag(late))
	return err == nil && len(reply) == 2 && reply[1] == "1", err
}

// Warn implements lease.Warner.
func (s *store) Warn(ctx context.Context, e lease.Entry) (wanted bool, err error) {
	reply, err := s.send(ctx, bucketOf(e.Key), Call{Script: s.single.warn, Args: []string{nameOf(e), e.Key}, Aside: true})
	return err != nil || len(reply) != 2 || reply[1] != "0", err
}

func (s *store) End(ctx context.Context, id lease.Session) error {
	own := s.session(id.ID)
	own.mu.Lock()
	use := own.tried
	own.mu.Unlock()
	err := s.each(func(b int) error {
		for use[b] {
			reply, err := s.send(ctx, b, Call{Script: s.scripts(own.cluster).end, Args: []string{id.ID}, Aside: true})
			if err != nil {
				return err
			}
			use[b] = reply[0] == "more"
		}
		return nil
	})
	if err == nil {
		s.mu.Lock()
		delete(s.sessions, id.ID)
		s.mu.Unlock()
	}
	return err
}

// Listen subscribes to the session's channel, or in a cluster to one in each bucket that is in use.
func (s *store) Listen(ctx context.Context, id lease.Session, notify func(lease.Notice)) error {
	own, in, more := s.used(id)
	if !own.cluster {
		return s.subscribe(ctx, s.channels(0, false)+id.ID, notify)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	ended := make(chan error, buckets)
	var hears [buckets]bool
	if in == hears {
		notify(lease.Notice{Kind: lease.Look}) // nothing can be missed yet
	}
	for {
		for b := range in {
			if in[b] && !hears[b] {
				hears[b] = true
				all.Go(func() { ended <- s.subscribe(ctx, s.channels(b, true)+id.ID, notify) })
			}
		}
		select {
		case <-more:
			_, in, more = s.used(id)
		case err := <-ended:
			cancel()
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// subscribe passes on what is published in a channel.
func (s *store) subscribe(ctx context.Context, channel string, notify func(lease.Notice)) error {
	look := func() { notify(lease.Notice{Kind: lease.Look}) }
	return s.client.Subscribe(ctx, channel, look, func(message string) {
		n, others, ok := parseNotice(message)
		if !ok {
			return
		}
		if s.replicas > 0 {
			n.Epoch = 0 // the entry asks, so that the reply comes when the grant was acknowledged
		}
		if others {
			notify(lease.Notice{Kind: lease.Wanted, Attempt: n.Attempt})
		}
		notify(n)
	})
}

// parseNotice reads "granted <epoch> <attempt>", with a last word if others wait, and "wanted 0 <attempt>".
func parseNotice(message string) (n lease.Notice, others, ok bool) {
	words := strings.Fields(message)
	if len(words) != 3 && len(words) != 4 {
		return n, false, false
	}
	switch words[0] {
	case "granted":
		n.Kind = lease.Granted
	case "wanted":
		n.Kind = lease.Wanted
	default:
		return n, false, false
	}
	var err1, err2 error
	n.Epoch, err1 = strconv.ParseUint(words[1], 10, 64)
	n.Attempt, err2 = strconv.ParseUint(words[2], 10, 64)
	return n, len(words) == 4, err1 == nil && err2 == nil
}
