package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/seed-46f81e6d/keylock/internal/crew"
)

// A process learns that another one wants a key that it holds by an inbox: etcd keys below one name per lease, on
// which the process has one watch, whatever it holds. A note costs a request that is written to disk, so that those who
// wait leave one only for an entry that listens, which its value says. An entry begins to listen when its process first asks
// for that, by a transaction that marks it if it is the last of its queue. If it is not, it is wanted already.
// A contender that comes later sees the mark; one that came before is seen by the transaction.
//
// A contender that has to wait puts its note into the inbox of the one ahead in a transaction in which it looks at
// the queue, and removes it in the one in which it leaves the queue. A failed try, which nothing hurries, leaves
// a note also where nothing listens yet, and removes it at once: a watch shows it all the same.
//
// While there is no watch, every key counts as wanted. A user of concurrency.Mutex leaves no note, and a watch can
// be silent although its connection is dead, so that the queues of keys held for a while are looked at too.

// lookEvery is how often they are: what waits without a note is noticed within two of it.
const lookEvery = 500 * time.Millisecond

// openingLooks is after how many of them a session that has just begun should have its watch.
const openingLooks = 4

// mostLooks is at how many queues one round looks; of more keys, each has its turn after some rounds.
const mostLooks = 1000

// inbox returns what the notes for a lease begin with. No queue holds them, because no name of a key is followed by this.
func (e *Engine) inbox(lease int64) string {
	return e.prefix + separator + "wanted/" + strconv.FormatInt(lease, 16) + "/"
}

// neighbour is the entry ahead of another one; the zero neighbour is none.
type neighbour struct {
	key      string
	revision int64
	lease    int64
	reads    bool // it has an inbox
	listens  bool // it should have a note there of one who waits
}

func neighbourOf(kvs []*mvccpb.KeyValue) neighbour {
	if len(kvs) == 0 {
		return neighbour{}
	}
	kv := kvs[0]
	c := parseContender(kv.Value)
	return neighbour{string(kv.Key), kv.CreateRevision, kv.Lease, c.attempt != "", c.listens}
}

// A note names the entry that is wanted: a session has one entry after the other in a queue, with the same etcd key.
func (n neighbour) note() string { return strconv.FormatInt(n.revision, 10) + " " + n.key }

func decodeNote(note string) (revision int64, key string) {
	digits, key, _ := strings.Cut(note, " ")
	revision, _ = strconv.ParseInt(digits, 10, 64)
	return revision, key
}

// noteFor returns the operation that leaves a note in the inbox of the entry ahead; none if it is known to be there, or if
// the entry ahead does not listen. One that listens holds the key, so that an entry has at most one such ahead of it
// in its life.
func (p *entry) noteFor(ahead neighbour) []clientv3.Op {
	if !ahead.listens || p.noteIsLeft {
		return nil
	}
	if p.note == "" {
		p.note = p.engine.inbox(ahead.lease) + strconv.FormatInt(int64(p.session.lease), 16) + "-" + p.value.attempt
		p.session.addNote(p.note) // before it is sent: it may be carried out without a reply
	}
	return []clientv3.Op{clientv3.OpPut(p.note, ahead.note(), clientv3.WithLease(p.session.lease))}
}

// addNote makes the note known to the audit, before it is sent to etcd.
func (s *session) addNote(note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes[note] = true
}

func (s *session) removeNote(note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.notes, note)
}

// onWanted has f called once when another process wants the entry, now if one does.
func (p *entry) onWanted(f func()) {
	switch {
	case !p.whenWanted.CompareAndSwap(nil, &f):
		f()
	case p.session.isDeaf() || p.isGone.Load():
		p.want()
	default:
		p.session.listenFor(p)
	}
}

// listenFor has the entry listen.
func (s *session) listenFor(p *entry) {
	s.mu.Lock()
	s.unmarked = append(s.unmarked, p)
	s.mu.Unlock()
	signal(s.marks)
}

