package keylockcheck_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"github.com/seed-46f81e6d/keylock/keylockcheck"
	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/wrong"
)

func allRules() []*analysis.Analyzer {
	return append(keylockcheck.Analyzers(), keylockcheck.OrderHint)
}

// A finding is a report and the declared function in which it stands.
type finding struct {
	rule, fn, message string
	at                token.Position
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", filepath.Base(f.at.Filename), f.at.Line, f.fn, f.rule, f.message)
}

// load loads packages with what their analysis needs.
func load(t testing.TB, cfg packages.Config, patterns ...string) []*packages.Package {
	t.Helper()
	cfg.Mode = packages.LoadAllSyntax | packages.NeedModule
	pkgs, err := packages.Load(&cfg, patterns...)
	require.NoError(t, err)
	require.NotEmpty(t, pkgs)
	return pkgs
}

// findings runs the rules on packages, whose errors fail the test.
func findings(t testing.TB, rules []*analysis.Analyzer, pkgs []*packages.Package) []finding {
	t.Helper()
	for _, pkg := range pkgs {
		require.Empty(t, pkg.Errors)
	}
	graph, err := checker.Analyze(rules, pkgs, nil)
	require.NoError(t, err)
	var all []finding
	seen := make(map[finding]bool)
	for _, act := range graph.Roots {
		require.NoError(t, act.Err)
		for _, d := range act.Diagnostics {
			f := finding{act.Analyzer.Name, "", d.Message, act.Package.Fset.Position(d.Pos)}
			for _, file := range act.Package.Syntax {
				for _, decl := range file.Decls {
					if decl.Pos() <= d.Pos && d.Pos < decl.End() {
						f.fn = nameOf(decl)
					}
				}
			}
			if !seen[f] {
				seen[f] = true
				all = append(all, f)
			}
		}
	}
	slices.SortFunc(all, func(a, b finding) int { return a.at.Offset - b.at.Offset })
	return all
}

func nameOf(decl ast.Decl) string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		return decl.Name.Name
	case *ast.GenDecl:
		if spec, ok := decl.Specs[0].(*ast.ValueSpec); ok {
			return spec.Names[0].Name
		}
	}
	return ""
}

func TestNoCorrectFunctionIsReported(t *testing.T) {
	for _, f := range findings(t, allRules(), load(t, packages.Config{}, "./testdata/correct")) {
		t.Error(f)
	}
}

func TestEveryWrongFunctionIsReported(t *testing.T) {
	reported := make(map[string][]finding)
	for _, f := range findings(t, allRules(), load(t, packages.Config{}, "./testdata/wrong")) {
		t.Log(f)
		reported[f.fn] = append(reported[f.fn], f)
	}
	cases := joined(wrongCases(), wrong.Outside)
	for name, c := range cases {
		if !assert.NotEmpty(t, reported[name], "%s is not reported", name) {
			continue
		}
		for _, f := range reported[name] {
			assert.Equal(t, c.Rule, f.rule, "rule that reports %s", name)
		}
	}
	for name := range reported {
		assert.Contains(t, cases, name, "%s is reported", name)
	}
}
