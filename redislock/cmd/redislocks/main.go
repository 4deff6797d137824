// Command redislocks lists the locks of package redislock at a server, and takes one away from a process that hangs.
//
//	redislocks [-url redis://user:password@host:6379] [-prefix kl] list | show KEY | break KEY EPOCH
//
// See package lockctl for what the words do.
package main

import (
	"context"
	"flag"

	"github.com/redis/rueidis"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

var command = lockctl.Command{Name: "redislocks", Flags: func(flags *flag.FlagSet) lockctl.Connect {
	url := flags.String("url", "redis://localhost:6379", "the server, as a URL; rediss:// for TLS, ?addr=host:port for more of a cluster, ?master_set=name for Sentinel")
	prefix := flags.String("prefix", "kl", "what WithPrefix says")
	return func(ctx context.Context) (cohort.Operator, func(), error) {
		options, err := rueidis.ParseURL(*url)
		if err != nil {
			return nil, nil, err
		}
		options.DisableCache = true
		client, err := rueidis.NewClient(options)
		if err != nil {
			return nil, nil, err
		}
		engine, err := redislock.New(rueidisadapter.New(client), redislock.WithPrefix(*prefix), redislock.WithLabel("redislocks"))
		if err != nil {
			client.Close()
			return nil, nil, err
		}
		return engine, func() { _ = engine.Close(ctx); client.Close() }, nil
	}
}}

func main() { command.Main() }
