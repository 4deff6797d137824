// Package pgtest starts private PostgreSQL servers for tests, on loopback and in temporary
// folders.
package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// Patience is how long a test waits for what must happen, on a machine that is busy.
const Patience = 3 * time.Minute

// Server is a PostgreSQL server, or a pgbouncer in front of one.
type Server struct {
	Port     int
	Dir      string // of its files
	Database string // that Config and Connect lead to
	bin      string // folder of its binaries
}

// binaries returns the folder of the newest server that is installed.
func binaries(t testing.TB) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return filepath.Dir(locktest.Tool(t, "postgres", "postgresql"))
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// Start starts a server with the given settings, such as "fsync=off". It ends with the test.
func Start(t testing.TB, settings ...string) *Server {
	s := &Server{Dir: folder(t), Database: "postgres", bin: binaries(t)}
	s.must(t, "initdb", "-D", s.data(), "-A", "trust", "-U", "keylock", "--no-sync", "-E", "UTF8", "--locale=C")
	s.configure(t, settings)
	s.launch(t)
	return s
}

var (
	sharing   sync.Mutex
	shared    *Server // that Shared returns databases of; nil before it is first asked for
	databases int
	parting   []func() // what Main does when the tests have ended
)

// Shared returns an empty database of a server that tests share, which saves each the start of its own. Its settings
// are those of Start, and it must not be stopped. The tests are to be run by [Main].
func Shared(t testing.TB) *Server {
	sharing.Lock()
	defer sharing.Unlock()
	if shared == nil {
		shared = Start(sharer{t})
	}
	databases++
	s := *shared
	Must(t, s.Connect(t), "CREATE DATABASE test"+strconv.Itoa(databases))
	s.Database = "test" + strconv.Itoa(databases)
	return &s
}

// sharer is a test whose cleanups wait until all tests have ended.
type sharer struct{ testing.TB }

func (sharer) Cleanup(f func()) { parting = append(parting, f) }

// Main runs the tests, and then ends the server that they shared.
type Main struct{ M *testing.M }

// Run returns the exit code.
func (m Main) Run() int {
	code := m.M.Run()
	for _, f := range slices.Backward(parting) {
		f()
	}
	return code
}

