package pglock_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/pglock"
	"github.com/seed-46f81e6d/keylock/pglock/internal/pgtest"
)

var chaosTime = flag.Duration("chaos", 6*time.Second, "how long a chaos test goes on")

const (
	workerVariable = "KEYLOCK_POSTGRES_WORKER" // how to connect to the server, where the resource listens, its own counter, and all of them
	workerTTL      = time.Second
)

// noCounter is the counter of a worker that has none of its own. The others keep their keys, and prefer their own counter.
const noCounter = "-"

// counters are the resource.
type counters struct {
	mu     sync.Mutex
	byName map[string]*counter
}

// counter checks tokens and does nothing else against lost updates, since what is written
// does not depend on what is there. It lives in the test's own process, out of reach of the chaos.
type counter struct {
	seen  string
	count int
	log   []string // the tokens of the increments
}

var errFenced = errors.New("fenced off")

// do carries out "read COUNTER TOKEN", or "write COUNTER TOKEN COUNT", and returns the count.
func (all *counters) do(request string) (int, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	words := strings.Fields(request)
	if len(words) < 3 || all.byName[words[1]] == nil {
		return 0, fmt.Errorf("the request %q", request)
	}
	c, token := all.byName[words[1]], words[2]
	switch {
	case words[0] == "read" && token >= c.seen:
		c.seen = token
		return c.count, nil
	case words[0] == "write" && len(words) == 4 && token == c.seen:
		n, err := strconv.Atoi(words[3])
		if err != nil {
			return 0, err
		}
		c.count, c.log = n, append(c.log, token)
		return n, nil
	}
	return 0, errFenced
}

// serve starts a server for the counters, which ends with the test.
func (c *counters) serve(t *testing.T) (addr string) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listen.Close(); all.Wait() }) // the workers have ended, and with them their connections
	all.Go(func() {
		for {
			conn, err := listen.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					n, err := c.do(in.Text())
					if err != nil {
						n = -1
					}
					fmt.Fprintln(conn, n)
				}
			})
		}
	})
	return listen.Addr().String()
}

// increment adds one to a counter at the other end of conn.
func increment(conn net.Conn, replies *bufio.Scanner, counter, token string) error {
	ask := func(request string) (int, error) {
		if _, err := fmt.Fprintln(conn, request); err != nil {
			return 0, err
		}
		if !replies.Scan() {
			return 0, errors.New("the resource does not reply")
		}
		n, err := strconv.Atoi(replies.Text())
		if err == nil && n < 0 {
			err = errFenced
		}
		return n, err
	}
	n, err := ask(fmt.Sprint("read ", counter, " ", token))
	if err == nil {
		time.Sleep(rand.N(3 * time.Millisecond))
		_, err = ask(fmt.Sprint("write ", counter, " ", token, " ", n+1))
	}
	return err
}

// believes reports whether the holder of the grant is to believe in it, and when it was asked.
func believes(g cohort.Grant) (time.Time, bool) {
	at := time.Now()
	select {
	case <-g.Lost():
		return at, false
	default:
		return at, true
	}
}

// workerMain increments counters with four goroutines until SIGTERM. Some do not wait long, and
// some hold the lock until after it is lost. It prints what it did, and from when until when it believed in each lock.
func workerMain(arguments string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	words := strings.Fields(arguments)
	own, all := words[2], strings.Split(words[3], ",")
	config, err := pgx.ParseConfig(words[0])
	if err != nil {
		return err
	}
	opts := []cohort.Option{cohort.WithMaxHandoffs(8)}
	if own != noCounter {
		opts = append(opts, cohort.WithKeep(time.Second, 8))
	}
	engine, err := pglock.New(config, pglock.WithTTL(workerTTL))
	if err != nil {
		return err
	}
	locks := cohort.Start(context.Background(), engine, opts...)
	var workers sync.WaitGroup
	for g := range 4 {
		resource, err := net.Dial("tcp", words[1])
		if err != nil {
			return err
		}
		defer resource.Close()
		replies := bufio.NewScanner(resource)
		workers.Go(func() {
			for ctx.Err() == nil {
				patience := time.Hour
				if g == 0 { // often cancelled
					patience = rand.N(20 * time.Millisecond)
				}
				counter := own
				if own == noCounter || rand.IntN(10) == 0 {
					counter = all[rand.IntN(len(all))]
				}
				waiting, cancel := context.WithTimeout(ctx, patience)
				lock, err := locks.Acquire(waiting, counter)
				cancel()
				if err != nil {
					fmt.Println("failed", err)
					time.Sleep(rand.N(10 * time.Millisecond))
					continue
				}
				first, held := believes(lock.Grant())
				last := first
				// It does not heed the loss, so that only the token keeps out what is late.
				if err := increment(resource, replies, counter, lock.Token().String()); err != nil {
					fmt.Println("failed", err)
				} else {
					fmt.Println("done", counter, lock.Token())
				}
				until := time.Now()
				if rand.N(50) == 0 {
					until = until.Add(rand.N(3 * workerTTL / 2))
				}
				for believed := held; believed; {
					var at time.Time
					if at, believed = believes(lock.Grant()); believed {
						last, believed = at, at.Before(until)
						time.Sleep(time.Millisecond)
					}
				}
				if held {
					fmt.Println("believed", counter, lock.Token(), first.UnixNano(), last.UnixNano())
				}
				_ = lock.Release()
				if own != noCounter {
					time.Sleep(rand.N(20 * time.Millisecond)) // or the key is always wanted, and never kept
				}
			}
		})
	}
	workers.Wait()
	if stats, err := locks.Stats(context.Background()); err == nil {
		fmt.Println("kept", stats.Hits, stats.Recalls)
	}
	closing, cancel := context.WithTimeout(context.Background(), pgtest.Patience/2)
	defer cancel()
	return locks.Shutdown(closing)
}

