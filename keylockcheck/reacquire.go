package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/cfg"
)

var reacquire = rule("reacquire",
	"report calls that wait for a key which the same function holds already", runReacquire)

// A want is a call that asks an owner, a manager or a session, for keys.
type want struct {
	call   *ast.CallExpr
	owner  ast.Expr
	keys   []ast.Expr
	shared bool
	waits  bool
}

// wantOf describes a call that asks for keys; ok is false for any other.
func (m *model) wantOf(call *ast.CallExpr) (w want, ok bool) {
	fn := callee(m.TypesInfo, call)
	owner := receiver(call)
	if fn == nil || owner == nil || known(fn.Pkg()) == "" || call.Ellipsis.IsValid() {
		return w, false
	}
	if k := kindOf(m.TypesInfo.TypeOf(owner)); k != aManager && k != aSession {
		return w, false
	}
	name := fn.Name()
	from, to := 0, len(call.Args)
	params := fn.Signature().Params()
	if params.Len() > 0 && params.At(0).Type().String() == "context.Context" {
		from = 1
	}
	switch {
	case strings.HasSuffix(name, "Set"): // its keys have modes
		return w, false
	case name == "Do" || isGranting(name) && name != "Wait" && !strings.HasPrefix(name, "Reserve"):
		if !strings.HasSuffix(name, "All") {
			to = from + 1
		}
	default:
		return w, false
	}
	if from > len(call.Args) || to > len(call.Args) {
		return w, false
	}
	return want{
		call: call, owner: owner, keys: call.Args[from:to],
		shared: strings.HasSuffix(name, "Shared"),
		waits:  !strings.HasPrefix(name, "Try"),
	}, true
}

func runReacquire(p *pass) {
	var wants []want
	for _, call := range p.calls {
		if w, ok := p.wantOf(call); ok {
			wants = append(wants, w)
		}
	}
	if len(wants) < 2 {
		return
	}
	reported := make(map[*ast.CallExpr]bool)
	report := func(first, again want) {
		if reported[again.call] {
			return
		}
		reported[again.call] = true
		what := "it waits for itself until its context ends"
		if kindOf(p.TypesInfo.TypeOf(again.owner)) == aSession {
			what = "it fails with ErrDeadlock"
		}
		p.report(analysis.Diagnostic{
			Pos: again.call.Pos(), End: again.call.End(),
			Message: fmt.Sprintf("%s asks for a key that is held here since line %d: %s", p.short(again.call.Fun), p.line(first.call.Pos()), what),
			Related: []analysis.RelatedInformation{{Pos: first.call.Pos(), End: first.call.End(), Message: "the lock is taken here"}},
		})
	}
	for _, s := range p.sources {
		if s.kind != aLock || s.lock == nil || s.fn.graph == nil {
			continue
		}
		first, ok := p.wantOf(s.call)
		if !ok {
			continue
		}
		var same []want
		for _, again := range wants {
			if again.call != s.call && again.waits && p.within(again.call) == s.fn && p.isSame(first, again) {
				same = append(same, again)
			}
		}
		if len(same) == 0 {
			continue
		}
		p.whileHeld(s, func(n ast.Node) {
			from, to := span(n)
			for _, again := range same {
				if again.call.Pos() >= from && again.call.Pos() < to {
					report(first, again)
				}
			}
		})
	}
	// Inside the function that Do calls, or a group over the manager, the key is held all
	// the time.
	for _, call := range p.calls {
		first, lit := p.runsUnder(call)
		if lit == nil {
			continue
		}
		for _, again := range wants {
			if again.waits && p.within(again.call) == p.inner[lit] && p.isSame(first, again) {
				report(first, again)
			}
		}
	}
}

// runsUnder returns the literal that a call runs while a key is held, and what is held.
func (p *pass) runsUnder(call *ast.CallExpr) (want, *ast.FuncLit) {
	if len(call.Args) == 0 {
		return want{}, nil
	}
	lit, ok := ast.Unparen(call.Args[len(call.Args)-1]).(*ast.FuncLit)
	if !ok {
		return want{}, nil
	}
	fn := callee(p.TypesInfo, call)
	if w, ok := p.wantOf(call); ok && fn.Name() == "Do" {
		return w, lit
	}
	if fn == nil || len(call.Args) < 2 || fn.Name() != "Go" && fn.Name() != "TryGo" || kindOf(p.TypesInfo.TypeOf(receiver(call))) != aGroup {
		return want{}, nil
	}
	manager := p.managerOf(receiver(call), 2)
	if manager == nil {
		return want{}, nil
	}
	return want{call: call, owner: manager, keys: call.Args[len(call.Args)-2 : len(call.Args)-1]}, lit
}

// managerOf returns the manager whose keys a group holds, nil when it has keys of its own
// or is not known. It looks through at most so many groups that are parts of another.
func (p *pass) managerOf(group ast.Expr, hops int) ast.Expr {
	if id, ok := ast.Unparen(group).(*ast.Ident); ok {
		group = p.onlyValue(p.variable(id))
	}
	call, ok := group.(*ast.CallExpr)
	if !ok {
		return nil
	}
	switch fn := callee(p.TypesInfo, call); {
	case isFunc(fn, inorderPath, "Over") && len(call.Args) > 1:
		return call.Args[1]
	case fn != nil && fn.Name() == "Sub" && known(fn.Pkg()) == inorderPath && hops > 0:
		return p.managerOf(receiver(call), hops-1)
	}
	return nil
}

