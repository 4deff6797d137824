package keylockcheck

import (
	"go/ast"
	"go/token"
	"go/types"
)

// A locker is a local variable that has what Manager.Locker returned, and on which nothing is
// called but Lock and Unlock, where the variable is declared. Each Locker is a holder of its own,
// so its Lock is a lock of which nothing else can dispose.
type locker struct {
	made   *ast.CallExpr // the call of Manager.Locker
	often  bool          // Lock is called in more than one place
	defers bool          // Unlock is deferred
}

// findLockers fills lockers.
func (m *model) findLockers() {
	for _, call := range m.calls {
		if !m.makesLocker(call) {
			continue
		}
		var id *ast.Ident
		switch p := m.parent(call).(type) {
		case *ast.AssignStmt:
			if p.Tok == token.DEFINE && len(p.Lhs) == len(p.Rhs) {
				id = identOf(p.Lhs[indexOf(p.Rhs, call)])
			}
		case *ast.ValueSpec:
			if len(p.Names) == len(p.Values) {
				id = p.Names[indexOf(p.Values, call)]
			}
		}
		if id == nil {
			continue
		}
		if v := m.variable(id); v != nil && m.isLocal(v) {
			if l := m.lockerIn(v, id, call); l != nil {
				m.lockers[v] = l
			}
		}
	}
}

// lockerIn returns what is known of the variable that id declares, nil when anything is done with
// it that is not understood.
func (m *model) lockerIn(v *types.Var, id *ast.Ident, made *ast.CallExpr) *locker {
	fn := m.within(made)
	l := &locker{made: made}
	locked := token.NoPos
	for _, mention := range m.mentions[v] {
		if mention == id || m.useOf(mention) == looks { // _ = locker
			continue
		}
		call := m.receivedBy(mention)
		if call == nil || m.within(mention) != fn {
			return nil
		}
		_, plain := m.parent(call).(*ast.ExprStmt)
		_, deferred := m.parent(call).(*ast.DeferStmt)
		switch name := methodName(call); {
		case name == "Lock" && plain:
			l.often = locked.IsValid()
			if !locked.IsValid() {
				locked = call.Pos()
			}
		case name == "Unlock" && plain:
		case name == "Unlock" && deferred && locked.IsValid():
			l.defers = true
		default:
			return nil
		}
	}
	return l
}

// makesLocker reports whether a call is one of Manager.Locker.
func (m *model) makesLocker(call *ast.CallExpr) bool {
	fn := callee(m.TypesInfo, call)
	return fn != nil && fn.Name() == "Locker" && known(fn.Pkg()) == keylockPath && len(call.Args) == 1
}

// lockerBehind returns the call of Manager.Locker behind the receiver of a call of Lock, nil if
// there is none or it is not certain.
func (m *model) lockerBehind(call *ast.CallExpr) *ast.CallExpr {
	fn := callee(m.TypesInfo, call)
	if fn == nil || !isLocker(fn) {
		return nil
	}
	switch x := ast.Unparen(receiver(call)).(type) {
	case *ast.CallExpr:
		if m.makesLocker(x) {
			return x
		}
	case *ast.Ident:
		if l := m.lockers[m.variable(x)]; l != nil {
			return l.made
		}
	}
	return nil
}

// lockingOf describes a call of Lock on a Locker as what it is, a call that returns a lock; nil
// for any other call.
func (m *model) lockingOf(call *ast.CallExpr) *source {
	stmt, plain := m.parent(call).(*ast.ExprStmt)
	if !plain || m.lockerBehind(call) == nil {
		return nil
	}
	s := &source{call: call, callee: callee(m.TypesInfo, call), fn: m.within(call), kind: aLock, stmt: stmt}
	id := identOf(receiver(call))
	if id == nil {
		s.unused = true
		return s
	}
	s.lock = m.variable(id)
	l := m.lockers[s.lock]
	s.kept = l.often && l.defers // the deferred Unlock ends whichever is the last
	return s
}