// keepMarking has entries listen, until the session ends.
func (s *session) keepMarking() {
	for {
		select {
		case <-s.marks:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		unmarked := s.unmarked
		s.unmarked = nil
		s.mu.Unlock()
		unmarked = slices.DeleteFunc(unmarked, func(p *entry) bool { return !p.isHeld() })
		for some := range byRequest(unmarked) {
			if err := s.mark(some); err != nil {
				s.engine.note(err)
				for _, p := range some { // those behind may not know that it listens
					p.want()
				}
			}
		}
	}
}

// mark marks the entries as listening, if each is the last of its queue; the others are wanted, or gone.
func (s *session) mark(entries []*entry) error {
	var ops []clientv3.Op
	for _, p := range entries {
		marked := p.value
		marked.listens = true
		isLast := clientv3.Compare(clientv3.CreateRevision(p.queue).WithPrefix(), "<", p.revision+1)
		put := clientv3.OpPut(p.key, marked.String(), clientv3.WithLease(s.lease))
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{p.isMine(), isLast}, []clientv3.Op{put}, nil))
	}
	ctx := s.request()
	resp, err := s.engine.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			s.suspect()
		}
		return err
	}
	for i, p := range entries {
		if !resp.Responses[i].GetResponseTxn().Succeeded {
			p.want()
		}
	}
	return nil
}

// want calls what onWanted was given, once, or has onWanted call it.
func (p *entry) want() {
	if f := p.whenWanted.Swap(&wanted); f != nil {
		(*f)()
	}
}

// wanted stands in the place of a function that was called, or need not be.
var wanted = func() {}

// wantedAt takes a note for the entry that was created at the revision, which may be an earlier one.
func (p *entry) wantedAt(revision int64) {
	for {
		last := p.noted.Load()
		if revision <= last {
			return
		}
		if p.noted.CompareAndSwap(last, revision) {
			break
		}
	}
	select {
	case <-p.entered:
		p.heedNotes()
	default: // the one that enters does, when it knows the revision
	}
}

// heedNotes is for when entered is closed.
func (p *entry) heedNotes() {
	if p.enterErr == nil && p.noted.Load() >= p.revision {
		p.want()
	}
}

// isDeaf reports whether a note may go unnoticed. A session that has just begun is given a while to open its watch.
func (s *session) isDeaf() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaf
}

// opened is for when the watch should have begun for the first time.
func (s *session) opened() {
	s.mu.Lock()
	hears := s.hears
	s.mu.Unlock()
	if !hears {
		s.deafen()
	}
}

// deafen takes that a note may go unnoticed from now on: then every key counts as wanted.
func (s *session) deafen() {
	s.mu.Lock()
	s.deaf, s.hears = true, false
	s.mu.Unlock()
	s.wantAll()
}

func (s *session) wantAll() {
	for _, p := range s.all() {
		p.want()
	}
}

// all returns the entries of the session.
func (s *session) all() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]*entry, 0, len(s.entries))
	for _, p := range s.entries {
		entries = append(entries, p)
	}
	return entries
}

// keepListening watches the inbox until the session ends.
func (s *session) keepListening() {
	since := s.after
	for retry := (crew.Backoff{}); ; {
		heard, err := s.listen(since)
		since = 0
		s.deafen()
		if s.ctx.Err() == nil && err != nil {
			s.engine.note(err)
		}
		if heard {
			retry = crew.Backoff{}
		}
		if retry.Wait(s.ctx, s.ctx) != nil {
			return
		}
	}
}

// listen watches the inbox until the watch fails, and reports whether it ever began. The note of a try may be gone by the
// time there is a watch. So the first one shows what came after the revision since, when the session began. Each later one
// shows what is to come, with since 0, and the entries that were made before count as wanted.
func (s *session) listen(since int64) (heard bool, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	inbox := s.engine.inbox(int64(s.lease))
	w := s.stream()
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFilterDelete()}
	if since > 0 {
		opts = append(opts, clientv3.WithRev(since+1))
	}
	for resp := range s.engine.client.Watch(w.with(ctx), inbox, opts...) {
		if err := resp.Err(); err != nil {
			w.failed(err)
			return heard, err
		}
		for _, event := range resp.Events {
			s.read(event.Kv)
		}
		if resp.Created {
			before, err := s.engine.client.Get(ctx, inbox, clientv3.WithPrefix()) // what was there when the watch began
			if err != nil {
				return heard, err
			}
			for _, kv := range before.Kvs {
				s.read(kv)
			}
			heard = true
			s.mu.Lock()
			s.deaf, s.hears = false, true
			s.mu.Unlock()
			if since == 0 {
				s.wantAll()
			}
		}
	}
	return heard, errWatchEnded
}

