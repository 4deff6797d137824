//go:build go1.26

package keylock_test

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is dropped without being closed is found by the runtime. The profile is general since
// Go 1.27; in 1.26 it is an experiment, of the runtime that a program is built with.
func TestLeakProfileReportsWhatIsDropped(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "run", "./testdata/leaks")
	command.Env = os.Environ()
	if strings.HasPrefix(runtime.Version(), "go1.26") {
		command.Env = append(command.Env, "GOEXPERIMENT=goroutineleakprofile")
	}
	text, err := command.CombinedOutput()
	require.NoError(t, err, "%s", text)
	profile := string(text)

	assert.Contains(t, profile, "total 4\n")
	for _, leaked := range []string{
		"keylock.(*owner[...]).run+",       // the manager
		"main.waitForOrder+",               // a request that waits for a key of it
		"inorder.(*Group[...]).Wait+",      // a caller that waits for the group
		"inorder.(*scheduler[...]).work+",  // the group's goroutine
		"main.dropGroup.func1+",            // in work that waits for what never comes
		"keylock.(*Manager[...]).Acquire+", // each with the line of code
	} {
		assert.Equal(t, 1, strings.Count(profile, leaked), "%s in\n%s", leaked, profile)
	}
	page, err := os.ReadFile("docs/OBSERVING.md")
	require.NoError(t, err)
	shown := regexp.MustCompile(`(?m)^#\t(\S+) `).FindAllStringSubmatch(string(page), -1)
	assert.Len(t, shown, 12)
	for _, function := range shown {
		assert.Contains(t, profile, function[1]+"+", "docs/OBSERVING.md shows it")
	}
	assert.NotContains(t, profile, "waitUsed", "it waits for a lock of a manager that is in use")
}
