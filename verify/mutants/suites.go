package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-46f81e6d/keylock/verify/skipped"
)

// suites are the tests, with all mutants compiled in.
type suites struct {
	folder string
	exec   []string
	all    []suite
	least  time.Duration // before a test hangs
	recent recent
}

// A suite is a part of a package of tests.
type suite struct {
	name   string
	pkg    string // from dir
	dir    string // below the root, where it is built
	tags   string
	args   []string
	binary string
	runs   string // where
	last   bool   // only what all others leave alive is worth what it costs
	normal times  // without a mutant
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
	{name: "programs", dir: "verify", pkg: "./programs",
		args: []string{"-rapid.checks=2000", "-rapid.seed=1", "-rapid.shrinktime=1ms", "-rapid.nofailfile"}},
	{name: "linear", dir: "verify", pkg: "./linear", args: []string{"-linear=1s"}},
	{name: "fuzz", dir: "fuzz", pkg: ".", args: []string{"-test.short"}},
	{name: "table", dir: ".", pkg: "./internal/table", args: []string{"-test.skip=" + skipped.Slow}},
	{name: "behaviour", dir: ".", pkg: ".", args: []string{"-test.short", "-test.skip=" + skipped.Sources + "|" + skipped.Slow}},
	{name: "table, slow", dir: ".", pkg: "./internal/table", args: []string{"-test.run=" + skipped.Slow}, last: true},
	{name: "behaviour, slow", dir: ".", pkg: ".", args: []string{"-test.short", "-test.run=" + skipped.Slow}, last: true},
	{name: "explorer", dir: ".", pkg: ".", tags: "explore", args: []string{"-test.run=" + skipped.Explorer}, last: true},
	{name: "kept explorer", dir: ".", pkg: ".", tags: "explore", args: []string{"-test.run=^TestInterleavingsOfKeptGrants$"}, last: true},
}

