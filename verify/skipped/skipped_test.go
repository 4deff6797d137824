package skipped

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A pattern that matches no test any more would leave out nothing, or hide that a test was
// renamed.
func TestEachPatternMatchesATest(t *testing.T) {
	var names []string
	for _, folder := range []string{"../..", "../../internal/table"} {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				names = append(names, name[1])
			}
		}
	}
	require.NotEmpty(t, names)
	for _, pattern := range strings.Split(strings.Join([]string{Sources, Slow, Explorer}, "|"), "|") {
		matches := false
		for _, name := range names {
			matches = matches || regexp.MustCompile(pattern).MatchString(name)
		}
		assert.True(t, matches, "no test matches %s", pattern)
	}
}
