package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/seed-46f81e6d/keylock/verify/skipped"
)

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

// installed reports whether there is the server that a check starts.
func (c check) installed() bool {
	if c != postgres {
		return true
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	_, err := exec.LookPath("postgres")
	return len(found) > 0 || err == nil
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

// red runs the check and returns the test that failed, and its output; "" when none did.
func (c check) red(root string) (test, output string) {
	cmd := exec.Command("go", strings.Fields(c.args)...)
	cmd.Dir = filepath.Join(root, c.dir)
	workspace := "off"
	if c.work {
		workspace = filepath.Join(root, "go.work")
	}
	cmd.Env = append(cmd.Environ(), "GOWORK="+workspace)
	if c == postgres {
		cmd.Env = append(cmd.Env, "CI=true") // no test may be skipped
	}
	text, err := cmd.CombinedOutput()
	if err == nil {
		return "", ""
	}
	output = string(text)
	if strings.Contains(output, "[build failed]") || strings.Contains(output, "[setup failed]") {
		return "does not build", output
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
