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

// maxStates bounds a search; one that is longer finds nothing.
const maxStates = 4_000

// A loss is a path on which a lock or a reservation is lost.
type loss struct {
	at      ast.Node // where: a return, or the statement that overwrites it
	pos     token.Pos
	returns bool
	again   bool // it is the source itself, on the next round of a loop
	choices []choice
}

// A choice is a branch that the path takes.
type choice struct {
	pos  token.Pos
	text string
}

// A step is a state of the search.
type step struct {
	block   *cfg.Block
	from    int  // first node
	has     bool // the lock was taken
	assumed assumptions
	live    bool   // the error or bool is still that of the source
	round   bool   // block is the head of a loop, which comes here after a round
	skipped uint64 // guards that were passed by
	prev    *step
	choice  *choice // which led here from prev
}

// A guard is a statement that lets some paths release, and others not.
type guard struct {
	stmt    ast.Node
	related uint64 // other guards that ask for the same
}

// A search looks for a path on which what a source returned is lost.
type search struct {
	*model
	s  *source
	fn *function

	events   []*ast.Ident // mentions of the lock outside literals, and the literals that capture it
	literals map[*ast.Ident]*ast.FuncLit
	fails    []*ast.Ident // mentions of the error or bool
	handled  bool         // something takes care of it on some path
	outer    bool         // the variable belongs to a block around the one of the source
	guards   []guard
	doubts   doubts
}

// lose returns a path on which the lock or reservation of s is lost, nil if there is none
// or none that is certain.
func (m *model) lose(s *source) *loss {
	if s.lock == nil || s.fn.graph == nil || s.unused {
		return nil
	}
	q := &search{model: m, s: s, fn: s.fn, literals: make(map[*ast.Ident]*ast.FuncLit)}
	if !q.collect() {
		return nil
	}
	return q.run()
}

// collect finds the mentions of the lock and of the error; it is false when the lock
// cannot be followed.
func (q *search) collect() bool {
	s := q.s
	for _, id := range q.mentions[s.lock] {
		if lit, captured := q.captured(id, q.fn); captured {
			if q.useOf(id) == looks {
				continue
			}
			// A literal before the source may be called, or run at the end, with any value.
			if !s.defines || lit.Pos() < s.stmt.Pos() {
				return false
			}
			q.literals[id] = lit
			q.handled = true
			q.events = append(q.events, id)
			continue
		}
		switch q.useOf(id) {
		case address:
			return false
		case releases, escapes:
			q.handled = true
		}
		q.events = append(q.events, id)
	}
	if s.fail != nil && s.fail != s.lock {
		for _, id := range q.mentions[s.fail] {
			if lit, captured := q.captured(id, q.fn); captured {
				if q.handled && !q.deferredLiteral(lit) {
					return false
				}
				continue
			}
			q.fails = append(q.fails, id)
		}
	}
	q.outer = !s.defines && q.blockOf(s.stmt) != q.declaringBlock()
	q.findGuards()
	if q.handled {
		q.findDoubts()
	}
	return true
}

// blockOf returns the innermost block, case or function around a node.
func (m *model) blockOf(n ast.Node) ast.Node {
	for n = m.parents[n]; n != nil; n = m.parents[n] {
		switch n.(type) {
		case *ast.BlockStmt, *ast.CaseClause, *ast.CommClause, *ast.FuncDecl, *ast.FuncLit:
			return n
		}
	}
	return nil
}

// declaringBlock returns the block that declares the variable of the lock.
func (q *search) declaringBlock() ast.Node {
	for _, id := range q.mentions[q.s.lock] {
		if q.TypesInfo.Defs[id] == q.s.lock {
			if block := q.blockOf(id); block != q.fn.node {
				return block
			}
			return q.fn.body // a parameter or a result
		}
	}
	return nil
}

