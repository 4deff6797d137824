package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-46f81e6d/keylock/inorder"
)

// streamPolicy is what a streamer does about failures, in words for the person who runs it.
var streamPolicy = fmt.Sprintf("Streaming: a record that fails is tried again in its place, before the next one of its key; after %d failures\n"+
	"the consumer stops. What is committed is everything below the first record that is not done.", maxTries)

// A streamer is one member of a consumer group that handles records as they come: those of one key
// one after another, in order, and all others side by side. It commits, while work goes on, up to
// the first record that is not done. Its fields are set before run and not changed.
type streamer struct {
	options []kgo.Opt
	topic   string
	poll    int           // how many records it polls at most
	limit   int           // how many it handles at a time at most
	window  window        // how far it reads ahead in a partition
	handle  handler       // the work of one record
	every   time.Duration // between commits
	grace   time.Duration // how long work may go on when its partition is taken away
	tries   int           // how often a record may fail before the streamer gives up; 0: without end

	committed func(partition int32, next int64)                  // called after every commit
	retried   func(record *kgo.Record, because error)            // called before a record is tried again
	released  func(partition int32, from int64)                  // called when a partition is given away, or begins anew
	stuck     func(partition int32, at int64, age time.Duration) // called when work on a record takes longer than grace

	client *kgo.Client
	work   *inorder.Group[orderKey]
	fail   context.CancelCauseFunc // ends run with an error
	wake   chan struct{}           // holds one when waitForWant must look again

	committing sync.Mutex // held through every commit, and while assignments end
	mu         sync.Mutex
	assigned   map[int32]*assignment // by partition
}

// A window bounds what a streamer has accepted of a partition while earlier records are not done. What
// it has polled beyond that is held until there is room.
type window struct {
	records int   // open
	span    int64 // from the first open one to the last accepted: after a crash these come again, and what was done since the last commit
	bytes   int
	held    int // in bytes; from there on the partition is paused, until nothing of it is held
}

// An assignment is a partition while it is this member's. When it comes back later, it is another one:
// what the old one's work still does moves nothing.
type assignment struct {
	partition int32
	tracker   inorder.Tracker
	group     *inorder.Group[orderKey]
	cut       context.CancelFunc // ends the context of its work

	next int64 // what was committed last, or where it begins; -1 before; guarded by streamer.mu

	mu     sync.Mutex
	polled int64         // the last offset that was polled; -1 before
	bytes  int           // of what is accepted and not done
	held   []*kgo.Record // polled and not accepted, in order
	weight int           // of what is held, in bytes
	paused bool
	gone   bool
}

// newStreamer returns a streamer of what the topic holds since the group's last commit; of
// everything, if there was none.
func newStreamer(brokers []string, topic, group string, options ...kgo.Opt) *streamer {
	s := &streamer{
		topic: topic, poll: 500, limit: 1000, tries: maxTries,
		window: window{records: 5000, span: 50_000, bytes: 64 << 20, held: 2 << 20},
		every:  200 * time.Millisecond, grace: 10 * time.Second,
		committed: func(int32, int64) {},
		retried:   func(*kgo.Record, error) {},
		released:  func(int32, int64) {},
		stuck:     func(int32, int64, time.Duration) {},
		wake:      make(chan struct{}, 1),
		assigned:  make(map[int32]*assignment),
	}
	s.options = append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(250 * time.Millisecond), // a partition that goes on after a pause waits for the fetch of the others
		kgo.FetchMaxPartitionBytes(128 << 10),    // what one fetch brings can be held
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // for as long as it takes to accept what was polled
		kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, by map[string][]int32) { s.assign(ctx, by[topic]) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, by map[string][]int32) { s.release(ctx, by[topic], true) }),
		kgo.OnPartitionsLost(func(ctx context.Context, _ *kgo.Client, by map[string][]int32) { s.release(ctx, by[topic], false) }),
	}, options...)
	return s
}

// run polls until ctx ends. Then work that has begun is finished and committed, what waits is dropped
// and stays in the topic, the streamer leaves its group, and run returns nil. When a record fails
// too often, or polls or commits do, it ends in the same way and returns the error.
func (s *streamer) run(ctx context.Context) (err error) {
	s.work = inorder.New[orderKey](context.WithoutCancel(ctx), s.limit, inorder.WithQueue(inorder.Unlimited))
	defer s.work.Wait()
	failing, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.fail = fail
	if s.client, err = kgo.NewClient(s.options...); err != nil { // from here on it calls assign and release
		return err
	}
	defer s.client.CloseAllowingRebalance() // which calls release
	var committer sync.WaitGroup
	committer.Go(func() { s.commitEvery(failing) })
	s.pollUntil(failing)
	cause := context.Cause(failing)
	fail(nil)
	committer.Wait()

	s.work.Stop(nil)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	s.work.WaitIdle(grace)
	for _, a := range s.live() {
		a.cut()
	}
	err = s.commit(context.WithoutCancel(ctx), nil)
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(cause, err)
}

