package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// A load is records whose work is known beforehand: the value of each is the time that it takes.
type load struct {
	name    string
	records int
	perMS   int // how many are produced in a millisecond; 0: all before the run
	slow    int // the key whose own latency does not count, because no way can help it; -1: none
	next    func(i int, random *rand.Rand) (key int, takes time.Duration)
}

const (
	loadKeys  = 50
	loadReads = 500 // how far ahead: the size of a batch, the window of a stream
)

// closedLoads are in the topic before the run: the question is how long all of it takes.
var closedLoads = []load{
	{"every record takes 1 ms", 6000, 0, -1, func(i int, _ *rand.Rand) (int, time.Duration) {
		return i % loadKeys, time.Millisecond
	}},
	{"1 ms on average, exponential", 6000, 0, -1, func(i int, random *rand.Rand) (int, time.Duration) {
		return i % loadKeys, time.Duration(random.ExpFloat64() * float64(time.Millisecond))
	}},
	{"one record in 500 takes 100 ms", 6000, 0, -1, func(i int, random *rand.Rand) (int, time.Duration) {
		if i%500 == 250 {
			return random.IntN(loadKeys), 100 * time.Millisecond
		}
		return i % loadKeys, time.Millisecond
	}},
	{"one key has 20 % of the records", 6000, 0, -1, func(i int, _ *rand.Rand) (int, time.Duration) {
		if i%5 == 0 {
			return 0, time.Millisecond
		}
		return 1 + i%(loadKeys-1), time.Millisecond
	}},
	{"five keys have 80 %", 6000, 0, -1, func(i int, _ *rand.Rand) (int, time.Duration) {
		if i%5 != 0 {
			return i % 5, time.Millisecond
		}
		return 5 + i/5%(loadKeys-5), time.Millisecond
	}},
	{"one key takes 20 ms", 6000, 0, 0, func(i int, _ *rand.Rand) (int, time.Duration) {
		if i%loadKeys == 0 {
			return 0, 20 * time.Millisecond
		}
		return i % loadKeys, time.Millisecond
	}},
}

// openLoads come while they are handled: the question is how long a record takes from when it was
// produced to when it is done.
var openLoads = []load{
	{"every record takes 1 ms", 20_000, 10, -1, func(_ int, random *rand.Rand) (int, time.Duration) {
		return random.IntN(loadKeys), time.Millisecond
	}},
	{"one key takes 4 ms", 20_000, 10, 0, slowKey(4 * time.Millisecond)},
	{"one record in 2,000 takes 300 ms", 20_000, 10, -1, func(i int, random *rand.Rand) (int, time.Duration) {
		if i%2000 == 1000 {
			return random.IntN(loadKeys), 300 * time.Millisecond
		}
		return random.IntN(loadKeys), time.Millisecond
	}},
	{"one key takes 20 ms, four times what it can", 20_000, 10, 0, slowKey(20 * time.Millisecond)},
}

// slowKey is of records that take 1 ms, but those of one key.
func slowKey(takes time.Duration) func(int, *rand.Rand) (int, time.Duration) {
	return func(_ int, random *rand.Rand) (int, time.Duration) {
		key := random.IntN(loadKeys)
		if key == 0 {
			return key, takes
		}
		return key, time.Millisecond
	}
}

// A way is one to handle a load.
type way struct {
	name   string
	mode   mode
	reads  int  // how far ahead
	once   bool // in the first round only, because it takes so long
	closed bool // for closed loads only
}

func ways() []way {
	oneByOne, batch, streaming := modes[0], modes[3], modes[4]
	return []way{
		{name: "one by one", mode: oneByOne, reads: loadReads, once: true, closed: true},
		{name: "batch 500", mode: batch, reads: loadReads},
		{name: "batch 2000", mode: batch, reads: 4 * loadReads, closed: true},
		{name: "streaming 500", mode: streaming, reads: loadReads},
		{name: "streaming 5000", mode: streaming, reads: 10 * loadReads},
	}
}

// A loadRun is what a way did with a load.
type loadRun struct {
	wall, floor      time.Duration  // floor: what the busiest key's calls took in all
	others           report.Summary // of latencies
	reads            int            // the most that were read and not done
	span             int64          // the most offsets from the first open record to the last read
	heap, goroutines uint64         // the most

	mu           sync.Mutex
	began, ended time.Time
	byKey        map[string]time.Duration
	latencies    []time.Duration // not of the slow key
	produced     []time.Time     // by offset
	handled      int
	all          chan struct{} // closed when every record was handled
}

