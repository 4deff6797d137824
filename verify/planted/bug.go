package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A bug is a mistake, as replacements of text. Text stays where it is said once, however
// the lines around it move, and when it changes the bug says that it is out of date.
type bug struct {
	name  string
	story string   // what is wrong, on one line
	first []string // the checks to try first
	edits []edit
}

// An edit replaces a text that is there exactly once.
type edit struct {
	file     string
	old, new string
}

// readBugs reads all bugs of a folder, a file for each room of the code. A bug is
//
//	# its name
//	the story
//	first: the checks to try first
//	<<<<<<< the file
//	the text
//	=======
//	what becomes of it
//	>>>>>>>
//
// with as many replacements as it takes.
func readBugs(folder string) ([]bug, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil {
		return nil, err
	}
	var bugs []bug
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parts := strings.Split("\n"+string(text), "\n# ")[1:]
		if len(parts) == 0 {
			return nil, fmt.Errorf("%s: no bug", file)
		}
		for _, part := range parts {
			name, part, _ := strings.Cut(part, "\n")
			b, err := parse(part)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, name, err)
			}
			if slices.ContainsFunc(bugs, func(other bug) bool { return other.name == name }) {
				return nil, fmt.Errorf("%s: there are two bugs %s", file, name)
			}
			b.name = name
			bugs = append(bugs, b)
		}
	}
	return bugs, nil
}

func parse(text string) (bug, error) {
	head, rest, _ := strings.Cut(text, "<<<<<<< ")
	story, first, ok := strings.Cut(strings.TrimSpace(head), "\nfirst: ")
	if !ok {
		return bug{}, fmt.Errorf("it does not say which checks come first")
	}
	b := bug{story: story, first: strings.Fields(first)}
	for _, part := range strings.Split(rest, "<<<<<<< ") {
		file, part, _ := strings.Cut(part, "\n")
		old, part, found := strings.Cut(part, "\n=======\n")
		new, _, ended := strings.Cut(part, "\n>>>>>>>")
		if !found || !ended {
			return bug{}, fmt.Errorf("a replacement in %s does not end", file)
		}
		b.edits = append(b.edits, edit{file, old, new})
	}
	return b, nil
}

// order returns all checks, those that the bug names first.
func (b bug) order() []check {
	if slices.Contains(b.first, postgres.name) { // no other check builds that module
		return []check{postgres}
	}
	if c, ok := singleTest(b.first[0]); ok {
		return []check{c}
	}
	rank := func(c check) int {
		if i := slices.Index(b.first, c.name); i >= 0 {
			return i
		}
		return len(b.first)
	}
	ordered := slices.Clone(checks)
	slices.SortStableFunc(ordered, func(x, y check) int { return rank(x) - rank(y) })
	return ordered
}

// apply makes the bug in a module and returns what takes it out again.
func (b bug) apply(root string) (mend func() error, err error) {
	before := make(map[string][]byte)
	mend = func() error {
		for file, text := range before {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range b.edits {
		file := filepath.Join(root, e.file)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			mend()
			return nil, fmt.Errorf("%s has %d times, not once:\n%s", e.file, n, e.old)
		}
		if before[file] == nil {
			before[file] = text
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return nil, err
		}
	}
	return mend, nil
}

// isNeeded reports whether a folder belongs to the core module, or is one of the modules with
// checks.
func isNeeded(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	name := filepath.Base(folder)
	return errors.Is(err, fs.ErrNotExist) || slices.Contains([]string{"fuzz", "verify", "otelkeylock", "etcdlock", "e2e", "redislock", postgres.dir}, name)
}

// workspace joins the copy with modules that require a version of it.
const workspace = `go 1.26.0

use (
	.
	./e2e
	./etcdlock
	./otelkeylock
	./pglock
	./redislock
	./redislock/goredisadapter
)

replace github.com/seed-46f81e6d/keylock v0.1.0 => ./

replace github.com/seed-46f81e6d/keylock/etcdlock v0.1.0 => ./etcdlock

replace github.com/seed-46f81e6d/keylock/redislock v0.1.0 => ./redislock
`

// copyModule copies what the checks need of a module, and returns where it is.
func copyModule(root string) (string, error) {
	to, err := os.MkdirTemp("", "planted-*")
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return "", err
		}
		if info.IsDir() && isNeeded(file) {
			if err := os.CopyFS(filepath.Join(to, filepath.Base(file)), os.DirFS(file)); err != nil {
				return "", err
			}
		}
		if !info.Mode().IsRegular() || filepath.Base(file) == "go.work" {
			continue // the other modules are not there
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), text, fs.FileMode(0o644)); err != nil {
			return "", err
		}
	}
	return to, os.WriteFile(filepath.Join(to, "go.work"), []byte(workspace), 0o644)
}
