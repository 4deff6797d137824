package keylockcheck

import (
	"go/ast"
	"go/token"
	"go/types"
)

// A use says what one mention of a lock, a reservation, a manager or a session does to it.
type use uint8

const (
	looks     use = iota // nothing: it is asked, compared, or handed to a function that only looks
	releases             // ends the grant: Release, Handoff, Wait, Cancel
	escapes              // becomes known elsewhere, and is taken care of there
	overwrite            // the variable gets another value
	address              // its address is taken: anything may happen to it
)

// useOf classifies a mention of a variable. For managers and sessions releases means that
// the method may end it.
func (m *model) useOf(id *ast.Ident) use {
	child := ast.Node(id)
	for {
		if paren, ok := m.parents[child].(*ast.ParenExpr); ok {
			child = paren
			continue
		}
		break
	}
	switch p := m.parents[child].(type) {
	case *ast.SelectorExpr:
		if p.X != child || !m.isCalled(p) {
			return escapes
		}
		return m.methodUse(id, p.Sel.Name)
	case *ast.AssignStmt:
		for i, l := range p.Lhs {
			if l == child {
				if p.Tok != token.ASSIGN && p.Tok != token.DEFINE {
					return escapes
				}
				return overwrite
			}
			if i < len(p.Rhs) && p.Rhs[i] == child && isBlank(l) && len(p.Lhs) == len(p.Rhs) {
				return looks
			}
		}
		return escapes
	case *ast.ValueSpec:
		for i, name := range p.Names {
			if name == child {
				return overwrite
			}
			if i < len(p.Values) && p.Values[i] == child && name.Name == "_" {
				return looks
			}
		}
		return escapes
	case *ast.RangeStmt:
		if p.Key == child || p.Value == child {
			return overwrite
		}
		return escapes
	case *ast.Field: // it is a parameter or a result
		return looks
	case *ast.BinaryExpr:
		if p.Op == token.EQL || p.Op == token.NEQ {
			return looks
		}
		return escapes
	case *ast.UnaryExpr:
		if p.Op == token.AND {
			return address
		}
		return escapes
	case *ast.CallExpr:
		if i := argument(p, child); i >= 0 {
			if fn := callee(m.TypesInfo, p); fn != nil && m.isBorrowed(fn, i) {
				return looks
			}
		}
		return escapes
	}
	return escapes
}

func isBlank(x ast.Expr) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == "_"
}

// argument returns the index of an argument of a call, -1 for what is none.
func argument(call *ast.CallExpr, arg ast.Node) int {
	for i, a := range call.Args {
		if a == arg {
			return i
		}
	}
	return -1
}

// methodUse says what the call of a method does.
func (m *model) methodUse(id *ast.Ident, method string) use {
	switch kindOf(m.TypesInfo.TypeOf(id)) {
	case aLock:
		switch {
		case onlyLooks(method):
			return looks
		case method == "Grant":
			return escapes
		}
		return releases
	case aReservation:
		if onlyLooks(method) {
			return looks
		}
		return releases
	case aManager, aSession:
		if endsManager(method) {
			return releases
		}
		return looks
	}
	if m.lockers[m.variable(id)] != nil {
		if method == "Unlock" {
			return releases
		}
		return looks
	}
	return escapes
}

// captured reports whether an identifier stands in a function literal inside fn, and
// returns the outermost such literal.
func (m *model) captured(id *ast.Ident, fn *function) (*ast.FuncLit, bool) {
	var lit *ast.FuncLit
	for inner := m.within(id); inner != nil && inner != fn; inner = inner.outer {
		lit, _ = inner.node.(*ast.FuncLit)
	}
	return lit, lit != nil
}

// deferredLiteral reports whether a literal is called by a defer statement on the spot.
func (m *model) deferredLiteral(lit *ast.FuncLit) bool {
	call, ok := m.parent(lit).(*ast.CallExpr)
	if !ok || ast.Unparen(call.Fun) != lit {
		return false
	}
	_, ok = m.parent(call).(*ast.DeferStmt)
	return ok
}

// receivedBy returns the call whose receiver an identifier is, x in x.f(), nil if it is
// none.
func (m *model) receivedBy(id *ast.Ident) *ast.CallExpr {
	sel, ok := m.parent(id).(*ast.SelectorExpr)
	if !ok || !m.isCalled(sel) {
		return nil
	}
	return m.parent(sel).(*ast.CallExpr)
}

// isLocal reports whether v is a variable declared inside a function.
func (m *model) isLocal(v *types.Var) bool {
	return v != nil && v.Parent() != nil && v.Parent() != m.Pkg.Scope() && v.Parent() != types.Universe
}
