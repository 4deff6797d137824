package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock/inorder"
)

// stream returns a member of the test group that handles records as they come, seen by the witness.
func stream(t *testing.T, cluster *kfake.Cluster, seen *witness, handle handler, options ...kgo.Opt) *streamer {
	t.Helper()
	s := newStreamer(cluster.ListenAddrs(), testTopic, testGroup, append(append([]kgo.Opt{}, quick...), options...)...)
	s.poll, s.every = 100, 10*time.Millisecond
	s.handle = seen.watch(handle)
	s.retried = func(record *kgo.Record, because error) {
		t.Logf("offset %d of partition %d comes again: %v", record.Offset, record.Partition, because)
		seen.retried(record)
	}
	s.released = seen.released
	return s
}

func TestStreamCommitsWhatItHandled(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 3000, 50)
	seen := newWitness()

	require.NoError(t, drain(t, stream(t, cluster, seen, succeed), readings))

	assert.Equal(t, findings{handled: 3000}, seen.found())
	assert.Zero(t, lagNow(t, readings))
}

// A window without a bound is none, and not one that is always full.
func TestWindowsOfAnySize(t *testing.T) {
	for _, n := range []int{1, 5000, math.MaxInt / 10, math.MaxInt/10 + 1, math.MaxInt} {
		s := streaming(settings{brokers: []string{"localhost:1"}, window: n}, testGroup, &recorder{}, nil)
		assert.Equal(t, n, s.window.records)
		assert.GreaterOrEqual(t, s.window.span, int64(n)/10*10)
		assert.False(t, new(assignment).full(s.window))
	}
}

func TestStreamTriesAgainInPlace(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 3000, 50)
	seen := newWitness()
	var calls atomic.Int64

	require.NoError(t, drain(t, stream(t, cluster, seen, func(context.Context, *kgo.Record) error {
		if calls.Add(1)%700 == 0 {
			return errBad
		}
		return nil
	}), readings))

	assert.Equal(t, findings{handled: 3000}, seen.found(), "each once, and none passes the one that failed")
	assert.Greater(t, calls.Load(), int64(3000))
}

func TestStreamGivesUpOnARecordThatAlwaysFails(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 1000, 50)
	seen := newWitness()
	const poison = 512
	tries := 0

	err := drain(t, stream(t, cluster, seen, func(_ context.Context, record *kgo.Record) error {
		if record.Offset == poison {
			tries++ // its key has one call at a time
			return errBad
		}
		return nil
	}), readings)

	require.ErrorIs(t, err, errBad)
	require.ErrorContains(t, err, "offset 512 of partition 0: failed 5 times in a row")
	assert.Equal(t, maxTries, tries)
	found := seen.found()
	assert.Zero(t, found.overlaps+found.violations)
	assert.EqualValues(t, poison, 1000-lagNow(t, readings), "everything before it is committed, and nothing else")

	after := newWitness()
	require.NoError(t, drain(t, stream(t, cluster, after, succeed), readings))
	assert.Equal(t, findings{handled: 1000 - poison}, after.found())
	assert.GreaterOrEqual(t, found.handled+after.found().handled, 1000)
}

func TestStreamPutsAPoisonRecordAside(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 1000, 50)
	seen := newWitness()
	tries, aside := 0, 0

	require.NoError(t, drain(t, stream(t, cluster, seen, func(_ context.Context, record *kgo.Record) error {
		switch {
		case record.Offset != 512:
			return nil
		case tries < 2:
			tries++
			return errBad
		}
		aside++ // a handler that has a topic for such records produces to it here
		return nil
	}), readings))

	assert.Equal(t, findings{handled: 1000}, seen.found())
	assert.Equal(t, 1, aside)
}

func TestStreamFailsWhenAHandlerDoesNotReturn(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 100, 5)

	err := drain(t, stream(t, cluster, newWitness(), func(_ context.Context, record *kgo.Record) error {
		if record.Offset == 50 {
			runtime.Goexit()
		}
		return nil
	}), readings)

	require.ErrorIs(t, err, inorder.ErrGoexit)
	assert.LessOrEqual(t, 100-lagNow(t, readings), int64(50))
}

