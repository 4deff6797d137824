package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"maps"
	"slices"
)

// borrows is a fact about a function: it only looks at these of its parameters, so that
// the caller still has to take care of what it passes.
type borrows struct{ Params []int }

// returnsFresh is a fact about a function: its result of this index is a lock or a
// reservation that the caller has to take care of, unless the result Fail, an error or a
// bool, says that there is none. Fail is -1 when there is no such result.
type returnsFresh struct{ Result, Fail int }

// speaksKeylock is a fact about a package: it has facts about functions.
type speaksKeylock struct{}

func (*borrows) AFact()       {}
func (*returnsFresh) AFact()  {}
func (*speaksKeylock) AFact() {}

func (f *borrows) String() string       { return fmt.Sprint("borrows", f.Params) }
func (f *returnsFresh) String() string  { return fmt.Sprint("returns fresh ", f.Result) }
func (f *speaksKeylock) String() string { return "speaks keylock" }

// isBorrowed reports whether fn only looks at its argument i.
func (m *model) isBorrowed(fn *types.Func, i int) bool {
	if params, ok := m.borrowed[fn]; ok {
		return params[i]
	}
	if fn.Pkg() == m.Pkg || fn.Pkg() == nil {
		return false
	}
	var fact borrows
	return m.ImportObjectFact(fn, &fact) && slices.Contains(fact.Params, i)
}

// freshOf returns the fact about fn, nil if it has none.
func (m *model) freshOf(fn *types.Func) *returnsFresh {
	if fn.Pkg() == m.Pkg || fn.Pkg() == nil {
		return m.fresh[fn]
	}
	fact, ok := m.fresh[fn]
	if !ok {
		fact = new(returnsFresh)
		if !m.ImportObjectFact(fn, fact) {
			fact = nil
		}
		m.fresh[fn] = fact
	}
	return fact
}

// learn finds out what can be said about the functions of the package. It begins with
// nothing and adds what follows, until nothing more does: a function that calls itself is
// therefore not understood.
func (m *model) learn() {
	type candidate struct {
		fn     *function
		params []int
		result int
	}
	var all []candidate
	for _, fn := range m.functions {
		if fn.obj == nil || fn.body == nil {
			continue
		}
		c := candidate{fn: fn, result: -1}
		for i := range fn.sig.Params().Len() {
			if kindOf(fn.sig.Params().At(i).Type()) != other {
				c.params = append(c.params, i)
			}
		}
		for i := range fn.sig.Results().Len() {
			if k := kindOf(fn.sig.Results().At(i).Type()); k == aLock || k == aReservation {
				c.result = i
				break
			}
		}
		if len(c.params) > 0 || c.result >= 0 {
			all = append(all, c)
		}
	}
	for changed := true; changed; {
		changed = false
		for _, c := range all {
			for _, i := range c.params {
				if !m.borrowed[c.fn.obj][i] && m.borrowsParam(c.fn.sig.Params().At(i)) {
					if m.borrowed[c.fn.obj] == nil {
						m.borrowed[c.fn.obj] = make(map[int]bool)
					}
					m.borrowed[c.fn.obj][i] = true
					changed = true
				}
			}
			if c.result >= 0 && m.fresh[c.fn.obj] == nil && m.isFreshResult(c.fn, c.result) {
				m.fresh[c.fn.obj] = &returnsFresh{Result: c.result, Fail: failIndex(c.fn.sig.Results())}
				changed = true
			}
		}
	}
}

// borrowsParam reports whether every mention of a parameter only looks at it.
func (m *model) borrowsParam(v *types.Var) bool {
	for _, id := range m.mentions[v] {
		if m.useOf(id) != looks {
			return false
		}
	}
	return true
}

// isFreshResult reports whether every return statement of fn returns, as its result i, a
// lock that fn acquired for its caller, or the zero lock, and one of them the former.
func (m *model) isFreshResult(fn *function, i int) bool {
	fresh, all := false, true
	ast.Inspect(fn.body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			is, ok := m.returnsFresh(fn, n, i)
			fresh = fresh || is
			all = all && ok && m.saysWhether(fn, n, i)
		}
		return all
	})
	return fresh && all
}

// saysWhether reports whether the last result of a return statement, if it is a bool, is true when
// there is a lock in result i, and false when there is none, as the bool of TryAcquire.
func (m *model) saysWhether(fn *function, ret *ast.ReturnStmt, i int) bool {
	last := failIndex(fn.sig.Results())
	if last < 0 || isError(fn.sig.Results().At(last).Type()) || len(ret.Results) == 1 {
		return true
	}
	v, said := fn.sig.Results().At(i), ast.Expr(nil)
	if len(ret.Results) > 0 {
		said = ret.Results[last]
		id := identOf(ret.Results[i])
		if id == nil { // the zero lock
			return m.isFlag(said) && !constant.BoolVal(m.constant(said))
		}
		v = m.variable(id)
	}
	m.prepare(fn)
	for _, id := range m.mentions[v] {
		call, ok := assigned(m.parent(id), id).(*ast.CallExpr)
		if !ok {
			continue
		}
		q := &search{model: m, s: m.sourceOf(call), fn: fn}
		if q.s == nil || q.s.lock != v || q.s.fail == nil || !q.collect() || !m.isOnlyFail(q.s) {
			return false
		}
		q.findDoubts()
		switch at := q.doubts.nodes[ret]; {
		case at == 0: // it is not from this call
		case said == nil:
			if q.s.fail != fn.sig.Results().At(last) {
				return false
			}
		case m.isFlag(said) && constant.BoolVal(m.constant(said)):
			if at != succeeds {
				return false
			}
		case m.isFlag(said):
			if at != fails {
				return false
			}
		case q.standingAfter(said, true, unknown, true) != succeeds:
			return false
		}
	}
	return true
}

