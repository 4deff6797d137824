// Package etcdserver runs an etcd member inside the calling process, on loopback.
package etcdserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// Config describes one member.
type Config struct {
	Name      string
	Dir       string            // for its data and its log
	Client    string            // address that clients connect to
	Peer      string            // address that other members connect to
	Advertise map[string]string // by name, the addresses at which members reach each other

	Change func(*embed.Config) `json:"-"` // of what else a test needs; nil for nothing
}

// Start starts a member and returns when it can serve.
func Start(ctx context.Context, c Config) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = c.Name
	cfg.Dir = filepath.Join(c.Dir, c.Name)
	cfg.LogLevel = "warn"
	cfg.LogOutputs = []string{filepath.Join(c.Dir, c.Name+".log")}
	cfg.ListenClientUrls = urls(c.Client)
	cfg.AdvertiseClientUrls = urls(c.Client)
	cfg.ListenPeerUrls = urls(c.Peer)
	cfg.AdvertisePeerUrls = urls(c.Advertise[c.Name])
	var members []string
	for name, addr := range c.Advertise {
		members = append(members, name+"=http://"+addr)
	}
	cfg.InitialCluster = strings.Join(members, ",")
	cfg.TickMs, cfg.ElectionMs = 50, 500 // a lease can then be as short as a second
	if c.Change != nil {
		c.Change(cfg)
	}

	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", c.Name, err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case <-server.Server.StopNotify():
		server.Close()
		return nil, fmt.Errorf("etcd %s stopped while starting", c.Name)
	case <-ctx.Done():
		server.Close()
		return nil, fmt.Errorf("etcd %s: %w", c.Name, ctx.Err())
	}
}

// FreeAddress returns a loopback address that no process listens on, another one at each call. Its
// port is below those that systems give to a process that asks for any: one of these could be taken by
// an outgoing connection before the member listens, or while it is being restarted.
func FreeAddress() (string, error) {
	for range ports {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+nextPort.Add(1)%ports)
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return "", err
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free", firstPort, firstPort+ports-1)
}

const firstPort, ports = 10_000, 20_000

// nextPort begins anywhere, so that two processes at once do not try the same.
var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(ports)) }

func urls(addr string) []url.URL {
	return []url.URL{{Scheme: "http", Host: addr}}
}
