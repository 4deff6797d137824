package redislock_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/internal/redistest"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

var chaosTime = flag.Duration("chaos", 10*time.Second, "how long the chaos test goes on")

const (
	workerVariable = "KEYLOCK_REDIS_WORKER" // the addresses of the lock server and of the resource, its own counter, and all of them
	workerTTL      = time.Second
)

// noCounter is the counter of a worker that has none of its own. The others keep their keys, and prefer their own counter.
const noCounter = "-"

// The resource is counters on another server that checks tokens. It does nothing else
// against lost updates: what is written does not depend on what is there.
var (
	readCounter = rueidis.NewLuaScript(`
		local seen = redis.call('GET', KEYS[1] .. ':seen') or ''
		if ARGV[1] < seen then return -1 end
		redis.call('SET', KEYS[1] .. ':seen', ARGV[1])
		return tonumber(redis.call('GET', KEYS[1] .. ':count') or '0')`)
	writeCounter = rueidis.NewLuaScript(`
		if redis.call('GET', KEYS[1] .. ':seen') ~= ARGV[1] then return -1 end
		redis.call('SET', KEYS[1] .. ':count', ARGV[2])
		redis.call('RPUSH', KEYS[1] .. ':log', ARGV[1] .. ' ' .. ARGV[2])
		return 0`)
)

var errFenced = errors.New("fenced off")

// increment adds one to a counter.
func increment(ctx context.Context, resource rueidis.Client, counter, token string) error {
	count, err := readCounter.Exec(ctx, resource, []string{counter}, []string{token}).AsInt64()
	if err == nil && count >= 0 {
		time.Sleep(rand.N(3 * time.Millisecond))
		var n int64
		n, err = writeCounter.Exec(ctx, resource, []string{counter}, []string{token, strconv.FormatInt(count+1, 10)}).AsInt64()
		count = min(count, n)
	}
	if err == nil && count < 0 {
		return errFenced
	}
	return err
}

// workerMain increments counters with four goroutines until SIGTERM, some of which do not wait long.
func workerMain(args string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	words := strings.Fields(args)
	server, resourceAddr, own, counters := words[0], words[1], words[2], strings.Split(words[3], ",")
	connect := func(addr string) (rueidis.Client, error) {
		return rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, ConnWriteTimeout: 500 * time.Millisecond,
			Dialer: net.Dialer{Timeout: 500 * time.Millisecond, KeepAlive: 200 * time.Millisecond},
		})
	}
	var client rueidis.Client
	for { // the lock server may be down just now
		var err error
		if client, err = connect(server); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	resource, err := connect(resourceAddr)
	if err != nil {
		return err
	}
	engine, err := redislock.New(rueidisadapter.New(client), redislock.WithTTL(workerTTL))
	if err != nil {
		return err
	}
	opts := []cohort.Option{cohort.WithMaxHandoffs(8)}
	if own != noCounter {
		opts = append(opts, cohort.WithKeep(time.Second, 8))
	}
	locks := cohort.Start(context.Background(), engine, opts...)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				patience := time.Hour
				if g == 0 { // often cancelled
					patience = rand.N(20 * time.Millisecond)
				}
				counter := own
				if own == noCounter || rand.IntN(20) == 0 {
					counter = counters[rand.IntN(len(counters))]
				}
				waiting, cancel := context.WithTimeout(ctx, patience)
				lock, err := locks.Acquire(waiting, counter)
				cancel()
				if err != nil {
					fmt.Println("failed", err)
					time.Sleep(rand.N(10 * time.Millisecond))
					continue
				}
				// It does not heed lock.Context(), so that only the token keeps out what is late.
				if err := increment(context.Background(), resource, counter, lock.Token().String()); err != nil {
					fmt.Println("failed", err)
				} else {
					fmt.Println("done", counter, lock.Token())
				}
				_ = lock.Release()
				if own != noCounter {
					time.Sleep(rand.N(5 * time.Millisecond))
				}
			}
		})
	}
	all.Wait()
	if stats, err := locks.Stats(context.Background()); err == nil {
		fmt.Println("kept", stats.Hits, stats.Recalls)
	}
	closing, cancel := context.WithTimeout(context.Background(), redistest.Patience/2)
	defer cancel()
	err = locks.Shutdown(closing)
	client.Close()
	resource.Close()
	return err
}

// worker is a worker process.
type worker struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	done map[string]bool // the increments that it reported, each a counter and a token
	kept [2]int          // hits and recalls, when it ended
	last string
	end  chan struct{}
}

func startWorker(t *testing.T, args ...string) *worker {
	w := &worker{cmd: exec.Command(os.Args[0]), done: make(map[string]bool), end: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), workerVariable+"="+strings.Join(args, " "))
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.cmd.Start())
	go func() {
		defer close(w.end)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.mu.Lock()
			w.last = lines.Text()
			if token, ok := strings.CutPrefix(w.last, "done "); ok {
				w.done[token] = true
			}
			_, _ = fmt.Sscanf(w.last, "kept %d %d", &w.kept[0], &w.kept[1])
			w.mu.Unlock()
		}
		_ = w.cmd.Wait()
	}()
	t.Cleanup(func() {
		w.signal(syscall.SIGKILL)
		<-w.end
	})
	return w
}

