package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis"
)

func runOrderHint(p *pass) {
	for _, call := range p.calls {
		w, ok := p.wantOf(call)
		if !ok || !w.waits || w.reserved {
			continue
		}
		lit, started, args := p.goroutineOf(call)
		if lit == nil {
			continue
		}
		loop, own := p.loopAround(started)
		if loop == nil {
			continue
		}
		for i, param := range params(lit) {
			if i < len(args) && p.mentionsAny(args[i], own) {
				if v := p.variable(param); v != nil {
					own[v] = true
				}
			}
		}
		for _, key := range w.keys {
			if !p.mentionsAny(key.x, own) {
				continue
			}
			p.at(call, fmt.Sprintf("the goroutines of the loop on line %d lock in any order: "+
				"where the order matters, call Reserve in the loop and Wait in the goroutine", p.line(loop.Pos())),
				analysis.RelatedInformation{Pos: started.Pos(), Message: "the goroutine is started here"})
			break
		}
	}
}

// goroutineOf returns the literal around a call that runs on a goroutine of its own, the
// statement that starts it, and the arguments it gets.
func (p *pass) goroutineOf(call *ast.CallExpr) (lit *ast.FuncLit, started ast.Node, args []ast.Expr) {
	for fn := p.within(call); fn != nil; fn = fn.outer {
		l, ok := fn.node.(*ast.FuncLit)
		if !ok {
			return nil, nil, nil
		}
		outer, ok := p.parent(l).(*ast.CallExpr)
		if !ok {
			return nil, nil, nil
		}
		if ast.Unparen(outer.Fun) == l {
			if _, isGo := p.parent(outer).(*ast.GoStmt); isGo {
				return l, outer, outer.Args
			}
			continue // called on the spot
		}
		callee := callee(p.TypesInfo, outer)
		if callee != nil && callee.Name() == "Go" && callee.Signature().Recv() != nil && known(callee.Pkg()) == "" {
			return l, outer, nil
		}
	}
	return nil, nil, nil
}

// loopAround returns the loop in which a statement stands, and the variables that are new
// in each of its rounds.
func (p *pass) loopAround(n ast.Node) (loop ast.Node, own map[*types.Var]bool) {
	for at := p.parents[n]; at != nil; at = p.parents[at] {
		switch at.(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			return nil, nil
		case *ast.ForStmt, *ast.RangeStmt:
			own = make(map[*types.Var]bool)
			ast.Inspect(at, func(inside ast.Node) bool {
				if inside == nil || inside.Pos() >= n.Pos() && inside != at {
					return false
				}
				if id, ok := inside.(*ast.Ident); ok {
					if v, ok := p.TypesInfo.Defs[id].(*types.Var); ok {
						own[v] = true
					}
				}
				return true
			})
			return at, own
		}
	}
	return nil, nil
}

func params(lit *ast.FuncLit) []*ast.Ident {
	var all []*ast.Ident
	for _, field := range lit.Type.Params.List {
		all = append(all, field.Names...)
	}
	return all
}

// mentionsAny reports whether an expression uses one of the variables.
func (p *pass) mentionsAny(x ast.Expr, vars map[*types.Var]bool) bool {
	found := false
	ast.Inspect(x, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && vars[p.variable(id)] {
			found = true
		}
		return !found
	})
	return found
}
