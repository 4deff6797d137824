package keylock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every Go snippet of these documents is a piece of an example that is compiled and run;
// the whole program in the README is run by verify/fetch.
func TestReadmeSnippetsAreCompiledExamples(t *testing.T) {
	files, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	files = append(files, filepath.Join("cohort", "example_recipes_test.go"))
	var examples strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		examples.WriteString(unindented(string(text)))
	}

	for _, document := range []string{"README.md", "docs/MIGRATING.md", "docs/RECIPES.md"} {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		snippets := strings.Split(string(text), "```go\n")[1:]
		require.NotEmpty(t, snippets)
		for _, snippet := range snippets {
			snippet, _, _ = strings.Cut(snippet, "```")
			if !strings.HasPrefix(snippet, "package main\n") && !usesAnother(snippet) {
				assert.Contains(t, examples.String(), unindented(snippet), document)
			}
		}
	}
}

// usesAnother reports whether a snippet shows the calls of a library that is not required
// here.
func usesAnother(snippet string) bool {
	for _, call := range []string{"byName.Lock(", "hashed.LockKey(", "flight.Do(", "semaphoreOf("} {
		if strings.Contains(snippet, call) {
			return true
		}
	}
	return false
}

// Each way over ends in lines of Go that are compiled and run.
func TestEverySectionOfMigratingHasItsLines(t *testing.T) {
	text, err := os.ReadFile("docs/MIGRATING.md")
	require.NoError(t, err)
	sections := strings.Split(string(text), "\n## ")[1:]
	require.Len(t, sections, 11)
	for _, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		snippets := strings.Split(section, "```go\n")
		last, _, _ := strings.Cut(snippets[len(snippets)-1], "```")
		assert.True(t, len(snippets) > 1 && !usesAnother(last), title)
	}
}

func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