// pollUntil polls, and accepts what it gets, until ctx ends.
func (s *streamer) pollUntil(ctx context.Context) {
	failures := newFailures(ctx)
	for s.waitForWant(ctx) {
		fetches := s.client.PollRecords(ctx, s.poll)
		if ctx.Err() != nil {
			return // what was polled last is dropped, and comes again
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { s.accept(ctx, p.Partition, p.Records) })
		s.client.AllowRebalance()
		if err := failures.count(fetches.Err()); err != nil {
			s.fail(fmt.Errorf("poll: %w", err))
			return
		}
	}
}

// waitForWant waits until a partition wants records, and returns false when ctx ends first. A partition
// that has enough is not paused for that: the client keeps what it has read of it, while after
// a pause it would read it again.
func (s *streamer) waitForWant(ctx context.Context) bool {
	wants := func(a *assignment) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.wants(s.window)
	}
	for {
		if live := s.live(); len(live) == 0 || slices.ContainsFunc(live, wants) {
			return true
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// wakeUp makes waitForWant look again.
func (s *streamer) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// failures counts those of polls, or of commits, in a row.
type failures struct {
	ctx   context.Context
	n     int
	pause *backoff.ExponentialBackOff
}

func newFailures(ctx context.Context) *failures {
	f := &failures{ctx: ctx, pause: backoff.NewExponentialBackOff()}
	f.pause.InitialInterval = 50 * time.Millisecond
	return f
}

// count pauses after a failure, and returns an error when it is the last that is borne.
func (f *failures) count(err error) error {
	if err == nil {
		f.n = 0
		f.pause.Reset()
		return nil
	}
	if f.n++; f.n == maxTries {
		return fmt.Errorf("failed %d times in a row: %w", f.n, err)
	}
	select {
	case <-f.ctx.Done():
	case <-time.After(f.pause.NextBackOff()):
	}
	return nil
}

// accept takes what was polled of a partition. While it does no partition changes hands.
func (s *streamer) accept(ctx context.Context, partition int32, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	a := s.assignment(partition, records[0].Offset)
	if rest := a.take(s, records); len(rest) > 0 { // the log was truncated: what was read of it is not there any more
		s.release(ctx, []int32{partition}, false)
		s.assign(ctx, []int32{partition})
		s.accept(ctx, partition, rest)
	}
}

// assignment returns that of a partition, of which the record at an offset is the next to be accepted.
func (s *streamer) assignment(partition int32, offset int64) *assignment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.assigned[partition]
	if a.next < 0 {
		a.next = offset
	}
	return a
}

// do lets the work of the record begin when its turn has come. When the group has stopped it does
// nothing, and the record stays open.
func (s *streamer) do(a *assignment, record *kgo.Record, mark inorder.Mark) {
	failed := 0
	var pause *backoff.ExponentialBackOff
	a.group.TryGo(orderKeyOf(record), func(ctx context.Context) error {
		if err := ctx.Err(); err != nil { // its turn came as its partition went
			return err
		}
		mark.Start()
		returned := false
		defer func() {
			if !returned { // the group takes it for a failure, too
				s.fail(fmt.Errorf("handle offset %d of partition %d: %w", record.Offset, record.Partition, inorder.ErrGoexit))
			}
		}()
		err := s.handle(ctx, record)
		returned = true
		if err == nil {
			mark.Done()
			a.finished(s, record)
			return nil
		}
		if ctx.Err() != nil { // its partition was taken away, or run ends
			s.retried(record, err)
			return err
		}
		if failed++; failed == s.tries {
			err = fmt.Errorf("handle offset %d of partition %d: failed %d times in a row, it stays uncommitted: %w",
				record.Offset, record.Partition, failed, err)
			s.fail(err)
			return err
		}
		s.retried(record, err)
		if pause == nil {
			pause = backoff.NewExponentialBackOff()
			pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 10*time.Second
		}
		return inorder.Again(pause.NextBackOff(), err)
	})
}

// take holds what was polled, and accepts what the window allows. It returns the records from the first
// one on that comes before an earlier one.
func (a *assignment) take(s *streamer, records []*kgo.Record) (rest []*kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, record := range records {
		if record.Offset <= a.polled {
			return records[i:]
		}
		a.polled = record.Offset
		a.held = append(a.held, record)
		a.weight += sizeOf(record)
	}
	a.feed(s)
	return nil
}

// finished counts a record that is done, which may make room for more.
func (a *assignment) finished(s *streamer, record *kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes -= sizeOf(record)
	a.feed(s)
	if a.wants(s.window) {
		s.wakeUp()
	}
}

// Below, a.mu is held.

// feed accepts what is held, as far as the window allows, and pauses the partition or lets it go on.
func (a *assignment) feed(s *streamer) {
	if a.gone {
		return
	}
	for len(a.held) > 0 && !a.full(s.window) {
		record := a.held[0]
		a.held[0], a.held = nil, a.held[1:]
		a.weight -= sizeOf(record)
		a.bytes += sizeOf(record)
		mark, err := a.tracker.Track(record.Offset)
		if err != nil { // take has seen to it that there is none
			s.fail(err)
			return
		}
		s.do(a, record, mark)
	}
	this := map[string][]int32{s.topic: {a.partition}}
	switch {
	case !a.paused && a.weight >= s.window.held:
		a.paused = true
		s.client.PauseFetchPartitions(this)
	case a.paused && len(a.held) == 0:
		a.paused = false
		s.client.ResumeFetchPartitions(this)
	}
}

// full is true while the window has no room.
func (a *assignment) full(w window) bool {
	return a.tracker.Open() >= w.records || a.tracker.Span() >= w.span || a.bytes >= w.bytes
}

// wants is true when the next record of the partition could be accepted at once.
func (a *assignment) wants(w window) bool { return len(a.held) == 0 && !a.full(w) }

// sizeOf returns about how much memory the record takes.
func sizeOf(record *kgo.Record) int {
	n := int(unsafe.Sizeof(*record)) + len(record.Key) + len(record.Value)
	for _, header := range record.Headers {
		n += len(header.Key) + len(header.Value)
	}
	return n
}

// assign begins assignments. The client calls it, and waits.
func (s *streamer) assign(ctx context.Context, partitions []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partition := range partitions {
		a := &assignment{partition: partition, next: -1, polled: -1}
		var work context.Context
		work, a.cut = context.WithCancel(context.WithoutCancel(ctx))
		a.group = s.work.Sub(work)
		s.assigned[partition] = a
	}
	s.wakeUp()
}

// release ends assignments. The client calls it, and waits; when it returns they may be another
// member's. Work that has begun may end, for as long as the grace, and what is done is committed,
// if that is still allowed.
func (s *streamer) release(ctx context.Context, partitions []int32, commit bool) {
	var released []*assignment
	s.committing.Lock() // waits for a commit that is under way; later ones do not know the partitions
	s.mu.Lock()
	for _, partition := range partitions {
		if a := s.assigned[partition]; a != nil {
			released = append(released, a)
			delete(s.assigned, partition)
		}
	}
	s.mu.Unlock()
	s.committing.Unlock()
	grace, cancel := context.WithTimeout(ctx, s.grace)
	defer cancel()
	for _, a := range released {
		a.mu.Lock()
		a.gone, a.held = true, nil
		a.mu.Unlock()
		a.group.Stop(nil)
	}
	for _, a := range released {
		if commit {
			a.group.WaitIdle(grace)
		}
		a.cut()
	}
	if commit {
		s.commit(ctx, released) // if it fails, what was done comes again
	}
	for _, a := range released {
		// The client keeps a pause beyond the assignment.
		s.client.ResumeFetchPartitions(map[string][]int32{s.topic: {a.partition}})
		if next := s.nextOf(a); next >= 0 {
			s.released(a.partition, next)
		}
	}
	s.wakeUp()
}

// nextOf returns what was committed last of an assignment, or where it begins; -1 before that is known.
func (s *streamer) nextOf(a *assignment) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.next
}

