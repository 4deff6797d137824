package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/cfg"
)

var neverEnded = rule("neverended",
	"report managers that nothing ends: each keeps its goroutine", runNeverEnded)

var signalCtx = rule("signalctx",
	"report managers that a signal closes before their Shutdown can drain them", runSignalCtx)

// A start is a call that starts a manager, and the variable or field that it is kept in.
type start struct {
	call *ast.CallExpr
	stmt ast.Node
	fn   *function
	kept *types.Var // nil when it goes elsewhere
	lost bool       // it goes nowhere
}

func (m *model) starts() []start {
	var all []start
	for _, call := range m.calls {
		fn := callee(m.TypesInfo, call)
		if !isStart(fn) || len(call.Args) == 0 {
			continue
		}
		s := start{call: call, fn: m.within(call)}
		switch p := m.parent(call).(type) {
		case *ast.ExprStmt, *ast.GoStmt, *ast.DeferStmt:
			s.stmt, s.lost = p, true
		case *ast.AssignStmt:
			if len(p.Lhs) == len(p.Rhs) {
				m.keep(&s, p, p.Lhs[indexOf(p.Rhs, call)])
			}
		case *ast.ValueSpec:
			if len(p.Names) == len(p.Values) {
				m.keep(&s, p, p.Names[indexOf(p.Values, call)])
			}
		}
		all = append(all, s)
	}
	return all
}

func (m *model) keep(s *start, stmt ast.Node, to ast.Expr) {
	s.stmt = stmt
	if isBlank(to) {
		s.lost = true
		return
	}
	switch to := ast.Unparen(to).(type) {
	case *ast.Ident:
		s.kept = m.variable(to)
	case *ast.SelectorExpr:
		s.kept, _ = m.TypesInfo.ObjectOf(to.Sel).(*types.Var)
	}
}

func runNeverEnded(p *pass) {
	for _, s := range p.starts() {
		if s.fn == nil || p.isMain(s.fn) || !p.neverEnds(s.call.Args[0]) || p.isHeldOnPurpose(s.call) {
			continue
		}
		if !s.lost && (s.kept == nil || !p.isLocal(s.kept) || !p.isOnlyUsed(s.kept, s.fn)) {
			continue
		}
		if !s.returns() {
			continue // the process ends with it
		}
		p.report(analysis.Diagnostic{
			Pos: s.call.Pos(), End: s.call.End(),
			Message: fmt.Sprintf("nothing ends the manager that is started on line %d: its goroutine stays; "+
				"call its Close or Shutdown, or start it with a context that ends", p.line(s.call.Pos())),
			SuggestedFixes: p.deferClose(s),
		})
	}
}

// returns reports whether the function may return after it has started the manager.
func (s start) returns() bool {
	if s.fn.graph == nil {
		return true
	}
	first := blockWith(s.fn.graph, s.stmt)
	if first == nil {
		return true
	}
	seen := map[*cfg.Block]bool{first: true}
	for queue := []*cfg.Block{first}; len(queue) > 0; queue = queue[1:] {
		for _, n := range queue[0].Nodes {
			if _, ok := n.(*ast.ReturnStmt); ok {
				return true
			}
		}
		for _, succ := range queue[0].Succs {
			if !seen[succ] {
				seen[succ] = true
				queue = append(queue, succ)
			}
		}
	}
	return false
}

// isMain reports whether a function is, or is a literal in, a function after which the
// process ends.
func (p *pass) isMain(fn *function) bool {
	for fn.outer != nil {
		fn = fn.outer
	}
	decl, ok := fn.node.(*ast.FuncDecl)
	return ok && decl.Recv == nil && (decl.Name.Name == "main" && p.Pkg.Name() == "main" || decl.Name.Name == "TestMain" || decl.Name.Name == "init")
}

// neverEnds reports whether x is context.Background() or TODO(), or one that only adds
// values to it, or a variable that has never anything else.
func (p *pass) neverEnds(x ast.Expr) bool {
	switch x := ast.Unparen(x).(type) {
	case *ast.CallExpr:
		fn := callee(p.TypesInfo, x)
		if isFunc(fn, "context", "Background", "TODO", "WithoutCancel") {
			return true
		}
		return isFunc(fn, "context", "WithValue") && p.neverEnds(x.Args[0])
	case *ast.Ident:
		value := p.onlyValue(p.variable(x))
		return value != nil && p.neverEnds(value)
	}
	return false
}

// calledOnTheSpot reports whether a literal is called where it stands, also by Do, or when the
// function ends.
func (m *model) calledOnTheSpot(lit *ast.FuncLit) bool {
	call, ok := m.parent(lit).(*ast.CallExpr)
	if !ok {
		return false
	}
	fn := callee(m.TypesInfo, call)
	if ast.Unparen(call.Fun) != lit && (fn == nil || fn.Name() != "Do" || known(fn.Pkg()) == "") {
		return false
	}
	_, isGo := m.parent(call).(*ast.GoStmt)
	return !isGo
}

