package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/page"
	"github.com/seed-46f81e6d/keylock/examples/internal/postgres/postgrestest"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

func TestMain(m *testing.M) {
	if os.Getenv(hangs) != "" {
		os.Exit(hangingProgram().main(context.Background(), []string{"-events", "1"}))
	}
	goleak.VerifyTestMain(m)
}

// program is threatscore for a test, with what it printed.
type program struct {
	threatscore
	stdout, stderr bytes.Buffer
}

// newProgram returns the program on Badger, in a folder that must be empty again at the end.
func newProgram(t *testing.T, stdin string) *program {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Cleanup(func() {
		left, err := os.ReadDir(temp)
		require.NoError(t, err)
		assert.Empty(t, left, "the databases are removed")
	})
	p := new(program)
	p.threatscore = threatscore{stdin: strings.NewReader(stdin), stdout: &p.stdout, stderr: &p.stderr, openBadger: store.OpenBadger}
	return p
}

// wrap puts every database that the program opens into a store of the test's own.
func (p *program) wrap(around func(store.Store) store.Store) {
	p.openBadger = func(dir string) (store.Store, error) {
		s, err := store.OpenBadger(dir)
		if err != nil {
			return nil, err
		}
		return around(s), nil
	}
}

// row returns the cells of the first table row that begins with the name.
func (p *program) row(t *testing.T, name string) []string {
	t.Helper()
	for line := range strings.Lines(p.stdout.String()) {
		cells := strings.Split(strings.Trim(line, "│\n"), "│")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[0] == name {
			return cells
		}
	}
	t.Fatalf("no row %q in\n%s", name, p.stdout.String())
	return nil
}

const verified = "Every score equals that of a sequential pass"

func TestMadeUpLogIsScoredRightWithAndWithoutTheLock(t *testing.T) {
	p := newProgram(t, "")
	svg := filepath.Join(t.TempDir(), "plot.svg")
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-events", "1500", "-svg", svg}), &p.stderr)

	without, with := p.row(t, "without the lock"), p.row(t, "with the lock")
	assert.Equal(t, with[2], without[2], "the same events")
	assert.NotEqual(t, "0", without[1], "conflicts without the lock")
	assert.Equal(t, "0", with[1], "conflicts with it")
	assert.Regexp(t, `Without the lock \d+ transactions conflicted and were done again; with it 0\.\n$`, p.stdout.String())
	assert.Contains(t, p.stdout.String(), verified)
	assert.Regexp(t, `Blocked addresses: \d+\.`, p.stdout.String())
	assert.Contains(t, p.stdout.String(), "203.0.113.")
	assert.Empty(t, p.stderr.String())

	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	assert.Contains(t, string(picture), "latency per event")
	assert.Contains(t, string(picture), "conflicts retried")
}

func TestMadeUpLogIsAlwaysTheSameAndHasEveryForm(t *testing.T) {
	log := makeUpLog(6000)
	require.Equal(t, log, makeUpLog(6000))

	for _, form := range []string{
		`(?m)^Mar  1 04:\d\d:\d\d bastion sshd\[\d+\]: `,
		`(?m)^2026-03-01T04:\d\d:\d\d\.\d{6}Z gateway sshd\[\d+\]: `,
		"Failed password for root from 203",
		"Failed password for invalid user .* from 2001:db8:",
		"Invalid user .* from 198",
		"authentication failure; .* rhost=2001:db8:",
		"POSSIBLE BREAK-IN ATTEMPT!",
		`message repeated \d+ times: \[ Failed password`,
		`PAM \d+ more authentication failures; .* rhost=`,
		"Accepted publickey",
	} {
		assert.Regexp(t, regexp.MustCompile(form), string(log))
	}

	var read sshlog.Log
	require.NoError(t, read.Read(bytes.NewReader(log)))
	assert.Len(t, read.Events, 6000)
	assert.Zero(t, read.Unnamed+read.Overlong)
	addrs := make(map[netip.Addr]int)
	for _, e := range read.Events {
		addrs[e.Addr]++
	}
	assert.Greater(t, len(addrs), 100, "cold addresses")
	assert.Greater(t, addrs[netip.MustParseAddr("203.0.113.6")], 200, "a hot address")
}

