package cohorttest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Weather is what befalls the connections through a [Network]. The zero Weather is fair.
type Weather struct {
	Down       bool          // connections are closed and refused
	Silent     bool          // nothing arrives, in either direction, and neither end learns of it
	NoRequests bool          // what the client says does not arrive
	NoReplies  bool          // what the server says does not arrive
	Late       time.Duration // what the server says arrives this much later
}

func (w Weather) withholds(replies bool) bool {
	return w.Silent || w.NoReplies && replies || w.NoRequests && !replies
}

// Network is a proxy to a server over TCP, for tests of an engine that loses its server or its
// replies: Harness.Cut may set the Weather to Silent, and Harness.Heal to the zero Weather.
type Network struct {
	Addr string // where it listens, HOST:PORT

	target string // guarded by mu
	listen net.Listener
	wg     sync.WaitGroup

	mu       sync.Mutex
	rule     func(said []byte) Weather
	links    map[*link]bool
	withheld int
	ended    bool
}

type link struct {
	client, server net.Conn
	said           []byte // what the client has said first; guarded by mu
	spoilt         bool   // something said on it was withheld; likewise
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// NewNetwork starts a proxy to the server at target, HOST:PORT, on a free port of loopback. It ends with
// the test, which fails at once where it cannot listen.
func NewNetwork(t testing.TB, target string) *Network {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{Addr: listen.Addr().String(), target: target, listen: listen, links: make(map[*link]bool), rule: always(Weather{})}
	n.wg.Go(n.accept)
	t.Cleanup(func() {
		_ = listen.Close()
		n.mu.Lock()
		n.ended = true
		n.mu.Unlock()
		n.Set(Weather{Down: true})
		n.wg.Wait()
	})
	return n
}

// Set changes the weather. A connection that has lost what was said on it is closed when nothing is
// withheld any more, so that both ends start afresh.
func (n *Network) Set(w Weather) { n.SetEach(always(w)) }

func always(w Weather) func([]byte) Weather { return func([]byte) Weather { return w } }

// SetEach is [Network.Set] for servers that tell their clients apart: rule returns the weather of a connection,
// by the first bytes that the client has said on it, of which there are none at first. It must not call n.
func (n *Network) SetEach(rule func(said []byte) Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = rule
	for l := range n.links {
		w := rule(l.said)
		if w.Down || l.spoilt && !w.withholds(true) && !w.withholds(false) {
			l.close()
		}
	}
}

// Target sends new connections to another address.
func (n *Network) Target(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.target = addr
}

// Connections returns how many there are.
func (n *Network) Connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links)
}

// Withheld returns how often something that was said did not arrive. A test that is about a loss waits until there is one: when
// a server has carried out a request, its reply may still be on the way.
func (n *Network) Withheld() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.withheld
}

func (n *Network) accept() {
	for {
		client, err := n.listen.Accept()
		if err != nil {
			return
		}
		n.wg.Go(func() { n.serve(client) })
	}
}

func (n *Network) serve(client net.Conn) {
	n.mu.Lock()
	target, down := n.target, n.rule(nil).Down
	n.mu.Unlock()
	if down {
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	n.mu.Lock()
	n.links[l] = true
	ended := n.ended
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.links, l)
		n.mu.Unlock()
	}()
	defer l.close()
	if ended {
		return
	}
	n.wg.Go(func() {
		defer l.close()
		n.carry(l, client, server, true)
	})
	n.carry(l, server, client, false)
}

// carry forwards what it reads as the weather permits.
func (n *Network) carry(l *link, dst, src net.Conn, replies bool) {
	type parcel struct {
		due  time.Time
		data []byte
	}
	parcels := make(chan parcel, 4096)
	n.wg.Go(func() {
		defer l.close()
		for p := range parcels {
			time.Sleep(time.Until(p.due))
			n.mu.Lock()
			withheld := n.rule(l.said).withholds(replies)
			if withheld {
				l.spoilt = true
				n.withheld++
			}
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
			p := parcel{time.Now(), data[:size]}
			n.mu.Lock()
			if !replies && l.said == nil {
				l.said = data[:min(size, 4<<10)]
			}
			w := n.rule(l.said)
			n.mu.Unlock()
			if w.Down {
				return
			}
			if replies {
				p.due = p.due.Add(w.Late)
			}
			parcels <- p
		}
		if err != nil {
			return
		}
	}
}
