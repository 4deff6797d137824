// Package keylockcheck finds misuse of package keylock, of its sessions and Lockers, and of the
// packages cohort, inorder and share, before the code runs: locks and reservations that are
// dropped or lost on some path, and calls that cannot do what they seem to.
//
// Each rule is an analyzer for [golang.org/x/tools/go/analysis]. The command
// keylockcheck runs them on their own or under go vet; the module keylockcheck/golangci
// is a plugin for golangci-lint. The README shows an example of each rule.
//
// What an analyzer does not understand it does not report: a lock that is passed on,
// stored, copied, or captured by a function literal counts as taken care of, unless it is
// passed to a function that only looks at it or prints it. Facts about
// functions of other packages only add knowledge, so that a driver without facts reports
// less and nothing wrong.
//
// A comment //keylock:held, with the reason after it, beside a call or on a line of its own before
// the statement says that the lock or reservation is left on purpose.
//
// Test files are left out unless the flag tests of a rule is set, because tests leave
// locks held on purpose. Only bubble looks at them always.
package keylockcheck

import (
	"flag"
	"go/ast"
	"go/token"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/analysis/passes/inspect"
)

// Analyzers returns the rules that are on by default: all but [OrderHint].
func Analyzers() []*analysis.Analyzer {
	return []*analysis.Analyzer{
		dropped, reservation, lostPath, errIgnored, afterRelease, deferLoop,
		neverEnded, signalCtx, reacquire, bubble,
	}
}

// OrderHint reports locks that goroutines of a loop acquire for themselves, each for an
// element of the loop: the goroutines then lock in any order. It is a hint, because the
// order need not matter.
var OrderHint = rule("orderhint",
	"report goroutines of a loop that acquire the key of their element, in no particular order", runOrderHint)

// rule returns the analyzer of one rule.
func rule(name, doc string, run func(*pass)) *analysis.Analyzer {
	a := &analysis.Analyzer{
		Name:     name,
		Doc:      doc,
		URL:      "https://pkg.go.dev/github.com/seed-46f81e6d/keylock/keylockcheck#readme-" + name,
		Requires: []*analysis.Analyzer{grants},
		Flags:    *flag.NewFlagSet(name, flag.ExitOnError),
	}
	tests := a.Flags.Bool("tests", name == "bubble", "look at test files too")
	a.Run = func(p *analysis.Pass) (any, error) {
		if model := p.ResultOf[grants].(*model); model != nil {
			run(&pass{p, model, *tests})
		}
		return nil, nil
	}
	return a
}

// A pass is the run of a rule on a package.
type pass struct {
	*analysis.Pass
	*model
	tests bool
}

// report reports d unless it is in a test file that the rule leaves out.
func (p *pass) report(d analysis.Diagnostic) {
	if !p.tests && strings.HasSuffix(p.Fset.Position(d.Pos).Filename, "_test.go") {
		return
	}
	d.Category = p.Analyzer.Name
	d.URL = p.Analyzer.URL
	p.Report(d)
}

// at reports at a node.
func (p *pass) at(n ast.Node, message string, related ...analysis.RelatedInformation) {
	p.report(analysis.Diagnostic{Pos: n.Pos(), End: n.End(), Message: message, Related: related})
}

// line returns the line of a position, as the user sees it.
func (m *model) line(pos token.Pos) int { return m.Fset.Position(pos).Line }

// grants finds out, without reporting anything, what the rules share: which calls return
// a lock or a reservation, where it goes, and what functions do with what they are given.
var grants = &analysis.Analyzer{
	Name:       "keylockgrants",
	Doc:        "find calls that return locks, for the rules of keylockcheck",
	Requires:   []*analysis.Analyzer{inspect.Analyzer, ctrlflow.Analyzer},
	FactTypes:  []analysis.Fact{new(borrows), new(returnsFresh), new(speaksKeylock)},
	ResultType: modelType,
	Run:        runGrants,
}