// Standby starts a server that follows the primary, with the given settings, such as "recovery_min_apply_delay='1h'", or
// a primary_conninfo that leads through a proxy. It ends with the test.
func (s *Server) Standby(t testing.TB, settings ...string) *Server {
	b := &Server{Dir: folder(t), Database: s.Database, bin: s.bin}
	b.must(t, "pg_basebackup", "-D", b.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "keylock", "-X", "stream", "-c", "fast", "--no-sync")
	if err := os.WriteFile(filepath.Join(b.data(), "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.configure(t, append([]string{fmt.Sprintf("primary_conninfo='host=127.0.0.1 port=%d user=keylock'", s.Port)}, settings...))
	b.launch(t)
	return b
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

// configure writes the settings; a later call has the last word.
func (s *Server) configure(t testing.TB, settings []string) {
	all := append([]string{
		"listen_addresses='127.0.0.1'", "unix_socket_directories=''", "max_connections=200", "fsync=off",
		"wal_level=replica", "max_wal_senders=5", "hot_standby=on", "authentication_timeout=1",
	}, settings...)
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\n" + strings.Join(all, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
}

// launch starts the server on a port that is free.
func (s *Server) launch(t testing.TB) {
	t.Cleanup(func() { _ = s.ctl("stop", "-m", "immediate") })
	for range 20 {
		s.Port = 20000 + rand.IntN(12000) // below what the system gives away
		if s.StartAgain() == nil {
			return
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	t.Fatalf("PostgreSQL does not start; it logged\n%s", log)
}

// StartAgain starts a server that was stopped or killed.
func (s *Server) StartAgain() error {
	return s.ctl("start", "-w", "-t", "180", "-l", filepath.Join(s.Dir, "log"), "-o", "-p "+strconv.Itoa(s.Port))
}

// Stop stops the server in good order.
func (s *Server) Stop() error { return s.ctl("stop", "-m", "fast", "-w") }

// Crash kills every process of the server, as kill -9 does.
func (s *Server) Crash(t testing.TB) {
	s.Signal(t, syscall.SIGSTOP) // or the postmaster forks more
	pids := s.Signal(t, syscall.SIGKILL)
	for deadline := time.Now().Add(Patience); slices.ContainsFunc(pids, lives); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("PostgreSQL survives kill -9")
		}
	}
	// Without an init that waits for orphans the number of the postmaster stays in use, and the next one takes it for alive.
	if syscall.Kill(pids[0], 0) == nil {
		_ = os.Remove(s.pidFile())
	}
}

// lives reports whether a process runs, and is not only waited for.
func lives(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func (s *Server) pidFile() string { return filepath.Join(s.data(), "postmaster.pid") }

// Signal sends a signal to every process of the server, such as SIGSTOP, and returns their numbers, the postmaster's first.
func (s *Server) Signal(t testing.TB, signal syscall.Signal) (pids []int) {
	file, err := os.ReadFile(s.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(file), "\n")
	children, err := os.ReadFile("/proc/" + first + "/task/" + first + "/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range append([]string{first}, strings.Fields(string(children))...) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(pid, signal) // a child may have ended meanwhile
		pids = append(pids, pid)
	}
	return pids
}

// Promote makes a standby a primary.
func (s *Server) Promote() error { return s.ctl("promote", "-w") }

func (s *Server) ctl(args ...string) error {
	out, err := s.command("pg_ctl", append([]string{"-D", s.data(), "-s"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_ctl %v: %w\n%s", args, err, out)
	}
	return nil
}

// Addr returns where it listens.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// Config returns how to connect to it, or to a proxy in front of it.
func (s *Server) Config(t testing.TB, addr string) *pgx.ConnConfig {
	if addr == "" {
		addr = s.Addr()
	}
	config, err := pgx.ParseConfig("postgres://keylock@" + addr + "/" + s.Database + "?connect_timeout=2&sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// Connect returns a connection that is closed when the test ends. A server on a busy machine may have closed the first ones
// before it had authenticated them.
func (s *Server) Connect(t testing.TB) *pgx.Conn {
	conn, err := pgx.ConnectConfig(context.Background(), s.Config(t, ""))
	for deadline := time.Now().Add(Patience); err != nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		conn, err = pgx.ConnectConfig(context.Background(), s.Config(t, ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Must executes a statement.
func Must(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// Count returns the number that a query gives.
func Count(t testing.TB, conn *pgx.Conn, sql string, args ...any) (n int) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *Server) must(t testing.TB, program string, args ...string) {
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// command runs a program of the server as a user that is not root, which PostgreSQL refuses to be.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	if !strings.Contains(program, "/") {
		program = filepath.Join(s.bin, program)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = s.Dir
	if u := account(); u != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id(u.Uid), Gid: id(u.Gid)}}
	}
	return cmd
}

// account is who runs a server; nil for the user of this process.
func account() *user.User {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return u
		}
	}
	return nil
}

func id(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}

// folder returns a temporary folder that belongs to the server's user.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "pglock-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if u := account(); u != nil {
		if err := os.Chown(dir, int(id(u.Uid)), int(id(u.Gid))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Bouncer starts a pgbouncer in transaction mode in front of the server. It ends with the test.
func (s *Server) Bouncer(t testing.TB) *Server {
	program := "/usr/sbin/pgbouncer"
	if _, err := os.Stat(program); err != nil {
		program = locktest.Tool(t, "pgbouncer", "pgbouncer")
	}
	b := &Server{Dir: folder(t), Database: s.Database, bin: s.bin}
	for range 20 {
		b.Port = 20000 + rand.IntN(12000)
		config := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=keylock
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 10
`, s.Port, b.Port)
		if err := os.WriteFile(filepath.Join(b.Dir, "ini"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := b.command(program, "-q", "ini")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			conn, err := pgx.ConnectConfig(context.Background(), b.Config(t, ""))
			if err == nil {
				_ = conn.Close(context.Background())
				t.Cleanup(func() {
					_ = cmd.Process.Signal(syscall.SIGINT)
					<-ended
				})
				return b
			}
			select {
			case <-ended: // the port is taken
				deadline = time.Time{}
			default:
			}
		}
	}
	t.Fatal("pgbouncer does not start")
	return nil
}

// KillBackend kills a process of the server, which then ends all others and recovers.
func (s *Server) KillBackend(t testing.TB) {
	conn, witness := s.Connect(t), s.Connect(t)
	if err := syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Until the server has noticed, it serves others as before.
	noticed, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	_, _ = witness.Exec(noticed, "SELECT pg_sleep($1)", 2*Patience.Seconds())
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var recovering bool
		again, err := pgx.ConnectConfig(context.Background(), s.Config(t, ""))
		if err != nil {
			continue // it recovers
		}
		err = again.QueryRow(context.Background(), "SELECT pg_is_in_recovery()").Scan(&recovering)
		_ = again.Close(context.Background())
		if err == nil && !recovering {
			return
		}
	}
	t.Fatal("PostgreSQL does not recover")
}