func TestStreamCommitsAgainWhenACommitFails(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 1000, 50)
	seen := newWitness()
	refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 2})

	require.NoError(t, drain(t, stream(t, cluster, seen, succeed), readings))

	assert.Equal(t, 2, refused.Hits())
	assert.Equal(t, findings{handled: 1000}, seen.found(), "no work is done a second time")

	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 100})
	require.NoError(t, readings.produce(t.Context(), 10, 5))
	err := drain(t, stream(t, cluster, seen, succeed), readings)
	require.ErrorIs(t, err, kerr.GroupAuthorizationFailed)
	require.ErrorContains(t, err, "commit: failed 5 times in a row")
}

// While a commit takes its time, as one does that waits for other members to join, records are polled and handled.
func TestStreamGoesOnDuringACommit(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 10, 5)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	underWay, goOn := make(chan struct{}), make(chan struct{})
	var first sync.Once
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		first.Do(func() {
			close(underWay)
			cluster.SleepControl(func() { <-goOn })
		})
		return nil, nil, false
	})
	var handled sync.WaitGroup
	handled.Add(20)
	s := stream(t, cluster, seen, func(context.Context, *kgo.Record) error {
		handled.Done()
		return nil
	})
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	member.Go(func() error { return s.run(running) })
	<-underWay
	require.NoError(t, readings.produce(ctx, 10, 5))
	handled.Wait()
	close(goOn)
	stop()
	require.NoError(t, member.Wait())
	assert.Equal(t, findings{handled: 20}, seen.found())
	assert.Zero(t, lagNow(t, readings))
}

// The member hears that the cluster does not know it any more, while it works. It joins again and goes
// on; what it does of its old assignment meanwhile commits nothing.
func TestStreamThatIsThrownOutJoinsAgain(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 3, 1000, 50)
	seen := newWitness()
	thrownOut := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID})

	require.NoError(t, drain(t, stream(t, cluster, seen, func(ctx context.Context, _ *kgo.Record) error {
		return thrownOut.Wait(ctx, 1)
	}, kgo.SessionTimeout(500*time.Millisecond)), readings))

	found := seen.found()
	assert.Equal(t, findings{handled: 1000, again: found.again}, found)
}

// 10. A commit is under way when the partition is taken away: the callback waits for it, and after the
// callback there is none any more, although work ends then.
func TestPitfall10NoCommitAfterTheCallback(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 100, 1)
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	commits, goOn := make(chan int64, 1000), make(chan struct{})
	var held sync.Once
	underWay := make(chan struct{})
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		held.Do(func() { close(underWay); <-goOn })
		commits <- r.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Offset
		return nil, nil, false
	})
	late := make(chan struct{})
	s := stream(t, cluster, newWitness(), func(_ context.Context, record *kgo.Record) error {
		if record.Offset == 50 {
			<-late
		}
		return nil
	})
	s.grace = time.Millisecond
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	member.Go(func() error { return s.run(running) })
	<-underWay
	released := make(chan struct{})
	go func() {
		defer close(released)
		s.release(ctx, []int32{0}, true)
	}()
	select {
	case <-released:
		t.Error("it did not wait for the commit")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	<-released
	for len(commits) > 0 {
		assert.LessOrEqual(t, <-commits, int64(50))
	}
	close(late)
	s.work.WaitIdle(ctx)
	require.NoError(t, s.commit(ctx, nil))
	assert.Empty(t, commits)
	stop()
	require.NoError(t, member.Wait())
	assert.GreaterOrEqual(t, lagNow(t, readings), int64(50))
}