// everyForm has each form of line once or more, and these scores: 203.0.113.7 gets
// 5 + 3 + 1 + 10 + 4*5 + 2*1 = 41, 2001:db8::7 gets 5 + 3 + 10 = 18.
const everyForm = `Mar  1 04:00:07 bastion sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2
2026-03-01T04:00:07.123456+01:00 gateway sshd-session[811]: Invalid user admin from 203.0.113.7 port 4711
Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root
Mar  1 04:00:07 bastion sshd[811]: reverse mapping checking getaddrinfo for a.example [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!
Mar  1 04:00:07 bastion sshd[811]: message repeated 4 times: [ Failed password for root from 203.0.113.7 port 4711 ssh2]
Mar  1 04:00:07 bastion sshd[811]: PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root
2026-03-01T04:00:07Z gateway sshd[811]: Failed password for invalid user x from 2001:db8::7 port 4711 ssh2
2026-03-01T04:00:07Z gateway sshd[811]: Invalid user x from 2001:db8::7
Mar  1 04:00:07 bastion sshd[811]: Address 2001:db8::7 maps to a.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!
Mar  1 04:00:07 bastion sshd[811]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=a.example
Mar  1 04:00:07 bastion sshd[811]: Accepted publickey for deploy from 192.0.2.10 port 22 ssh2
`

func TestEveryFormOfLineIsScored(t *testing.T) {
	p := newProgram(t, everyForm)
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-log", "-", "-threshold", "17"}), &p.stderr)

	assert.Contains(t, p.stdout.String(), "Lines: 11. Events: 9.\n      1 of sshd about something else\n      1 events whose source is not an address\n\n")
	assert.Contains(t, p.stdout.String(), "Blocked addresses: 2.")
	assert.Equal(t, []string{"203.0.113.7", "41", "5", "0", "1", "3", "0", "1"}, p.row(t, "203.0.113.7"))
	assert.Equal(t, []string{"2001:db8::7", "18", "1", "0", "1", "0", "0", "1"}, p.row(t, "2001:db8::7"))
	assert.Contains(t, p.stdout.String(), verified)
}

func TestAddressAtTheThresholdIsNotBlocked(t *testing.T) {
	p := newProgram(t, everyForm)
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-log=-", "-threshold=18"}), &p.stderr)
	assert.Contains(t, p.stdout.String(), "Blocked addresses: 1.")
}

func TestSeveralLogsAreReadAsOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth.log")
	require.NoError(t, os.WriteFile(file, []byte(everyForm), 0o600))
	p := newProgram(t, everyForm)
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-log", file, "-log", "-", "-log", file, "-lock", "on"}), &p.stderr)

	assert.Contains(t, p.stdout.String(), "Lines: 33. Events: 27.")
	assert.Equal(t, "27", p.row(t, "with the lock")[2])
	assert.NotContains(t, p.stdout.String(), "│ without")
	assert.Equal(t, "123", p.row(t, "203.0.113.7")[1])
}

func TestGarbageNeverStopsIt(t *testing.T) {
	for name, log := range map[string]string{
		"empty":         "",
		"empty lines":   "\n\n\n",
		"binary":        strings.Repeat("\x00\xff\x1b[2J\r\n\x80sshd[1]: ", 1000),
		"megabyte line": strings.Repeat("Failed password for ", 1<<17),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t, log)
			svg := filepath.Join(t.TempDir(), "plot.svg")
			status := p.main(t.Context(), []string{"-log", "-", "-svg", svg})
			if strings.HasPrefix(name, "empty") {
				require.Equal(t, exitFailed, status, "or it would look like a quiet log")
				assert.Contains(t, p.stderr.String(), "the log is empty")
			} else {
				require.Equal(t, exitFailed, status, "or it would look like a quiet log")
				assert.Contains(t, p.stderr.String(), "begins with a time, a host and a program")
			}

			p = newProgram(t, log+"\n"+everyForm+log)
			require.Equal(t, exitOK, p.main(t.Context(), []string{"-log", "-", "-threshold=0"}), &p.stderr)
			assert.Equal(t, "41", p.row(t, "203.0.113.7")[1], "the events around it are found")
		})
	}
}

// onRaise calls a function before every transaction that the wrapped store begins.
type onRaise struct {
	store.Store
	before func()
}