// runLoads runs every load in every way, in turns, and writes medians.
func runLoads(ctx context.Context, rounds int, stdout, stderr io.Writer) error {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return fmt.Errorf("start a cluster in process: %w", err)
	}
	defer cluster.Close()
	fmt.Fprintf(stdout, "%d keys, one partition, a limit of 1000; medians of %d rounds, one by one of 1. Floor is what the calls of the\n"+
		"busiest key took, in the same run. Ratios are to batch 500 within a round. Every run had its witness.\n", loadKeys, rounds)
	for _, open := range []bool{false, true} {
		title, loads := "The records are there: how long all of them take.", closedLoads
		header := []string{"load", "way", "wall", "× floor", "ratio", "read ahead", "span", "heap MB", "goroutines"}
		if open {
			title, loads = "Ten records come in a millisecond: how long one takes, without those of the slow key.", openLoads
			header = []string{"load", "way", "p50", "p99", "max", "ratio of p99", "read ahead", "span", "heap MB", "goroutines"}
		}
		var rows [][]string
		for _, l := range loads {
			more, err := runLoad(ctx, cluster, l, rounds, stderr)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			rows = append(rows, more...)
		}
		fmt.Fprintf(stdout, "\n%s\n", title)
		if err := report.Table(stdout, header, rows); err != nil {
			return err
		}
	}
	fmt.Fprintln(stdout, "No overlap, no order violation, nothing handled twice, nothing left over, in any run.")
	return nil
}

// runLoad returns the lines of the table for one load.
func runLoad(ctx context.Context, cluster *kfake.Cluster, l load, rounds int, stderr io.Writer) (rows [][]string, err error) {
	runs := make(map[string][]*loadRun)
	for round := range rounds {
		for _, w := range ways() {
			if w.once && round > 0 || w.closed && l.perMS > 0 {
				continue
			}
			fmt.Fprintf(stderr, "%s, %s, round %d\n", l.name, w.name, round+1)
			name := fmt.Sprintf("load-%d-%d-%d", time.Now().UnixNano(), round, len(runs))
			r, err := runWay(ctx, cluster, l, w, name, uint64(round))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			runs[w.name] = append(runs[w.name], r)
		}
	}
	title := l.name // in the first line only
	for _, w := range ways() {
		of := runs[w.name]
		if len(of) == 0 {
			continue
		}
		ratio := ""
		if w.name == "streaming 500" || w.name == "streaming 5000" {
			var ratios []float64
			for i, r := range of {
				batch := runs["batch 500"][i]
				if l.perMS > 0 {
					ratios = append(ratios, float64(r.others.P99)/float64(batch.others.P99))
				} else {
					ratios = append(ratios, float64(r.wall)/float64(batch.wall))
				}
			}
			ratio = fmt.Sprintf("%.2f", median(ratios)) // of the rounds, and not of the medians
		}
		row := []string{title, w.name}
		title = ""
		short := func(of []*loadRun, value func(*loadRun) time.Duration) string {
			return report.Short(medianOf(of, value)).String()
		}
		if l.perMS > 0 {
			row = append(row, short(of, func(r *loadRun) time.Duration { return r.others.P50 }),
				short(of, func(r *loadRun) time.Duration { return r.others.P99 }),
				short(of, func(r *loadRun) time.Duration { return r.others.Max }), ratio)
		} else {
			var over []float64
			for _, r := range of {
				over = append(over, float64(r.wall)/float64(r.floor))
			}
			row = append(row, short(of, func(r *loadRun) time.Duration { return r.wall }), fmt.Sprintf("%.2f", median(over)), ratio)
		}
		rows = append(rows, append(row,
			strconv.Itoa(medianOf(of, func(r *loadRun) int { return r.reads })),
			strconv.FormatInt(medianOf(of, func(r *loadRun) int64 { return r.span }), 10),
			fmt.Sprintf("%.1f", float64(medianOf(of, func(r *loadRun) uint64 { return r.heap }))/1e6),
			strconv.FormatUint(medianOf(of, func(r *loadRun) uint64 { return r.goroutines }), 10)))
	}
	return rows, nil
}

func medianOf[V int | int64 | uint64 | time.Duration](of []*loadRun, value func(*loadRun) V) V {
	values := make([]V, len(of))
	for i, r := range of {
		values[i] = value(r)
	}
	return median(values)
}

func median[V int | int64 | uint64 | float64 | time.Duration](values []V) V {
	slices.Sort(values)
	return values[len(values)/2]
}

