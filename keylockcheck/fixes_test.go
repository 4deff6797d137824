package keylockcheck_test

import (
	"bytes"
	"flag"
	"go/format"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"
)

var update = flag.Bool("update", false, "write the golden file of the fixes")

// The fixes of all rules together give the golden file, which compiles and is clean of
// what was fixed.
func TestSuggestedFixes(t *testing.T) {
	dir, err := filepath.Abs("testdata/src/fixes")
	require.NoError(t, err)
	path := filepath.Join(dir, "fixes.go")
	src, err := os.ReadFile(path)
	require.NoError(t, err)
	pkgs := load(t, packages.Config{}, dir)
	graph, err := checker.Analyze(allRules(), pkgs, nil)
	require.NoError(t, err)
	type edit struct {
		from, to int
		text     []byte
	}
	var edits []edit
	reports, fixed := 0, 0
	for _, act := range graph.Roots {
		require.NoError(t, act.Err)
		for _, d := range act.Diagnostics {
			reports++
			if len(d.SuggestedFixes) == 0 {
				continue
			}
			fixed++
			assert.Len(t, d.SuggestedFixes, 1)
			assert.NotContains(t, []string{"errignored", "afterrelease", "deferloop", "signalctx", "reacquire", "bubble", "orderhint"}, d.Category)
			for _, e := range d.SuggestedFixes[0].TextEdits {
				edits = append(edits, edit{pkgs[0].Fset.Position(e.Pos).Offset, pkgs[0].Fset.Position(e.End).Offset, e.NewText})
			}
		}
	}
	t.Logf("%d of %d reports have a fix", fixed, reports)
	slices.SortFunc(edits, func(a, b edit) int { return b.from - a.from })
	for _, e := range edits {
		src = slices.Concat(src[:e.from], e.text, src[e.to:])
	}
	got, err := format.Source(src)
	require.NoError(t, err)
	golden := path + ".golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))

	cfg := packages.Config{Overlay: map[string][]byte{path: bytes.ReplaceAll(got, []byte("// want"), []byte("//"))}}
	left := findings(t, allRules(), load(t, cfg, dir))
	assert.Len(t, left, reports-fixed)
	for _, f := range left {
		assert.Contains(t, []string{"notDropped", "reservedInLoop", "lostSomewhere", "neverEndedInBranch"}, f.fn, f.String())
	}
}