// contains reports whether a node contains a mention that takes care of the lock.
func (q *search) contains(n ast.Node) bool {
	if n == nil {
		return false
	}
	for _, id := range q.events {
		if id.Pos() < n.Pos() || id.Pos() >= n.End() {
			continue
		}
		if q.literals[id] != nil {
			return true
		}
		if u := q.useOf(id); u == releases || u == escapes {
			return true
		}
	}
	return false
}

// findGuards finds the statements that release in one of their branches, and which of
// them ask for the same things.
func (q *search) findGuards() {
	var asks []map[types.Object]bool
	ast.Inspect(q.fn.body, func(n ast.Node) bool {
		var body ast.Node
		var conds []ast.Expr
		switch n := n.(type) {
		case nil, *ast.FuncLit:
			return false
		case *ast.IfStmt:
			body, conds = n, []ast.Expr{n.Cond}
		case *ast.ForStmt:
			body, conds = n.Body, []ast.Expr{n.Cond}
		case *ast.RangeStmt:
			body, conds = n.Body, []ast.Expr{n.X}
		case *ast.CaseClause:
			body, conds = n, n.List
			switch sw := q.fn.switches[n].(type) {
			case *ast.SwitchStmt:
				if sw.Tag != nil {
					conds = append([]ast.Expr{sw.Tag}, conds...)
				}
			case *ast.TypeSwitchStmt:
				ast.Inspect(sw.Assign, func(n ast.Node) bool {
					if x, ok := n.(*ast.TypeAssertExpr); ok {
						conds = append(conds, x.X)
					}
					return true
				})
			}
		default:
			return true
		}
		if q.contains(body) && n.Pos() > q.s.stmt.Pos() && len(q.guards) < 64 {
			q.guards = append(q.guards, guard{stmt: n})
			asks = append(asks, q.parts(conds...))
		}
		return true
	})
	for i := range q.guards {
		for j := range q.guards {
			if i != j && intersect(asks[i], asks[j]) && !q.leadToDefault(q.guards[i].stmt, q.guards[j].stmt) {
				q.guards[i].related |= 1 << j
			}
		}
	}
}

// leadToDefault reports whether two guards are clauses of one switch that has a default: a path
// that passes by both has a clause of its own, which says what is done there.
func (q *search) leadToDefault(a, b ast.Node) bool {
	one, ok := a.(*ast.CaseClause)
	if !ok {
		return false
	}
	other, ok := b.(*ast.CaseClause)
	if !ok || q.fn.switches[one] != q.fn.switches[other] {
		return false
	}
	var clauses *ast.BlockStmt
	switch sw := q.fn.switches[one].(type) {
	case *ast.SwitchStmt:
		clauses = sw.Body
	case *ast.TypeSwitchStmt:
		clauses = sw.Body
	default:
		return false
	}
	return slices.ContainsFunc(clauses.List, func(s ast.Stmt) bool { return s.(*ast.CaseClause).List == nil })
}

func intersect(a, b map[types.Object]bool) bool {
	for x := range a {
		if b[x] {
			return true
		}
	}
	return false
}

// run searches breadth first, so that the path that it finds is a short one.
func (q *search) run() *loss {
	first := &step{block: q.fn.graph.Blocks[0]}
	queue := []*step{first}
	seen := make(map[string]bool)
	for i := 0; i < len(queue); i++ {
		if i >= maxStates {
			return nil
		}
		next, lost := q.visit(queue[i])
		if lost != nil {
			lost.choices = choices(queue[i])
			return lost
		}
		for _, s := range next {
			key := fmt.Sprintf("%d %t %t %t %d %s", s.block.Index, s.has, s.live, s.round, s.skipped, s.assumed)
			if !seen[key] {
				seen[key] = true
				queue = append(queue, s)
			}
		}
		queue[i].assumed = nil
	}
	return nil
}

func choices(s *step) []choice {
	var all []choice
	for ; s != nil; s = s.prev {
		if s.choice != nil {
			all = append(all, *s.choice)
		}
	}
	slices.Reverse(all)
	return all
}

