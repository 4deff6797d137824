package keylockcheck_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis/analysistest"
)

// Facts about functions of one package are used in another, which does not import keylock.
func TestFacts(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	for _, a := range allRules() {
		if a.Name == "lostpath" {
			analysistest.Run(t, root, a, "./keylockcheck/testdata/facts/user")
			analysistest.Run(t, root, a.Requires[0], "./keylockcheck/testdata/facts/helpers")
		}
	}
}

var reportLine = regexp.MustCompile(`(?m)^(?:\S*/)?(user\.go:\d+:\d+: \w.*)$`)

// The command reports the same on its own and under go vet.
func TestDriversAgree(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "keylockcheck")
	out, err := exec.Command("go", "build", "-o", tool, "./cmd/keylockcheck").CombinedOutput()
	require.NoError(t, err, "%s", out)
	reports := func(name string, args ...string) (lines []string) {
		cmd := exec.Command(name, args...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out) // there are reports
		for _, m := range reportLine.FindAllStringSubmatch(string(out), -1) {
			lines = append(lines, m[1])
		}
		slices.Sort(lines)
		return slices.Compact(lines)
	}
	alone := reports(tool, "./testdata/facts/user")
	assert.Len(t, alone, 3)
	assert.Equal(t, alone, reports("go", "vet", "-vettool="+tool, "./testdata/facts/user"))

	// With the name of a rule only that one runs; orderhint is off unless it is named.
	only := reports(tool, "-reservation", "./testdata/facts/user")
	assert.Len(t, only, 1)
	out, err = exec.Command(tool, "./testdata/src/orderhint").CombinedOutput()
	assert.NoError(t, err, "%s", out)
	out, err = exec.Command(tool, "-orderhint", "./testdata/src/orderhint").CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "lock in any order")
	out, err = exec.Command("go", "vet", "-vettool="+tool, "-orderhint", "./testdata/src/orderhint").CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "lock in any order")
}