func (s onRaise) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (bool, error) {
	s.before()
	return s.Store.Raise(ctx, addr, points, threshold)
}

func TestInterruptLeavesNothingHalfWritten(t *testing.T) {
	for _, lock := range []string{"on", "off", "both"} {
		t.Run(lock, func(t *testing.T) {
			p := newProgram(t, "")
			var begun atomic.Int64
			p.wrap(func(s store.Store) store.Store {
				return onRaise{s, func() {
					if begun.Add(1) == 300 {
						assert.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT)) // what Ctrl-C does
					}
				}}
			})
			status := p.main(t.Context(), []string{"-events", "6000", "-lock", lock})
			require.Equal(t, exitInterrupted, status, &p.stderr)

			assert.Contains(t, p.stdout.String(), verified)
			assert.Regexp(t, `^threatscore: interrupted after \d+ of 6000 events of the run (without|with) the lock; each of them is in the database whole\n$`, p.stderr.String())
		})
	}
}

// hangs, set in the environment, makes the test binary a threatscore whose database never answers.
const hangs = "THREATSCORE_TEST_HANGS"

func hangingProgram() threatscore {
	return threatscore{stdout: os.Stdout, stderr: os.Stderr, openBadger: func(dir string) (store.Store, error) {
		s, err := store.OpenBadger(dir)
		return onRaise{s, func() { fmt.Println("hanging"); select {} }}, err
	}}
}

func TestSecondInterruptKills(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	hanging := exec.CommandContext(ctx, os.Args[0])
	hanging.Env = append(os.Environ(), hangs+"=1", "TMPDIR="+t.TempDir())
	stdout, err := hanging.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, hanging.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "hanging" {
	}

	// The first one is taken by the program; how soon after it the next one kills is not promised.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	ended := make(chan error, 1)
	require.NoError(t, hanging.Process.Signal(os.Interrupt))
	go func() { ended <- hanging.Wait() }()
	for {
		select {
		case <-again.C:
			_ = hanging.Process.Signal(os.Interrupt) // it may be gone
		case err = <-ended:
			assert.EqualError(t, err, "signal: interrupt")
			return
		}
	}
}

func TestInterruptBetweenTheRunsIsOne(t *testing.T) {
	p := newProgram(t, everyForm)
	ctx, cancel := context.WithCancel(t.Context())
	p.wrap(func(s store.Store) store.Store { return onClose{s, cancel} })
	require.Equal(t, exitInterrupted, p.main(ctx, []string{"-log", "-"}))
	assert.Contains(t, p.stderr.String(), "interrupted after 9 of 9 events of the run without the lock")

	p = newProgram(t, everyForm)
	require.Equal(t, exitInterrupted, p.main(ctx, []string{"-log", "-"}))
	assert.Contains(t, p.stderr.String(), "interrupted before the first event")
}

// onClose calls a function when the wrapped store is closed.
type onClose struct {
	store.Store
	after func()
}

func (s onClose) Close() error {
	defer s.after()
	return s.Store.Close()
}

// badStore is a database that treats one address wrong: it loses a change of 3 points that it has
// confirmed, or says of every change that it blocked the address.
type badStore struct {
	store.Store
	victim netip.Addr
	loses  bool
	blocks bool
}

func (s badStore) Raise(ctx context.Context, addr netip.Addr, points, threshold int64) (bool, error) {
	if addr != s.victim {
		return s.Store.Raise(ctx, addr, points, threshold)
	}
	if s.loses && points == 3 {
		return false, nil
	}
	blocks, err := s.Store.Raise(ctx, addr, points, threshold)
	return blocks || s.blocks, err
}

func TestWrongScoresAndBlocksAreNamed(t *testing.T) {
	victim := netip.MustParseAddr("2001:db8::7")
	for name, bad := range map[string]badStore{
		"2001:db8::7: score 15, record blocked: true, times blocked: 1; sequentially 18, true, 1": {loses: true},
		"2001:db8::7: score 18, record blocked: true, times blocked: 3; sequentially 18, true, 1": {blocks: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t, everyForm)
			p.wrap(func(s store.Store) store.Store { bad.Store, bad.victim = s, victim; return bad })
			require.Equal(t, exitFailed, p.main(t.Context(), []string{"-log", "-", "-threshold", "10"}))

			assert.Contains(t, p.stderr.String(), "without the lock, these addresses differ from a sequential pass:\n"+name)
			assert.Contains(t, p.stderr.String(), "with the lock, these addresses differ from a sequential pass:\n"+name)
			assert.NotContains(t, p.stderr.String(), "203.0.113.7")
			assert.NotContains(t, p.stdout.String(), verified)
		})
	}
}

