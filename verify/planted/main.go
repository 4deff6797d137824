// Command planted shows that the checks can fail. Each file in bugs is a mistake that
// another library shipped, or that we fear: the command makes it in a copy of the module,
// runs the checks, and prints which of them went red. A bug that none of them sees fails
// the command.
//
//	go run -C verify ./planted                          # each bug, until the first check is red
//	go run -C verify ./planted -all                     # each bug, all checks
//	go run -C verify ./planted -all -every=6 -start=2   # a sixth of them
//	go run -C verify ./planted lost-grant               # one bug
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/verify/skipped"
)

func main() {
	var c config
	flag.BoolVar(&c.all, "all", false, "run every check on every bug")
	flag.StringVar(&c.root, "root", "..", "the module to plant the bugs in a copy of")
	c.part.Flags("bugs")
	flag.Parse()
	c.names = flag.Args()
	if err := plant(os.Stdout, c); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

type config struct {
	all   bool
	root  string
	names []string // of bugs; none for all
	part  skipped.Part
}

// choose returns the bugs to make.
func (c config) choose(bugs []bug) (chosen []bug, err error) {
	if err := c.part.Check(); err != nil {
		return nil, err
	}
	for _, name := range c.names {
		if !slices.ContainsFunc(bugs, func(b bug) bool { return b.name == name }) {
			return nil, fmt.Errorf("there is no bug %s", name)
		}
	}
	for i, b := range bugs {
		if (len(c.names) == 0 || slices.Contains(c.names, b.name)) && c.part.Has(i) {
			chosen = append(chosen, b)
		}
	}
	return chosen, nil
}

// plant makes bugs, one after the other.
func plant(out io.Writer, c config) error {
	bugs, err := readBugs(filepath.Join(c.root, "verify", "planted", "bugs"))
	if err != nil {
		return err
	}
	if bugs, err = c.choose(bugs); err != nil {
		return err
	}
	var absent []string // servers
	bugs = slices.DeleteFunc(bugs, func(b bug) bool {
		server, installed := b.order()[0].server()
		if !installed {
			fmt.Fprintf(os.Stderr, "%s is left out: no %s is installed\n", b.name, server)
			absent = append(absent, server)
		}
		return !installed
	})
	if len(absent) > 0 && os.Getenv("CI") != "" {
		return fmt.Errorf("%d bugs need %s", len(absent), strings.Join(slices.Compact(absent), ", "))
	}
	copied, err := copyModule(c.root)
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
		red, err := b.run(copied, c.all)
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
		test, output := c.red(root)
		if test == notBuilt {
			return nil, fmt.Errorf("%s %s, so the bug must be written anew:\n%s", c.name, test, output)
		}
		if test != "" {
			red = append(red, c.name+": "+test)
			fmt.Fprintf(os.Stderr, "%s: %s is red, %v\n", b.name, c.name, time.Since(start).Round(time.Second))
			if !all {
				break
			}
		}
	}
	return red, nil
}

// A check is a command that is red when the module has a bug that it can see.
type check struct {
	name string
	dir  string // below the root
	args string // of go
	work bool   // in the workspace of the copy, because the module requires a version of the core
}

// checks are in the order of what they cost.
var checks = []check{
	{name: "table", args: "test -timeout=60s ./internal/table"},
	{name: "share", args: "test -timeout=60s ./share"},
	{name: "otelkeylock", dir: "otelkeylock", args: "test -timeout=60s .", work: true},
	{name: "text", args: "test -short -timeout=90s -skip=TestBrowser ./internal/show ./lockhttp"},
	{name: "inorder", args: "test -short -timeout=5m -failfast -skip=Million|TakesMemory ./inorder"},
	{name: "explorer", args: "test -tags=explore -timeout=90s -run=" + skipped.Explorer + " ."},
	{name: "kept-explorer", args: "test -tags=explore -timeout=10m -failfast -run=^TestInterleavingsOfKeptGrants$ ."},
	{name: "cohort-explorer", args: "test -tags=explore -timeout=120s -run=^TestEveryInterleaving$ ./cohort"},
	{name: "cohort", args: "test -timeout=90s ./cohort ./cohort/lease"},
	{name: "behaviour", args: "test -short -timeout=120s -skip=" + skipped.Sources + " ."},
	{name: "fuzz", dir: "fuzz", args: "test -short -timeout=90s ."},
	{name: "programs", dir: "verify", args: "test -timeout=90s ./programs"},
	{name: "linear", dir: "verify", args: "test -timeout=120s ./linear -linear=2s"},
	{name: "soak", dir: "verify", args: "test -timeout=120s ./soak"},
}

// postgres is the tests of pglock, against a server that they start.
var postgres = check{name: "pglock", dir: "pglock", args: "test -timeout=5m -failfast .", work: true}

// server returns the server that a check starts, "" for none that has to be installed, and whether it is there.
func (c check) server() (name string, installed bool) {
	switch module, _, _ := strings.Cut(c.dir, "/"); module {
	case postgres.dir:
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
		_, err := exec.LookPath("postgres")
		return "PostgreSQL", len(found) > 0 || err == nil
	case "redislock":
		_, err := exec.LookPath("redis-server")
		return "Redis", err == nil
	default:
		return "", true
	}
}

// singleTest returns the check that a bug names as module:Test. It is a test of a module that no other check builds, and too
// slow to run for other bugs.
func singleTest(name string) (c check, ok bool) {
	dir, test, ok := strings.Cut(name, ":")
	return check{name: name, dir: dir, args: "test -timeout=3m -run=^" + test + "$ .", work: true}, ok
}

var (
	failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	hungTest   = regexp.MustCompile(`(?m)running tests:\s+(\w+)`)
	panicked   = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

// notBuilt is what red returns for code that does not compile. A bug that is not there was not seen.
const notBuilt = "does not build"

// red runs the check and returns the test that failed, and its output; "" when none did.
func (c check) red(root string) (test, output string) {
	cmd := exec.Command("go", strings.Fields(c.args)...)
	cmd.Dir = filepath.Join(root, c.dir)
	workspace := "off"
	if c.work {
		workspace = filepath.Join(root, "go.work")
	}
	cmd.Env = append(cmd.Environ(), "GOWORK="+workspace)
	if server, _ := c.server(); server != "" {
		cmd.Env = append(cmd.Env, "CI=true") // no test may be skipped
	}
	text, err := cmd.CombinedOutput()
	if err == nil {
		return "", ""
	}
	output = string(text)
	if strings.Contains(output, "[build failed]") || strings.Contains(output, "[setup failed]") {
		return notBuilt, output
	}
	for _, pattern := range []*regexp.Regexp{failedTest, hungTest} {
		if m := pattern.FindStringSubmatch(output); m != nil {
			return m[1], output
		}
	}
	if m := panicked.FindString(output); m != "" {
		return m, output
	}
	return "fails", output
}
