package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
)

// readLogs reads all logs that were asked for, or the made-up one.
func (t threatscore) readLogs(opts options) (log sshlog.Log, err error) {
	if len(opts.logs) == 0 {
		return log, log.Read(bytes.NewReader(makeUpLog(opts.events)))
	}
	for _, file := range opts.logs {
		if err := t.readLog(&log, file); err != nil {
			return log, fmt.Errorf("reading the log: %w", err)
		}
	}
	if log.Lines == log.Blank {
		return log, fmt.Errorf("the log is empty: %d lines, all blank", log.Lines)
	}
	return log, nil
}

func (t threatscore) readLog(log *sshlog.Log, file string) error {
	if file == "-" {
		return log.Read(t.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := log.Read(f); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// How many addresses attack in a made-up log. Hot ones send most of the events.
const (
	hotAddresses  = 20
	coldAddresses = 250
	hotShare      = 0.9
)

// makeUpLog returns a log of two servers, in the format of the real sshd, that holds so many
// events. It is the same in every run.
func makeUpLog(events int) []byte {
	g := generator{
		random: rand.New(rand.NewPCG(22, 2222)),
		clock:  time.Date(2026, time.March, 1, 4, 0, 0, 0, time.UTC),
		wanted: events,
	}
	for g.events < events {
		g.session()
	}
	return g.log.Bytes()
}

// generator makes up a log, session by session.
type generator struct {
	log    bytes.Buffer
	random *rand.Rand
	clock  time.Time
	wanted int // lines with an event, in the end
	events int // so far

	// Of the session at hand:
	rfc3339 bool // the server writes time stamps in that format, else classic ones
	pid     int
	addr    netip.Addr
	port    int
}

// session writes the lines of one connection.
func (g *generator) session() {
	g.rfc3339 = g.random.IntN(2) == 0
	g.pid = 1000 + g.random.IntN(60000)
	g.addr = g.address()
	g.port = 1024 + g.random.IntN(60000)

	switch g.random.IntN(10) {
	case 0:
		g.line("Accepted publickey for deploy from 192.0.2.10 port %d ssh2: ED25519 SHA256:7sQ1cPzVf0m2", g.port)
		g.line("pam_unix(sshd:session): session opened for user deploy by (uid=0)")
		return
	case 1:
		g.event("reverse mapping checking getaddrinfo for host-%d.example.net [%v] failed - POSSIBLE BREAK-IN ATTEMPT!", g.pid, g.addr)
		g.guessPassword("root")
	case 2, 3, 4:
		user := []string{"admin", "test", "oracle", "git from work"}[g.random.IntN(4)]
		g.event("Invalid user %s from %v port %d", user, g.addr, g.port)
		g.line("input_userauth_request: invalid user %s [preauth]", user)
		g.guessPassword("invalid user " + user)
	default:
		g.guessPassword("root")
	}
	g.line("Connection closed by %v port %d [preauth]", g.addr, g.port)
}

// guessPassword writes a failed login, and sometimes how the same connection went on to fail.
func (g *generator) guessPassword(user string) {
	g.event("pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=%v  user=root", g.addr)
	g.event("Failed password for %s from %v port %d ssh2", user, g.addr, g.port)
	if again := g.random.IntN(12); again > 6 {
		g.event("message repeated %d times: [ Failed password for %s from %v port %d ssh2]", again, user, g.addr, g.port)
		g.event("PAM %d more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=%v  user=root", again, g.addr)
	}
}

// address picks a source from the blocks that are reserved for documentation. Every fourth one
// is IPv6.
func (g *generator) address() netip.Addr {
	block, n := byte(113), g.random.IntN(hotAddresses)
	if g.random.Float64() >= hotShare {
		block, n = 100, g.random.IntN(coldAddresses)
	}
	if n%4 == 3 {
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 5: block, 15: byte(n)})
	}
	if block == 113 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
	}
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(n)})
}

// event writes a line that tells an event, unless there are enough.
func (g *generator) event(format string, args ...any) {
	if g.events == g.wanted {
		return
	}
	g.events++
	g.line(format, args...)
}

// line writes what sshd says, with the time, the host and the process.
func (g *generator) line(format string, args ...any) {
	g.clock = g.clock.Add(time.Duration(g.random.IntN(900)) * time.Millisecond)
	stamp, host := g.clock.Format(time.Stamp), "bastion"
	if g.rfc3339 {
		stamp, host = g.clock.Format("2006-01-02T15:04:05.000000Z07:00"), "gateway"
	}
	fmt.Fprintf(&g.log, "%s %s sshd[%d]: ", stamp, host, g.pid)
	fmt.Fprintf(&g.log, format, args...)
	g.log.WriteByte('\n')
}
