package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// patience is how long a test waits for what must happen, on a machine that is busy.
const patience = 3 * time.Minute

// process is a program in an operating-system process of its own, which can be
// killed, paused and continued.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Writer
	exited chan struct{} // closed when it has, and all it printed was read

	mu      sync.Mutex
	lines   []string
	printed chan struct{} // closed and replaced at every line
}

// startProcess starts the test binary in the given role.
func startProcess(t testing.TB, role string, env ...string) *process {
	p := &process{cmd: exec.Command(os.Args[0]), exited: make(chan struct{}), printed: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			close(p.printed)
			p.printed = make(chan struct{})
			p.mu.Unlock()
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process without a warning, as kill -9 does.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// terminate ends the process in good order.
func (p *process) terminate(t testing.TB) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		require.Zero(t, p.cmd.ProcessState.ExitCode(), "the process failed: %v", p.output())
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // it prints its goroutines
		require.Fail(t, "the process does not end")
	}
}

func (p *process) output() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[:len(p.lines):len(p.lines)]
}

// await waits until the process has printed a line that begins with prefix, and returns the rest of that line.
func (p *process) await(t testing.TB, prefix string) string {
	for timeout := time.After(patience); ; {
		p.mu.Lock()
		lines, printed := p.lines, p.printed
		p.mu.Unlock()
		for _, line := range lines {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest)
			}
		}
		select {
		case <-printed:
		case <-p.exited:
			require.Fail(t, "the process ended", "before it printed %q; it printed %q", prefix, p.output())
		case <-timeout:
			require.Fail(t, "the process did not print "+prefix)
		}
	}
}

func (p *process) say(t testing.TB, line string) {
	_, err := io.WriteString(p.stdin, line+"\n")
	require.NoError(t, err)
}

// The worker is a process that increments a counter under a lock. It gets its endpoints in an
// environment variable and reports on its standard output.
const (
	workerTTL = 2 * time.Second
	workerKey = "counter"
)

func startWorker(t testing.TB, role string, keeps bool, endpoints ...string) *process {
	return startProcess(t, role, "KEYLOCK_E2E_ENDPOINTS="+strings.Join(endpoints, ","), "KEYLOCK_E2E_KEEPS="+strconv.FormatBool(keeps))
}

// keeps reports whether this worker keeps claims.
func keeps() bool { return os.Getenv("KEYLOCK_E2E_KEEPS") == "true" }

// workerLocks returns what a worker needs; closing ends the manager and the client.
func workerLocks() (locks *cohort.Manager, c counter, closing func() error, err error) {
	client, err := newClient(strings.Split(os.Getenv("KEYLOCK_E2E_ENDPOINTS"), ",")...)
	if err != nil {
		return nil, counter{}, nil, err
	}
	engine, err := etcdlock.New(client, etcdlock.WithTTL(workerTTL))
	if err != nil {
		return nil, counter{}, nil, err
	}
	opts := []cohort.Option{cohort.WithMaxHandoffs(16), cohort.WithMaxHold(100 * time.Millisecond)}
	if keeps() {
		opts = append(opts, cohort.WithKeep(time.Second, 8))
	}
	locks = cohort.Start(context.Background(), engine, opts...)
	closing = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience/2)
		defer cancel()
		return errors.Join(locks.Shutdown(ctx), client.Close())
	}
	return locks, counter{client, "/counter", 20 * time.Millisecond}, closing, nil
}

// workerMain increments the counter with four goroutines until SIGTERM. It prints a line
// for every increment: done, the count and the token.
func workerMain() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	locks, counter, closing, err := workerLocks()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				if keeps() { // so that the key is unused now and then
					time.Sleep(rand.N(200 * time.Millisecond))
				}
				lock, err := locks.Acquire(ctx, workerKey)
				if err != nil {
					fmt.Println("failed", err)
					time.Sleep(50 * time.Millisecond)
					continue
				}
				// It does not heed lock.Context(), so that only the token keeps out what is late.
				patient, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				count, err := counter.increment(patient, lock.Token())
				cancel()
				if err == nil {
					fmt.Println("done", count, lock.Token())
				} else {
					fmt.Println("failed", err)
				}
				_ = lock.Release()
			}
		})
	}
	all.Wait()
	return closing()
}

