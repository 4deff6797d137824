package e2e

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// network is the proxies through which members or clients reach members. What it
// does to their connections can change at any time.
type network struct {
	mu    sync.Mutex
	names map[string]string // of members, by their identity in etcd
	rule  rule
	links map[*link]bool
	wg    sync.WaitGroup
}

// rule says what happens between two members; clients are from "".
type rule func(from, to string) weather

// weather is what befalls a link.
type weather struct {
	down        bool          // connections are closed and refused
	silent      bool          // nothing arrives, in either direction, and neither end learns of it
	noRequests  bool          // what the client says does not arrive
	noReplies   bool          // what the server says does not arrive
	repliesLate time.Duration // or it arrives this much later
}

func newNetwork(t testing.TB) *network {
	n := &network{names: make(map[string]string), links: make(map[*link]bool), rule: func(_, _ string) weather { return weather{} }}
	t.Cleanup(n.wg.Wait)
	return n
}

// know tells the network the name of a member.
func (n *network) know(name, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[id] = name
}

// set changes the weather. A connection that has lost what was said on it is closed, so that both ends start afresh.
func (n *network) set(r rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = r
	for l := range n.links {
		w := n.weather(l)
		if w.down || l.spoilt && !w.silent && !w.noRequests && !w.noReplies {
			l.close()
		}
	}
}

// isolate cuts one member off from the others, silently.
func (n *network) isolate(name string) {
	n.set(func(from, to string) weather { return weather{silent: from == name || to == name} })
}

func (n *network) heal() {
	n.set(func(_, _ string) weather { return weather{} })
}

// weather returns what befalls the link now; called with mu held.
func (n *network) weather(l *link) weather {
	return n.rule(n.names[l.from], l.to)
}

// to starts a proxy to the member at target and returns its address.
func (n *network) to(t testing.TB, name, target string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = listener.Close()
		n.set(func(_, _ string) weather { return weather{down: true} })
	})
	n.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			n.wg.Go(func() { n.serve(client, name, target) })
		}
	})
	return listener.Addr().String()
}

// link is one connection through a proxy.
type link struct {
	from, to       string // the identity of the member that called, "" for a client; the name of the one that is called
	client, server net.Conn
	spoilt         bool // something said on it was withheld
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// Members name themselves in every request; every connection is used by one of them.
var caller = regexp.MustCompile(`X-Server-From: ([0-9a-f]+)\r\n`)

func (n *network) serve(client net.Conn, to, target string) {
	first := make([]byte, 64<<10)
	size, err := client.Read(first)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{to: to, client: client}
	if m := caller.FindSubmatch(first[:size]); m != nil {
		l.from = string(m[1])
	}
	if l.server, err = net.Dial("tcp", target); err != nil {
		_ = client.Close()
		return
	}
	defer l.close()
	n.mu.Lock()
	n.links[l] = true
	down := n.weather(l).down
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.links, l)
		n.mu.Unlock()
	}()
	if down {
		return
	}
	n.wg.Go(func() {
		defer l.close()
		n.carry(l, l.client, l.server, true)
	})
	n.carry(l, l.server, io.MultiReader(bytes.NewReader(first[:size]), l.client), false)
}

// carry forwards what it reads as the weather permits.
func (n *network) carry(l *link, dst io.WriteCloser, src io.Reader, replies bool) {
	type parcel struct {
		due  time.Time
		data []byte
	}
	parcels := make(chan parcel, 1024)
	n.wg.Go(func() {
		defer l.close()
		for p := range parcels {
			time.Sleep(time.Until(p.due))
			n.mu.Lock()
			w := n.weather(l)
			withheld := w.silent || w.noReplies && replies || w.noRequests && !replies
			l.spoilt = l.spoilt || withheld
			n.mu.Unlock()
			if withheld {
				continue
			}
			if _, err := dst.Write(p.data); err != nil {
				break
			}
		}
		for range parcels { // so that the reader does not wait for room
		}
	})
	defer close(parcels)
	for {
		data := make([]byte, 32<<10)
		size, err := src.Read(data)
		if size > 0 {
			n.mu.Lock()
			late := n.weather(l).repliesLate
			n.mu.Unlock()
			p := parcel{time.Now(), data[:size]}
			if replies {
				p.due = p.due.Add(late)
			}
			parcels <- p
		}
		if err != nil {
			return
		}
	}
}

// connections returns how many there are.
func (n *network) connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links)
}