// visit follows one block.
func (q *search) visit(s *step) (next []*step, lost *loss) {
	has, live, assumed := s.has, s.live, s.assumed
	visitNode := func(n ast.Node) (end bool) {
		if has {
			var over bool
			over, live, lost = q.node(n, live)
			if over || lost != nil {
				return true
			}
		}
		assumed = q.after(q.fn, assumed, n)
		if n == q.s.stmt {
			has, live = true, q.s.fail != nil
		}
		return q.ends(n)
	}
	switch stmt := s.block.Stmt.(type) {
	case *ast.RangeStmt:
		if s.block.Kind == cfg.KindRangeBody {
			for _, x := range []ast.Expr{stmt.Key, stmt.Value} {
				if x == nil {
					continue
				}
				if obj := q.target(x); obj != nil {
					assumed = assumed.forget(obj)
				}
			}
		}
	case *ast.CommClause:
		if s.block.Kind == cfg.KindSelectCaseBody && stmt.Comm != nil && visitNode(stmt.Comm) {
			return nil, lost
		}
	}
	for i, n := range s.block.Nodes {
		if stmt, ok := n.(ast.Stmt); ok && q.fn.comms[stmt] {
			continue // done in the case that is chosen
		}
		if i == 0 && s.block.Kind == cfg.KindSelectCaseBody {
			if clause, ok := s.block.Stmt.(*ast.CommClause); ok {
				if assign, ok := clause.Comm.(*ast.AssignStmt); ok && assign.Lhs[0] == n {
					continue
				}
			}
		}
		if visitNode(n) {
			return nil, lost
		}
	}
	for i, succ := range s.block.Succs {
		next = append(next, q.follow(s, i, succ, has, live, assumed)...)
	}
	return next, nil
}

// ends reports whether a node ends the goroutine or the test.
func (q *search) ends(n ast.Node) bool {
	stmt, ok := n.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := ast.Unparen(stmt.X).(*ast.CallExpr)
	if !ok {
		return false
	}
	if neverReturns(q.TypesInfo, call) {
		return true
	}
	fn := callee(q.TypesInfo, call)
	return fn != nil && q.cfgs.NoReturn(fn)
}

// node applies a node of the graph to a lock that is held: over is true when the path
// need not be followed any further.
func (q *search) node(n ast.Node, live bool) (over, stillLive bool, lost *loss) {
	end := n.End()
	ret, isReturn := n.(*ast.ReturnStmt)
	if isReturn && len(ret.Results) == 0 {
		end = n.Pos() // the end of a return that the graph adds may lie beyond the file
	}
	overwritten := false
	for _, id := range q.events {
		at := id.Pos()
		if lit := q.literals[id]; lit != nil {
			at = lit.Pos()
		}
		if at < n.Pos() || at >= end {
			continue
		}
		if q.literals[id] != nil {
			return true, live, nil
		}
		if q.mayHandOff(id) {
			continue // verdict knows which way leads on with the lock
		}
		switch q.useOf(id) {
		case releases, escapes:
			return true, live, nil
		case overwrite:
			overwritten = true
		}
	}
	anew := false
	for _, id := range q.fails {
		if id.Pos() < n.Pos() || id.Pos() >= end || !live {
			continue
		}
		switch q.failUse(id) {
		case escapes:
			if q.handled {
				return true, live, nil
			}
		case overwrite:
			anew = true // after the other mentions: err = wrap(err)
		}
	}
	live = live && !anew
	if overwritten || n == q.s.stmt {
		return false, live, &loss{at: n, pos: n.Pos(), again: n == q.s.stmt}
	}
	if isReturn {
		if len(ret.Results) == 0 && isResult(q.fn, q.s.lock) {
			return true, live, nil
		}
		l := &loss{at: n, pos: n.Pos(), returns: true}
		if n.Pos() >= q.fn.body.Rbrace {
			l.pos = q.fn.body.Rbrace
		}
		return false, live, l
	}
	return false, live, nil
}