// whileHeld visits the nodes of the function at which the lock of s is certain to be held.
func (p *pass) whileHeld(s *source, visit func(n ast.Node)) {
	const (
		no = iota
		asked
		holds
	)
	q := &search{model: p.model, s: s, fn: s.fn}
	f := &flow{fn: s.fn}
	f.node = func(state int, n ast.Node) int {
		if n == s.stmt {
			if s.fails {
				return asked
			}
			return holds
		}
		if state == no {
			return no
		}
		_, deferred := n.(*ast.DeferStmt)
		from, to := span(n)
		for _, id := range p.mentions[s.lock] {
			if id.Pos() < from || id.Pos() >= to {
				continue
			}
			if _, captured := p.captured(id, s.fn); (captured || p.useOf(id) != looks) && !deferred {
				return no
			}
		}
		if state == asked && s.fail != nil {
			for _, id := range p.mentions[s.fail] {
				if id.Pos() >= from && id.Pos() < to && p.useOf(id) == overwrite {
					return no
				}
			}
		}
		return state
	}
	f.edge = func(state int, b *cfg.Block, succ int) int {
		br, ok := s.fn.branchOf(b, succ)
		if !ok || br.cond == nil || state != asked {
			return state
		}
		certain, reachable := true, false
	next:
		for _, alternative := range p.alternatives(br.cond, succ == 0) {
			known := false
			for _, a := range alternative {
				switch q.verdict(a, true) {
				case failed:
					continue next
				case granted:
					known = true
				}
			}
			reachable = true
			certain = certain && known
		}
		switch {
		case !reachable:
			return no
		case certain:
			return holds
		}
		return state
	}
	f.each(func(state int, n ast.Node) {
		if state == holds {
			visit(n)
		}
	})
}

// isSame reports whether two wants are for the same key of the same owner, and exclude
// each other.
func (m *model) isSame(a, b want) bool {
	if a.shared && b.shared || !m.sameSteady(a.owner, b.owner) {
		return false
	}
	for _, x := range a.keys {
		for _, y := range b.keys {
			if m.sameKey(x, y) {
				return true
			}
		}
	}
	return false
}

func (m *model) sameKey(x, y ast.Expr) bool {
	if v, w := m.constant(x), m.constant(y); v != nil || w != nil {
		return v != nil && w != nil && v.Kind() == w.Kind() && constant.Compare(v, token.EQL, w) &&
			types.Identical(m.TypesInfo.TypeOf(x), m.TypesInfo.TypeOf(y))
	}
	return m.sameSteady(x, y)
}

// sameSteady reports whether two expressions are the same variable, or the same field of
// the same variable, and nothing assigns to it.
func (m *model) sameSteady(x, y ast.Expr) bool {
	x, y = ast.Unparen(x), ast.Unparen(y)
	switch x := x.(type) {
	case *ast.Ident:
		y, ok := y.(*ast.Ident)
		if !ok {
			return false
		}
		v := m.variable(x)
		return v != nil && v == m.variable(y) && m.isSteady(v)
	case *ast.SelectorExpr:
		y, ok := y.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		field, ok := m.TypesInfo.ObjectOf(x.Sel).(*types.Var)
		if !ok || field != m.TypesInfo.ObjectOf(y.Sel) || m.assignsTo(field) {
			return false
		}
		return !field.IsField() || m.sameSteady(x.X, y.X)
	}
	return false
}

// isSteady reports whether a variable keeps the value that it is declared with.
func (m *model) isSteady(v *types.Var) bool {
	for _, id := range m.mentions[v] {
		switch parent := m.parent(id).(type) {
		case *ast.IncDecStmt:
			return false
		case *ast.AssignStmt:
			for _, l := range parent.Lhs {
				if ast.Unparen(l) == id && m.TypesInfo.Defs[id] != v {
					return false
				}
			}
		case *ast.RangeStmt:
			if (parent.Key == id || parent.Value == id) && m.TypesInfo.Defs[id] != v {
				return false
			}
		case *ast.ValueSpec:
			if m.TypesInfo.Defs[id] == v && len(parent.Values) == 0 {
				return false
			}
		case *ast.UnaryExpr:
			if m.useOf(id) == address {
				return false
			}
		}
	}
	return true
}

// assignsTo reports whether an assignment in this package changes a field or package
// variable.
func (m *model) assignsTo(field *types.Var) bool {
	if m.changed == nil {
		m.changed = make(map[types.Object]bool)
		for n := range m.parents {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					m.changed[m.target(l)] = true
				}
			case *ast.IncDecStmt:
				m.changed[m.target(n.X)] = true
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					m.changed[m.target(n.X)] = true
				}
			}
		}
	}
	return m.changed[field]
}