// 10. Members come and go. With an eager balancer everything is taken from everyone; with a cooperative
// one a member keeps what it keeps, with all that it has read of it.
func TestPitfall10MembersJoinAndLeave(t *testing.T) {
	for name, balancer := range map[string]kgo.GroupBalancer{"eager": kgo.RangeBalancer(), "cooperative": kgo.CooperativeStickyBalancer()} {
		t.Run(name, func(t *testing.T) {
			const partitions = 4
			cluster := startCluster(t)
			readings := fillTopic(t, cluster, partitions, 1000, 50)
			seen := newWitness()
			ctx, cancel := context.WithTimeout(t.Context(), watchdog)
			defer cancel()
			var mu sync.Mutex
			owner := make(map[int32]*streamer) // who committed last
			last := make(map[int32]int64)
			var members, producer errgroup.Group
			enough, endProducing := context.WithCancel(ctx)
			produced := 1000
			producer.Go(func() error {
				for enough.Err() == nil {
					if err := readings.produce(ctx, 200, 50); err != nil {
						return err
					}
					produced += 200
					time.Sleep(5 * time.Millisecond)
				}
				extent, err := readings.extent(ctx)
				if err != nil {
					return err
				}
				return readings.drained(ctx, testGroup, extent)
			})
			start := func() (*streamer, func()) {
				s := stream(t, cluster, seen, work(100*time.Microsecond, nothing), kgo.Balancers(balancer))
				s.every = time.Millisecond
				s.committed = func(partition int32, next int64) {
					mu.Lock()
					defer mu.Unlock()
					assert.GreaterOrEqual(t, next, last[partition], "a commit never goes back")
					owner[partition], last[partition] = s, next
				}
				ctx, leave := context.WithCancel(ctx)
				members.Go(func() error { return s.run(ctx) })
				return s, leave
			}
			owns := func(s *streamer) (n int) {
				mu.Lock()
				defer mu.Unlock()
				for _, o := range owner {
					if o == s {
						n++
					}
				}
				return n
			}
			eventually := func(what string, is func() bool) {
				t.Helper()
				require.Eventually(t, is, watchdog, time.Millisecond, what)
			}
			first, firstLeaves := start()
			eventually("the first has all", func() bool { return owns(first) == partitions })
			before := first.live()
			second, secondLeaves := start()
			eventually("they share", func() bool { return owns(first) == partitions/2 && owns(second) == partitions/2 })
			for _, a := range first.live() {
				assert.Equal(t, name == "cooperative", slices.Contains(before, a), "an assignment goes on, or is a new one")
			}
			firstLeaves()
			eventually("the second has all", func() bool { return owns(second) == partitions })
			endProducing()
			require.NoError(t, producer.Wait())
			secondLeaves()
			require.NoError(t, members.Wait())

			found := seen.found()
			t.Logf("%d records, %d of them again", produced, found.again)
			assert.Equal(t, findings{handled: produced, again: found.again}, found, "nothing lost, nothing out of order")
			assert.Zero(t, lagNow(t, readings))
		})
	}
}

// 9. A record is being worked on, by a handler that does not hear of the end, when its partition is taken
// away and comes back to the same member, and the record with it. It waits for the old one, whose end
// moves nothing.
func TestPitfall9RecordThatComesBackWaitsForItself(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 10, 1)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	began, goOn := make(chan struct{}, 100), make(chan struct{})
	s := stream(t, cluster, seen, func(_ context.Context, record *kgo.Record) error {
		if record.Offset == 3 {
			began <- struct{}{}
			<-goOn
		}
		return nil
	})
	s.grace = 10 * time.Millisecond
	given := make(chan struct{}, 100)
	s.released = func(partition int32, from int64) {
		seen.released(partition, from)
		given <- struct{}{}
	}
	var committed atomic.Int64
	s.committed = func(_ int32, next int64) { committed.Store(next) }
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	member.Go(func() error { return s.run(running) })
	<-began
	before := s.live()[0]
	s.client.ForceRebalance()
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: 1})
	<-given
	require.Eventually(t, func() bool {
		live := s.live()
		return len(live) == 1 && live[0] != before && live[0].tracker.Open() > 0
	}, watchdog, time.Millisecond)
	assert.EqualValues(t, 3, committed.Load())
	time.Sleep(20 * time.Millisecond) // it would begin now
	assert.Empty(t, began)
	close(goOn)
	extent, err := readings.extent(ctx)
	require.NoError(t, err)
	require.NoError(t, readings.drained(ctx, testGroup, extent))
	stop()
	require.NoError(t, member.Wait())
	assert.Equal(t, findings{handled: 10, again: 1}, seen.found())
	assert.Len(t, began, 1, "it is handled again, because what the old one did came too late")
}

