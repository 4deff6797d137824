// Package redistest starts private Redis servers for tests, on loopback and in
// temporary folders, with networks in between that fail when they are told to.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// Patience is how long a test waits for what must happen, on a machine that is busy.
const Patience = 3 * time.Minute

// Server is a redis-server or redis-sentinel process.
type Server struct {
	Port int
	Dir  string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// Installed skips the test when redis-server is not installed, and fails it in CI.
func Installed(t testing.TB) { locktest.Tool(t, "redis-server", "redis-server") }

// Start starts a server with the given settings, such as "--appendonly", "yes". It ends with the test.
func Start(t testing.TB, settings ...string) *Server {
	return start(t, append([]string{"--save", "", "--repl-diskless-sync-delay", "0"}, settings...))
}

func start(t testing.TB, settings []string) *Server {
	Installed(t)
	s := &Server{Dir: t.TempDir(), args: settings}
	t.Cleanup(func() { s.Kill() })
	for range 50 {
		s.Port = 20000 + rand.IntN(12000) // below what the system gives away, and room for the bus of a cluster above
		if s.launch(s.args) == nil {
			return s
		}
	}
	t.Fatalf("redis-server does not start; it logged\n%s", s.Log())
	return nil
}

// Addr returns the server's address.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// Log returns what the server has logged.
func (s *Server) Log() string {
	log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(log)
}

// launch starts the process and waits until it serves. It fails when another program has the port.
func (s *Server) launch(settings []string) error {
	args := append(settings[:len(settings):len(settings)], "--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.Dir,
		"--logfile", filepath.Join(s.Dir, "log"), "--daemonize", "no")
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.done = done
	cmd := s.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		select {
		case <-done:
			return errors.New("redis-server has ended")
		case <-time.After(5 * time.Millisecond):
		}
		// The process itself must answer: the port could be another server's.
		if reply, err := s.Do("INFO", "server"); err == nil && strings.Contains(reply, "process_id:"+strconv.Itoa(cmd.Process.Pid)+"\r") {
			return nil
		}
	}
	s.Kill()
	return errors.New("redis-server does not serve")
}

// Restart starts a server again that was killed, with the same port and folder, and settings besides.
func (s *Server) Restart(t testing.TB, settings ...string) {
	var err error
	for range 20 { // a connection of the past may still have the port
		if err = s.launch(append(s.args[:len(s.args):len(s.args)], settings...)); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%v; it logged\n%s", err, s.Log())
}

// Signal sends the process a signal.
func (s *Server) Signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// Kill ends the process without a warning, as kill -9 does.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.Signal(syscall.SIGKILL)
	<-s.done
}

// Do sends one command over a connection of its own, and returns the reply: a string, an integer,
// an error as an error, or, of an array, its strings joined by newlines.
func (s *Server) Do(words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	return read(bufio.NewReader(conn))
}

func read(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '-':
		return "", errors.New(rest)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err
		}
		data := make([]byte, n+2)
		for at := 0; at < len(data); {
			m, err := r.Read(data[at:])
			if err != nil {
				return "", err
			}
			at += m
		}
		return string(data[:n]), nil
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil {
			return "", err
		}
		var all []string
		for range n {
			element, err := read(r)
			if err != nil {
				return "", err
			}
			all = append(all, element)
		}
		return strings.Join(all, "\n"), nil
	default:
		return rest, nil
	}
}

// Must is Do for what cannot fail.
func (s *Server) Must(t testing.TB, words ...string) string {
	t.Helper()
	reply, err := s.Do(words...)
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return reply
}

// Replica starts a server that follows s, and waits until it has caught up. It logs in as a user of its own, see CutReplicas.
func (s *Server) Replica(t testing.TB, settings ...string) *Server {
	s.Must(t, "ACL", "SETUSER", "repl", "on", ">secret", "~*", "&*", "+@all")
	r := Start(t, append(settings, "--replicaof", "127.0.0.1 "+strconv.Itoa(s.Port), "--masteruser", "repl", "--masterauth", "secret")...)
	Eventually(t, "the replica follows", func() bool {
		info, _ := r.Do("INFO", "replication")
		return strings.Contains(info, "master_link_status:up")
	})
	return r
}

// AwaitSubscribers waits until so many clients hear notices.
func (s *Server) AwaitSubscribers(t testing.TB, n int) {
	Eventually(t, "they hear notices", func() bool {
		return strings.Count(s.Must(t, "CLIENT", "LIST", "TYPE", "pubsub"), "id=") == n
	})
}

// CutReplicas makes the replicas of s lag behind from now on, while its clients stay.
func (s *Server) CutReplicas(t testing.TB) {
	s.Must(t, "ACL", "SETUSER", "repl", "off")
	Eventually(t, "the replicas are cut off", func() bool {
		_, _ = s.Do("CLIENT", "KILL", "TYPE", "replica")
		return strings.Contains(s.Must(t, "INFO", "replication"), "connected_slaves:0")
	})
}

// Sentinels starts three sentinels that watch over the master under the given name, and waits until they know
// each other and the replicas.
func (s *Server) Sentinels(t testing.TB, name string, replicas int) []*Server {
	var all []*Server
	for range 3 {
		config := filepath.Join(t.TempDir(), "config")
		lines := fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2\nsentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 10000\n", name, s.Port, name, name)
		if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, start(t, []string{config, "--sentinel"}))
	}
	for _, sentinel := range all {
		Eventually(t, "the sentinels know each other", func() bool {
			info, _ := sentinel.Do("INFO", "sentinel")
			return strings.Contains(info, fmt.Sprintf("slaves=%d,sentinels=3", replicas))
		})
	}
	return all
}

// Cluster starts three masters with a replica each.
func Cluster(t testing.TB) []*Server {
	var all []*Server
	create := []string{"--cluster", "create"}
	for range 6 {
		s := Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0")
		all = append(all, s)
		create = append(create, s.Addr())
	}
	out, err := exec.Command("redis-cli", append(create, "--cluster-replicas", "1", "--cluster-yes")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, s := range all {
		Eventually(t, "the cluster is whole", func() bool {
			info, _ := s.Do("CLUSTER", "INFO")
			role, _ := s.Do("INFO", "replication")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:6") &&
				(strings.Contains(role, "role:master") && strings.Contains(role, "connected_slaves:1") || strings.Contains(role, "master_link_status:up"))
		})
	}
	return all
}

// Eventually waits until the condition holds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Left returns how many sessions and entries the server has under the default prefix.
func (s *Server) Left(t testing.TB) (sessions, entries int) {
	t.Helper()
	reply := s.Must(t, "EVAL", `
		local sessions, entries = 0, 0
		for _, name in ipairs(redis.call('KEYS', '{kl*}:*')) do
			if redis.call('TYPE', name).ok == 'zset' then
				sessions = sessions + redis.call('ZCARD', name)
			else
				local all = redis.call('HGETALL', name)
				for i = 1, #all, 2 do
					if string.match(all[i], '^q:') then
						local _, n = string.gsub(all[i + 1], '%S+', '')
						entries = entries + n
					elseif string.match(all[i], '^[xw]:') then
						entries = entries + 1
					end
				end
			end
		end
		return sessions .. ' ' .. entries`, "0")
	if _, err := fmt.Sscan(reply, &sessions, &entries); err != nil {
		t.Fatal(err)
	}
	return sessions, entries
}