// isOnlyFail reports whether nothing is assigned to the error or bool of a source but what comes
// beside a lock in the same variable.
func (m *model) isOnlyFail(s *source) bool {
	for _, id := range m.mentions[s.fail] {
		if m.useOf(id) != overwrite {
			continue
		}
		if spec, ok := m.parent(id).(*ast.ValueSpec); ok && len(spec.Values) == 0 {
			continue
		}
		call, ok := assigned(m.parent(id), id).(*ast.CallExpr)
		if !ok {
			return false
		}
		if other := m.sourceOf(call); other == nil || other.lock != s.lock || other.fail != s.fail {
			return false
		}
	}
	return true
}

// returnsFresh reports whether a return statement returns a fresh lock, and whether it
// returns that or the zero lock.
func (m *model) returnsFresh(fn *function, ret *ast.ReturnStmt, i int) (fresh, ok bool) {
	var x ast.Expr
	switch {
	case len(ret.Results) == 0:
		return m.isFreshVariable(fn, fn.sig.Results().At(i))
	case len(ret.Results) == 1 && fn.sig.Results().Len() > 1:
		call, isCall := ast.Unparen(ret.Results[0]).(*ast.CallExpr)
		if !isCall {
			return false, false
		}
		callee, lock, fail, ok := m.grantsOf(call)
		if !ok || lock != i || fail != failIndex(fn.sig.Results()) || m.isKept(&source{call: call, callee: callee}) {
			return false, false
		}
		return true, true
	default:
		x = ast.Unparen(ret.Results[i])
	}
	switch x := x.(type) {
	case *ast.CompositeLit:
		return false, len(x.Elts) == 0
	case *ast.CallExpr:
		s := m.sourceOf(x)
		fresh := s != nil && !m.isKept(s)
		return fresh, fresh
	case *ast.Ident:
		return m.isFreshVariable(fn, m.variable(x))
	}
	return false, false
}

// isFreshVariable reports whether a local variable only ever has locks that fn acquired,
// and is not known elsewhere, and whether it has at most those.
func (m *model) isFreshVariable(fn *function, v *types.Var) (fresh, ok bool) {
	if v == nil || !m.declaredIn(v, fn) {
		return false, false
	}
	for _, id := range m.mentions[v] {
		if _, captured := m.captured(id, fn); captured {
			return false, false
		}
		parent := m.parent(id)
		switch m.useOf(id) {
		case looks, releases:
			if _, isParam := parent.(*ast.Field); isParam && !isResult(fn, v) {
				return false, false
			}
			if call := m.receivedBy(id); call != nil && m.useOf(id) == releases {
				if _, deferred := m.parent(call).(*ast.DeferStmt); deferred {
					return false, false // it is over when fn returns
				}
			}
		case overwrite:
			switch value := assigned(parent, id).(type) {
			case nil:
				if spec, ok := parent.(*ast.ValueSpec); !ok || len(spec.Values) > 0 {
					return false, false
				}
			case *ast.CallExpr:
				s := m.sourceOf(value)
				if s == nil || m.isKept(s) {
					return false, false
				}
				fresh = true
			default:
				return false, false
			}
		case escapes:
			if _, returned := parent.(*ast.ReturnStmt); !returned {
				return false, false
			}
		default:
			return false, false
		}
	}
	return fresh, true
}

// isKept reports whether something else takes care of a lock than the caller of the function that
// returns it.
func (m *model) isKept(s *source) bool { return m.closedSession(s) || m.isHeldOnPurpose(s.call) }

func isResult(fn *function, v *types.Var) bool {
	for i := range fn.sig.Results().Len() {
		if fn.sig.Results().At(i) == v {
			return true
		}
	}
	return false
}

// exportFacts makes what was learned known to the packages that import this one.
func (m *model) exportFacts() {
	exported := false
	for fn, params := range m.borrowed {
		m.ExportObjectFact(fn, &borrows{slices.Sorted(maps.Keys(params))})
		exported = true
	}
	for fn, fact := range m.fresh {
		if fn.Pkg() == m.Pkg && fact != nil {
			m.ExportObjectFact(fn, fact)
			exported = true
		}
	}
	if exported {
		m.ExportPackageFact(new(speaksKeylock))
	}
}
