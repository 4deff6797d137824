// Command mutants changes the core in every small way that it knows, one at a time, and
// runs the tests on each. A mutant that no test kills is printed, unless equivalent.txt
// says why it does the same as the original.
//
// All mutants are compiled into one binary for each package of tests, and an environment
// variable says which of them is alive, so that one costs a run and not a build.
//
//	go run -C verify ./mutants                        # all: a quarter of an hour
//	go run -C verify ./mutants -only=requests.go      # those of some files
//	go run -C verify ./mutants -every=20              # a twentieth of them
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

func main() {
	var c config
	flag.StringVar(&c.root, "root", "..", "the module")
	flag.StringVar(&c.only, "only", "", "part of the names of the files whose mutants to run")
	flag.IntVar(&c.every, "every", 1, "run every n-th mutant only")
	flag.IntVar(&c.parallel, "parallel", 2, "how many to run at a time")
	flag.Float64Var(&c.atLeast, "at-least", 95, "the percentage that must be killed")
	flag.Parse()
	if err := run(os.Stdout, c); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

type config struct {
	root, only      string
	every, parallel int
	atLeast         float64
}

// files are what is mutated.
var files = []string{
	"internal/table/table.go", "internal/table/line.go", "internal/table/session.go", "manager.go", "requests.go",
}

// run mutates, tests, and returns an error when too many survive.
func run(out io.Writer, c config) error {
	var mutants []mutant
	sources := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(c.root, file))
		if err != nil {
			return err
		}
		if sources[file], err = mutate(file, string(text), &mutants); err != nil {
			return err
		}
	}
	excuses, err := readExcuses(filepath.Join(c.root, "verify", "mutants", "equivalent.txt"))
	if err != nil {
		return err
	}
	suites, err := build(c.root, sources)
	if err != nil {
		return err
	}
	defer os.RemoveAll(suites.folder)
	if test := suites.kill(0); test != "" {
		return fmt.Errorf("%s fails without any mutant", test)
	}

	var chosen []mutant
	for i, m := range mutants {
		if i%c.every == 0 && strings.Contains(m.file, c.only) {
			chosen = append(chosen, m)
		}
	}
	start := time.Now()
	survivors, excused := suites.test(chosen, c.parallel, excuses)
	for _, m := range survivors {
		fmt.Fprintf(out, "survives: %v\n", m)
	}
	killed := len(chosen) - len(survivors) - excused
	percent := 100 * float64(killed) / float64(len(chosen))
	fmt.Fprintf(out, "%d mutants: %d killed (%.1f %%), %d survive and are equivalent, %d survive, %v\n",
		len(chosen), killed, percent, excused, len(survivors), time.Since(start).Round(time.Second))
	if len(survivors) > 0 && percent < c.atLeast {
		return fmt.Errorf("%.1f %% are killed, at least %.1f %% should be", percent, c.atLeast)
	}
	return nil
}

// test runs the suites on mutants, some at a time, and returns those that survive without
// an excuse, and how many have one.
func (s *suites) test(mutants []mutant, parallel int, excuses map[string]string) (survivors []mutant, excused int) {
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		next    = make(chan mutant)
		done    int
	)
	for range parallel {
		workers.Go(func() {
			for m := range next {
				killer := s.kill(m.number)
				mu.Lock()
				done++
				switch _, excuse := excuses[m.key()]; {
				case killer != "":
				case excuse:
					excused++
				default:
					survivors = append(survivors, m)
				}
				if killer == "" {
					killer = "nobody"
				}
				fmt.Fprintf(os.Stderr, "%d/%d %v: killed by %s\n", done, len(mutants), m, killer)
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		next <- m
	}
	close(next)
	workers.Wait()
	return survivors, excused
}

// readExcuses reads which mutants do the same as the original, and why: a line that begins
// as a mutant prints, without its line number, and the reason on the next, after a tab.
func readExcuses(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	excuses := make(map[string]string)
	key := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "\t"):
			excuses[key] += strings.TrimSpace(line)
		case line != "" && !strings.HasPrefix(line, "#"):
			key = line
		}
	}
	return excuses, nil
}
