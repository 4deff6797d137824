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

	"github.com/seed-46f81e6d/keylock/verify/skipped"
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

// Each bug is in one part of those that the command is split into, and a name that is none is an error.
func TestBugsAreChosen(t *testing.T) {
	whole := skipped.Part{Every: 1}
	bugs := []bug{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}}
	chosen := func(c config) (names string) {
		bugs, err := c.choose(bugs)
		require.NoError(t, err)
		for _, b := range bugs {
			names += b.name
		}
		return names
	}
	assert.Equal(t, "abcde", chosen(config{part: whole}))
	assert.Equal(t, "ad", chosen(config{part: skipped.Part{Every: 3}}))
	assert.Equal(t, "be", chosen(config{part: skipped.Part{Every: 3, Start: 1}}))
	assert.Equal(t, "c", chosen(config{part: skipped.Part{Every: 3, Start: 2}}))
	assert.Equal(t, "bd", chosen(config{part: whole, names: []string{"d", "b"}}))
	for _, c := range []config{{}, {part: skipped.Part{Every: 3, Start: 3}}, {part: skipped.Part{Every: 3, Start: -1}}, {part: whole, names: []string{"f"}}} {
		_, err := c.choose(bugs)
		assert.Error(t, err, "%+v", c)
	}
}

// A bug that does not compile is not there, so no check has seen it.
func TestBugThatDoesNotBuildIsNotSeen(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "share"), 0o700))
	for name, text := range map[string]string{
		"go.mod":              "module rotten\n\ngo 1.26\n",
		"share/share.go":      "package share\n\nfunc one() int { return 1 }\n",
		"share/share_test.go": "package share\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) { _ = one() }\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	b := bug{name: "rotten", first: []string{"share"}, edits: []edit{{"share/share.go", "return 1", "return gone()"}}}
	red, err := b.run(root, false)
	assert.ErrorContains(t, err, "share does not build, so the bug must be written anew")
	assert.Empty(t, red)
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
