package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/cfg"
)

var reacquire = rule("reacquire",
	"report calls that wait for a key which the same function holds already", runReacquire)

// A want is a call that asks an owner, a manager or a session, for keys.
type want struct {
	call     *ast.CallExpr
	owner    ast.Expr
	keys     []wanted
	waits    bool
	forever  bool // no context ends the wait
	reserved bool // it waits for a reservation
}

// A wanted is one key of a want.
type wanted struct {
	x      ast.Expr
	shared bool // or perhaps shared
}

// wantOf describes a call that asks for keys, or that waits for a reservation of them; ok is false
// for any other.
func (m *model) wantOf(call *ast.CallExpr) (w want, ok bool) {
	if made := m.lockerBehind(call); made != nil {
		return want{call: call, owner: receiver(made), keys: []wanted{{x: made.Args[0]}}, waits: true, forever: true}, true
	}
	fn := callee(m.TypesInfo, call)
	owner := receiver(call)
	if fn == nil || owner == nil || known(fn.Pkg()) == "" || call.Ellipsis.IsValid() {
		return w, false
	}
	name := fn.Name()
	switch k := kindOf(m.TypesInfo.TypeOf(owner)); {
	case k == aReservation && name == "Wait":
		return m.waitOf(call, owner)
	case k == aGroup && known(fn.Pkg()) == sharePath && name == "Do":
		if owner = m.managerOf(owner, 0); owner == nil {
			return w, false
		}
	case k != aManager && k != aSession:
		return w, false
	}
	if name != "Do" && (!isGranting(name) || name == "Wait") {
		return w, false
	}
	from, to := 0, len(call.Args)
	params := fn.Signature().Params()
	if params.Len() > 0 && params.At(0).Type().String() == "context.Context" {
		from = 1
	}
	if !strings.HasSuffix(name, "All") && !strings.HasSuffix(name, "Set") {
		to = from + 1
	}
	if from > len(call.Args) || to > len(call.Args) {
		return w, false
	}
	w = want{call: call, owner: owner, waits: !strings.HasPrefix(name, "Try") && !strings.HasPrefix(name, "Reserve")}
	for _, arg := range call.Args[from:to] {
		switch {
		case !strings.HasSuffix(name, "Set"):
			w.keys = append(w.keys, wanted{arg, strings.HasSuffix(name, "Shared")})
		default:
			if key, ok := m.wantedBy(arg); ok {
				w.keys = append(w.keys, key)
			}
		}
	}
	return w, true
}

// waitOf describes a Wait as the want of the call that made the reservation.
func (m *model) waitOf(call *ast.CallExpr, reservation ast.Expr) (w want, ok bool) {
	made, ok := ast.Unparen(reservation).(*ast.CallExpr)
	if id := identOf(reservation); id != nil {
		made, ok = m.onlyValue(m.variable(id)).(*ast.CallExpr)
	}
	if !ok {
		return w, false
	}
	if fn := callee(m.TypesInfo, made); fn == nil || !strings.HasPrefix(fn.Name(), "Reserve") {
		return w, false
	}
	w, ok = m.wantOf(made)
	w.call, w.waits, w.reserved = call, true, true
	return w, ok
}

// wantedBy returns the key of a Want that is written down.
func (m *model) wantedBy(x ast.Expr) (key wanted, ok bool) {
	lit, ok := ast.Unparen(x).(*ast.CompositeLit)
	if !ok {
		return key, false
	}
	var mode ast.Expr
	for i, elt := range lit.Elts {
		switch pair, named := elt.(*ast.KeyValueExpr); {
		case named && identOf(pair.Key) != nil && identOf(pair.Key).Name == "Key":
			key.x = pair.Value
		case named && identOf(pair.Key) != nil && identOf(pair.Key).Name == "Mode":
			mode = pair.Value
		case !named && i == 0:
			key.x = elt
		case !named && i == 1:
			mode = elt
		}
	}
	key.shared = mode != nil && !m.isZero(mode)
	return key, key.x != nil
}