// 11. Offsets with holes, done out of order: commits reach the end, and no partition stays paused.
func TestPitfall11HolesBetweenOffsets(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 0, 1)
	for i := range 50 { // every second offset is a marker, and every third transaction is aborted
		end := &commitIt
		if i%3 == 0 {
			end = &abortIt
		}
		transact(t, cluster, "a"+strconv.Itoa(i), end, recordOf("k"+strconv.Itoa(i%7), "x", 0))
	}
	seen := newWitness()
	s := stream(t, cluster, seen, func(_ context.Context, record *kgo.Record) error {
		time.Sleep(time.Duration(record.Offset%5) * time.Millisecond)
		return nil
	})
	s.window.records = 5
	require.NoError(t, drain(t, s, readings))
	assert.Equal(t, findings{handled: 33}, seen.found())
	assert.Zero(t, lagNow(t, readings))
}

// 12. Records that were read and never begun are not committed, and come to the next member.
func TestPitfall12WhatWasNotBegunIsNotCommitted(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 100, 1)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	s := stream(t, cluster, seen, func(ctx context.Context, record *kgo.Record) error {
		if record.Offset == 5 {
			stop() // the others wait behind it
		}
		return ctx.Err()
	})
	require.NoError(t, s.run(running))
	handled := seen.found().handled
	assert.GreaterOrEqual(t, handled, 6)
	assert.EqualValues(t, 100-handled, lagNow(t, readings))
	require.NoError(t, drain(t, stream(t, cluster, seen, succeed), readings))
	assert.Equal(t, findings{handled: 100}, seen.found())
}

// 13. A partition that was paused when it was taken away is read again when it comes back; and when all
// are paused, the one that drains goes on.
func TestPitfall13PausesEnd(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 2, 2000, 50)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	goOn := make(chan struct{})
	s := stream(t, cluster, seen, func(ctx context.Context, _ *kgo.Record) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	s.window.records, s.window.held, s.grace = 20, 1, time.Millisecond
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	defer stop()
	member.Go(func() error { return s.run(running) })
	paused := func() bool {
		live := s.live()
		for _, a := range live {
			a.mu.Lock()
			is := a.paused
			a.mu.Unlock()
			if !is {
				return false
			}
		}
		return len(live) == 2
	}
	require.Eventually(t, paused, watchdog, time.Millisecond)
	open := 0
	for _, a := range s.live() {
		open += a.tracker.Open()
	}
	assert.Equal(t, 2*20, open, "as far as the window, and no further")
	before := s.live()
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: 1})
	require.Eventually(t, func() bool { return paused() && s.live()[0] != before[0] && s.live()[0] != before[1] }, watchdog, time.Millisecond)
	close(goOn)
	extent, err := readings.extent(ctx)
	require.NoError(t, err)
	require.NoError(t, readings.drained(ctx, testGroup, extent))
	stop()
	require.NoError(t, member.Wait())
	found := seen.found()
	assert.Equal(t, findings{handled: 2000, again: found.again}, found)
}

// What the client has read of a partition whose window is full is not thrown away and read again,
// neither while all of them are full nor while one has room.
func TestStreamReadsRecordsOnce(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			cluster := startCluster(t)
			readings := fillTopic(t, cluster, partitions, 6000, 50)
			seen := newWitness()
			read := new(readRecords)
			s := stream(t, cluster, seen, work(100*time.Microsecond, nothing), kgo.WithHooks(read))
			s.window.records = 50
			require.NoError(t, drain(t, s, readings))
			assert.Equal(t, findings{handled: 6000}, seen.found())
			assert.Less(t, read.n.Load(), int64(2*6000), "a fetch may be repeated when the connection breaks, and not at every pause")
		})
	}
}

// readRecords counts the records that a client has read.
type readRecords struct{ n atomic.Int64 }

func (r *readRecords) OnFetchRecordBuffered(*kgo.Record) { r.n.Add(1) }

