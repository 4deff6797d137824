package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
)

var dropped = rule("dropped",
	"report locks that are dropped where they are acquired, so that nothing can release them", runDropped)

var reservation = rule("reservation",
	"report reservations that are neither waited for nor cancelled on some path", runReservation)

var lostPath = rule("lostpath",
	"report locks that are not released on some path", runLostPath)

func runDropped(p *pass) {
	for _, s := range p.sources {
		if s.kind != aLock || !s.unused || s.kept {
			continue
		}
		why := "nothing can release it; name it, or say //keylock:held and why"
		if isLocker(s.callee) {
			why = "another Locker of the key cannot release it; keep this one in a variable"
		}
		p.report(analysis.Diagnostic{
			Pos: s.call.Pos(), End: s.call.End(),
			Message:        fmt.Sprintf("the lock of %s on line %d is dropped: %s", p.short(s.call.Fun), p.line(s.call.Pos()), why),
			SuggestedFixes: p.nameAndDefer(s),
		})
	}
}

func runReservation(p *pass) {
	for _, s := range p.sources {
		if s.kind != aReservation || s.kept {
			continue
		}
		what := fmt.Sprintf("the reservation of %s on line %d", p.short(s.call.Fun), p.line(s.call.Pos()))
		if s.unused {
			p.at(s.call, what+" is dropped: once granted it holds the key; wait for it or cancel it")
			continue
		}
		if lost := p.lose(s); lost != nil {
			p.report(analysis.Diagnostic{
				Pos: s.call.Pos(), End: s.call.End(),
				Message:        what + " is neither waited for nor cancelled " + p.path(lost),
				Related:        p.related(lost),
				SuggestedFixes: p.deferAfter(s, s.stmt, "Cancel"),
			})
		}
	}
}

func runLostPath(p *pass) {
	for _, s := range p.sources {
		if s.kind != aLock || s.unused || s.kept {
			continue
		}
		lost := p.lose(s)
		if lost == nil {
			continue
		}
		d := analysis.Diagnostic{
			Pos: s.call.Pos(), End: s.call.End(),
			Message: fmt.Sprintf("the lock of %s on line %d is not released %s", p.short(s.call.Fun), p.line(s.call.Pos()), p.path(lost)),
			Related: p.related(lost),
		}
		if p.neverReleased(s) {
			d.SuggestedFixes = p.deferAfter(s, p.checkAfter(s), "Release")
		}
		p.report(d)
	}
}

// neverReleased reports whether no mention of the lock takes care of it.
func (m *model) neverReleased(s *source) bool {
	for _, id := range m.mentions[s.lock] {
		if _, captured := m.captured(id, s.fn); captured {
			return false
		}
		if u := m.useOf(id); u != looks && !(u == overwrite && m.parent(id) == s.stmt) {
			return false
		}
	}
	return true
}

// checkAfter returns the statement right after the source if it leaves the function when
// the source failed, and the source itself if that cannot fail; else nil.
func (m *model) checkAfter(s *source) ast.Node {
	if !s.fails {
		return s.stmt
	}
	next, ok := m.next(s.stmt).(*ast.IfStmt)
	if !ok || s.fail == nil || next.Init != nil || next.Else != nil || len(next.Body.List) == 0 {
		return nil
	}
	if _, ok := next.Body.List[len(next.Body.List)-1].(*ast.ReturnStmt); !ok {
		return nil
	}
	alternatives := m.alternatives(next.Cond, true)
	if len(alternatives) != 1 || len(alternatives[0]) != 1 {
		return nil
	}
	q := search{model: m, s: s}
	if q.verdict(alternatives[0][0], true) != failed {
		return nil
	}
	return next
}

// next returns the statement that follows another in its block.
func (m *model) next(stmt ast.Node) ast.Stmt {
	block, ok := m.parents[stmt].(*ast.BlockStmt)
	if !ok {
		return nil
	}
	for i, other := range block.List {
		if other == stmt && i+1 < len(block.List) {
			return block.List[i+1]
		}
	}
	return nil
}

// isTop reports whether a statement stands in the outermost block of its function, and
// runs once: no label there leads back.
func (m *model) isTop(stmt ast.Node, fn *function) bool {
	if m.parents[stmt] != fn.body {
		return false
	}
	for _, other := range fn.body.List {
		if _, ok := other.(*ast.LabeledStmt); ok {
			return false
		}
	}
	return true
}

