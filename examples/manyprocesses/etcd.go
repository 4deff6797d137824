package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
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

const logName = "etcd.log"

// startEtcd starts the server, and returns when it can serve. failed receives if it ends before stop is called.
func startEtcd(dir string) (endpoint string, failed <-chan error, stop func(), err error) {
	cmd, err := self(etcdVariable + "=" + dir)
	if err != nil {
		return "", nil, nil, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, nil, err
	}
	endpoint, _ = bufio.NewReader(out).ReadString('\n')
	ended := make(chan error, 1)
	go func() {
		if err := cmd.Wait(); err != nil {
			ended <- fmt.Errorf("etcd has ended: %s", reason(said.String(), filepath.Join(dir, logName), err))
		}
		close(ended)
	}()
	stop = func() {
		_ = in.Close()
		for range ended {
		}
	}
	if endpoint == "" {
		return "", nil, nil, <-ended
	}
	return strings.TrimSpace(endpoint), ended, stop, nil
}

// reason finds in what etcd has left why it has ended.
func reason(said, log string, err error) string {
	written, _ := os.ReadFile(log)
	for _, known := range []string{"no space left on device", "file too large", "disk quota exceeded"} {
		if strings.Contains(said+string(written), known) {
			return known + ", while it wrote its files in " + filepath.Dir(log)
		}
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(said), "\n"); line != "" {
		return line
	}
	return err.Error()
}

func dial(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            []string{endpoint},
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    time.Second,
		DialKeepAliveTimeout: time.Second,
		Logger:               zap.NewNop(),
	})
}