// onlyValue returns the expression that a local variable is declared with, nil if it is
// ever assigned to again, or its address is taken.
func (m *model) onlyValue(v *types.Var) ast.Expr {
	if !m.isLocal(v) {
		return nil
	}
	var value ast.Expr
	for _, id := range m.mentions[v] {
		switch m.useOf(id) {
		case overwrite:
			if m.TypesInfo.Defs[id] != v {
				return nil
			}
			value = assigned(m.parent(id), id)
		case address:
			return nil
		}
	}
	return value
}

// isOnlyUsed reports whether a manager is asked for locks and never ended, nor known
// elsewhere, as in a literal that may run later.
func (p *pass) isOnlyUsed(v *types.Var, fn *function) bool {
	for _, id := range p.mentions[v] {
		for inner := p.within(id); inner != nil && inner != fn; inner = inner.outer {
			if lit, ok := inner.node.(*ast.FuncLit); ok && !p.calledOnTheSpot(lit) {
				return false
			}
		}
		switch p.useOf(id) {
		case looks:
			if _, isParam := p.parent(id).(*ast.Field); isParam {
				return false
			}
		case overwrite:
			if p.TypesInfo.Defs[id] != v {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// deferClose returns a fix that closes the manager at the end of its function.
func (p *pass) deferClose(s start) []analysis.SuggestedFix {
	assign, ok := s.stmt.(*ast.AssignStmt)
	fn := callee(p.TypesInfo, s.call)
	if !ok || s.kept == nil || assign.Tok != token.DEFINE || len(assign.Lhs) != 1 ||
		!p.isTop(assign, s.fn) || p.sharesLine(assign) || known(fn.Pkg()) != keylockPath {
		return nil
	}
	call := s.kept.Name() + ".Close"
	return []analysis.SuggestedFix{{
		Message:   "defer " + call + "()",
		TextEdits: []analysis.TextEdit{p.insertAfter(assign, "defer "+call+"()")},
	}}
}

func runSignalCtx(p *pass) {
	for _, s := range p.starts() {
		if s.kept == nil {
			continue
		}
		signal := p.signalBehind(s.call.Args[0], 1)
		if signal == nil {
			continue
		}
		shutdown := p.shutdownOf(s.kept)
		if shutdown == nil {
			continue
		}
		p.at(s.call, fmt.Sprintf("the signal of line %d closes the manager at once: the Shutdown on line %d finds nothing left to drain; "+
			"start it with context.WithoutCancel of the context", p.line(signal.Pos()), p.line(shutdown.Pos())),
			analysis.RelatedInformation{Pos: signal.Pos(), End: signal.End(), Message: "the context of the signal"},
			analysis.RelatedInformation{Pos: shutdown.Pos(), End: shutdown.End(), Message: "the Shutdown that comes too late"})
	}
}

// signalBehind returns the call of signal.NotifyContext that x comes from, over at most so
// many contexts in between.
func (p *pass) signalBehind(x ast.Expr, hops int) *ast.CallExpr {
	switch x := ast.Unparen(x).(type) {
	case *ast.Ident:
		value := p.onlyValue(p.variable(x))
		if value == nil {
			value = p.valueAt(x)
		}
		if value != nil {
			return p.signalBehind(value, hops)
		}
	case *ast.CallExpr:
		fn := callee(p.TypesInfo, x)
		if isFunc(fn, "os/signal", "NotifyContext") {
			return x
		}
		if hops > 0 && len(x.Args) > 0 && isFunc(fn, "context", "WithCancel", "WithCancelCause", "WithValue",
			"WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause") {
			return p.signalBehind(x.Args[0], hops-1)
		}
	}
	return nil
}

// valueAt returns the expression that a variable is certain to have where id mentions it: the last
// one that is assigned to it before, in a block around id, and not in a literal or behind a pointer.
func (p *pass) valueAt(id *ast.Ident) (value ast.Expr) {
	v, last := p.variable(id), token.NoPos
	if !p.isLocal(v) {
		return nil
	}
	for _, other := range p.mentions[v] {
		switch p.useOf(other) {
		case address:
			return nil
		case overwrite:
			stmt := p.parent(other)
			if p.within(other) != p.within(id) || p.inLoop(other, p.within(other)) {
				return nil
			}
			if stmt.End() < id.Pos() && stmt.Pos() > last {
				last, value = stmt.Pos(), nil
				if contains(p.blockOf(stmt), id) {
					value = assigned(stmt, other)
				}
			}
		}
	}
	return value
}

// shutdownOf returns a call of Shutdown on the manager in a variable or field.
func (p *pass) shutdownOf(v *types.Var) *ast.CallExpr {
	for _, call := range p.calls {
		sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Shutdown" || kindOf(p.TypesInfo.TypeOf(sel.X)) != aManager {
			continue
		}
		switch x := ast.Unparen(sel.X).(type) {
		case *ast.Ident:
			if p.variable(x) == v {
				return call
			}
		case *ast.SelectorExpr:
			if p.TypesInfo.ObjectOf(x.Sel) == v {
				return call
			}
		}
	}
	return nil
}

var bubble = rule("bubble",
	"report managers that are started outside a synctest bubble and used in it, in test files too", runBubble)

func runBubble(p *pass) {
	var bubbles []*ast.FuncLit
	for _, call := range p.calls {
		fn := callee(p.TypesInfo, call)
		if len(call.Args) == 0 || !isFunc(fn, "testing/synctest", "Test", "Run") {
			continue
		}
		if lit := p.literal(call.Args[len(call.Args)-1]); lit != nil {
			bubbles = append(bubbles, lit)
		}
	}
	for v, mentions := range p.mentions {
		k := kindOf(v.Type())
		if len(bubbles) == 0 || k != aManager && k != aSession && k != aGroup && !isSyncLocker(v.Type()) {
			continue
		}
		started := p.startedOutside(v, bubbles)
		if started == nil {
			continue
		}
		for _, b := range bubbles {
			for _, id := range mentions {
				if !contains(b, id) || p.isCompared(id) {
					continue
				}
				what := "manager"
				switch k {
				case aSession:
					what = "session"
				case aGroup:
					what = "group"
				case other:
					what = "Locker"
				}
				p.at(id, fmt.Sprintf("the %s %s is started on line %d, outside the bubble: its use in the bubble ends the test process; "+
					"start it in the function that is given to synctest.Test", what, v.Name(), p.line(started.Pos())),
					analysis.RelatedInformation{Pos: started.Pos(), End: started.End(), Message: "it is started here"},
					analysis.RelatedInformation{Pos: b.Pos(), End: b.Type.End(), Message: "the bubble begins here"})
				break
			}
		}
	}
}

func contains(outer, n ast.Node) bool { return n.Pos() >= outer.Pos() && n.End() <= outer.End() }

// literal returns the function literal that x is, or that a variable always has.
func (m *model) literal(x ast.Expr) *ast.FuncLit {
	x = ast.Unparen(x)
	if id, ok := x.(*ast.Ident); ok {
		x = m.onlyValue(m.variable(id))
	}
	lit, _ := x.(*ast.FuncLit)
	return lit
}

// startedOutside returns the call that starts what a variable has, if it stands outside
// all bubbles, and nothing else is ever assigned to the variable; else nil.
func (p *pass) startedOutside(v *types.Var, bubbles []*ast.FuncLit) (started *ast.CallExpr) {
	for _, id := range p.mentions[v] {
		switch p.useOf(id) {
		case address:
			return nil
		case overwrite:
			parent := p.parent(id)
			call, ok := assigned(parent, id).(*ast.CallExpr)
			if !ok {
				if spec, isSpec := parent.(*ast.ValueSpec); isSpec && len(spec.Values) == 0 {
					continue
				}
				return nil
			}
			if !p.makes(call) && !p.startsForCaller(call) {
				return nil
			}
			fn := p.within(call)
			for _, b := range bubbles {
				if contains(b, call) {
					return nil
				}
				// A function beside a bubble with the variable may be called in it.
				uses := slices.ContainsFunc(p.mentions[v], func(id *ast.Ident) bool { return contains(b, id) })
				if uses && fn != nil && !contains(fn.node, b) && !p.isMain(fn) {
					return nil
				}
			}
			started = call
		}
	}
	return started
}

// makes reports whether a call makes a manager, or a session, a group or a Locker of one.
func (p *pass) makes(call *ast.CallExpr) bool {
	fn := callee(p.TypesInfo, call)
	if fn == nil || known(fn.Pkg()) == "" || fn.Signature().Results().Len() != 1 {
		return false
	}
	switch kindOf(fn.Signature().Results().At(0).Type()) {
	case other:
		return p.makesLocker(call)
	case aManager, aSession:
		return true
	case aGroup:
		return fn.Name() == "Over" || known(fn.Pkg()) == sharePath // others have no manager
	}
	return false
}

// startsForCaller reports whether a call is of a function of this package that does nothing but
// return a manager which it has started.
func (p *pass) startsForCaller(call *ast.CallExpr) bool {
	callee := callee(p.TypesInfo, call)
	if callee == nil || callee.Signature().Results().Len() != 1 {
		return false
	}
	for _, fn := range p.functions {
		if fn.obj != callee || fn.body == nil {
			continue
		}
		returns, others := 0, 0
		ast.Inspect(fn.body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false
			case *ast.ReturnStmt:
				if len(n.Results) == 1 && p.isStarted(n.Results[0]) {
					returns++
				} else {
					others++
				}
			}
			return true
		})
		return returns > 0 && others == 0
	}
	return false
}

// isStarted reports whether x is a call of Start, or a variable that only ever has what it returned.
func (p *pass) isStarted(x ast.Expr) bool {
	if id := identOf(x); id != nil {
		x = p.onlyValue(p.variable(id))
	}
	if x == nil {
		return false
	}
	call, ok := ast.Unparen(x).(*ast.CallExpr)
	return ok && isStart(callee(p.TypesInfo, call))
}

func (p *pass) isCompared(id *ast.Ident) bool {
	_, ok := p.parent(id).(*ast.BinaryExpr)
	return ok
}