// deferAfter returns a fix that defers a method of what s returned, after a statement. It
// fixes nothing where that might change more than it should: in loops and branches, and
// where the method returns an error.
func (m *model) deferAfter(s *source, after ast.Node, method string) []analysis.SuggestedFix {
	if after == nil || !s.defines || !m.isTop(s.stmt, s.fn) || known(s.callee.Pkg()) != keylockPath {
		return nil
	}
	if _, ok := s.stmt.(*ast.AssignStmt); !ok || m.sharesLine(after) {
		return nil
	}
	call := s.lock.Name() + "." + method
	return []analysis.SuggestedFix{{
		Message:   "defer " + call + "()",
		TextEdits: []analysis.TextEdit{m.insertAfter(after, "defer "+call+"()")},
	}}
}

// nameAndDefer returns a fix that names a lock which was assigned to _, and releases it at
// the end of the function.
func (m *model) nameAndDefer(s *source) []analysis.SuggestedFix {
	assign, ok := s.stmt.(*ast.AssignStmt)
	if !ok || s.blank == nil || assign.Tok != token.DEFINE || !m.isTop(assign, s.fn) || known(s.callee.Pkg()) != keylockPath {
		return nil
	}
	check := m.checkAfter(s)
	if check == nil || m.sharesLine(check) {
		return nil
	}
	name := m.freshName(s.fn, "lock")
	return []analysis.SuggestedFix{{
		Message: "name the lock and defer its Release",
		TextEdits: []analysis.TextEdit{
			{Pos: s.blank.Pos(), End: s.blank.End(), NewText: []byte(name)},
			m.insertAfter(check, "defer "+name+".Release()"),
		},
	}}
}

// insertAfter returns the edit that inserts a line after a statement, and after a comment
// behind it.
func (m *model) insertAfter(n ast.Node, text string) analysis.TextEdit {
	file := m.Fset.File(n.Pos())
	at := n.End()
	if line := m.lineInFile(at); line < file.LineCount() {
		at = file.LineStart(line+1) - 1
	}
	indent := strings.Repeat("\t", m.Fset.PositionFor(n.Pos(), false).Column-1)
	return analysis.TextEdit{Pos: at, End: at, NewText: []byte("\n" + indent + text)}
}

// lineInFile returns the line of a position in the file, whatever a line directive says.
func (m *model) lineInFile(pos token.Pos) int { return m.Fset.PositionFor(pos, false).Line }

// sharesLine reports whether something other than the end of the line follows a statement, or a
// comment that goes on below: what is inserted there would end up beside it, or in it.
func (m *model) sharesLine(n ast.Node) bool {
	next, line := m.next(n), m.lineInFile(n.End())
	if next != nil && m.lineInFile(next.Pos()) == line {
		return true
	}
	for _, file := range m.Files {
		if !contains(file, n) {
			continue
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				if c.Pos() >= n.End() && m.lineInFile(c.Pos()) == line && m.lineInFile(c.End()) > line {
					return true
				}
			}
		}
	}
	block, ok := m.parents[n].(*ast.BlockStmt)
	return !ok || next == nil && m.lineInFile(block.Rbrace) == line
}

// freshName returns a name that nothing in fn has or uses.
func (m *model) freshName(fn *function, name string) string {
	used := make(map[string]bool)
	for outermost := fn; outermost != nil; outermost = outermost.outer {
		ast.Inspect(outermost.node, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[id.Name] = true
			}
			return true
		})
	}
	candidate := name
	for i := 2; used[candidate] || m.Pkg.Scope().Lookup(candidate) != nil || types.Universe.Lookup(candidate) != nil; i++ {
		candidate = fmt.Sprint(name, i)
	}
	return candidate
}

var errIgnored = rule("errignored",
	"report work that goes on without the lock when acquiring it failed, because the error is ignored", runErrIgnored)

func runErrIgnored(p *pass) {
	for _, s := range p.sources {
		if s.kind != aLock || !s.noFail || s.lock == nil || !p.worksBeside(s) {
			continue
		}
		what, results := "error", s.callee.Signature().Results()
		if isBool(results.At(failIndex(results)).Type()) {
			what = "bool"
			if known(s.callee.Pkg()) == "" && !isInterfaceMethod(s.callee) {
				continue // it may say something else
			}
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
