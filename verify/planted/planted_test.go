package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every bug can still be made: what it replaces is there, once, and what it says to try
// first exists.
func TestBugsAreUpToDate(t *testing.T) {
	bugs, err := readBugs("bugs")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(bugs), 20)
	root, err := copyModule("../..")
	require.NoError(t, err)
	defer os.RemoveAll(root)
	for _, b := range bugs {
		mend, err := b.apply(root)
		if assert.NoError(t, err, b.name) {
			require.NoError(t, mend())
		}
		for _, name := range b.first {
			assert.Condition(t, func() bool { return known(root, name) }, "%s: there is no check %q", b.name, name)
		}
	}
	same, err := os.ReadFile(filepath.Join(root, "manager.go"))
	require.NoError(t, err)
	original, err := os.ReadFile("../../manager.go")
	require.NoError(t, err)
	assert.Equal(t, string(original), string(same), "a bug was not taken out again")
}

func known(root, name string) bool {
	for _, c := range append(slices.Clone(checks), postgres) {
		if c.name == name {
			return true
		}
	}
	c, ok := singleTest(name)
	if !ok {
		return false
	}
	_, test, _ := strings.Cut(name, ":")
	files, _ := filepath.Glob(filepath.Join(root, c.dir, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "func "+test+"(")
	})
}
