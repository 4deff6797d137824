// Package page checks that a page of documentation shows what a program's source says.
package page

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	snippet  = regexp.MustCompile("(?s)```go\n(.*?)```")
	testName = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
)

// Check fails the test unless the page has a section whose heading begins with the given words,
// with Go code that the folder of the test, or one in it, has word by word, and every test that the
// section names is there.
func Check(t testing.TB, page, heading string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## "+heading)
	require.True(t, found, "%s has no section %q", page, heading)
	section, _, _ = strings.Cut(section, "\n## ")

	code := source(t)
	snippets := snippet.FindAllStringSubmatch(section, -1)
	assert.NotEmpty(t, snippets, page)
	for _, s := range snippets {
		assert.Contains(t, code, s[1], page)
	}
	for _, name := range testName.FindAllStringSubmatch(section, -1) {
		assert.Contains(t, code, "func "+name[1]+"(t *testing.T)", page)
	}
}

// source returns the text of all Go files in this folder and those in it.
func source(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".go" {
			return err
		}
		text, err := os.ReadFile(name)
		all.Write(text)
		return err
	})
	require.NoError(t, err)
	return all.String()
}