// mayHandOff reports whether a mention of the lock hands it off in a condition, or without a look
// at the result: when that is false the lock is still held.
func (q *search) mayHandOff(id *ast.Ident) bool {
	call := q.receivedBy(id)
	if call == nil || methodName(call) != "Handoff" || q.s.kind != aLock {
		return false
	}
	child := ast.Node(call)
	for {
		parent := q.parents[child]
		switch p := parent.(type) {
		case *ast.ParenExpr:
		case *ast.UnaryExpr:
			if p.Op != token.NOT {
				return false
			}
		case *ast.BinaryExpr:
			if p.Op != token.LAND && p.Op != token.LOR {
				return false
			}
		case *ast.IfStmt:
			return p.Cond == child
		case *ast.ForStmt:
			return p.Cond == child
		case *ast.CaseClause:
			sw, ok := q.fn.switches[p].(*ast.SwitchStmt)
			return ok && sw.Tag == nil
		case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt:
			return true
		case *ast.AssignStmt:
			return len(p.Lhs) == 1 && isBlank(p.Lhs[0])
		default:
			return false
		}
		child = parent
	}
}

// failUse says what a mention of the error or bool does: looks when it is understood,
// overwrite when it gets another value, escapes when conditions about other things may
// depend on it from now on.
func (m *model) failUse(id *ast.Ident) use {
	if u := m.useOf(id); u == overwrite {
		return overwrite
	}
	child := ast.Node(id)
	for n := m.parents[child]; n != nil; child, n = n, m.parents[n] {
		switch p := n.(type) {
		case *ast.ParenExpr:
		case *ast.UnaryExpr:
			if p.Op != token.NOT {
				return escapes
			}
		case *ast.BinaryExpr:
			switch p.Op {
			case token.EQL, token.NEQ, token.LAND, token.LOR:
			default:
				return escapes
			}
		case *ast.CallExpr:
			if isFunc(callee(m.TypesInfo, p), "errors", "Is", "As") && argument(p, child) == 0 {
				continue
			}
			return m.inEffect(p)
		case *ast.IfStmt, *ast.ForStmt:
			return looks
		case *ast.SwitchStmt:
			return looks
		case *ast.CaseClause:
			if sw, ok := m.parents[m.parents[p]].(*ast.SwitchStmt); ok && sw.Tag == nil {
				return looks
			}
			return escapes
		case *ast.ReturnStmt:
			return looks
		case *ast.SelectorExpr, *ast.CompositeLit, *ast.KeyValueExpr, *ast.IndexExpr:
			return m.inEffect(n)
		case *ast.AssignStmt:
			if i := indexOfNode(p.Rhs, child); i >= 0 && len(p.Lhs) == len(p.Rhs) && isBlank(p.Lhs[i]) {
				return looks
			}
			return escapes
		default:
			return escapes
		}
	}
	return escapes
}

func indexOfNode(list []ast.Expr, n ast.Node) int {
	for i, x := range list {
		if x == n {
			return i
		}
	}
	return -1
}

// inEffect returns looks for what stands in a call for its effect, as logging is, or in a
// return statement, and escapes for everything else.
func (m *model) inEffect(n ast.Node) use {
	for ; n != nil; n = m.parents[n] {
		switch p := n.(type) {
		case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt, *ast.ReturnStmt:
			return looks
		case *ast.UnaryExpr:
			if p.Op == token.AND {
				return escapes
			}
		case ast.Stmt, *ast.FuncLit, *ast.ValueSpec:
			return escapes
		}
	}
	return escapes
}

