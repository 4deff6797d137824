package keylockcheck

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/types/typeutil"
)

// The packages whose calls are known.
const (
	keylockPath = "github.com/seed-46f81e6d/keylock"
	cohortPath  = keylockPath + "/cohort"
	inorderPath = keylockPath + "/inorder"
	sharePath   = keylockPath + "/share"
)

// known returns the import path of a package whose calls are known, and "" for others.
func known(pkg *types.Package) string {
	if pkg == nil {
		return ""
	}
	path := pkg.Path()
	if i := strings.LastIndex(path, "/vendor/"); i >= 0 {
		path = path[i+len("/vendor/"):]
	}
	switch path {
	case keylockPath, cohortPath, inorderPath, sharePath:
		return path
	}
	return ""
}

// A kind says what a type is to the rules.
type kind uint8

const (
	other kind = iota
	aLock
	aReservation
	aManager
	aSession
	aGroup
	aLocker // a variable, see locker
)

// kindOf returns the kind of a type: of locks and reservations by value, of the others by
// pointer.
func kindOf(t types.Type) kind {
	if t == nil {
		return other
	}
	t = types.Unalias(t)
	pointer, byPointer := t.(*types.Pointer)
	if byPointer {
		t = types.Unalias(pointer.Elem())
	}
	named, ok := t.(*types.Named)
	if !ok || known(named.Obj().Pkg()) == "" {
		return other
	}
	k := other
	switch named.Obj().Name() {
	case "Lock", "Locks": // Locks of cohort
		k = aLock
	case "Reservation":
		k = aReservation
	case "Manager":
		k = aManager
	case "Session":
		k = aSession
	case "Group":
		k = aGroup
	}
	if byPointer != (k == aManager || k == aSession || k == aGroup) {
		return other
	}
	return k
}

// callee returns the function or method that a call names, of generic ones the origin.
func callee(info *types.Info, call *ast.CallExpr) *types.Func {
	if fn, ok := typeutil.Callee(info, call).(*types.Func); ok {
		return fn.Origin()
	}
	return nil
}

// receiver returns the expression before the method's name in a call of a method.
func receiver(call *ast.CallExpr) ast.Expr {
	if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		return sel.X
	}
	return nil
}

// methodName returns the name after the last dot of the function that is called, "" if it has none.
func methodName(call *ast.CallExpr) string {
	if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return ""
}

// isGranting reports whether a name is one of a call that returns a lock or a reservation: Acquire and
// AcquireAll, but not AcquiredBy.
func isGranting(name string) bool {
	for _, verb := range []string{"Acquire", "TryAcquire", "Reserve"} {
		if more, ok := strings.CutPrefix(name, verb); ok {
			return more == "" || more[0] < 'a' || more[0] > 'z'
		}
	}
	return name == "Wait"
}

// isLocker reports whether fn is Lock of what Manager.Locker returns.
func isLocker(fn *types.Func) bool {
	return fn.Pkg() != nil && fn.Pkg().Path() == "sync" && fn.Name() == "Lock"
}

// isSyncLocker reports whether a type is that of what Manager.Locker returns.
func isSyncLocker(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == "sync" && named.Obj().Name() == "Locker"
}

// isStart reports whether fn starts a manager.
func isStart(fn *types.Func) bool {
	return fn != nil && fn.Name() == "Start" && known(fn.Pkg()) != "" && fn.Signature().Recv() == nil
}

// isFunc reports whether fn is the function, not method, of that path and one of the names.
func isFunc(fn *types.Func, path string, names ...string) bool {
	if fn == nil || fn.Pkg() == nil || fn.Pkg().Path() != path || fn.Signature().Recv() != nil {
		return false
	}
	for _, name := range names {
		if fn.Name() == name {
			return true
		}
	}
	return false
}

// onlyLooks reports whether after a method of a lock or a reservation it must still be released.
func onlyLooks(name string) bool {
	switch name {
	case "Key", "Keys", "Seq", "Value", "Token", "Context", "String", "Wanted", "Downgrade":
		return true
	}
	return false
}

// endsManager reports whether after a method of a manager it may have ended, or may be
// known elsewhere.
func endsManager(name string) bool {
	return name == "Close" || name == "Shutdown" || name == "Session"
}

// neverReturns reports whether a call ends its goroutine or the test, which the bodies of
// these functions do not tell.
func neverReturns(info *types.Info, call *ast.CallExpr) bool {
	fn := callee(info, call)
	if fn == nil || fn.Pkg() == nil {
		return false
	}
	// Loggers do it behind an interface, or as log.Fatal().Msg("why"). A guess, for silence.
	for c, ok := call, true; ok; c, ok = receiver(c).(*ast.CallExpr) {
		if name := methodName(c); strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic") {
			return true
		}
	}
	switch path := fn.Pkg().Path(); {
	case path == "testing":
		switch fn.Name() {
		case "Fatal", "Fatalf", "FailNow", "Skip", "Skipf", "SkipNow":
			return true
		}
	case strings.HasSuffix(path, "testify/require"):
		return fn.Name() == "Fail" || fn.Name() == "FailNow" || fn.Name() == "Failf" || fn.Name() == "FailNowf"
	}
	return false
}

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