// belief is how long a holder believed in its lock.
type belief struct {
	key, token  string
	first, last int64
}

// noOverlap checks that no two believed in a lock of one key at once, and that tokens grow.
func noOverlap(t *testing.T, beliefs []belief) {
	slices.SortFunc(beliefs, func(a, b belief) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.first, b.first)) })
	for i := 1; i < len(beliefs); i++ {
		a, b := beliefs[i-1], beliefs[i]
		if a.key != b.key {
			continue
		}
		assert.LessOrEqual(t, a.last, b.first, "%s and %s believe at once", a.token, b.token)
		assert.Less(t, a.token, b.token, "tokens grow")
	}
}

// worker is a worker process.
type worker struct {
	cmd     *exec.Cmd
	mu      sync.Mutex
	done    map[string]bool // the increments that it reported, each a counter and a token
	beliefs []belief
	kept    [2]int // hits and recalls, when it ended
	last    string
	end     chan struct{}
}

func startWorker(t *testing.T, s *pgtest.Server, n *cohorttest.Network, arguments ...string) *worker {
	w := &worker{cmd: exec.Command(os.Args[0]), done: make(map[string]bool), end: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", workerVariable, s.Config(t, n.Addr).ConnString(), strings.Join(arguments, " ")))
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.cmd.Start())
	go func() {
		defer close(w.end)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.hear(lines.Text())
		}
		_ = w.cmd.Wait()
	}()
	t.Cleanup(func() {
		w.signal(syscall.SIGKILL)
		<-w.end
	})
	return w
}

// hear notes a line that the worker printed.
func (w *worker) hear(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = line
	words := strings.Fields(line)
	switch {
	case words[0] == "done" && len(words) == 3:
		w.done[words[1]+" "+words[2]] = true
	case words[0] == "believed" && len(words) == 5:
		first, err1 := strconv.ParseInt(words[3], 10, 64)
		last, err2 := strconv.ParseInt(words[4], 10, 64)
		if err1 == nil && err2 == nil { // otherwise it was killed while it printed
			w.beliefs = append(w.beliefs, belief{words[1], words[2], first, last})
		}
	case words[0] == "kept":
		_, _ = fmt.Sscanf(line, "kept %d %d", &w.kept[0], &w.kept[1])
	}
}

func (w *worker) signal(s syscall.Signal) { _ = w.cmd.Process.Signal(s) }

func (w *worker) increments() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

// Processes increment a counter under a lock, while they are killed, stopped, cut off and impatient, and the
// server is stopped, crashes, loses one of its processes and fails over to a standby that is behind. No increment is lost
// or doubled, tokens grow, no two believe in the lock at once, every process gets on in the end, and nothing is left behind.
func TestChaos(t *testing.T) {
	t.Parallel()
	chaos(t, "counter")
}

// With keys that are kept, each process has a counter of its own, and sometimes increments those of the others.
func TestChaosOfProcessesThatKeepKeys(t *testing.T) {
	t.Parallel()
	hits, recalls := chaos(t, "counter0", "counter1", "counter2")
	assert.NotZero(t, hits)
	assert.NotZero(t, recalls)
}

