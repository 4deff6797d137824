package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

// stage is where the workers come and go.
type stage struct {
	engine, endpoint string
	story            *story
	workers          []*worker
}

// worker is a process.
type worker struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Writer
	exited chan struct{} // closed when it has, and all its reports were heard
	err    error         // of its end; written before exited is closed
}

// start starts a worker as a process of its own: this program again.
func (s *stage) start(name string) error {
	cmd, err := self(workerVariable + "=" + s.engine + " " + s.endpoint)
	if err != nil {
		return err
	}
	w := &worker{name: name, cmd: cmd, exited: make(chan struct{})}
	w.cmd.Stderr = os.Stderr
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		return err
	}
	reports, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	s.workers = append(s.workers, w)
	s.story.tell("%s starts, process %d", name, w.cmd.Process.Pid)
	go func() {
		defer close(w.exited)
		for lines := bufio.NewScanner(reports); lines.Scan(); {
			s.story.hear(name, lines.Text())
		}
		w.err = w.cmd.Wait()
	}()
	return nil
}

// last returns the process that last started under the name.
func (s *stage) last(name string) (found *worker) {
	for _, w := range s.workers {
		if w.name == name {
			found = w
		}
	}
	return found
}

// kill ends a worker without a warning: its lock stays until its lease has run out.
func (s *stage) kill(name string) error {
	s.story.tell("%s is killed", name)
	w := s.last(name)
	err := w.cmd.Process.Kill()
	<-w.exited
	return err
}

// pause has a worker stop in the middle of an increment.
func (s *stage) pause(name string) error {
	_, err := fmt.Fprintln(s.last(name).stdin)
	return err
}

// resume lets it go on, as if nothing had been.
func (s *stage) resume(name string) error {
	s.story.tell("%s goes on", name)
	return s.last(name).cmd.Process.Signal(syscall.SIGCONT)
}

// stopAll asks the workers to end in good order.
func (s *stage) stopAll() error {
	s.story.tell("all are asked to stop")
	for _, name := range []string{"A", "B", "C"} {
		w := s.last(name)
		if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		<-w.exited
		if w.err != nil {
			return fmt.Errorf("worker %s: %w", name, w.err)
		}
	}
	return nil
}

// killAll leaves no process behind.
func (s *stage) killAll() {
	for _, w := range s.workers {
		_ = w.cmd.Process.Kill()
		<-w.exited
	}
}

// story is what happened, in the order in which it was heard of.
type story struct {
	out   io.Writer
	began time.Time

	mu     sync.Mutex
	turn   turn
	writes map[string]int // the count by the token
	late   []string       // tokens whose writes were refused
}

// turn is what one process did with the key until another had it.
type turn struct {
	process     string
	since       time.Duration
	first, last string // tokens
	count       int    // the last one written
	locks       int
}

func newStory(out io.Writer) *story {
	return &story{out: out, began: time.Now(), writes: make(map[string]int)}
}

func (s *story) now() time.Duration {
	return time.Since(s.began).Round(time.Millisecond)
}

// tell notes what was done to a worker.
func (s *story) tell(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endTurn()
	fmt.Fprintf(s.out, "%8v  %s\n", s.now(), fmt.Sprintf(format, args...))
}

// hear takes a worker's report.
func (s *story) hear(process, report string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	words := strings.Fields(report)
	token := words[1]
	if words[0] != "wrote" {
		s.endTurn()
		what := "is paused while it holds the key with the token"
		if words[0] == "refused" {
			what = "writes at last: refused, because of its token"
			s.late = append(s.late, token)
		}
		fmt.Fprintf(s.out, "%8v  %s %s %s\n", s.now(), process, what, short(token))
		return
	}
	if s.turn.process != process {
		s.endTurn()
		s.turn = turn{process: process, since: s.now(), first: token}
	}
	s.turn.last = token
	s.turn.locks++
	s.turn.count, _ = strconv.Atoi(words[2])
	s.writes[token] = s.turn.count
}

// endTurn prints the turn that is over; called with mu held.
func (s *story) endTurn() {
	if t := s.turn; t.locks > 0 {
		fmt.Fprintf(s.out, "%8v  %s holds the key %2d times, tokens %s to %s, counter %d\n",
			t.since, t.process, t.locks, short(t.first), short(t.last), t.count)
	}
	s.turn = turn{}
}

// short writes a token's epoch and sequence for people.
func short(token string) string {
	var t cohort.Token
	_, _ = fmt.Sscanf(token, "%x-%x", &t.Epoch, &t.Seq)
	return fmt.Sprintf("%d.%d", t.Epoch, t.Seq)
}

// check compares the story with the counter.
func (s *story) check(ctx context.Context, at site) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endTurn()
	counter, writes, err := at.read(ctx)
	switch {
	case err != nil:
		return err
	case writes == 0:
		return fmt.Errorf("the counter was never written")
	}
	fmt.Fprintf(s.out, "The counter is %d after %d writes, of which the workers reported %d. Late writes refused: %d.\n",
		counter, writes, len(s.writes), len(s.late))
	if counter != writes {
		return fmt.Errorf("an increment was lost or doubled")
	}
	byCount := make(map[int]string)
	for token, count := range s.writes {
		if byCount[count] != "" {
			return fmt.Errorf("%d was written with the tokens %s and %s", count, byCount[count], token)
		}
		byCount[count] = token
	}
	last := ""
	for count := 1; count <= counter; count++ {
		token, reported := byCount[count]
		if !reported {
			continue // by a worker that was killed before it could say so
		}
		if token <= last {
			return fmt.Errorf("the token %s came after %s", token, last)
		}
		last = token
	}
	fmt.Fprintln(s.out, "No increment was lost or doubled, and every token is greater than the one before.")
	return nil
}

const leaseTTL = 2 * time.Second

// work is the program of a worker: four goroutines increment the counter until ctx ends. It
// reports every increment on out. A line on in makes it pause, as if the machine had
// forgotten it, in the middle of the next one; the end of in ends the process.
func work(ctx context.Context, engineName, endpoint string, in io.Reader, out io.Writer) error {
	s, err := services[engineName].connect(endpoint)
	if err != nil {
		return err
	}
	defer s.close()
	engine, err := s.engine()
	if err != nil {
		return err
	}
	locks := cohort.Start(context.WithoutCancel(ctx), engine, cohort.WithMaxHandoffs(20))

	var pause atomic.Bool
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			pause.Store(true)
		}
		if ctx.Err() == nil { // the one that started this process is gone
			os.Exit(1)
		}
	}()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				lock, err := locks.Acquire(ctx, "counter")
				if err != nil {
					continue
				}
				count, err := increment(s, lock, func() {
					time.Sleep(2 * time.Millisecond) // the work
					if pause.CompareAndSwap(true, false) {
						fmt.Fprintln(out, "pausing", lock.Token())
						_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
						time.Sleep(100 * time.Millisecond) // it may take a moment to stop all threads
					}
				})
				if errors.Is(err, cohort.ErrLost) {
					fmt.Fprintln(out, "refused", lock.Token())
				} else if err == nil {
					fmt.Fprintln(out, "wrote", lock.Token(), count)
				}
				_ = lock.Release()
			}
		})
	}
	all.Wait()
	stop, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return locks.Shutdown(stop)
}

// increment reads the counter, works, and writes it, on the condition that the lock is still held.
func increment(s site, lock cohort.Lock, work func()) (int, error) {
	ctx := context.Background() // and not lock.Context(), to show that the condition is enough
	counter, _, err := s.read(ctx)
	if err != nil {
		return 0, err
	}
	work()
	return counter + 1, s.write(ctx, lock, counter+1)
}
