package keylockcheck

import (
	"fmt"
	"go/ast"
)

var errIgnored = rule("errignored",
	"report work that goes on without the lock when acquiring it failed, because the error is ignored", runErrIgnored)

func runErrIgnored(p *pass) {
	for _, s := range p.sources {
		if s.kind != aLock || !s.noFail || s.lock == nil || !p.worksBeside(s) {
			continue
		}
		what := "error"
		if isBool(s.callee.Signature().Results().At(failIndex(s.callee.Signature().Results())).Type()) {
			what = "bool"
		}
		p.at(s.call, fmt.Sprintf("the %s of %s on line %d is ignored: when it fails, what follows runs without the lock",
			what, p.short(s.call.Fun), p.line(s.call.Pos())))
	}
}

// worksBeside reports whether something happens between the source and the release, and
// nothing asks whether there is a lock.
func (p *pass) worksBeside(s *source) bool {
	for _, id := range p.mentions[s.lock] {
		if p.parent(id) == s.stmt {
			continue
		}
		switch p.useOf(id) {
		case looks:
			if p.asks(id) {
				return false
			}
		case releases:
		default:
			return false // it may be asked elsewhere
		}
	}
	if next, ok := p.next(s.stmt).(*ast.ExprStmt); ok {
		if call, ok := ast.Unparen(next.X).(*ast.CallExpr); ok {
			if recv := receiver(call); recv != nil && p.is(recv, s.lock) {
				return false // released at once: there is nothing between
			}
		}
	}
	return true
}

// asks reports whether a mention is part of a condition, or of what is returned or
// assigned, so that the zero lock may be noticed.
func (m *model) asks(id *ast.Ident) bool {
	for n := m.parents[id]; n != nil; n = m.parents[n] {
		switch n.(type) {
		case *ast.BinaryExpr, *ast.ReturnStmt, *ast.AssignStmt, *ast.ValueSpec, *ast.SwitchStmt, *ast.IfStmt, *ast.ForStmt:
			return true
		case *ast.FuncLit, *ast.BlockStmt:
			return false
		}
	}
	return false
}