func (w *worker) signal(s syscall.Signal) { _ = w.cmd.Process.Signal(s) }

func (w *worker) increments() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

// Processes increment a counter under a lock, while they are killed, stopped, cut off and impatient, and the
// lock server is stopped, restarted without its newest data and emptied. No increment may be lost or
// doubled, tokens grow, every process gets on in the end, and nothing is left behind.
func TestChaos(t *testing.T) { chaos(t, "counter") }

// With keys that are kept, each process has a counter of its own, and sometimes increments those of the others.
func TestChaosOfProcessesThatKeepKeys(t *testing.T) {
	hits, recalls := chaos(t, "counter0", "counter1", "counter2")
	assert.NotZero(t, hits)
	assert.NotZero(t, recalls)
}

// chaos returns how many callers found their key kept, and how many kept keys were recalled, in the processes
// that were not killed.
func chaos(t *testing.T, counters ...string) (hits, recalls int) {
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "everysec")
	resource := redistest.Start(t)
	const processes = 3
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var networks []*cohorttest.Network
	var workers, past []*worker
	start := func(i int) *worker {
		own := noCounter
		if len(counters) > 1 {
			own = counters[i]
		}
		return startWorker(t, networks[i].Addr, resource.Addr(), own, strings.Join(counters, ","))
	}
	for i := range processes {
		n := cohorttest.NewNetwork(t, s.Addr())
		networks = append(networks, n)
		workers = append(workers, start(i))
	}
	counts := make(map[string]int)
	for until := time.Now().Add(*chaosTime); time.Now().Before(until); {
		time.Sleep(time.Duration(300+random.IntN(700)) * time.Millisecond)
		i := random.IntN(processes)
		pause := workerTTL/2 + time.Duration(random.Int64N(int64(workerTTL)))
		var what string
		switch random.IntN(7) {
		case 0, 1:
			what = "killed"
			workers[i].signal(syscall.SIGKILL)
			<-workers[i].end
			past = append(past, workers[i])
			workers[i] = start(i)
		case 2:
			what = "stopped"
			workers[i].signal(syscall.SIGSTOP)
			time.Sleep(pause)
			workers[i].signal(syscall.SIGCONT)
		case 3:
			what = "cut off"
			networks[i].Set(cohorttest.Weather{Silent: random.IntN(2) == 0, NoReplies: true})
			time.Sleep(pause)
			networks[i].Set(cohorttest.Weather{})
		case 4:
			what = "server stopped"
			s.Signal(syscall.SIGSTOP)
			time.Sleep(pause / 2)
			s.Signal(syscall.SIGCONT)
		case 5:
			what = "server restarted"
			s.Kill()
			s.Restart(t)
		case 6:
			what = "server emptied"
			s.Must(t, "FLUSHALL")
		}
		counts[what]++
	}
	for i, w := range workers { // every one gets on, now that the world is whole
		soFar := w.increments()
		redistest.Eventually(t, fmt.Sprintf("worker %d gets on", i), func() bool { return w.increments() > soFar+100 })
	}
	for _, w := range workers {
		w.signal(syscall.SIGTERM)
	}
	for _, w := range workers {
		receive(t, w.end, "the end of a worker")
		require.Zero(t, w.cmd.ProcessState.ExitCode(), w.last)
	}
	// What was killed is swept by the next one that comes, after the TTL.
	sweeper := newEngine(t, dial(t, s.Addr()), redislock.WithTTL(workerTTL), redislock.WithQuarantine(workerTTL))
	var held []*redislock.Grant
	for _, counter := range counters {
		held = append(held, acquire(t, sweeper, counter))
	}
	redistest.Eventually(t, "one session and its entries are left", func() bool {
		sessions, entries := s.Left(t)
		return sessions <= len(counters) && entries == len(counters)
	})
	for _, g := range held {
		require.NoError(t, g.Release(t.Context()))
	}

	written := make(map[string]bool)
	for _, counter := range counters {
		log := strings.Split(resource.Must(t, "LRANGE", counter+":log", "0", "-1"), "\n")
		last := ""
		for i, line := range log {
			token, count, _ := strings.Cut(line, " ")
			require.Equal(t, strconv.Itoa(i+1), count, "the increment of %s with the token %s: one was lost or doubled", counter, token)
			require.Greater(t, token, last, "tokens grow")
			written[counter+" "+token], last = true, token
		}
	}
	reported := 0
	for _, w := range append(past, workers...) {
		for increment := range w.done {
			reported++
			assert.True(t, written[increment], "%s was reported, and is not there", increment)
		}
		hits, recalls = hits+w.kept[0], recalls+w.kept[1]
	}
	t.Logf("%d increments, %d of them reported, by %d processes; %v; %d hits, %d recalls",
		len(written), reported, len(past)+len(workers), counts, hits, recalls)
	assert.Greater(t, len(written), 20)
	return hits, recalls
}