// follow returns the states after the way to successor i of a block.
func (q *search) follow(from *step, i int, succ *cfg.Block, has, live bool, assumed assumptions) []*step {
	base := step{block: succ, has: has, live: live, assumed: assumed, skipped: from.skipped, prev: from}
	base.round = isRound(from.block, succ)
	br, isBranch := q.fn.branchOf(from.block, i)
	if !isBranch {
		return []*step{&base}
	}
	if i == 1 && !from.round && q.runsOnce(br.stmt) {
		return nil
	}
	doubtful := has && q.doubts.reached[from.block]&fails != 0
	if doubtful && br.cond == nil && q.inDoubt(q.asked(br.stmt)) {
		return nil
	}
	if loop, ok := br.stmt.(*ast.RangeStmt); ok && !from.round && q.isFull(loop) {
		key := q.fullKey(loop.X)
		if full, known := assumed[key]; known && full != (i == 0) {
			return nil
		}
		if q.fn.atoms[key] >= 2 {
			base.assumed = assumed.with(key, i == 0)
		}
	}
	alternatives := [][]atom{nil}
	if br.cond != nil {
		if v := q.constant(br.cond); v != nil {
			if q.isFlag(br.cond) && q.isTrue(br.cond) != (i == 0) {
				return nil
			}
		} else {
			alternatives = q.alternatives(br.cond, i == 0)
		}
	}
	var all []*step
next:
	for _, alternative := range alternatives {
		s := base
		undecided := len(alternative) == 0
		var said []atom // what is not about the error of the source
		for _, a := range alternative {
			if s.has {
				switch q.verdict(a, s.live) {
				case failed:
					continue next // there is no lock on this path
				case granted:
					if q.isHandoff(a) {
						said = append(said, a)
					}
					continue
				}
			}
			said = append(said, a)
			key := q.key(a)
			if truth, known := s.assumed[key]; known {
				if truth != q.holds(a) {
					continue next
				}
				continue
			}
			if doubtful && q.inDoubt(a.x) {
				continue next // it may be another way to ask whether there is a lock
			}
			undecided = true
			if q.fn.atoms[key] < 2 {
				continue
			}
			s.assumed = s.assumed.with(key, q.holds(a))
		}
		if s.has && undecided && !q.allow(br, &s) {
			continue
		}
		if s.has && br.stmt != nil && (len(said) > 0 || len(alternative) == 0) {
			s.choice = q.describe(br, said, i)
		}
		all = append(all, &s)
	}
	return all
}

// isRound reports whether the way from one block to another leads back to the head of a
// loop from its body.
func isRound(from, to *cfg.Block) bool {
	var body *ast.BlockStmt
	switch loop := to.Stmt.(type) {
	case *ast.RangeStmt:
		body = loop.Body
	case *ast.ForStmt:
		body = loop.Body
	default:
		return false
	}
	if to.Kind != cfg.KindRangeLoop && to.Kind != cfg.KindForLoop || from.Stmt == nil {
		return false
	}
	return from.Stmt == to.Stmt || from.Stmt.Pos() >= body.Pos() && from.Stmt.End() <= body.End()
}

// runsOnce reports whether a loop is certain to run at least once: it ranges over a
// number, or over elements that are written down, or counts from one constant to another.
func (q *search) runsOnce(stmt ast.Node) bool {
	switch loop := stmt.(type) {
	case *ast.RangeStmt:
		x := ast.Unparen(loop.X)
		if v := q.constant(x); v != nil {
			switch v.Kind() {
			case constant.Int:
				return constant.Sign(v) > 0
			case constant.String:
				return constant.StringVal(v) != ""
			}
			return false
		}
		if array, ok := q.under(x).(*types.Array); ok {
			return array.Len() > 0
		}
		lit, ok := x.(*ast.CompositeLit)
		return ok && len(lit.Elts) > 0
	case *ast.ForStmt:
		init, ok := loop.Init.(*ast.AssignStmt)
		if !ok || len(init.Lhs) != 1 || len(init.Rhs) != 1 {
			return false
		}
		cond, ok := loop.Cond.(*ast.BinaryExpr)
		if !ok {
			return false
		}
		counter, ok := ast.Unparen(init.Lhs[0]).(*ast.Ident)
		if !ok || !q.is(cond.X, q.variable(counter)) {
			return false
		}
		from, to := q.constant(init.Rhs[0]), q.constant(cond.Y)
		if from == nil || to == nil {
			return false
		}
		switch cond.Op {
		case token.LSS, token.LEQ, token.GTR, token.GEQ, token.NEQ:
			return constant.Compare(from, cond.Op, to)
		}
	}
	return false
}

