package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen, on a machine that is busy.
const patience = 60 * time.Second

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
