package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// serveEtcd is the program of the etcd server, with its files in dir. It prints its endpoint and ends with its
// standard input. It is a process of its own because etcd panics when it cannot write its files.
func serveEtcd(dir string, in io.Reader, out io.Writer) error {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "data")
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{filepath.Join(dir, logName)}
	free := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = free, free
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = free, free
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(time.Minute):
		return errors.New("etcd is not ready after a minute")
	}
	fmt.Fprintln(out, server.Clients[0].Addr().String())
	_, err = io.Copy(io.Discard, in)
	return err
}

// etcdSite is a process's way to etcd.
type etcdSite struct {
	client *clientv3.Client
}

const counterKey = "/manyprocesses/counter"

func connectEtcd(endpoint string) (site, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{endpoint},
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    time.Second,
		DialKeepAliveTimeout: time.Second,
		Logger:               zap.NewNop(),
	})
	return etcdSite{client}, err
}

func (s etcdSite) close() error { return s.client.Close() }

func (s etcdSite) engine() (cohort.Engine, error) {
	return etcdlock.New(s.client, etcdlock.WithTTL(leaseTTL))
}

func (s etcdSite) read(ctx context.Context) (counter, writes int, err error) {
	got, err := s.client.Get(ctx, counterKey)
	if err != nil || len(got.Kvs) == 0 {
		return 0, 0, err
	}
	counter, err = strconv.Atoi(string(got.Kvs[0].Value))
	return counter, int(got.Kvs[0].Version), err
}

// write sets the counter on the condition that the lock is still held: etcd itself checks that, in the
// transaction that writes.
func (s etcdSite) write(ctx context.Context, lock cohort.Lock, counter int) error {
	stillHeld := lock.Grant().(*etcdlock.Grant).IsOwner()
	done, err := s.client.Txn(ctx).If(stillHeld).Then(clientv3.OpPut(counterKey, strconv.Itoa(counter))).Commit()
	if err == nil && !done.Succeeded {
		err = cohort.ErrLost
	}
	return err
}