// isShared reports whether what a call returns is a shared lock, or may be one: of a set, unless
// one of its keys is certain to be exclusive.
func (m *model) isShared(fn *types.Func, call *ast.CallExpr) bool {
	if !strings.HasSuffix(fn.Name(), "Set") {
		return strings.HasSuffix(fn.Name(), "Shared")
	}
	w, ok := m.wantOf(call)
	return !ok || !slices.ContainsFunc(w.keys, func(key wanted) bool { return !key.shared })
}

func runReacquire(p *pass) {
	wants := make(map[*function][]want) // what waits, by the function that calls it
	for _, call := range p.calls {
		switch p.parent(call).(type) {
		case *ast.GoStmt, *ast.DeferStmt:
			continue // it may wait until the lock is released
		}
		if w, ok := p.wantOf(call); ok && w.waits {
			fn := p.within(call)
			wants[fn] = append(wants[fn], w)
		}
	}
	if len(wants) == 0 {
		return
	}
	reported := make(map[*ast.CallExpr]bool)
	report := func(first, again want) {
		if reported[again.call] {
			return
		}
		reported[again.call] = true
		what := "it waits for itself until its context ends"
		switch {
		case again.forever:
			what = "it waits for itself forever"
		case kindOf(p.TypesInfo.TypeOf(again.owner)) == aSession:
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
		for _, again := range wants[s.fn] {
			if again.call != s.call && p.isSame(first, again, false) {
				same = append(same, again)
			}
		}
		if len(same) == 0 {
			continue
		}
		p.whileHeld(s, p.endsOf(first.owner, s.fn), func(n ast.Node, downgraded bool) {
			from, to := span(n)
			for _, again := range same {
				if again.call.Pos() >= from && again.call.Pos() < to && p.isSame(first, again, downgraded) {
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
		for _, again := range wants[p.inner[lit]] {
			if p.isSame(first, again, false) {
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
	return want{call: call, owner: manager, keys: []wanted{{x: call.Args[len(call.Args)-2]}}}, lit
}

// managerOf returns the manager whose keys a group holds, nil when it has keys of its own
// or is not known. It looks through at most so many groups that are parts of another.
func (m *model) managerOf(group ast.Expr, hops int) ast.Expr {
	if id, ok := ast.Unparen(group).(*ast.Ident); ok {
		group = m.onlyValue(m.variable(id))
	}
	call, ok := group.(*ast.CallExpr)
	if !ok {
		return nil
	}
	switch fn := callee(m.TypesInfo, call); {
	case isFunc(fn, inorderPath, "Over") && len(call.Args) > 1:
		return call.Args[1]
	case isFunc(fn, sharePath, "New") && len(call.Args) == 1:
		return call.Args[0]
	case fn != nil && fn.Name() == "Sub" && known(fn.Pkg()) == inorderPath && hops > 0:
		return m.managerOf(receiver(call), hops-1)
	}
	return nil
}

// endsOf returns the calls in a function that end a manager or a session: after them a request
// does not wait, it fails.
func (p *pass) endsOf(owner ast.Expr, fn *function) (ends []*ast.CallExpr) {
	for _, call := range p.calls {
		recv := receiver(call)
		if recv == nil || p.within(call) != fn || !p.sameSteady(recv, owner) {
			continue
		}
		switch methodName(call) {
		case "Close", "Shutdown":
			ends = append(ends, call)
		}
	}
	return ends
}

// whileHeld visits the nodes of the function at which the lock of s is certain to be held, and
// tells whether it may have been downgraded. It is not after one of the calls in ends.
func (p *pass) whileHeld(s *source, ends []*ast.CallExpr, visit func(n ast.Node, downgraded bool)) {
	const (
		no = iota
		asked
		shares
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
		for _, call := range ends {
			if call.Pos() >= from && call.Pos() < to && !deferred {
				return no
			}
		}
		for _, id := range p.mentions[s.lock] {
			if id.Pos() < from || id.Pos() >= to {
				continue
			}
			if _, captured := p.captured(id, s.fn); (captured || p.useOf(id) != looks) && !deferred {
				return no
			}
			if p.downgrades(id) && !deferred {
				if state = min(state, shares); state == asked {
					return no
				}
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
		switch q.standingAfter(br.cond, succ == 0, unknown, true) {
		case succeeds:
			return holds
		case unknown:
			return state
		}
		return no
	}
	f.each(func(state int, n ast.Node) {
		if state >= shares {
			visit(n, state == shares)
		}
	})
}

// isSame reports whether two wants are for the same key of the same owner, and exclude
// each other, also if a is downgraded.
func (m *model) isSame(a, b want, downgraded bool) bool {
	if !m.sameSteady(a.owner, b.owner) {
		return false
	}
	for _, x := range a.keys {
		for _, y := range b.keys {
			if !((x.shared || downgraded) && y.shared) && m.sameKey(x.x, y.x) {
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
	return m.sameSteady(x, y) && m.staysHere(x)
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
		if m.changesPart(id) {
			return false
		}
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

// changesPart reports whether a mention of a variable changes a field or an element that is stored
// in it, takes its address, or calls a method that may do so.
func (m *model) changesPart(id *ast.Ident) bool {
	child := ast.Expr(id)
	for {
		_, isStruct := m.under(child).(*types.Struct)
		_, isArray := m.under(child).(*types.Array)
		switch parent := m.parent(child).(type) {
		case *ast.SelectorExpr:
			if fn, ok := m.TypesInfo.ObjectOf(parent.Sel).(*types.Func); ok {
				_, isPointer := m.under(child).(*types.Pointer)
				_, toPointer := recvType(fn).(*types.Pointer)
				return toPointer && !isPointer
			}
			if !isStruct {
				return false // it is stored elsewhere
			}
			child = parent
		case *ast.IndexExpr:
			if !isArray || ast.Unparen(parent.X) != child {
				return false
			}
			child = parent
		case *ast.SliceExpr:
			return isArray
		case *ast.UnaryExpr:
			return parent.Op == token.AND
		case *ast.AssignStmt:
			return child != id && slices.ContainsFunc(parent.Lhs, func(l ast.Expr) bool { return ast.Unparen(l) == child })
		case *ast.IncDecStmt:
			return child != id
		case *ast.RangeStmt:
			return child != id && ast.Unparen(parent.X) != child
		default:
			return false
		}
	}
}

// under returns the underlying type of an expression, nil where the code has errors.
func (m *model) under(x ast.Expr) types.Type {
	if t := m.TypesInfo.TypeOf(x); t != nil {
		return t.Underlying()
	}
	return nil
}

// staysHere reports whether a key is out of reach for functions of other packages: it is a
// variable, or a field that only this package can change because of its name, or of a variable
// that is not passed on and of which no method is called that might do it.
func (m *model) staysHere(x ast.Expr) bool {
	var fields []types.Object
	for {
		sel, ok := ast.Unparen(x).(*ast.SelectorExpr)
		if !ok {
			break
		}
		fields = append(fields, m.TypesInfo.ObjectOf(sel.Sel))
		x = sel.X
	}
	v := m.variable(identOf(x))
	if len(fields) == 0 || v == nil {
		return true
	}
	slices.Reverse(fields)
	last := fields[len(fields)-1]
	own := last.Pkg() == m.Pkg
	if own && !last.Exported() {
		return true
	}
	return !slices.ContainsFunc(m.mentions[v], func(id *ast.Ident) bool { return m.passesOn(id, fields, own) })
}

// passesOn reports whether a mention of a variable may have the last of these fields, each of the
// one before, changed by a function that is not seen: one of another package, if the field is own.
func (m *model) passesOn(id *ast.Ident, fields []types.Object, own bool) bool {
	child := ast.Expr(id)
	for {
		switch parent := m.parent(child).(type) {
		case *ast.SelectorExpr:
			if fn, ok := m.TypesInfo.ObjectOf(parent.Sel).(*types.Func); ok {
				return !own || fn.Pkg() != m.Pkg
			}
			if len(fields) == 1 || m.TypesInfo.ObjectOf(parent.Sel) != fields[0] {
				return false
			}
			child, fields = parent, fields[1:]
			continue
		case *ast.CallExpr:
			fn := callee(m.TypesInfo, parent)
			return fn == nil || fn.Pkg() == nil || !printsOnly(fn) && !(own && fn.Pkg() == m.Pkg)
		case *ast.AssignStmt:
			return slices.ContainsFunc(parent.Rhs, func(r ast.Expr) bool { return ast.Unparen(r) == child })
		case *ast.Field, *ast.BinaryExpr, *ast.StarExpr, *ast.ReturnStmt, *ast.RangeStmt:
			return false
		}
		return true
	}
}

// printsOnly reports whether a function is of a package that prints.
func printsOnly(fn *types.Func) bool {
	switch fn.Pkg().Path() {
	case "fmt", "log", "log/slog", "testing":
		return true
	}
	return false
}

// origin returns the field of the generic type that a field is one of, and any other object as it is.
func origin(obj types.Object) types.Object {
	if v, ok := obj.(*types.Var); ok {
		return v.Origin()
	}
	return obj
}

// assignsTo reports whether an assignment in this package changes a field or package
// variable.
func (m *model) assignsTo(field *types.Var) bool {
	if m.changed == nil {
		m.changed = make(map[types.Object]bool)
		change := func(x ast.Expr) {
			if x == nil {
				return
			}
			m.changed[origin(m.target(x))] = true
			switch ast.Unparen(x).(type) {
			case *ast.StarExpr, *ast.IndexExpr: // of a variable that has other names
				if t, ok := m.under(x).(*types.Struct); ok {
					for field := range t.Fields() {
						m.changed[origin(field)] = true
					}
				}
			}
		}
		for n := range m.parents {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					change(l)
				}
			case *ast.IncDecStmt:
				change(n.X)
			case *ast.RangeStmt:
				change(n.Key)
				change(n.Value)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					m.changed[origin(m.target(n.X))] = true
				}
			}
		}
	}
	return m.changed[origin(field)]
}

var afterRelease = rule("afterrelease",
	"report calls that come too late: Handoff after Release, Wait after Cancel", runAfterRelease)

func runAfterRelease(p *pass) {
	done := make(map[*types.Var]bool)
	for _, s := range p.sources {
		if s.lock == nil || done[s.lock] || s.fn.graph == nil {
			continue
		}
		done[s.lock] = true
		k := s.kind
		if p.lockers[s.lock] != nil {
			k = aLocker
		}
		p.tooLate(s.lock, s.fn, k)
	}
	// Parameters have owners elsewhere, and can be released only once all the same.
	for _, fn := range p.functions {
		if fn.sig == nil || fn.graph == nil {
			continue
		}
		for i := range fn.sig.Params().Len() {
			v := fn.sig.Params().At(i)
			if k := kindOf(v.Type()); (k == aLock || k == aReservation) && !done[v] {
				done[v] = true
				p.tooLate(v, fn, k)
			}
		}
	}
}

// tooLate reports the calls on v that are certain to come after the one that ended it.
func (p *pass) tooLate(v *types.Var, fn *function, k kind) {
	type event struct {
		id     *ast.Ident
		method string // "" for an assignment
		call   *ast.CallExpr
		later  bool // deferred, or on another goroutine
	}
	var events []event
	ends := false
	for _, id := range p.mentions[v] {
		if _, captured := p.captured(id, fn); captured {
			// A literal may be called at any time, and only asks for trouble if it assigns.
			if p.useOf(id) == overwrite {
				return
			}
			continue
		}
		if u := p.useOf(id); u == address {
			return
		} else if u == overwrite {
			events = append(events, event{id: id})
			continue
		}
		call := p.receivedBy(id)
		if call == nil {
			continue
		}
		e := event{id: id, method: methodName(call), call: call}
		switch p.parent(call).(type) {
		case *ast.DeferStmt, *ast.GoStmt:
			e.later = true
		}
		ends = ends || isEnd(k, e.method) && !e.later
		events = append(events, e)
	}
	if !ends {
		return
	}
	last := make(map[int]event) // by state
	f := &flow{fn: fn}
	f.node = func(state int, n ast.Node) int {
		from, to := span(n)
		for i, e := range events {
			if e.id.Pos() < from || e.id.Pos() >= to || e.later {
				continue
			}
			switch {
			case e.method == "", k == aLocker && e.method == "Lock":
				state = 0
			case isEnd(k, e.method):
				if state == 0 {
					state = i + 1
					last[state] = e
				}
			}
		}
		return state
	}
	f.each(func(state int, n ast.Node) {
		if state == 0 {
			return
		}
		from, to := span(n)
		for _, e := range events {
			if e.id.Pos() < from || e.id.Pos() >= to || e.later {
				continue
			}
			if e.method == "" {
				return
			}
			if why := p.late(e.call, v, e.method, last[state].method); why != "" {
				p.at(e.call, fmt.Sprintf("%s comes after %s on line %d: %s",
					p.short(e.call.Fun), p.short(last[state].call.Fun), p.line(last[state].call.Pos()), why),
					analysis.RelatedInformation{Pos: last[state].call.Pos(), End: last[state].call.End(), Message: "it ends here"})
			}
		}
	})
}

// isEnd reports whether after a method the lock or reservation is used up.
func isEnd(k kind, method string) bool {
	switch k {
	case aReservation:
		return method == "Wait" || method == "Cancel"
	case aLocker:
		return method == "Unlock"
	}
	return method == "Release"
}

// late says why a method is wrong after another one, "" when it is not.
func (p *pass) late(call *ast.CallExpr, v *types.Var, method, ended string) string {
	switch {
	case method == "Handoff":
		return "it hands nothing off and returns false"
	case method == "Downgrade":
		return "it keeps nothing, the lock is released"
	case method == "Unlock":
		return "it panics"
	case method == "Wait" && (ended == "Wait" || ended == "Cancel"):
		return "it returns ErrReservationDone"
	case isOf(v.Type(), cohortPath) && method == "Token" && p.isPassed(call):
		return "another holder may have a greater token by now"
	case isOf(v.Type(), cohortPath) && method == "Context" && p.isPassed(call):
		return "the context has ended"
	}
	return ""
}

// isPassed reports whether the result of a call is an argument for a function that works
// with it, and does not only print it or ask it.
func (p *pass) isPassed(call *ast.CallExpr) bool {
	outer, ok := p.parent(call).(*ast.CallExpr)
	if !ok || argument(outer, call) < 0 {
		return false
	}
	t := p.TypesInfo.TypeOf(call)
	if fn := callee(p.TypesInfo, outer); fn != nil && fn.Pkg() != nil {
		if printsOnly(fn) || fn.Pkg().Path() == "context" || types.Identical(t, recvType(fn)) {
			return false
		}
	}
	// One that takes just this works with it, one that takes anything prints it.
	sig, ok := p.under(outer.Fun).(*types.Signature)
	i := argument(outer, call)
	return ok && i < sig.Params().Len() && types.Identical(sig.Params().At(i).Type(), t)
}

// isOf reports whether a type is declared in the package of that path.
func isOf(t types.Type, path string) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && known(named.Obj().Pkg()) == path
}