// read takes a note.
func (s *session) read(kv *mvccpb.KeyValue) {
	revision, key := decodeNote(string(kv.Value))
	s.mu.Lock()
	p := s.entries[key]
	s.mu.Unlock()
	if p != nil {
		p.wantedAt(revision)
	}
}

// keepLooking looks at the queues of keys that have been held for a while, until the session ends.
func (s *session) keepLooking() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			if n == openingLooks {
				s.opened()
			}
			if err := s.lookBehind(); err != nil { // perhaps a member is cut off, and the watch silent
				s.engine.note(err)
				s.wantAll()
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// lookBehind looks for contenders that are behind entries of this session and have left no note.
func (s *session) lookBehind() error {
	now := time.Now()
	entries := slices.DeleteFunc(s.all(), func(p *entry) bool {
		f := p.whenWanted.Load()
		return f == nil || f == &wanted || !p.isHeld() || now.Sub(p.made) < lookEvery
	})
	slices.SortFunc(entries, func(p, q *entry) int { return cmp.Compare(p.looked, q.looked) })
	for some := range byRequest(entries[:min(len(entries), mostLooks)]) {
		ctx, cancel := context.WithTimeout(s.ctx, 2*lookEvery)
		var gets []clientv3.Op
		for _, p := range some {
			p.looked = int64(now.Sub(s.engine.start))
			gets = append(gets, clientv3.OpGet(p.queue, clientv3.WithPrefix(), clientv3.WithMinCreateRev(p.revision+1), clientv3.WithLimit(1), clientv3.WithKeysOnly()))
		}
		resp, err := s.engine.client.Txn(ctx).Then(gets...).Commit()
		cancel()
		if err != nil {
			return err
		}
		for i, p := range some {
			if len(resp.Responses[i].GetResponseRange().Kvs) > 0 {
				p.want()
			}
		}
	}
	return nil
}

// keepNotingTries leaves a note for each try that has failed, until the session ends.
func (s *session) keepNotingTries() {
	noted := make(map[string]int64) // by queue, for which entry
	for {
		select {
		case queue := <-s.tries:
			if len(noted) > mostLooks {
				clear(noted)
			}
			if err := s.noteTry(queue, noted); err != nil {
				s.engine.note(err)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// tried has a note left that a try of the queue has failed. The note is not worth a wait: when there are too many tries,
// or too many keys, the holder learns of another try.
func (s *session) tried(queue string) {
	select {
	case s.tries <- queue:
	default:
	}
}

// noteTry leaves a note for the holder that nothing waits for: those that wait have left theirs.
func (s *session) noteTry(queue string, noted map[string]int64) error {
	ctx := s.request()
	first, err := s.engine.client.Get(ctx, queue, clientv3.WithFirstCreate()...)
	if err != nil {
		return err
	}
	holder := neighbourOf(first.Kvs)
	if first.Count != 1 || !holder.reads || holder.lease == int64(s.lease) || noted[queue] == holder.revision {
		return nil
	}
	note := s.engine.inbox(holder.lease) + strconv.FormatInt(int64(s.lease), 16)
	s.addNote(note)
	defer s.removeNote(note) // from then on it is the audit's
	_, err = s.engine.client.Put(ctx, note, holder.note(), clientv3.WithLease(s.lease))
	if err == nil {
		noted[queue] = holder.revision
		_, err = s.engine.client.Delete(ctx, note)
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.suspect()
	}
	return err
}

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
	for retry := (crew.Backoff{}); s.watch.Load() == w.generation; {
		for resp := range s.engine.client.Watch(w.with(s.ctx), never) {
			if err := resp.Err(); err != nil {
				s.engine.note(err)
				w.failed(err)
			}
		}
		if retry.Wait(s.ctx, s.ctx) != nil {
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
