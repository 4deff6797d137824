// Command etcdlocks lists the locks of package etcdlock at a cluster, and takes one away from a process that hangs.
//
//	etcdlocks [-endpoints host:2379,…] [-prefix /locks/] list | show KEY | break KEY EPOCH
//
// With -user it takes the password from ETCD_PASSWORD. See package lockctl for what the words do.
package main

import (
	"context"
	"flag"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

var command = lockctl.Command{Name: "etcdlocks", Flags: func(flags *flag.FlagSet) lockctl.Connect {
	endpoints := flags.String("endpoints", "localhost:2379", "the members, separated by commas")
	prefix := flags.String("prefix", "/locks/", "what WithPrefix says")
	user := flags.String("user", "", "the user; none if it is empty")
	var files transport.TLSInfo
	flags.StringVar(&files.TrustedCAFile, "cacert", "", "the file with the certificates that the members' are signed by")
	flags.StringVar(&files.CertFile, "cert", "", "the file with the client's certificate")
	flags.StringVar(&files.KeyFile, "key", "", "the file with the client's key")
	return func(ctx context.Context) (cohort.Operator, func(), error) {
		config := clientv3.Config{Endpoints: strings.Split(*endpoints, ","), Username: *user}
		if deadline, ok := ctx.Deadline(); ok {
			config.DialTimeout = time.Until(deadline)
		}
		if *user != "" {
			config.Password = os.Getenv("ETCD_PASSWORD")
		}
		if !files.Empty() || files.TrustedCAFile != "" {
			secure, err := files.ClientConfig()
			if err != nil {
				return nil, nil, err
			}
			config.TLS = secure
		}
		client, err := clientv3.New(config)
		if err != nil {
			return nil, nil, err
		}
		engine, err := etcdlock.New(client, etcdlock.WithPrefix(*prefix), etcdlock.WithLabel("etcdlocks"))
		if err != nil {
			_ = client.Close()
			return nil, nil, err
		}
		return engine, func() { _ = engine.Close(ctx); _ = client.Close() }, nil
	}
}}

func main() { command.Main() }
