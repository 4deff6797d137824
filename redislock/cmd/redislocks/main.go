// Command redislocks lists the locks of package redislock at a server, and takes one away from a process that hangs.
//
//	redislocks [-url redis://user:password@host:6379] [-prefix kl] list | show KEY | break KEY EPOCH
//
// See package lockctl for what the words do.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/redis/rueidis"

	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/redislock"
	"github.com/seed-46f81e6d/keylock/redislock/rueidisadapter"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "redislocks:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, args ...string) error {
	flags := flag.NewFlagSet("redislocks", flag.ContinueOnError)
	url := flags.String("url", "redis://localhost:6379", "the server, as a URL; rediss:// for TLS, ?addr=host:port for more of a cluster, ?master_set=name for Sentinel")
	prefix := flags.String("prefix", "kl", "what WithPrefix says")
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for the server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options, err := rueidis.ParseURL(*url)
	if err != nil {
		return err
	}
	options.DisableCache = true
	client, err := rueidis.NewClient(options)
	if err != nil {
		return err
	}
	defer client.Close()
	engine, err := redislock.New(rueidisadapter.New(client), redislock.WithPrefix(*prefix), redislock.WithLabel("redislocks"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	defer func() { _ = engine.Close(ctx) }()
	return lockctl.Run(ctx, engine, out, flags.Args()...)
}