// runWay handles a load in a way, in a topic of its own, and verifies that nothing went wrong.
func runWay(ctx context.Context, cluster *kfake.Cluster, l load, w way, name string, seed uint64) (*loadRun, error) {
	t, err := openTopic(cluster.ListenAddrs(), name)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.create(ctx, 1); err != nil {
		return nil, err
	}
	r := &loadRun{byKey: make(map[string]time.Duration), all: make(chan struct{})}
	records := l.make(seed)
	if l.perMS == 0 {
		for some := range slices.Chunk(records, 100) { // as they come in real topics: not all in one batch of the producer
			if err := t.client.ProduceSync(ctx, some...).FirstErr(); err != nil {
				return nil, err
			}
		}
	}
	s := settings{brokers: cluster.ListenAddrs(), topic: name, batchSize: w.reads, limit: 1000, window: w.reads}
	note := &recorder{mode: w.mode, seen: newWitness(), stderr: io.Discard}
	handle := note.watch(r.time(l, loadWork))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var c member
	if w.mode.streams() {
		stream := streaming(s, name, note, handle)
		stream.poll = min(s.batchSize, 100) // so that little is held beyond the window
		r.sample(ctx, stream)
		c = stream
	} else {
		keys := keylock.Start[string](ctx)
		defer keys.Close()
		batch, err := batching(s, name, note, keys, handle)
		if err != nil {
			return nil, err
		}
		inner := batch.handle
		batch.handle = func(ctx context.Context, of []*kgo.Record) error {
			r.readBatch(len(of))
			return inner(ctx, of)
		}
		r.sample(ctx, nil)
		c = batch
	}
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	if l.perMS > 0 {
		if err := r.produce(ctx, t, l, records); err != nil {
			return nil, err
		}
	}
	select {
	case <-r.all:
	case err := <-ended:
		return nil, errors.Join(err, errors.New("it ended early"))
	case <-ctx.Done():
	}
	stop()
	if err := <-ended; err != nil {
		return nil, err
	}
	return r, r.verify(context.WithoutCancel(ctx), t, name, note.seen.found(), l)
}

// make returns the records of a load.
func (l load) make(seed uint64) []*kgo.Record {
	random := rand.New(rand.NewPCG(seed, 5))
	records := make([]*kgo.Record, l.records)
	for i := range records {
		key, takes := l.next(i, random)
		records[i] = &kgo.Record{Key: fmt.Appendf(nil, "key-%d", key), Value: strconv.AppendInt(nil, int64(takes), 10)}
	}
	return records
}

// produce produces the records when they are due.
func (r *loadRun) produce(ctx context.Context, t *topic, l load, records []*kgo.Record) error {
	began := time.Now()
	failed := make(chan error, 1)
	for i := 0; i < len(records); {
		due := min(len(records), int(time.Since(began)/time.Millisecond)*l.perMS)
		for ; i < due; i++ {
			r.mu.Lock()
			r.produced = append(r.produced, time.Now())
			r.mu.Unlock()
			t.client.Produce(ctx, records[i], func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	return t.client.Flush(ctx)
}

// loadWork waits for as long as the record says.
func loadWork(ctx context.Context, record *kgo.Record) error {
	takes, err := strconv.ParseInt(string(record.Value), 10, 64)
	if err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(takes)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// time returns a handler that notes what handle does.
func (r *loadRun) time(l load, handle handler) handler {
	slow := fmt.Sprintf("key-%d", l.slow)
	return func(ctx context.Context, record *kgo.Record) error {
		began := time.Now()
		err := handle(ctx, record)
		ended := time.Now()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.began.IsZero() {
			r.began = began
		}
		r.ended = ended
		r.byKey[string(record.Key)] += ended.Sub(began)
		if l.perMS > 0 && string(record.Key) != slow {
			r.latencies = append(r.latencies, ended.Sub(r.produced[record.Offset]))
		}
		if err == nil {
			if r.handled++; r.handled == l.records {
				close(r.all)
			}
		}
		return err
	}
}

func (r *loadRun) readBatch(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = max(r.reads, n)
	r.span = int64(r.reads)
}

// sample looks from time to time at what there is, until ctx ends.
func (r *loadRun) sample(ctx context.Context, s *streamer) {
	runtime.GC()
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	go func() {
		for ctx.Err() == nil {
			metrics.Read(heap)
			r.mu.Lock()
			r.heap = max(r.heap, heap[0].Value.Uint64())
			r.goroutines = max(r.goroutines, uint64(runtime.NumGoroutine()))
			if s != nil {
				for _, a := range s.live() {
					a.mu.Lock()
					r.reads = max(r.reads, a.tracker.Open()+len(a.held))
					r.span = max(r.span, a.tracker.Span())
					a.mu.Unlock()
				}
			}
			r.mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
	}()
}

func (r *loadRun) verify(ctx context.Context, t *topic, group string, found findings, l load) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wall = r.ended.Sub(r.began)
	for _, took := range r.byKey {
		r.floor = max(r.floor, took)
	}
	r.others = report.Summarize(r.latencies)
	extent, err := t.extent(ctx)
	if err != nil {
		return err
	}
	lag, err := t.lag(ctx, group, extent)
	if err != nil {
		return err
	}
	if want := (findings{handled: l.records}); found != want || lag != 0 {
		return fmt.Errorf("%+v and a lag of %d, where there must be %d handled once, and nothing else", found, lag, l.records)
	}
	return nil
}
