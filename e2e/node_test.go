package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/e2e/etcdserver"
)

// startNode starts etcd with one member in this process and returns its address.
func startNode(t testing.TB) (addr string) {
	addr, _ = startChangedNode(t, nil)
	return addr
}

// startChangedNode starts it with a configuration that was changed.
func startChangedNode(t testing.TB, change func(*embed.Config)) (addr string, server *embed.Etcd) {
	const any = "127.0.0.1:0"
	server, err := etcdserver.Start(t.Context(), etcdserver.Config{
		Name: "n0", Dir: t.TempDir(), Client: any, Peer: any, Advertise: map[string]string{"n0": any}, Change: change,
	})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	return server.Clients[0].Addr().String(), server
}

// nodeMain is the program of a member in a process of its own. It ends in good order at SIGTERM.
func nodeMain() error {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var c etcdserver.Config
	if err := json.Unmarshal([]byte(os.Getenv("KEYLOCK_E2E_NODE")), &c); err != nil {
		return err
	}
	server, err := etcdserver.Start(stopped, c)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-stopped.Done()
	server.Close()
	return nil
}

// cluster is three members, each in a process of its own, that reach each other through proxies.
type cluster struct {
	configs []etcdserver.Config
	nodes   []*process
	peers   *network
}

func startCluster(t testing.TB) *cluster {
	c := &cluster{peers: newNetwork()}
	dir := t.TempDir()
	advertise := make(map[string]string)
	for i := range 3 {
		name := fmt.Sprintf("n%d", i)
		config := etcdserver.Config{Name: name, Dir: dir, Client: freeAddress(t), Peer: freeAddress(t), Advertise: advertise}
		advertise[name] = c.peers.to(t, name, config.Peer)
		c.configs = append(c.configs, config)
	}
	for i := range c.configs {
		c.nodes = append(c.nodes, nil)
		c.start(t, i)
	}
	for _, n := range c.nodes {
		n.await(t, "ready")
	}
	client := dial(t, c.endpoints()...)
	members, err := client.MemberList(t.Context())
	require.NoError(t, err)
	for _, m := range members.Members {
		c.peers.know(m.Name, fmt.Sprintf("%x", m.ID))
	}
	return c
}

// start starts the member again, on what it had stored.
func (c *cluster) start(t testing.TB, i int) {
	config, err := json.Marshal(c.configs[i])
	require.NoError(t, err)
	c.nodes[i] = startProcess(t, "node", "KEYLOCK_E2E_NODE="+string(config))
}

func (c *cluster) endpoints() (all []string) {
	for _, config := range c.configs {
		all = append(all, config.Client)
	}
	return all
}

// leader returns which member leads.
func (c *cluster) leader(t testing.TB) int {
	client := dial(t, c.endpoints()...)
	for {
		for i, addr := range c.endpoints() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			status, err := client.Status(ctx, addr)
			cancel()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return i
			}
			require.NoError(t, t.Context().Err(), "no member leads")
		}
	}
}

// dial returns a client that is closed when the test ends.
func dial(t testing.TB, endpoints ...string) *clientv3.Client {
	client, err := newClient(endpoints...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newClient(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientConfig(endpoints...))
}

func clientConfig(endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          time.Second,
		DialKeepAliveTime:    time.Second,
		DialKeepAliveTimeout: time.Second,
		Logger:               zap.NewNop(),
	}
}

// dialWith returns a client with a configuration that was changed.
func dialWith(t testing.TB, change func(*clientv3.Config), endpoints ...string) *clientv3.Client {
	config := clientConfig(endpoints...)
	change(&config)
	client, err := clientv3.New(config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func freeAddress(t testing.TB) string {
	addr, err := etcdserver.FreeAddress()
	require.NoError(t, err)
	return addr
}

// keysUnder returns the etcd keys under the prefix, oldest first.
func keysUnder(t testing.TB, client *clientv3.Client, prefix string) (keys []string) {
	resp, err := client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	require.NoError(t, err)
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// leaseOf returns the lease by which a contender's key is named.
func leaseOf(t testing.TB, key string) clientv3.LeaseID {
	var id int64
	_, err := fmt.Sscanf(key[strings.LastIndexByte(key, '/')+1:], "%x", &id)
	require.NoError(t, err, key)
	return clientv3.LeaseID(id)
}

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
