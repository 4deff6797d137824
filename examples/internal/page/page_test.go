package page

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failures counts what a check finds wrong.
type failures struct {
	testing.TB
	n int
}

func (f *failures) Helper()               {}
func (f *failures) Errorf(string, ...any) { f.n++ }

func TestCheckFindsCodeAndTestsThatAreNotThere(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(folder, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "sub", "a_test.go"), []byte("x := 1\nfunc TestX(t *testing.T) {}\n"), 0o600))
	t.Chdir(folder)

	for section, wrong := range map[string]int{
		"```go\nx := 1\n```\n`TestX`":                  0,
		"```go\nx := 2\n```\n`TestX`":                  1,
		"```go\nx := 1\n```\n`TestY`":                  1,
		"no code":                                      1,
		"```go\nx := 1\n```\n## next\n```go\ny\n```\n": 0,
	} {
		require.NoError(t, os.WriteFile("page.md", []byte("# Page\n\n## Case: this\n\n"+section), 0o600))
		f := &failures{TB: t}
		Check(f, "page.md", "Case")
		assert.Equal(t, wrong, f.n, section)
	}
}
