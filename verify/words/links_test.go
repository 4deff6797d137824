package words

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