func (q *search) isTrue(x ast.Expr) bool {
	return q.constant(x).ExactString() == "true"
}

// allow reports whether a path may take a branch that nothing is known about. It may not
// where code that is right can look the same:
//
//   - the variable belongs to a block around that of the source, and the branch passes by
//     a release, or leads to an assignment: whether the lock was taken and whether the
//     branch is taken may depend on each other;
//   - the branch leads to an assignment in a loop that begins after the source: it may
//     be one for all rounds but the first;
//   - the path passes by two releases whose conditions ask for the same.
func (q *search) allow(br branch, s *step) bool {
	if br.stmt == nil {
		return true
	}
	skips := q.contains(br.stmt) && !q.contains(br.into)
	if q.outer {
		return !skips && (!q.overwrites(br.into) || isLoop(br.stmt) && contains(br.stmt, q.s.stmt))
	}
	if q.overwrites(br.into) && q.inLaterLoop(br.stmt) {
		return false
	}
	if !skips {
		return true
	}
	for i, g := range q.guards {
		if g.stmt != br.stmt {
			continue
		}
		if s.skipped&g.related != 0 {
			return false
		}
		if g.related != 0 {
			s.skipped |= 1 << i
		}
	}
	return true
}

func isLoop(n ast.Node) bool {
	switch n.(type) {
	case *ast.ForStmt, *ast.RangeStmt:
		return true
	}
	return false
}

// inLaterLoop reports whether a statement stands in a loop that does not contain the
// source.
func (q *search) inLaterLoop(n ast.Node) bool {
	for n = q.parents[n]; n != nil && n != q.fn.node; n = q.parents[n] {
		if isLoop(n) && !contains(n, q.s.stmt) {
			return true
		}
	}
	return false
}

// overwrites reports whether a node contains an assignment to the variable.
func (q *search) overwrites(n ast.Node) bool {
	return n != nil && q.isAt(n, q.events)
}

// A verdict says what a condition tells of the lock.
type verdict uint8

const (
	nothing verdict = iota
	granted         // it is held
	failed          // it was not granted
)

// verdict returns what an atom tells, live being whether the error or bool is still that
// of the source.
func (q *search) verdict(a atom, live bool) verdict {
	truth := func(is verdict) verdict {
		if a.truth {
			return is
		}
		return granted + failed - is
	}
	fail := q.s.fail
	if fail != nil && live {
		x := a.x
		if a.op == token.ILLEGAL && a.l != nil {
			x = a.l
		}
		switch {
		case a.op == token.ILLEGAL && isBool(fail.Type()) && q.is(x, fail):
			return truth(granted)
		case a.op == token.EQL && q.is(a.l, fail) && q.isNil(a.r):
			return truth(granted)
		case a.op == token.EQL && (q.is(a.l, fail) || q.is(a.r, fail)):
			if a.truth {
				return failed
			}
		case a.op == token.ILLEGAL:
			call, ok := x.(*ast.CallExpr)
			if ok && isFunc(callee(q.TypesInfo, call), "errors", "Is", "As") && len(call.Args) == 2 && q.is(call.Args[0], fail) && a.truth {
				return failed
			}
		}
	}
	if q.isHandoff(a) {
		return truth(failed) // true when the lock is gone
	}
	// The zero lock has no number.
	switch a.op {
	case token.EQL:
		if q.isNumber(a.l) && q.isZero(a.r) || q.is(a.l, q.s.lock) && isComposite(a.r) || q.is(a.r, q.s.lock) && isComposite(a.l) {
			return truth(failed)
		}
	case token.LSS:
		if q.isZero(a.l) && q.isNumber(a.r) {
			return truth(granted)
		}
		if v := q.constant(a.r); q.isNumber(a.l) && v != nil && v.ExactString() == "1" {
			return truth(failed)
		}
	}
	return nothing
}

