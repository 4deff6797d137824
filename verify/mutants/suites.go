package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock/verify/skipped"
)

// suites are the tests, with all mutants compiled in.
type suites struct {
	folder string
	exec   []string
	all    []suite
}

// A suite is a part of a package of tests.
type suite struct {
	name    string
	pkg     string // from dir
	dir     string // below the root, where it is built
	tags    string
	args    []string
	binary  string
	runs    string // where
	timeout time.Duration
}

// mutatedFile tells a package which mutant is alive. Some mutants would fill the memory
// before they are found to hang.
const mutatedFile = `package %s

import (
	"os"
	"strconv"
	"syscall"
)

var mutantAlive, _ = strconv.Atoi(os.Getenv("MUTANT"))

func mutated(number int) bool { return mutantAlive == number }

func instead[T any](alive bool, mutant, original T) T {
	if alive {
		return mutant
	}
	return original
}

func init() { syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 4 << 30, Max: 4 << 30}) }
`

// allSuites are in the order of what they cost. The table's own see nothing of the manager.
var allSuites = []suite{
	{name: "table", dir: ".", pkg: "./internal/table", args: []string{"-test.skip=" + skipped.Slow}},
	{name: "programs", dir: "verify", pkg: "./programs",
		args: []string{"-rapid.checks=2000", "-rapid.seed=1", "-rapid.shrinktime=1ms", "-rapid.nofailfile"}},
	{name: "behaviour", dir: ".", pkg: ".", args: []string{"-test.short", "-test.skip=" + skipped.Sources + "|" + skipped.Slow}},
	{name: "explorer", dir: ".", pkg: ".", tags: "explore", args: []string{"-test.run=" + skipped.Explorer}},
	{name: "kept explorer", dir: ".", pkg: ".", tags: "explore", args: []string{"-test.run=^TestInterleavingsOfKeptGrants$"}},
	{name: "fuzz", dir: "fuzz", pkg: ".", args: []string{"-test.short"}},
	{name: "linear", dir: "verify", pkg: "./linear", args: []string{"-linear=1s"}},
	{name: "table, slow", dir: ".", pkg: "./internal/table", args: []string{"-test.run=" + skipped.Slow}},
	{name: "behaviour, slow", dir: ".", pkg: ".", args: []string{"-test.short", "-test.run=" + skipped.Slow}},
}

// build builds the tests with the mutants in place of the sources, and sees them pass when
// no mutant is alive.
func build(root string, sources map[string]string, exec []string) (*suites, error) {
	folder, err := os.MkdirTemp("", "mutants-*")
	if err != nil {
		return nil, err
	}
	s := &suites{folder: folder, exec: exec, all: allSuites}
	if err := s.build(root, sources); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	for i := range s.all {
		u := &s.all[i]
		start := time.Now()
		if killer := s.run(u, 0, 0); killer != "" {
			return nil, errors.Join(fmt.Errorf("without any mutant, %s fails: %s", u.name, killer), s.remove())
		}
		u.timeout = min(max(5*time.Second, 10*time.Since(start)), 90*time.Second).Round(time.Second)
	}
	return s, nil
}

func (s *suites) remove() error { return os.RemoveAll(s.folder) }

func (s *suites) build(root string, sources map[string]string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	put := func(file, text string) error {
		mutated := filepath.Join(s.folder, strings.ReplaceAll(file, "/", "-"))
		overlay.Replace[filepath.Join(root, file)] = mutated
		return os.WriteFile(mutated, []byte(text), 0o644)
	}
	for file, text := range sources {
		if err := put(file, text); err != nil {
			return err
		}
	}
	for file, pkg := range map[string]string{"mutated.go": "keylock", "internal/table/mutated.go": "table"} {
		if err := put(file, fmt.Sprintf(mutatedFile, pkg)); err != nil {
			return err
		}
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(s.folder, "overlay.json")
	if err := os.WriteFile(overlayFile, text, 0o644); err != nil {
		return err
	}
	for i := range s.all {
		u := &s.all[i]
		u.runs = filepath.Join(root, u.dir, u.pkg)
		u.binary = filepath.Join(s.folder, filepath.Base(u.runs)+u.tags+".test")
		if _, err := os.Stat(u.binary); err == nil {
			continue // it is another suite's, too
		}
		cmd := exec.Command("go", "test", "-c", "-overlay="+overlayFile, "-tags="+u.tags, "-o", u.binary, u.pkg)
		cmd.Dir = filepath.Join(root, u.dir)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", u.name, err, text)
		}
	}
	return nil
}

// kill runs the suites on a mutant until one fails, and returns what failed; "" when
// nothing did.
func (s *suites) kill(m mutant) string {
	for i := range s.all {
		u := &s.all[i]
		if u.pkg == "./internal/table" && !strings.HasPrefix(m.file, "internal/table/") {
			continue
		}
		killer := s.run(u, m.number, u.timeout)
		if strings.HasPrefix(killer, hangs) { // or the machine had other things to do
			killer = s.run(u, m.number, 4*u.timeout)
		}
		if killer != "" {
			return u.name + ": " + killer
		}
	}
	return ""
}

var (
	failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	hungTest   = regexp.MustCompile(`(?m)running tests:\s+(\S+)`)
	panicked   = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

const hangs = "hangs in "

// run runs a suite while a mutant is alive, and returns what fails. That a suite hangs is
// for the suite itself to find, because the time until it starts does not count.
func (s *suites) run(u *suite, number int, timeout time.Duration) string {
	args := append([]string{u.binary, "-test.failfast", "-test.timeout=" + timeout.String()}, u.args...)
	args = append(s.exec[:len(s.exec):len(s.exec)], args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = u.runs
	cmd.Env = append(cmd.Environ(), "MUTANT="+strconv.Itoa(number))
	output, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	text := string(output)
	if m := hungTest.FindStringSubmatch(text); m != nil {
		return hangs + m[1]
	}
	if m := failedTest.FindAllStringSubmatch(text, -1); m != nil {
		return m[len(m)-1][1]
	}
	if m := panicked.FindString(text); m != "" {
		return m
	}
	return err.Error()
}
