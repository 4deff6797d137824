package golangci

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/golangci/plugin-module-register/register"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"
)

// build returns the analyzers for settings, as golangci-lint asks for them.
func build(t *testing.T, settings any) []*analysis.Analyzer {
	t.Helper()
	create, err := register.GetPlugin("keylockcheck")
	require.NoError(t, err)
	linter, err := create(settings)
	require.NoError(t, err)
	assert.Equal(t, register.LoadModeTypesInfo, linter.GetLoadMode())
	analyzers, err := linter.BuildAnalyzers()
	require.NoError(t, err)
	require.NoError(t, analysis.Validate(analyzers))
	return analyzers
}

func names(analyzers []*analysis.Analyzer) (all []string) {
	for _, a := range analyzers {
		all = append(all, a.Name)
	}
	return all
}

func TestWithoutSettingsTheDefaultRulesAreOn(t *testing.T) {
	all := names(build(t, nil))
	assert.Len(t, all, 10)
	assert.NotContains(t, all, "orderhint")
}

func TestSettingsSwitchRules(t *testing.T) {
	all := names(build(t, map[string]any{"rules": map[string]any{"orderhint": true, "lostpath": false, "dropped": true}}))
	assert.Len(t, all, 10)
	assert.Contains(t, all, "orderhint")
	assert.Contains(t, all, "dropped")
	assert.NotContains(t, all, "lostpath")
}

func TestWrongSettingsAreErrors(t *testing.T) {
	_, err := New(map[string]any{"rules": map[string]any{"lostpaths": true, "drop": false}})
	assert.EqualError(t, err, `keylockcheck: there are no rules ["drop" "lostpaths"]`)
	_, err = New(map[string]any{"rule": map[string]any{}})
	assert.ErrorContains(t, err, "rule")
}

func TestSettingsIncludeTestFiles(t *testing.T) {
	pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadAllSyntax, Tests: true}, "../testdata/src/dropped")
	require.NoError(t, err)
	reported := func(settings any) bool {
		graph, err := checker.Analyze(build(t, settings), pkgs, nil)
		require.NoError(t, err)
		return slices.ContainsFunc(graph.Roots, func(act *checker.Action) bool {
			require.NoError(t, act.Err)
			return slices.ContainsFunc(act.Diagnostics, func(d analysis.Diagnostic) bool {
				assert.Equal(t, act.Analyzer.Name, d.Category)
				return filepath.Base(act.Package.Fset.Position(d.Pos).Filename) == "dropped_test.go"
			})
		})
	}
	assert.False(t, reported(nil))
	assert.True(t, reported(map[string]any{"tests": true}))
	assert.False(t, reported(map[string]any{"tests": false}))
}
