// Command benchmarks measures keylock and its peers, interleaved in one process, and
// judges what it measured.
//
//	go run -C benchmarks .                                  # everything; ten minutes and more
//	go run -C benchmarks . -point 2,4                       # what these points need
//	go run -C benchmarks . -run 'hot|uncontended' -peers keylock,semaphores -rounds 5
//	go run -C benchmarks . -json run.json -md RESULTS.md -md ../README.md -svg ../docs/img/benchmarks.svg
//	go run -C benchmarks . -from run.json                   # show an older run again
package main

import (
	"bytes"
	"errors"
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
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	choice
	rounds      int
	slice       time.Duration
	quick, list bool
	from        string
	json, svg   string
	md          []string
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.workloads, "run", "", "measure the workloads whose names begin with a match of this `expression`")
	flags.StringVar(&o.peers, "peers", "", "measure these peers, `names` separated by commas")
	flags.StringVar(&o.points, "point", "", "measure what these points need, `numbers` separated by commas")
	flags.IntVar(&o.rounds, "rounds", 9, "measure everything so often, and what takes long to set up up to 5 times")
	flags.DurationVar(&o.slice, "time", 100*time.Millisecond, "measure one peer at one workload for so long in each round")
	flags.BoolVar(&o.quick, "quick", false, "one round of 2ms, without what takes long to set up: tells whether the bench works, no more")
	flags.BoolVar(&o.list, "list", false, "list the workloads and the peers, and measure nothing")
	flags.StringVar(&o.from, "from", "", "measure nothing, show what -json wrote to this `file`")
	flags.StringVar(&o.json, "json", "", "write all measurements to this `file`")
	flags.Func("md", "put the tables into the places that this `file` marks for them, or - to print them; may be given again", func(file string) error {
		o.md = append(o.md, file)
		return nil
	})
	flags.StringVar(&o.svg, "svg", "", "write the plot to this `file`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.quick {
		o.rounds, o.slice = 1, 2*time.Millisecond
	}
	if o.rounds < 1 || o.slice <= 0 {
		return o, fmt.Errorf("-rounds %d -time %v: want more than 0", o.rounds, o.slice)
	}
	return o, nil
}

func run(args []string, out, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	if o.list {
		return list(out)
	}
	measured, err := o.results(out, progress)
	if err != nil {
		return err
	}
	if err := report.Verdicts(out, measured); err != nil {
		return err
	}
	return o.write(measured, out)
}

// results measures, or reads what was measured, and shows it.
func (o options) results(out, progress io.Writer) (*results.Results, error) {
	if o.from != "" {
		file, err := os.Open(o.from)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		measured, err := results.Read(file)
		if err != nil {
			return nil, err
		}
		return measured, report.Text(out, measured)
	}
	plan, err := o.plan()
	if err != nil {
		return nil, err
	}
	return plan.measure(progress, func(group *results.Results) error {
		return report.Text(out, group)
	})
}

// write writes the files that were asked for.
func (o options) write(measured *results.Results, out io.Writer) error {
	for _, file := range []struct {
		name   string
		render func(io.Writer, *results.Results) error
	}{
		{o.json, func(w io.Writer, r *results.Results) error { return r.Write(w) }},
		{o.svg, report.SVG},
	} {
		if file.name == "" {
			continue
		}
		var content bytes.Buffer
		if err := file.render(&content, measured); err != nil {
			return err
		}
		if err := os.WriteFile(file.name, content.Bytes(), 0o644); err != nil {
			return err
		}
	}
	for _, file := range o.md {
		if file == "-" {
			if err := report.Markdown(out, measured); err != nil {
				return err
			}
			continue
		}
		page, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if page, err = report.Insert(page, measured); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(file, page, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func list(out io.Writer) error {
	var page bytes.Buffer
	for _, w := range workloads.All() {
		fmt.Fprintf(&page, "%-20s %s\n", w.Name, w.About)
	}
	fmt.Fprintln(&page)
	for _, p := range peers.All() {
		fmt.Fprintf(&page, "%-20s %s\n", p.Name, p.About)
	}
	_, err := page.WriteTo(out)
	return err
}
