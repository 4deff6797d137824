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
	for _, section := range sections {
		rule, text, _ := strings.Cut(section, "\n")
		t.Run(rule, func(t *testing.T) {
			blocks := strings.Split(text, "```go\n")[1:]
			require.Len(t, blocks, 2)
			for i, block := range blocks {
				code, _, _ := strings.Cut(block, "```")
				source := fmt.Sprintf(readmeFile, code)
				cfg := packages.Config{Overlay: map[string][]byte{filepath.Join(dir, "correct.go"): []byte(source)}}
				for _, other := range []string{"before.go", "after.go", "traps.go"} {
					cfg.Overlay[filepath.Join(dir, other)] = []byte("package correct")
				}
				var rules []string
				for _, f := range findings(t, allRules(), load(t, cfg, "./testdata/correct")) {
					rules = append(rules, f.rule)
				}
				if i == 0 {
					assert.Contains(t, rules, rule, code)
				} else {
					assert.Empty(t, rules, code)
				}
			}
		})
	}
}

const readmeFile = `package correct

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

func example(ctx context.Context, locks *keylock.Manager[string], users []string, refuse bool, t *testing.T, work *sync.WaitGroup, balance map[string]int) error {
	_, _, _, _ = errors.New, os.Exit, signal.Notify, synctest.Wait
	{
%s
	}
	return nil
}
`
