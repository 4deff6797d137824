package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
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
