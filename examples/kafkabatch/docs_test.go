package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The pages show code that is compiled here, and name tests that exist.
func TestPagesShowThisPackage(t *testing.T) {
	source := read(t, "*.go")
	for page, heading := range map[string]string{
		"../../docs/USE_CASES.md": "Kafka",
		"../README.md":            "kafkabatch",
	} {
		_, section, found := strings.Cut(read(t, page), "\n## "+heading)
		require.True(t, found, page)
		section, _, _ = strings.Cut(section, "\n## ")

		snippets := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(section, -1)
		assert.NotEmpty(t, snippets, page)
		for _, snippet := range snippets {
			assert.Contains(t, source, snippet[1], page)
		}
		for _, test := range regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(section, -1) {
			assert.Contains(t, source, "func "+test[1]+"(t *testing.T)", page)
		}
	}
}

// read returns the text of all files that match the pattern.
func read(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		all.Write(text)
	}
	return all.String()
}