func TestAddressNobodyAttackedFromIsNamed(t *testing.T) {
	stray := netip.MustParseAddr("192.0.2.99")
	p := newProgram(t, everyForm)
	p.wrap(func(s store.Store) store.Store {
		_, err := s.Raise(t.Context(), stray, 1, 100)
		require.NoError(t, err)
		return s
	})
	require.Equal(t, exitFailed, p.main(t.Context(), []string{"-log", "-"}))
	assert.Contains(t, p.stderr.String(), "192.0.2.99: score 1, record blocked: false, times blocked: 0; sequentially 0, false, 0")
}

// A line that is not understood may be one that the reader meant: the first one is shown.
func TestFirstLineThatIsNotUnderstoodIsShown(t *testing.T) {
	p := newProgram(t, "Mar 1st 2026, bastion: \x1b[31msshd failed\nanother\n"+everyForm)
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-log", "-"}), &p.stderr)
	assert.Contains(t, p.stdout.String(), `      2 without a time, a host and a program that can be told apart, the first:
        "Mar 1st 2026, bastion: \x1b[31msshd failed"
`)
}

func TestFailuresEndWithStatusOne(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	other, damaged := filepath.Join(t.TempDir(), "other.log"), filepath.Join(t.TempDir(), "damaged.gz")
	require.NoError(t, os.WriteFile(other, []byte("something else\n"), 0o600))
	require.NoError(t, os.WriteFile(damaged, []byte("\x1f\x8b\x08\x00"), 0o600))
	broken := errors.New("disk on fire")

	for name, c := range map[string]struct {
		args  []string
		spoil func(p *program)
		says  string
	}{
		"log does not exist": {[]string{"-log", missing}, func(*program) {}, missing},
		"log is a folder":    {[]string{"-log", filepath.Dir(missing)}, func(*program) {}, "is a directory"},
		"one of many logs":   {[]string{"-log", "-", "-log", other}, func(*program) {}, other + ": none of 1 lines begins"},
		"log is damaged":     {[]string{"-log", damaged}, func(*program) {}, damaged + ": gzip: unexpected EOF"},
		"no database": {[]string{"-log", "-"}, func(p *program) {
			p.openBadger = func(string) (store.Store, error) { return nil, broken }
		}, "disk on fire"},
		"database fails": {[]string{"-log", "-"}, func(p *program) {
			p.wrap(func(s store.Store) store.Store { return failingStore{s, broken} })
		}, "disk on fire"},
		"no reader": {[]string{"-log", "-"}, func(p *program) {
			closed, w := io.Pipe()
			_ = closed.CloseWithError(broken)
			p.threatscore.stdout = w
		}, "disk on fire"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t, everyForm)
			c.spoil(p)
			assert.Equal(t, exitFailed, p.main(t.Context(), c.args))
			assert.Contains(t, p.stderr.String(), c.says)
		})
	}
}