// isHandoff reports whether an atom is a Handoff of the lock.
func (q *search) isHandoff(a atom) bool {
	call, ok := ast.Unparen(a.x).(*ast.CallExpr)
	return ok && a.op == token.ILLEGAL && methodName(call) == "Handoff" && q.is(receiver(call), q.s.lock)
}

// is reports whether x is a variable.
func (m *model) is(x ast.Expr, v *types.Var) bool {
	id, ok := ast.Unparen(x).(*ast.Ident)
	return ok && v != nil && m.variable(id) == v
}

// isNumber reports whether x is the number of the lock, as in lock.Seq().
func (q *search) isNumber(x ast.Expr) bool {
	call, ok := x.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Seq" && q.is(sel.X, q.s.lock)
}

func (m *model) isZero(x ast.Expr) bool {
	v := m.constant(x)
	return v != nil && v.ExactString() == "0"
}

func isComposite(x ast.Expr) bool {
	_, ok := ast.Unparen(x).(*ast.CompositeLit)
	return ok
}

// describe says in words which way a branch goes.
func (q *search) describe(br branch, alternative []atom, i int) *choice {
	c := &choice{pos: br.stmt.Pos()}
	switch stmt := br.stmt.(type) {
	case *ast.RangeStmt:
		c.text = "the loop is entered"
		if i == 1 {
			c.text = "the loop ends"
		}
		return c
	case *ast.CommClause:
		if i == 1 {
			return nil
		}
		c.text = "this case of the select is chosen"
		return c
	case *ast.CaseClause:
		if _, ok := q.fn.switches[stmt].(*ast.TypeSwitchStmt); ok {
			c.text = "the type is one of this case"
			if i == 1 {
				c.text = "the type is none of this case"
			}
			return c
		}
	}
	var parts []string
	for _, a := range alternative {
		parts = append(parts, fmt.Sprintf("%s is %t", q.short(a.x), a.as))
	}
	if len(parts) == 0 && br.cond != nil {
		parts = append(parts, fmt.Sprintf("%s is %t", q.short(br.cond), i == 0))
	}
	if len(parts) == 0 {
		return nil
	}
	c.pos = br.cond.Pos()
	c.text = strings.Join(parts, ", ")
	return c
}

// short returns the source of an expression, cut when it is long.
func (m *model) short(x ast.Expr) string {
	text := types.ExprString(x)
	if len(text) > 40 {
		text = text[:37] + "..."
	}
	return text
}

// related returns the path of a loss for a report.
func (m *model) related(l *loss) []analysis.RelatedInformation {
	var all []analysis.RelatedInformation
	for _, c := range l.choices {
		all = append(all, analysis.RelatedInformation{Pos: c.pos, Message: "where " + c.text})
	}
	last := analysis.RelatedInformation{Pos: l.pos, Message: "it is lost here"}
	return append(all, last)
}

// path returns the path of a loss in words, with lines.
func (m *model) path(l *loss) string {
	var where string
	switch {
	case l.returns:
		where = fmt.Sprintf("when the function returns on line %d", m.line(l.pos))
	case l.again:
		where = "on the next round of the loop"
	default:
		where = fmt.Sprintf("before it is overwritten on line %d", m.line(l.pos))
	}
	var parts []string
	for i, c := range l.choices {
		if i == 3 && len(l.choices) > 4 {
			parts = append(parts, fmt.Sprintf("and %d more", len(l.choices)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("line %d: %s", m.line(c.pos), c.text))
	}
	if len(parts) > 0 {
		where += " (" + strings.Join(parts, "; ") + ")"
	}
	return where
}