// live returns the assignments that are not released.
func (s *streamer) live() (all []*assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.assigned {
		all = append(all, a)
	}
	return all
}

// commitEvery commits from time to time until ctx ends.
func (s *streamer) commitEvery(ctx context.Context) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	failures := newFailures(ctx)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := failures.count(s.commit(context.WithoutCancel(ctx), nil)); err != nil {
			s.fail(fmt.Errorf("commit: %w", err))
			return
		}
		for _, a := range s.live() {
			at, started, ok := a.tracker.Oldest()
			if ok && !started.IsZero() && time.Since(started) > s.grace {
				s.stuck(a.partition, at, time.Since(started))
			}
		}
	}
}

// commit commits what is done of the assignments; of all that are live if none are given. Records are accepted
// meanwhile: it may wait long, as for other members that join the group.
func (s *streamer) commit(ctx context.Context, of []*assignment) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if of == nil {
		of = s.live()
	}
	offsets := make(map[int32]kgo.EpochOffset)
	for _, a := range of {
		if next, ok := a.tracker.Next(); ok && next > s.nextOf(a) {
			offsets[a.partition] = kgo.EpochOffset{Epoch: -1, Offset: next}
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	var failed error
	refused := make(map[int32]error)
	s.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{s.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err != nil {
				return
			}
			for _, topic := range response.Topics {
				for _, partition := range topic.Partitions {
					refused[partition.Partition] = kerr.ErrorForCode(partition.ErrorCode)
				}
			}
		})
	if failed != nil {
		return failed
	}
	for _, a := range of {
		committed, asked := offsets[a.partition]
		switch err := refused[a.partition]; {
		case !asked:
		case err == nil:
			s.mu.Lock()
			a.next = committed.Offset
			s.mu.Unlock()
			s.committed(a.partition, committed.Offset)
		case errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID):
			// The group is about to take the partition, or has: the client will hear of it.
		default:
			failed = err
		}
	}
	return failed
}
