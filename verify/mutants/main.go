// Command mutants changes the core in every small way that it knows, one at a time, and
// runs the tests on each. It fails for each mutant that no test kills, unless
// equivalent.txt says why it does the same as the original; and for each entry of
// equivalent.txt that is no mutant any more, or that a test kills.
//
// All mutants are compiled into one binary for each package of tests, and an environment
// variable says which of them is alive, so that one costs a run and not a build.
//
//	go run -C verify ./mutants                        # all
//	go run -C verify ./mutants -only=Table.remove     # those whose line below matches
//	go run -C verify ./mutants -every=20 -start=7     # a twentieth of them
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock/verify/skipped"
)

func main() {
	c := config{log: os.Stderr}
	flag.StringVar(&c.root, "root", "..", "the module")
	flag.StringVar(&c.only, "only", "", "run only mutants whose line, as it is printed, matches this")
	c.part.Flags("mutants")
	flag.IntVar(&c.parallel, "parallel", 2, "how many to run at a time")
	flag.Float64Var(&c.atLeast, "at-least", 95, "the percentage that must be killed when all are run")
	flag.StringVar(&c.exec, "exec", "", "run the tests by this command, as go test does")
	flag.BoolVar(&c.list, "list", false, "print the mutants and run nothing")
	flag.Parse()
	if err := run(os.Stdout, c); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

type config struct {
	root, only, exec string
	part             skipped.Part
	parallel         int
	atLeast          float64
	list             bool
	log              io.Writer
}

// mutateAll mutates what decides who holds a lock: the table, apart from what checks it for
// the tests; the manager; and what it keeps. It returns the mutants, and the sources with all of them.
func mutateAll(root string) ([]mutant, map[string]string, error) {
	files := []string{"manager.go", "requests.go", "kept.go"}
	inTable, err := filepath.Glob(filepath.Join(root, "internal", "table", "*.go"))
	if err != nil {
		return nil, nil, err
	}
	for _, path := range inTable {
		name := filepath.Base(path)
		if name != "check.go" && !strings.HasSuffix(name, "_test.go") {
			files = append(files, "internal/table/"+name)
		}
	}
	var mutants []mutant
	sources := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, nil, err
		}
		if sources[file], err = mutate(file, string(text), &mutants); err != nil {
			return nil, nil, err
		}
	}
	return mutants, sources, nil
}

// run mutates, tests, and tells.
func run(out io.Writer, c config) error {
	if err := c.part.Check(); err != nil {
		return err
	}
	if c.parallel < 1 {
		return fmt.Errorf("-parallel=%d: want 1 or more at a time", c.parallel)
	}
	all, sources, err := mutateAll(c.root)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(c.only)
	if err != nil {
		return err
	}
	var chosen []mutant
	for i, m := range all {
		if c.part.Has(i) && only.MatchString(m.String()) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return errors.New("no mutant is chosen")
	}
	if c.list {
		for _, m := range chosen {
			fmt.Fprintln(out, m)
		}
		return nil
	}
	equivalent, err := readEquivalents(c.root)
	if err != nil {
		return err
	}
	if err := checkEquivalents(equivalent, all); err != nil {
		return err
	}
	start := time.Now()
	suites, err := build(c.root, sources, strings.Fields(c.exec))
	if err != nil {
		return err
	}
	defer suites.remove()
	fates, err := suites.testAll(chosen, c.parallel, c.log)
	if err != nil {
		return err
	}

	var errs []error
	killed, hanging, excused := 0, 0, 0
	for _, f := range fates {
		_, same := equivalent[f.mutant.name()]
		switch {
		case f.killer == "" && same:
			excused++
		case f.killer == "":
			errs = append(errs, fmt.Errorf("survives: %v", f.mutant))
		case same:
			errs = append(errs, fmt.Errorf("equivalent.txt: %v: killed by %s", f.mutant, f.killer))
			killed++
		default:
			killed++
		}
		if strings.Contains(f.killer, hangs) {
			hanging++
		}
	}
	percent := 100 * float64(killed) / float64(len(chosen))
	fmt.Fprintf(out, "%d mutants: %d killed (%.1f %%; %d hang), %d survive because they do the same, %d survive, %v\n",
		len(chosen), killed, percent, hanging, excused, len(chosen)-killed-excused, time.Since(start).Round(time.Second))
	if len(chosen) == len(all) && percent < c.atLeast {
		errs = append(errs, fmt.Errorf("%.1f %% are killed, at least %.1f %% should be", percent, c.atLeast))
	}
	return errors.Join(errs...)
}

// A fate is what became of a mutant.
type fate struct {
	mutant mutant
	killer string // what failed; "" when nothing did
}

// testAll runs the suites on mutants, and those that come last on what the others leave alive.
func (s *suites) testAll(mutants []mutant, parallel int, log io.Writer) ([]fate, error) {
	fates, err := s.test(mutants, false, parallel, log)
	if err != nil {
		return nil, err
	}
	var alive []mutant
	fates = slices.DeleteFunc(fates, func(f fate) bool {
		if f.killer == "" {
			alive = append(alive, f.mutant)
		}
		return f.killer == ""
	})
	if len(alive) > 0 {
		others, err := s.test(alive, true, parallel, log)
		if err != nil {
			return nil, err
		}
		fates = append(fates, others...)
	}
	slices.SortFunc(fates, func(a, b fate) int { return a.mutant.number - b.mutant.number })
	return fates, nil
}

// test runs suites on mutants, some at a time.
func (s *suites) test(mutants []mutant, last bool, parallel int, log io.Writer) ([]fate, error) {
	if err := s.pass(last, log); err != nil {
		return nil, err
	}
	var (
		workers sync.WaitGroup
		next    = make(chan mutant)
		done    = make(chan fate)
		fates   []fate
	)
	for range parallel {
		workers.Go(func() {
			for m := range next {
				done <- fate{m, s.kill(m, last)}
			}
		})
	}
	go func() {
		for _, m := range mutants {
			next <- m
		}
		close(next)
		workers.Wait()
		close(done)
	}()
	for f := range done {
		fates = append(fates, f)
		killer := f.killer
		if killer == "" {
			killer = "no test"
			if !last {
				killer = "no quick test"
			}
		}
		fmt.Fprintf(log, "%d/%d %v: killed by %s\n", len(fates), len(mutants), f.mutant, killer)
	}
	return fates, nil
}

// readEquivalents reads which mutants do the same as the original, and why: a line that is
// a mutant's name, and the reason on the next ones, after a tab.
func readEquivalents(root string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(root, "verify", "mutants", "equivalent.txt"))
	if err != nil {
		return nil, err
	}
	reasons := make(map[string]string)
	name := ""
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimRight(line, "\n"); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "\t"):
			reasons[name] = strings.TrimSpace(reasons[name] + " " + strings.TrimSpace(line))
		default:
			if _, twice := reasons[line]; twice {
				return nil, fmt.Errorf("equivalent.txt: %s: is there twice", line)
			}
			name = line
			reasons[name] = ""
		}
	}
	return reasons, nil
}

// checkEquivalents returns an error for each that has no reason, or that the code has not
// any more.
func checkEquivalents(reasons map[string]string, mutants []mutant) error {
	there := make(map[string]bool)
	for _, m := range mutants {
		there[m.name()] = true
	}
	var errs []error
	for name, reason := range reasons {
		switch {
		case !there[name]:
			errs = append(errs, fmt.Errorf("equivalent.txt: %s: there is no such mutant", name))
		case reason == "":
			errs = append(errs, fmt.Errorf("equivalent.txt: %s: the reason is missing", name))
		}
	}
	return errors.Join(errs...)
}