// holderMain acquires the lock and reads the counter. At a line on its standard input it
// writes, whatever it believes of the lock by then.
func holderMain() error {
	locks, counter, closing, err := workerLocks()
	if err != nil {
		return err
	}
	lock, err := locks.Acquire(context.Background(), workerKey)
	if err != nil {
		return err
	}
	count, err := counter.read(context.Background(), lock.Token())
	if err != nil {
		return err
	}
	fmt.Println("holding", lock.Token())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println("wrote", counter.write(context.Background(), lock.Token(), count+1))
	<-lock.Context().Done()
	fmt.Println("told", context.Cause(lock.Context()))
	fmt.Println("released", lock.Release())
	return closing()
}

// counter is a resource in etcd that checks tokens. It does nothing else against lost
// updates: what is written does not depend on what is there.
type counter struct {
	client *clientv3.Client
	name   string
	work   time.Duration // of an increment, between reading and writing
}

// errFenced means that the counter has seen a greater token.
var errFenced = errors.New("fenced off")

func (c counter) fence() string               { return c.name + "/fence" }
func (c counter) value() string               { return c.name + "/value" }
func (c counter) entry(t cohort.Token) string { return c.name + "/log/" + t.String() }

// read returns the count, and fences off every smaller token.
func (c counter) read(ctx context.Context, token cohort.Token) (int, error) {
	for {
		seen, err := c.client.Get(ctx, c.fence())
		if err != nil {
			return 0, err
		}
		unchanged := clientv3.Compare(clientv3.ModRevision(c.fence()), "=", 0)
		if len(seen.Kvs) > 0 {
			if string(seen.Kvs[0].Value) > token.String() {
				return 0, errFenced
			}
			unchanged = clientv3.Compare(clientv3.ModRevision(c.fence()), "=", seen.Kvs[0].ModRevision)
		}
		resp, err := c.client.Txn(ctx).If(unchanged).Then(
			clientv3.OpPut(c.fence(), token.String()), clientv3.OpGet(c.value())).Commit()
		if err != nil {
			return 0, err
		}
		if !resp.Succeeded {
			continue
		}
		kvs := resp.Responses[1].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return 0, nil
		}
		return strconv.Atoi(string(kvs[0].Value))
	}
}

// write sets the count, unless a greater token was seen, and notes who did it. It
// tries until etcd replies: writing the same again changes nothing.
func (c counter) write(ctx context.Context, token cohort.Token, count int) error {
	for {
		mine := clientv3.Compare(clientv3.Value(c.fence()), "=", token.String())
		n := strconv.Itoa(count)
		resp, err := c.client.Txn(ctx).If(mine).
			Then(clientv3.OpPut(c.value(), n), clientv3.OpPut(c.entry(token), n)).
			Else(clientv3.OpGet(c.entry(token))).Commit()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			time.Sleep(20 * time.Millisecond)
		case resp.Succeeded, len(resp.Responses[0].GetResponseRange().Kvs) > 0: // now, or by a try that got no reply
			return nil
		default:
			return errFenced
		}
	}
}

// increment adds one.
func (c counter) increment(ctx context.Context, token cohort.Token) (count int, err error) {
	count, err = c.read(ctx, token)
	if err != nil {
		return 0, err
	}
	time.Sleep(c.work)
	return count + 1, c.write(ctx, token, count+1)
}

// written returns what was written, in the order of the tokens.
func (c counter) written(ctx context.Context) (counts []int, tokens []string, err error) {
	prefix := c.name + "/log/"
	resp, err := c.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, nil, err
	}
	for _, kv := range resp.Kvs {
		n, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
		counts = append(counts, n)
		tokens = append(tokens, string(kv.Key[len(prefix):]))
	}
	return counts, tokens, nil
}