// build builds the tests with the mutants in place of the sources.
func build(root string, sources map[string]string, exec []string) (*suites, error) {
	folder, err := os.MkdirTemp("", "mutants-*")
	if err != nil {
		return nil, err
	}
	s := &suites{folder: folder, exec: exec, all: allSuites, least: 5 * time.Second}
	if err := s.build(root, sources); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// pass sees suites pass when no mutant is alive.
func (s *suites) pass(last bool, log io.Writer) error {
	for i := range s.all {
		u := &s.all[i]
		if u.last != last {
			continue
		}
		killer, ran := s.run(u, 0, "", 1)
		if killer != "" {
			return fmt.Errorf("without any mutant, %s fails: %s", u.name, killer)
		}
		u.normal = ran.took
		fmt.Fprintf(log, "%s: %v without a mutant\n", u.name, u.normal.sum().Round(time.Millisecond))
	}
	return nil
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

// kill runs suites on a mutant, those that come last or the others, until one fails, and returns what
// failed; "" when nothing did. The tests that killed the last mutants of the same file go first.
func (s *suites) kill(m mutant, last bool) string {
	for _, k := range s.recent.of(m.file) {
		if k.suite.last == last {
			if killer := s.killIn(k.suite, m, pattern(k.test)); killer != "" {
				return killer
			}
		}
	}
	for i := range s.all {
		u := &s.all[i]
		if u.last != last || u.pkg == "./internal/table" && !strings.HasPrefix(m.file, "internal/table/") {
			continue
		}
		if killer := s.killIn(u, m, ""); killer != "" {
			return killer
		}
	}
	return ""
}

// killIn runs tests of a suite on a mutant, or all. What hangs must do so twice, because the machine
// may have had other things to do: the test by itself, or else, if it does not hang then, all of them.
func (s *suites) killIn(u *suite, m mutant, tests string) string {
	killer, ran := s.run(u, m.number, tests, 1)
	if strings.HasPrefix(killer, hangs) {
		killer, ran = s.run(u, m.number, pattern(ran.test), 4)
		if killer == "" {
			killer, ran = s.run(u, m.number, tests, 4)
		}
	}
	if killer == "" {
		return ""
	}
	s.recent.add(m.file, known{u, ran.test})
	return u.name + ": " + killer
}

// pattern is what -test.run knows a test or a subtest by.
func pattern(test string) string {
	if test == "" {
		return ""
	}
	parts := strings.Split(test, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// recent knows the tests that killed the last mutants of each file.
type recent struct {
	mu     sync.Mutex
	byFile map[string][]known
}

// known is a test of a suite.
type known struct {
	suite *suite
	test  string
}

const recentMax = 6

func (r *recent) of(file string) []known {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.byFile[file])
}

// add puts a test before the others.
func (r *recent) add(file string, k known) {
	if k.test == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byFile == nil {
		r.byFile = make(map[string][]known)
	}
	others := slices.DeleteFunc(r.byFile[file], func(other known) bool { return other == k })
	others = others[:min(len(others), recentMax-1)]
	r.byFile[file] = append([]known{k}, others...)
}

var (
	failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	panicked   = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

const hangs = "hangs in "

// run runs a suite, or those of its tests that match a pattern, while a mutant is alive, and returns
// what fails. Each test is given as many times as slack says the time that makes it hang.
func (s *suites) run(u *suite, number int, tests string, slack int) (killer string, ran *watcher) {
	args := append([]string{u.binary, "-test.failfast", "-test.v"}, u.args...)
	if tests != "" {
		args = append(args, "-test.run="+tests)
	}
	args = append(s.exec[:len(s.exec):len(s.exec)], args...)
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = u.runs
	cmd.Env = append(cmd.Environ(), "MUTANT="+strconv.Itoa(number))
	cmd.WaitDelay = time.Second // a test may have started others
	ran = watch(func(test string) time.Duration { return time.Duration(slack) * max(s.least, u.normal.limit(test)) }, kill)
	cmd.Stdout, cmd.Stderr = ran, ran
	err := cmd.Run()
	ran.ends()
	text := ran.output.String()
	switch m := failedTest.FindAllStringSubmatch(text, -1); {
	case err == nil:
		return "", ran
	case ctx.Err() != nil:
		return hangs + ran.test, ran
	case m != nil:
		return m[len(m)-1][1], ran
	}
	if m := panicked.FindString(text); m != "" {
		return m, ran
	}
	return err.Error(), ran
}

// times are how long each test runs until the next one, or a subtest, begins.
type times map[string]time.Duration

func (t times) sum() (sum time.Duration) {
	for _, took := range t {
		sum += took
	}
	return sum
}

// limit is how long a test may take that does not hang.
func (t times) limit(test string) time.Duration {
	if t == nil { // it is being found out
		return time.Hour
	}
	took, ok := t[test]
	if !ok {
		for _, d := range t {
			took = max(took, d)
		}
	}
	return min(10*took, 90*time.Second)
}

// A watcher reads what tests print with -test.v. It ends them when one takes longer than its limit.
type watcher struct {
	limit  func(test string) time.Duration
	timer  *time.Timer
	output bytes.Buffer
	line   []byte // what there is of the next one
	test   string // it began last; "" before the first
	begun  time.Time
	took   times
}

func watch(limit func(test string) time.Duration, end func()) *watcher {
	return &watcher{limit: limit, timer: time.AfterFunc(limit(""), end), begun: time.Now(), took: make(times)}
}

func (w *watcher) Write(p []byte) (int, error) {
	w.output.Write(p)
	w.line = append(w.line, p...)
	for {
		line, rest, whole := bytes.Cut(w.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if test, ok := bytes.CutPrefix(line, []byte("=== RUN   ")); ok {
			w.begins(string(test))
		}
		w.line = rest
	}
}

func (w *watcher) begins(test string) {
	w.ends()
	w.test, w.begun = test, time.Now()
	w.timer.Reset(w.limit(test))
}

func (w *watcher) ends() {
	w.timer.Stop()
	w.took[w.test] = time.Since(w.begun)
}