// 14. A record that never succeeds stops its own partition, when the window is full, and no other. Who
// runs the program hears which one it is.
func TestPitfall14PoisonStopsItsPartitionOnly(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 2, 0, 1)
	for range 20 {
		require.NoError(t, readings.produce(t.Context(), 500, 50))
	}
	extent, err := readings.extent(t.Context())
	require.NoError(t, err)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	s := stream(t, cluster, seen, func(_ context.Context, record *kgo.Record) error {
		if record.Partition == 0 && record.Offset == 100 {
			return errBad
		}
		return nil
	})
	s.tries, s.window.records, s.window.span, s.window.held = 0, 300, 1000, 10_000
	s.grace = 50 * time.Millisecond
	stuck := make(chan int64, 1000)
	s.stuck = func(partition int32, at int64, _ time.Duration) {
		assert.Zero(t, partition)
		select {
		case stuck <- at:
		default:
		}
	}
	var next [2]atomic.Int64
	s.committed = func(partition int32, to int64) { next[partition].Store(to) }
	s.retried = func(record *kgo.Record, _ error) { seen.retried(record) }
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	member.Go(func() error { return s.run(running) })
	require.Eventually(t, func() bool { return next[1].Load() == extent[1].end }, watchdog, time.Millisecond)
	assert.EqualValues(t, 100, <-stuck)
	var poisoned *assignment
	for _, a := range s.live() {
		if a.partition == 0 {
			poisoned = a
		}
	}
	require.Eventually(t, func() bool {
		poisoned.mu.Lock()
		defer poisoned.mu.Unlock()
		return poisoned.paused
	}, watchdog, time.Millisecond)
	assert.LessOrEqual(t, poisoned.tracker.Span(), s.window.span)
	assert.EqualValues(t, 100, next[0].Load())
	stop()
	require.NoError(t, member.Wait())
	assert.Zero(t, seen.found().violations)
}

// 15. Ctrl-C: work that has begun is finished and committed, the rest stays and comes again once.
func TestPitfall15InterruptedStreamCommitsWhatItHandled(t *testing.T) {
	m := modes[len(modes)-1]
	output, committed := interrupt(t, m, "-work=2ms", "-partitions=1", "-keys=5", "-mode=streaming")
	handled, err := strconv.Atoi(cell(t, output, m, handledColumn))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, int64(handled), committed)
	assert.LessOrEqual(t, int64(handled)-committed, int64(2000), "what was done above the first that was not")
	assert.Equal(t, fmt.Sprint(5000-committed), lag(output, m))
}

// 15. The process is killed at its third commit. The next one loses nothing, and does again only what was
// above the last commit: how much that is depends on how long the commit was under way.
func TestPitfall15KilledStream(t *testing.T) {
	const records, partitions = 3000, 3
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, partitions, records, 50)
	first := killAtCommit(t, cluster, streamerRole, 3)
	lag := lagNow(t, readings)
	require.Less(t, lag, int64(records))

	second, again := goOn(t, cluster, streamerRole, first)
	assert.Len(t, second, int(lag), "it begins at the last commit")
	assert.Equal(t, records, len(first)+len(second)-again, "nothing is lost")
	assert.Zero(t, lagNow(t, readings))
}

// A log that goes back to a smaller offset is a new one.
func TestStreamBeginsAnewWhenTheLogGoesBack(t *testing.T) {
	cluster := startCluster(t)
	readings := fillTopic(t, cluster, 1, 10, 1)
	seen := newWitness()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	s := stream(t, cluster, seen, succeed)
	var member errgroup.Group
	running, stop := context.WithCancel(ctx)
	member.Go(func() error { return s.run(running) })
	extent, err := readings.extent(ctx)
	require.NoError(t, err)
	require.NoError(t, readings.drained(ctx, testGroup, extent))
	seen.released(0, 0)
	s.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{testTopic: {0: {Epoch: -1, Offset: 0}}})
	require.Eventually(t, func() bool { return seen.found().again == 10 }, watchdog, time.Millisecond)
	require.NoError(t, readings.drained(ctx, testGroup, extent))
	stop()
	require.NoError(t, member.Wait())
	assert.Equal(t, findings{handled: 10, again: 10}, seen.found())
}
