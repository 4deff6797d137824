package keylockcheck_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

// Of the two examples of each rule in the README, the first is reported by that rule and
// the second by none.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	sections := strings.Split(string(readme), "\n### ")[1:]
	require.Len(t, sections, len(allRules()))
	dir, err := filepath.Abs("testdata/correct")
	require.NoError(t, err)
	var source strings.Builder
	source.WriteString(readmeHead)
	for _, section := range sections {
		rule, text, _ := strings.Cut(section, "\n")
		blocks := strings.Split(text, "```go\n")[1:]
		require.Len(t, blocks, 2, rule)
		for i, name := range []string{"reported_", "right_"} {
			code, _, _ := strings.Cut(blocks[i], "```")
			fmt.Fprintf(&source, readmeFunc, name+rule, code)
		}
	}
	overlay := map[string][]byte{filepath.Join(dir, "correct.go"): []byte(source.String())}
	for _, other := range []string{"before.go", "after.go", "unseen.go", "traps.go"} {
		overlay[filepath.Join(dir, other)] = []byte("package correct")
	}
	rules := make(map[string][]string)
	for _, f := range findings(t, allRules(), load(t, packages.Config{Overlay: overlay}, "./testdata/correct")) {
		rules[f.fn] = append(rules[f.fn], f.rule)
	}
	for _, a := range allRules() {
		assert.Contains(t, rules["reported_"+a.Name], a.Name)
		assert.Empty(t, rules["right_"+a.Name], a.Name)
	}
}

const readmeHead = `package correct

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/seed-46f81e6d/keylock"
)

var _, _, _, _ = errors.New, os.Exit, signal.Notify, synctest.Wait
`

const readmeFunc = `
func %s(ctx context.Context, locks *keylock.Manager[string], users []string, refuse bool, t *testing.T, work *sync.WaitGroup, balance map[string]int) error {
	{
%s
	}
	return nil
}
`
