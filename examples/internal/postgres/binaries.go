package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNotInstalled is returned by Start where the machine has no PostgreSQL server. It says how to
// get one.
var ErrNotInstalled = errors.New("no PostgreSQL server on this machine: install Debian's package postgresql (apt-get install postgresql), or name a server by its postgres:// URL")

// debianBinaries is where Debian keeps the binaries of each version, off the PATH.
const debianBinaries = "/usr/lib/postgresql/*/bin"

// Installed returns nil where Start finds the binaries of a server, or else ErrNotInstalled.
func Installed() error {
	_, err := installed()
	return err
}

// installed returns the folder of this machine's binaries.
func installed() (string, error) { return findBinaries(os.Getenv("PATH"), debianBinaries) }

// findBinaries returns the folder of a server's binaries: the first one on the path that has them,
// else the one of the newest version that matches the pattern.
func findBinaries(path, pattern string) (string, error) {
	versions, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	slices.SortFunc(versions, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(filepath.SplitList(path), versions...) {
		if has(dir, "initdb") && has(dir, "pg_ctl") {
			return filepath.Abs(dir)
		}
	}
	return "", ErrNotInstalled
}

// version returns the number in a folder's name like /usr/lib/postgresql/15/bin.
func version(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 where there is none
	return n
}

func has(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}
