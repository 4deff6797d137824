// Command etcdlocks lists the locks of package etcdlock at a cluster, and takes one away from a process that hangs.
//
//	etcdlocks [-endpoints host:2379,…] [-prefix /locks/] list | show KEY | break KEY EPOCH
//
// With -user it takes the password from ETCD_PASSWORD. See package lockctl for what the words do.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "etcdlocks:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, args ...string) error {
	flags := flag.NewFlagSet("etcdlocks", flag.ContinueOnError)
	endpoints := flags.String("endpoints", "localhost:2379", "the members, separated by commas")
	prefix := flags.String("prefix", "/locks/", "what WithPrefix says")
	user := flags.String("user", "", "the user; none if it is empty")
	var files transport.TLSInfo
	flags.StringVar(&files.TrustedCAFile, "cacert", "", "the file with the certificates that the members' are signed by")
	flags.StringVar(&files.CertFile, "cert", "", "the file with the client's certificate")
	flags.StringVar(&files.KeyFile, "key", "", "the file with the client's key")
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config := clientv3.Config{Endpoints: strings.Split(*endpoints, ","), Username: *user, DialTimeout: *timeout}
	if *user != "" {
		config.Password = os.Getenv("ETCD_PASSWORD")
	}
	if !files.Empty() || files.TrustedCAFile != "" {
		secure, err := files.ClientConfig()
		if err != nil {
			return err
		}
		config.TLS = secure
	}
	client, err := clientv3.New(config)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	engine, err := etcdlock.New(client, etcdlock.WithPrefix(*prefix), etcdlock.WithLabel("etcdlocks"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	defer func() { _ = engine.Close(ctx) }()
	return lockctl.Run(ctx, engine, out, flags.Args()...)
}