// chaos returns how many callers found their key kept, and how many kept keys were recalled, in the processes
// that were not killed.
func chaos(t *testing.T, names ...string) (hits, recalls int) {
	s := alone(t)
	c := &counters{byName: make(map[string]*counter)}
	for _, name := range names {
		c.byName[name] = &counter{}
	}
	const processes = 3
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	resource := c.serve(t)
	var networks []*cohorttest.Network
	var workers, past []*worker
	start := func(i int) *worker {
		own := noCounter
		if len(names) > 1 {
			own = names[i]
		}
		return startWorker(t, s, networks[i], resource, own, strings.Join(names, ","))
	}
	for i := range processes {
		networks = append(networks, cohorttest.NewNetwork(t, s.Addr()))
		workers = append(workers, start(i))
	}
	counts := make(map[string]int)
	for until := time.Now().Add(*chaosTime); time.Now().Before(until); {
		time.Sleep(time.Duration(300+random.IntN(700)) * time.Millisecond)
		i := random.IntN(processes)
		pause := workerTTL/2 + time.Duration(random.Int64N(int64(workerTTL)))
		var what string
		switch n := random.IntN(16); {
		case n < 4:
			what = "killed"
			workers[i].signal(syscall.SIGKILL)
			<-workers[i].end
			past = append(past, workers[i])
			workers[i] = start(i)
		case n < 6:
			what = "stopped"
			workers[i].signal(syscall.SIGSTOP)
			time.Sleep(pause)
			workers[i].signal(syscall.SIGCONT)
		case n < 9:
			what = "cut off"
			networks[i].Set(cohorttest.Weather{Silent: random.IntN(2) == 0, NoReplies: true})
			time.Sleep(pause)
			networks[i].Set(cohorttest.Weather{})
		case n < 11:
			what = "server stopped"
			s.Signal(t, syscall.SIGSTOP)
			time.Sleep(pause / 2)
			s.Signal(t, syscall.SIGCONT)
		case n < 13:
			what = "server crashed"
			s.Crash(t)
			require.NoError(t, s.StartAgain())
		case n < 15:
			what = "process of the server killed"
			s.KillBackend(t)
		default:
			what = "failed over"
			b := s.Standby(t, "recovery_min_apply_delay='1h'")
			s.Crash(t)
			require.NoError(t, b.Promote())
			for _, n := range networks {
				n.Target(b.Addr())
			}
			s = b
		}
		counts[what]++
	}
	for i, w := range workers { // every one gets on, now that the world is whole
		soFar := w.increments()
		require.Eventually(t, func() bool { return w.increments() > soFar+60 }, pgtest.Patience, 10*time.Millisecond, "worker %d gets on", i)
	}
	for _, w := range workers {
		w.signal(syscall.SIGTERM)
	}
	for _, w := range workers {
		receive(t, w.end, "the end of a worker")
		require.Zero(t, w.cmd.ProcessState.ExitCode(), w.last)
	}

	// The entries of the killed are removed by the next that comes, after their TTL.
	conn := s.Connect(t)
	sweeper := newEngine(t, s, "", pglock.WithTTL(workerTTL))
	var held []*pglock.Grant
	for _, name := range names {
		held = append(held, acquire(t, sweeper, name))
	}
	eventually(t, conn, 1, "SELECT count(*) FROM pglock_session WHERE expires > clock_timestamp()")
	eventually(t, conn, len(names), entries)
	for _, g := range held {
		require.NoError(t, g.Release(t.Context()))
	}
	closeEngine(sweeper)
	pgtest.Must(t, conn, "UPDATE pglock_session SET expires = expires - interval '2 hours'")
	pgtest.Must(t, conn, "UPDATE pglock_key SET used = used - interval '2 hours'")
	require.Equal(t, len(names), pgtest.Count(t, conn, "SELECT pglock_sweep()"))
	require.Zero(t, pgtest.Count(t, conn, "SELECT (SELECT count(*) FROM pglock_session) + (SELECT count(*) FROM pglock_key)"))

	c.mu.Lock()
	defer c.mu.Unlock()
	written := make(map[string]bool)
	for name, counter := range c.byName {
		require.Equal(t, len(counter.log), counter.count, "an increment of %s was lost or doubled", name)
		last := ""
		for _, token := range counter.log {
			require.Greater(t, token, last, "tokens grow")
			written[name+" "+token], last = true, token
		}
	}
	reported := 0
	var beliefs []belief
	for _, w := range append(past, workers...) {
		beliefs = append(beliefs, w.beliefs...)
		for increment := range w.done {
			reported++
			assert.True(t, written[increment], "%s was reported, and is not there", increment)
		}
		hits, recalls = hits+w.kept[0], recalls+w.kept[1]
	}
	noOverlap(t, beliefs)
	t.Logf("%d increments, %d of them reported, %d beliefs, by %d processes; %v; %d hits, %d recalls",
		len(written), reported, len(beliefs), len(past)+len(workers), counts, hits, recalls)
	assert.Greater(t, len(written), 20)
	return hits, recalls
}
