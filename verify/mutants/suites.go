package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// suites are the tests, with all mutants compiled in.
type suites struct {
	folder string
	all    []suite
}

// A suite is one package of tests.
type suite struct {
	name    string
	pkg     string // from dir
	dir     string // below the root, where it is built
	args    []string
	timeout time.Duration
	binary  string
	runs    string // where
}

// mutatedFile tells a package which mutant is alive.
const mutatedFile = `package %s

import (
	"os"
	"strconv"
)

var mutantAlive, _ = strconv.Atoi(os.Getenv("MUTANT"))

func mutated(number int) bool { return mutantAlive == number }
`

const (
	aboutSources = "Import|Readme|NoMutex|TableKnows|Module|Copies" // tests that read the code, which has not changed
	long         = "TestStorm|Memory"
)

// build builds the tests with the mutants in place of the sources.
func build(root string, sources map[string]string) (*suites, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "mutants-*")
	if err != nil {
		return nil, err
	}
	sources["internal/table/mutated.go"] = fmt.Sprintf(mutatedFile, "table")
	sources["mutated.go"] = fmt.Sprintf(mutatedFile, "keylock")
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	n := 0
	for file, text := range sources {
		n++
		mutated := filepath.Join(folder, fmt.Sprint(n, ".go"))
		if err := os.WriteFile(mutated, []byte(text), 0o644); err != nil {
			return nil, err
		}
		overlay.Replace[filepath.Join(root, file)] = mutated
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return nil, err
	}
	overlayFile := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlayFile, text, 0o644); err != nil {
		return nil, err
	}
	s := &suites{folder: folder, all: []suite{ // in the order of what they cost
		{name: "table", dir: ".", pkg: "./internal/table", timeout: 30 * time.Second},
		{name: "explorer", dir: ".", pkg: ".", args: []string{"-test.run=TestEveryInterleaving"}, timeout: 30 * time.Second},
		{name: "programs", dir: "verify", pkg: "./programs", args: []string{"-rapid.checks=1000", "-rapid.nofailfile"}, timeout: 30 * time.Second},
		{name: "behaviour", dir: ".", pkg: ".", args: []string{"-test.short", "-test.skip=" + aboutSources + "|TestEvery|" + long}, timeout: time.Minute},
		{name: "fuzz", dir: ".", pkg: "./fuzz", args: []string{"-test.short"}, timeout: 30 * time.Second},
		{name: "linear", dir: "verify", pkg: "./linear", args: []string{"-linear=1s"}, timeout: 30 * time.Second},
		{name: "long", dir: ".", pkg: ".", args: []string{"-test.short", "-test.run=" + long}, timeout: 2 * time.Minute},
	}}
	for i := range s.all {
		u := &s.all[i]
		u.runs = filepath.Join(root, u.dir, u.pkg)
		u.binary = filepath.Join(folder, filepath.Base(u.runs)+".test")
		if _, err := os.Stat(u.binary); err == nil {
			continue // another suite of the package
		}
		cmd := exec.Command("go", "test", "-c", "-overlay="+overlayFile, "-o", u.binary, u.pkg)
		cmd.Dir = filepath.Join(root, u.dir)
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", u.name, err, text)
		}
	}
	return s, nil
}

// kill runs the suites on a mutant until one fails, and returns which; "" when none does.
// One that does not end is a failure.
func (s *suites) kill(number int) string {
	for _, u := range s.all {
		if !u.passes(number) {
			return u.name
		}
	}
	return ""
}

func (u suite) passes(number int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), u.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, u.binary, append([]string{"-test.failfast"}, u.args...)...)
	cmd.Dir = u.runs
	cmd.Env = append(cmd.Environ(), "MUTANT="+strconv.Itoa(number))
	return cmd.Run() == nil
}
