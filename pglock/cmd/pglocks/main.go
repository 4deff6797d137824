// Command pglocks lists the locks of package pglock in a database, and takes one away from a process that hangs.
//
//	pglocks [-database postgres://user@host/name] list | show KEY | break KEY EPOCH
//
// What -database leaves out is taken from PGHOST, PGPASSWORD and the like. See package lockctl for what the words do.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/pglock"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "pglocks:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, args ...string) error {
	flags := flag.NewFlagSet("pglocks", flag.ContinueOnError)
	database := flags.String("database", "", "the database, as a URL or as key=value words")
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for the server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := pgx.ParseConfig(*database)
	if err != nil {
		return err
	}
	engine, err := pglock.New(config, pglock.WithLabel("pglocks"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	defer func() { _ = engine.Close(ctx) }()
	return lockctl.Run(ctx, engine, out, flags.Args()...)
}
