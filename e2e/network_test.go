package e2e

import (
	"maps"
	"regexp"
	"sync"
	"testing"

	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// network is the proxies through which members or clients reach members. What it
// does to their connections can change at any time.
type network struct {
	mu      sync.Mutex
	names   map[string]string              // of members, by their identity in etcd
	proxies map[*cohorttest.Network]string // and which member each leads to
}

type weather = cohorttest.Weather

// rule says what happens between two members; clients are from "".
type rule func(from, to string) weather

func newNetwork() *network {
	return &network{names: make(map[string]string), proxies: make(map[*cohorttest.Network]string)}
}

// know tells the network the name of a member.
func (n *network) know(name, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[id] = name
}

// Members name themselves in every request; every connection is used by one of them.
var caller = regexp.MustCompile(`X-Server-From: ([0-9a-f]+)\r\n`)

// set changes the weather.
func (n *network) set(r rule) {
	n.mu.Lock()
	names, proxies := maps.Clone(n.names), maps.Clone(n.proxies)
	n.mu.Unlock()
	for proxy, to := range proxies {
		proxy.SetEach(func(said []byte) weather {
			from := ""
			if m := caller.FindSubmatch(said); m != nil {
				from = names[string(m[1])]
			}
			return r(from, to)
		})
	}
}

// isolate cuts one member off from the others, silently.
func (n *network) isolate(name string) {
	n.set(func(from, to string) weather { return weather{Silent: from == name || to == name} })
}

func (n *network) heal() { n.set(func(_, _ string) weather { return weather{} }) }

// to starts a proxy to the member at target and returns its address.
func (n *network) to(t testing.TB, name, target string) string {
	proxy := cohorttest.NewNetwork(t, target)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proxies[proxy] = name
	return proxy.Addr
}

// connections returns how many there are.
func (n *network) connections() (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for proxy := range n.proxies {
		sum += proxy.Connections()
	}
	return sum
}