func TestWrongArgumentsEndWithStatusTwo(t *testing.T) {
	for _, args := range [][]string{
		{"-workers", "0"}, {"-workers", "many"}, {"-threshold", "-1"}, {"-events", "0"},
		{"-lock", "maybe"}, {"-lock", ""}, {"-db", "mysql://server/"}, {"-tx", "snapshot"}, {"-tx", "upsert"}, {"-svg", "missing/plot.svg"}, {"-unknown"}, {"auth.log"},
	} {
		p := newProgram(t, "")
		assert.Equal(t, exitUsage, p.main(t.Context(), args), "%q", args)
		assert.Contains(t, p.stderr.String(), "-workers N", "the usage is shown")
		assert.Empty(t, p.stdout.String())
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	p := newProgram(t, "")
	assert.Equal(t, exitOK, p.main(t.Context(), []string{"-help"}))
	assert.True(t, strings.HasPrefix(p.stderr.String(), "Threatscore raises a score"), "what it is for comes first")
	for _, flag := range []string{"-log FILE", "-lock on", "-db badger", "-tx KIND", "-workers N", "(default 64)", "-threshold N", "(default 100)", "-events N", "(default 6000)", "-svg FILE"} {
		assert.Contains(t, p.stderr.String(), flag)
	}
}

func TestPagesShowThisPackage(t *testing.T) {
	page.Check(t, "../../docs/USE_CASES.md", "PostgreSQL: transactions")
	page.Check(t, "../README.md", "threatscore")
}

func TestLockSparesPostgresItsConflicts(t *testing.T) {
	server := postgrestest.Start(t)
	p := newProgram(t, "")
	svg := filepath.Join(t.TempDir(), "plot.svg")
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-db", server.URL, "-events", "1500", "-svg", svg}), &p.stderr)
	t.Log("\n" + p.stdout.String())
	assert.Contains(t, p.stdout.String(), verified)

	conflicts := func(run string) int {
		n, err := strconv.Atoi(p.row(t, run)[1])
		require.NoError(t, err)
		return n
	}
	for _, transaction := range []string{"serializable", "repeatable-read"} {
		assert.Greater(t, conflicts(transaction+", without the lock"), 300, transaction)
	}
	assert.Zero(t, conflicts("repeatable-read, with the lock"))
	assert.LessOrEqual(t, 50*conflicts("serializable, with the lock"), conflicts("serializable, without the lock"), "at most 2 %")
	for _, transaction := range []string{"for-update", "upsert"} {
		assert.Zero(t, conflicts(transaction+", without the lock"), "the database lets them wait")
		assert.Zero(t, conflicts(transaction+", with the lock"))
	}

	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	for _, text := range []string{"99th percentile", "conflicts retried", "repeatable-read", "with the lock"} {
		assert.Contains(t, string(picture), text)
	}
}

// The workers go on over a server that is killed and started again, twice in a run, and the scores
// are those of a sequential pass.
func TestCrashedServerLosesAndDoublesNoEvent(t *testing.T) {
	server := postgrestest.Start(t)
	for _, locked := range []bool{false, true} {
		t.Run(lockName(locked), func(t *testing.T) {
			db, err := store.OpenPostgres(t.Context(), server.URL, 32, store.Serializable)
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			s := scorer{db: db, threshold: 100}
			if locked {
				s.locks = keylock.Start[netip.Addr](t.Context())
				defer s.locks.Close()
			}

			events := attacks(7, 300)
			for other := range byte(20) {
				events = append(events, attacks(10+other, 30)...)
			}
			var handled atomic.Int64
			var crashing sync.Mutex
			step := func() {
				if n := handled.Add(1); n == int64(len(events)/4) || n == int64(len(events)/2) {
					crashing.Lock()
					defer crashing.Unlock()
					assert.NoError(t, server.Crash()) // while the other workers go on
				}
			}
			outcomes := make([]outcome, len(events))
			require.NoError(t, s.handleAll(t.Context(), events, outcomes, 32, step))

			r := result{run: run{store.Serializable, locked}, outcomes: outcomes}
			assert.Equal(t, len(events), r.committed())
			r.records, err = db.Records(t.Context())
			require.NoError(t, err)
			assert.NoError(t, verify(events, r, s.threshold))
		})
	}
}

func TestPrivateServerIsStartedOnDemand(t *testing.T) {
	postgrestest.Require(t)
	t.Setenv("DATABASE_URL", "")
	p := &program{}
	p.threatscore = threatscore{stdout: &p.stdout, stderr: &p.stderr}
	require.Equal(t, exitOK, p.main(t.Context(), []string{"-db", "postgres", "-tx", "upsert", "-lock", "on", "-events", "50"}), &p.stderr)
	assert.Contains(t, p.stdout.String(), verified)
	assert.Equal(t, "0", p.row(t, "upsert, with the lock")[1])
}

func TestDatabaseURLIsTakenFromTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres:///?host="+t.TempDir())
	p := newProgram(t, everyForm)
	assert.Equal(t, exitFailed, p.main(t.Context(), []string{"-db", "postgres", "-log", "-"}))
	assert.Contains(t, p.stderr.String(), "failed to connect")
}
