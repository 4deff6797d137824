// Package golangci makes the rules of keylockcheck a module plugin for golangci-lint; the
// README shows how to build and configure it.
package golangci

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/golangci/plugin-module-register/register"
	"golang.org/x/tools/go/analysis"

	"github.com/seed-46f81e6d/keylock/keylockcheck"
)

func init() { register.Plugin("keylockcheck", New) }

// Settings are what stands below linters.settings.custom.keylockcheck.settings in the
// configuration of golangci-lint.
type Settings struct {
	Rules map[string]bool `json:"rules"` // switches rules on and off by their names
	Tests bool            `json:"tests"` // all rules look at test files too
}

// New returns the plugin for settings as golangci-lint decodes them; a setting or a rule
// that does not exist is an error.
func New(settings any) (register.LinterPlugin, error) {
	s, err := register.DecodeSettings[Settings](settings)
	if err != nil {
		return nil, err
	}
	p := &plugin{tests: s.Tests}
	known := make(map[string]bool)
	for _, a := range keylockcheck.Analyzers() {
		known[a.Name] = true
		if on, said := s.Rules[a.Name]; on || !said {
			p.analyzers = append(p.analyzers, a)
		}
	}
	known[keylockcheck.OrderHint.Name] = true
	if s.Rules[keylockcheck.OrderHint.Name] {
		p.analyzers = append(p.analyzers, keylockcheck.OrderHint)
	}
	var unknown []string
	for name := range s.Rules {
		if !known[name] {
			unknown = append(unknown, strconv.Quote(name))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("keylockcheck: there are no rules %v", unknown)
	}
	return p, nil
}

type plugin struct {
	analyzers []*analysis.Analyzer
	tests     bool
}

// BuildAnalyzers implements register.LinterPlugin.
func (p *plugin) BuildAnalyzers() ([]*analysis.Analyzer, error) {
	for _, a := range p.analyzers {
		tests := a.Flags.Lookup("tests")
		if err := tests.Value.Set(strconv.FormatBool(p.tests || tests.DefValue == "true")); err != nil {
			return nil, err
		}
	}
	return p.analyzers, nil
}

// GetLoadMode implements register.LinterPlugin: the rules need types.
func (p *plugin) GetLoadMode() string { return register.LoadModeTypesInfo }
