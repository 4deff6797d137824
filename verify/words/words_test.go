// Package words checks that every text of the project keeps to the words that it has agreed
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
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// avoided are words that the Go standard library does without, because they make a sentence
// hard to read, and words for which the project has others: handoff, claim, next waiter,
// seeded bug.
var avoided = regexp.MustCompile(`(?i)\b(nobody|somebody|everybody|whoever|whom|for ever|he|him|his` +
	`|hand-?overs?|hand(s|ed|ing)? (it |them |the (key|lock) )?over|tenures?|heirs?|planted bugs?)\b`)

// theUser is a user of Unix, not a word.
var theUser = regexp.MustCompile(`(user |postgres or )nobody|^nobody$`)

// plainEnough are files that are not ours, and the words themselves.
var plainEnough = []string{"etcdlock/testdata/etcd-3.5.txt", "verify/words/words_test.go"}

func TestTextsKeepToTheWords(t *testing.T) {
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir(), d.Name() == ".git", // which is a file in a worktree
			slices.Contains(plainEnough, filepath.ToSlash(name)):
			return nil
		}
		switch filepath.Ext(path) {
		case ".go":
			goFile(t, path)
		case ".md", ".html", ".css", ".js", ".sql", ".lua", ".txt", ".yml", ".sh", ".golden":
			textFile(t, path)
		default:
			return nil
		}
		files++
		return nil
	})
	require.NoError(t, err)
	assert.Greater(t, files, 300, "the whole tree is read")
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
	if word := avoided.FindString(theUser.ReplaceAllString(text, "")); word != "" {
		t.Errorf("%s: another word for %q: %s", where, word, text)
	}
}

var (
	codeBlock = regexp.MustCompile("(?s)```.*?```")
	link      = regexp.MustCompile(`(?:\]\(|src="|srcset="|href=")([^)"\s]+)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	absolute  = regexp.MustCompile(`^[a-z]+:`)
	noAnchor  = regexp.MustCompile(`[^\w\- ]`)
)

// TestLinksLeadSomewhere follows each link from a page to a file, or to a heading.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	err := filepath.WalkDir(root, func(page string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(page) != ".md" {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(prose(t, page), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if absolute.MatchString(target) {
				continue
			}
			links++
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, found[1])
			} else if anchor != "" && filepath.Ext(file) == ".md" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s: the link %s leads to no heading", page, found[1])
			}
		}
		return nil
	})
	require.NoError(t, err)
	assert.Greater(t, links, 100)
}

// prose returns a page without its code.
func prose(t *testing.T, page string) string {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	return codeBlock.ReplaceAllString(string(text), "")
}

// anchors returns the names that GitHub gives to the headings of a page.
func anchors(t *testing.T, page string) (names []string) {
	for _, found := range heading.FindAllStringSubmatch(prose(t, page), -1) {
		name := noAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(found[1])), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}
