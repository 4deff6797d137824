// Command planted shows that the checks can fail. Each file in bugs is a mistake that
// another library shipped, or that we fear: the command makes it in a copy of the module,
// runs the checks, and prints which of them went red. A bug that none of them sees fails
// the command.
//
//	go run -C verify ./planted              # each bug, until the first check is red
//	go run -C verify ./planted -all         # each bug, all checks: the table of docs/CORRECTNESS.md
//	go run -C verify ./planted lost-grant   # one bug
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	all := flag.Bool("all", false, "run every check on every bug")
	root := flag.String("root", "..", "the module to plant the bugs in a copy of")
	flag.Parse()
	if err := plant(os.Stdout, *root, flag.Args(), *all); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

// plant makes the bugs of these names, or all, one after the other.
func plant(out io.Writer, root string, names []string, all bool) error {
	bugs, err := readBugs(filepath.Join(root, "verify", "planted", "bugs"))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		bugs = slices.DeleteFunc(bugs, func(b bug) bool { return !slices.Contains(names, b.name) })
	}
	bugs = slices.DeleteFunc(bugs, func(b bug) bool {
		missing := !b.order()[0].installed()
		if missing {
			fmt.Fprintf(os.Stderr, "%s is left out: no PostgreSQL is installed\n", b.name)
		}
		return missing
	})
	copied, err := copyModule(root)
	if err != nil {
		return err
	}
	defer os.RemoveAll(copied)
	for _, c := range needed(bugs) {
		if red, output := c.red(copied); red != "" {
			return fmt.Errorf("%s is red without any bug: %s\n%s", c.name, red, output)
		}
	}
	fmt.Fprintf(out, "| bug | what it is | red |\n|---|---|---|\n")
	survivors := 0
	for _, b := range bugs {
		red, err := b.run(copied, all)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if len(red) == 0 {
			survivors++
			red = []string{"**none**"}
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", b.name, b.story, strings.Join(red, "; "))
	}
	if survivors > 0 {
		return fmt.Errorf("%d bugs were seen by no check", survivors)
	}
	return nil
}

// needed returns the checks of these bugs.
func needed(bugs []bug) (all []check) {
	for _, b := range bugs {
		for _, c := range b.order() {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// run makes the bug, runs the checks until one is red, or all, and mends it again. It
// returns those that are red.
func (b bug) run(root string, all bool) (red []string, err error) {
	mend, err := b.apply(root)
	if err != nil {
		return nil, err
	}
	defer func() {
		if mended := mend(); err == nil {
			err = mended
		}
	}()
	for _, c := range b.order() {
		start := time.Now()
		if test, _ := c.red(root); test != "" {
			red = append(red, c.name+": "+test)
			fmt.Fprintf(os.Stderr, "%s: %s is red, %v\n", b.name, c.name, time.Since(start).Round(time.Second))
			if !all {
				break
			}
		}
	}
	return red, nil
}
