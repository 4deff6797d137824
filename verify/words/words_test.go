// Package words checks that what users read keeps to the words that the project has agreed
// on.
package words

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// avoided are words that the Go standard library does without: they make a sentence hard
// to read.
var avoided = regexp.MustCompile(`(?i)\b(nobody|somebody|everybody|whoever|whom|for ever|he|him|his)\b`)

// folders are the packages that users import, and others that have been gone through.
var folders = []string{
	"benchmarks", "e2e", "examples", "verify",
	".", "cohort", "inorder", "share", "lockhttp", "prom", "otelkeylock", "etcdlock", "redislock", "pglock", "keylockcheck",
}

func TestDocumentationIsPlain(t *testing.T) {
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			switch {
			case os.IsNotExist(err):
				return nil // a package that is not built yet
			case err != nil:
				return err
			case d.IsDir() && folder == "." && path != root, d.Name() == "testdata", d.Name() == "internal" && folder != "benchmarks":
				return filepath.SkipDir // the root's own files only
			case strings.HasSuffix(path, "_test.go") && folder == "." && !strings.HasPrefix(d.Name(), "example"), d.Name() == "words_test.go":
				return nil // tests of the core, and the words themselves
			case strings.HasSuffix(path, ".go"):
				goFile(t, path)
			case strings.HasSuffix(path, ".md"), strings.HasSuffix(path, ".html"), strings.HasSuffix(path, ".sql"):
				textFile(t, path)
			}
			return nil
		})
		require.NoError(t, err)
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	for _, document := range append(documents, filepath.Join(root, "examples", "README.md")) {
		textFile(t, document)
	}
}

// goFile checks the comments and the strings of a file.
func goFile(t *testing.T, path string) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
	require.NoError(t, err)
	for _, group := range file.Comments {
		for _, comment := range group.List {
			plain(t, files.Position(comment.Pos()).String(), comment.Text)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				plain(t, files.Position(literal.Pos()).String(), text)
			}
		}
		return true
	})
}

func textFile(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for i, line := range strings.Split(string(text), "\n") {
		plain(t, path+":"+strconv.Itoa(i+1), line)
	}
}

func plain(t *testing.T, where, text string) {
	assert.NotRegexp(t, avoided, text, where)
}
