package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/cfg"
)

var deferLoop = rule("deferloop",
	"report locks that a loop acquires and only the end of the function releases", runDeferLoop)

func runDeferLoop(p *pass) {
	for _, s := range p.sources {
		if s.kind != aLock || s.lock == nil || s.shared || s.fn.graph == nil || p.inSession(s) || p.isDowngraded(s) {
			continue
		}
		if l := p.lockers[s.lock]; l != nil && l.often {
			continue // the Unlock may be for the Lock before the loop
		}
		for _, id := range p.mentions[s.lock] {
			stmt := p.deferredRelease(id, s)
			if stmt == nil || !p.leadsBack(stmt, s) {
				continue
			}
			p.report(analysis.Diagnostic{
				Pos: stmt.Pos(), End: stmt.End(),
				Message: fmt.Sprintf("the lock of %s on line %d is released only when the function returns, and the loop goes on to acquire the next: "+
					"release it in the loop, or move its body into a function", p.short(s.call.Fun), p.line(s.call.Pos())),
				Related: []analysis.RelatedInformation{{Pos: s.call.Pos(), End: s.call.End(), Message: "the lock is taken here"}},
			})
			break
		}
	}
}

// inSession reports whether a session may have asked: it may wait while it holds, so to
// hold one key more each round is what it is for.
func (p *pass) inSession(s *source) bool {
	recv := receiver(s.call)
	if recv == nil {
		return p.sessions
	}
	switch p.ownerOf(s.callee) {
	case aSession:
		return true
	case aManager:
		return false
	}
	return p.sessions && p.lockers[s.lock] == nil
}

// isDowngraded reports whether the lock is made a shared one somewhere.
func (p *pass) isDowngraded(s *source) bool {
	return slices.ContainsFunc(p.mentions[s.lock], p.downgrades)
}

// downgrades reports whether a mention of a lock is one in lock.Downgrade().
func (m *model) downgrades(id *ast.Ident) bool {
	call := m.receivedBy(id)
	return call != nil && methodName(call) == "Downgrade"
}

// deferredRelease returns the statement that defers the release of a lock by this mention:
// defer lock.Release(), or the same in a literal.
func (p *pass) deferredRelease(id *ast.Ident, s *source) *ast.DeferStmt {
	if p.useOf(id) != releases {
		return nil
	}
	if lit, captured := p.captured(id, s.fn); captured {
		if !p.deferredLiteral(lit) {
			return nil
		}
		stmt, _ := p.parent(p.parent(lit)).(*ast.DeferStmt)
		return stmt
	}
	stmt, _ := p.parent(p.receivedBy(id)).(*ast.DeferStmt)
	return stmt
}

// leadsBack reports whether the source of the deferred lock is certain to be able to run
// again after the defer statement: there is a path back to it, on which the lock is not released.
func (p *pass) leadsBack(stmt *ast.DeferStmt, s *source) bool {
	from, to := blockWith(s.fn.graph, stmt), blockWith(s.fn.graph, s.stmt)
	if from == nil || to == nil || stmt.Pos() < s.stmt.Pos() {
		return false
	}
	q := &search{model: p.model, s: s, fn: s.fn, literals: make(map[*ast.Ident]*ast.FuncLit)}
	first := &step{block: from, from: indexIn(from, stmt) + 1, has: true, live: s.fail != nil}
	queue := []*step{first}
	seen := make(map[string]bool)
	for i := 0; i < len(queue) && i < maxStates; i++ {
		at := queue[i]
		assumed, ended := at.assumed, false
		for j, n := range at.block.Nodes {
			if j < at.from {
				continue
			}
			if n == s.stmt {
				return true
			}
			if q.ends(n) || p.disposes(n, s) {
				ended = true
				break
			}
			assumed = q.after(s.fn, assumed, n)
		}
		if ended {
			continue
		}
		for j, succ := range at.block.Succs {
			for _, next := range q.follow(at, j, succ, true, false, assumed) {
				key := fmt.Sprint(next.block.Index, " ", next.assumed)
				if !seen[key] {
					seen[key] = true
					queue = append(queue, next)
				}
			}
		}
	}
	return false
}

// disposes reports whether a node takes care of the lock of s.
func (p *pass) disposes(n ast.Node, s *source) bool {
	from, to := span(n)
	for _, id := range p.mentions[s.lock] {
		if u := p.useOf(id); (u == releases || u == escapes) && id.Pos() >= from && id.Pos() < to {
			return true
		}
	}
	return false
}

func blockWith(graph *cfg.CFG, n ast.Node) *cfg.Block {
	for _, b := range graph.Blocks {
		if b.Live && indexIn(b, n) >= 0 {
			return b
		}
	}
	return nil
}

func indexIn(b *cfg.Block, n ast.Node) int {
	for i, other := range b.Nodes {
		if other == n {
			return i
		}
	}
	return -1
}

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
