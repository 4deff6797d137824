package keylockcheck

import (
	"fmt"
	"go/ast"
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
	switch kindOf(p.TypesInfo.TypeOf(recv)) {
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
// again after the defer statement: there is a path back to it.
func (p *pass) leadsBack(stmt *ast.DeferStmt, s *source) bool {
	from, to := blockWith(s.fn.graph, stmt), blockWith(s.fn.graph, s.stmt)
	if from == nil || to == nil {
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
			if q.ends(n) {
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
