// Command pglocks lists the locks of package pglock in a database, and takes one away from a process that hangs.
//
//	pglocks [-database postgres://user@host/name] list | show KEY | break KEY EPOCH
//
// What -database leaves out is taken from PGHOST, PGPASSWORD and the like. See package lockctl for what the words do.
package main

import (
	"context"
	"flag"

	"github.com/jackc/pgx/v5"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/lockctl"
	"github.com/seed-46f81e6d/keylock/pglock"
)

var command = lockctl.Command{Name: "pglocks", Flags: func(flags *flag.FlagSet) lockctl.Connect {
	database := flags.String("database", "", "the database, as a URL or as key=value words")
	return func(ctx context.Context) (cohort.Operator, func(), error) {
		config, err := pgx.ParseConfig(*database)
		if err != nil {
			return nil, nil, err
		}
		engine, err := pglock.New(config, pglock.WithLabel("pglocks"))
		if err != nil {
			return nil, nil, err
		}
		return engine, func() { _ = engine.Close(ctx) }, nil
	}
}}

func main() { command.Main() }
