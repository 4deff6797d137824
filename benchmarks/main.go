// Command benchmarks measures keylock and its peers, interleaved in one process.
//
//	go run -C benchmarks .                                  # everything
//	go run -C benchmarks . -run 'hot|uncontended' -peers keylock,semaphores
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/report"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/workloads"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	pattern := flags.String("run", "", "measure the workloads whose names begin with a match of this regular `expression`")
	names := flags.String("peers", "", "measure these peers, `names` separated by commas")
	rounds := flags.Int("rounds", 9, "measure everything so often")
	slice := flags.Duration("time", 100*time.Millisecond, "measure one peer at one workload for so long, in each round")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p := plan{rounds: *rounds, slice: *slice}
	var err error
	if p.workloads, err = workloads.Matching(*pattern); err != nil {
		return err
	}
	if p.peers, err = peers.Named(*names); err != nil {
		return err
	}
	var writeErr error
	p.measure(progress, func(group *results.Results) {
		if writeErr == nil {
			writeErr = report.Text(out, group)
		}
	})
	return writeErr
}
