package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

var bubble = rule("bubble",
	"report managers that are started outside a synctest bubble and used in it, in test files too", runBubble)

func runBubble(p *pass) {
	var bubbles []*ast.FuncLit
	for _, call := range p.calls {
		fn := callee(p.TypesInfo, call)
		if len(call.Args) == 0 || !isFunc(fn, "testing/synctest", "Test", "Run") {
			continue
		}
		if lit := p.literal(call.Args[len(call.Args)-1]); lit != nil {
			bubbles = append(bubbles, lit)
		}
	}
	for v, mentions := range p.mentions {
		k := kindOf(v.Type())
		if len(bubbles) == 0 || k != aManager && k != aSession && k != aGroup && !isSyncLocker(v.Type()) {
			continue
		}
		started := p.startedOutside(v, bubbles)
		if started == nil {
			continue
		}
		for _, b := range bubbles {
			for _, id := range mentions {
				if !contains(b, id) || p.isCompared(id) {
					continue
				}
				what := "manager"
				switch k {
				case aSession:
					what = "session"
				case aGroup:
					what = "group"
				case other:
					what = "Locker"
				}
				p.at(id, fmt.Sprintf("the %s %s is started on line %d, outside the bubble: its use in the bubble ends the test process; "+
					"start it in the function that is given to synctest.Test", what, v.Name(), p.line(started.Pos())),
					analysis.RelatedInformation{Pos: started.Pos(), End: started.End(), Message: "it is started here"},
					analysis.RelatedInformation{Pos: b.Pos(), End: b.Type.End(), Message: "the bubble begins here"})
				break
			}
		}
	}
}

func contains(outer, n ast.Node) bool { return n.Pos() >= outer.Pos() && n.End() <= outer.End() }

// literal returns the function literal that x is, or that a variable always has.
func (m *model) literal(x ast.Expr) *ast.FuncLit {
	x = ast.Unparen(x)
	if id, ok := x.(*ast.Ident); ok {
		x = m.onlyValue(m.variable(id))
	}
	lit, _ := x.(*ast.FuncLit)
	return lit
}

// startedOutside returns the call that starts what a variable has, if it stands outside
// all bubbles, and nothing else is ever assigned to the variable; else nil.
func (p *pass) startedOutside(v *types.Var, bubbles []*ast.FuncLit) (started *ast.CallExpr) {
	for _, id := range p.mentions[v] {
		switch p.useOf(id) {
		case address:
			return nil
		case overwrite:
			parent := p.parent(id)
			call, ok := assigned(parent, id).(*ast.CallExpr)
			if !ok {
				if spec, isSpec := parent.(*ast.ValueSpec); isSpec && len(spec.Values) == 0 {
					continue
				}
				return nil
			}
			if !p.makes(call) {
				return nil
			}
			for _, b := range bubbles {
				if contains(b, call) {
					return nil
				}
			}
			started = call
		}
	}
	return started
}

// makes reports whether a call makes a manager, or a session, a group or a Locker of one.
func (p *pass) makes(call *ast.CallExpr) bool {
	fn := callee(p.TypesInfo, call)
	if fn == nil || known(fn.Pkg()) == "" || fn.Signature().Results().Len() != 1 {
		return false
	}
	switch kindOf(fn.Signature().Results().At(0).Type()) {
	case other:
		return p.makesLocker(call)
	case aManager, aSession:
		return true
	case aGroup:
		return fn.Name() == "Over" || known(fn.Pkg()) == sharePath // others have no manager
	}
	return false
}

func (p *pass) isCompared(id *ast.Ident) bool {
	_, ok := p.parent(id).(*ast.BinaryExpr)
	return ok
}
