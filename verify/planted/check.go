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
}

// checks are in the order of what they cost.
var checks = []check{
	{"table", "", "test -timeout=60s ./internal/table"},
	{"text", "", "test -short -timeout=90s -skip=TestBrowser ./internal/show ./lockhttp"},
	{"explorer", "", "test -tags=explore -timeout=90s -run=" + skipped.Explorer + " ."},
	{"kept-explorer", "", "test -tags=explore -timeout=10m -failfast -run=^TestInterleavingsOfKeptGrants$ ."},
	{"cohort-explorer", "", "test -tags=explore -timeout=120s -run=^TestEveryInterleaving$ ./cohort"},
	{"cohort", "", "test -timeout=90s ./cohort ./cohort/lease"},
	{"behaviour", "", "test -short -timeout=120s -skip=" + skipped.Sources + " ."},
	{"fuzz", "fuzz", "test -short -timeout=90s ."},
	{"programs", "verify", "test -timeout=90s ./programs"},
	{"linear", "verify", "test -timeout=120s ./linear -linear=2s"},
	{"soak", "verify", "test -timeout=120s ./soak"},
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
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
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
