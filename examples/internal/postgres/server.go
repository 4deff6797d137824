// Package postgres finds a PostgreSQL server for a program: one that the user names, or else a
// private one, started from the machine's own binaries in a temporary folder.
package postgres

import (
	"bufio"
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// Server is a PostgreSQL server to connect to. Its methods may be called by one goroutine at a time.
type Server struct {
	// URL is what a client connects to.
	URL string

	// Of a private server:
	bin, dir string    // the folders of its binaries and of its files
	account  *account  // who runs it
	keeper   *exec.Cmd // keeper.sh; nil if the server is not ours
	input    io.Closer // what the keeper waits for
	failure  *bytes.Buffer
}

// Open returns the server at url; if url is empty, the one that the environment variable
// DATABASE_URL names; and if it names none, a private one as [Start] does.
func Open(url string) (*Server, error) {
	if url = cmp.Or(url, os.Getenv("DATABASE_URL")); url != "" {
		return &Server{URL: url}, nil
	}
	return Start()
}

//go:embed keeper.sh
var keeper string

// Start starts a private server, with a new cluster in a temporary folder, that listens on a Unix
// socket in that folder and nowhere else. It takes one to three seconds. PostgreSQL refuses to
// run as root: a process that is root starts it as the user postgres or nobody.
//
// It returns an error that is [ErrNotInstalled] where there are no binaries of a server.
func Start() (_ *Server, err error) {
	s := new(Server)
	if s.bin, err = installed(); err != nil {
		return nil, err
	}
	if s.account, err = unprivileged(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "postgres-"); err != nil {
		return nil, err
	}
	if err := errors.Join(s.account.own(s.dir), s.keep()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	s.URL = "postgres:///postgres?" + url.Values{"host": {s.dir}, "port": {"5432"}, "user": {"keylock"}}.Encode()
	return s, nil
}

// keep starts the keeper and waits until the server is ready.
func (s *Server) keep() error {
	s.keeper = s.command("sh", "-c", keeper, "keeper", s.bin, s.dir)
	s.failure = new(bytes.Buffer)
	s.keeper.Stderr = s.failure
	input, err := s.keeper.StdinPipe()
	if err != nil {
		return err
	}
	output, err := s.keeper.StdoutPipe()
	if err != nil {
		return err
	}
	s.input = input
	if err := s.keeper.Start(); err != nil {
		return fmt.Errorf("starting PostgreSQL in %s, which its user must be able to enter: %w", s.dir, err)
	}
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil { // it ended instead
		return errors.Join(err, s.Close())
	}
	return nil
}

// Crash kills a private server as a power cut would, and starts it again. It returns when the
// server takes connections. All that it had open is broken; what it had confirmed is there.
func (s *Server) Crash() error {
	restart := s.command(filepath.Join(s.bin, "pg_ctl"), "-D", "data", "-l", "log", "-w", "-m", "immediate", "restart")
	if said, err := restart.CombinedOutput(); err != nil {
		return fmt.Errorf("restarting PostgreSQL: %w\n%s", err, said)
	}
	return nil
}

// Close stops a private server and removes its folder. It leaves a server alone that is not ours.
func (s *Server) Close() error {
	if s.keeper == nil {
		return nil
	}
	_ = s.input.Close() // it may be closed already, because the keeper has ended
	err := s.keeper.Wait()
	if err != nil {
		err = fmt.Errorf("private PostgreSQL: %w\n%s", err, s.failure)
	}
	return errors.Join(err, os.RemoveAll(s.dir)) // where the keeper's user may not
}

// command returns a command that runs as the server's user, in its folder, and is not reached by a
// Ctrl-C that is meant for this program.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	s.account.run(cmd)
	return cmd
}

// ErrNotInstalled is returned by Start where the machine has no PostgreSQL server. It says how to
// get one.
var ErrNotInstalled = errors.New("no PostgreSQL server on this machine: install Debian's package postgresql (apt-get install postgresql), or name a server by its postgres:// URL")

// debianBinaries is where Debian keeps the binaries of each version, off the PATH.
const debianBinaries = "/usr/lib/postgresql/*/bin"

// Installed returns nil where Start finds the binaries of a server, or else ErrNotInstalled.
func Installed() error {
	_, err := installed()
	return err
}

// installed returns the folder of this machine's binaries.
func installed() (string, error) { return findBinaries(os.Getenv("PATH"), debianBinaries) }

// findBinaries returns the folder of a server's binaries: the first one on the path that has them,
// else the one of the newest version that matches the pattern.
func findBinaries(path, pattern string) (string, error) {
	versions, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	slices.SortFunc(versions, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(filepath.SplitList(path), versions...) {
		if has(dir, "initdb") && has(dir, "pg_ctl") {
			return filepath.Abs(dir)
		}
	}
	return "", ErrNotInstalled
}

// version returns the number in a folder's name like /usr/lib/postgresql/15/bin.
func version(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 where there is none
	return n
}

func has(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}
