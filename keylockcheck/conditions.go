package keylockcheck

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/cfg"
)

// An atom is a comparison, or another condition without !, && and ||, and whether it
// holds. Of each pair of opposite comparisons only one occurs: == and <.
type atom struct {
	x     ast.Expr    // the condition as it is written, for people
	op    token.Token // EQL or LSS; ILLEGAL for no comparison
	l, r  ast.Expr
	truth bool // of l op r
	as    bool // truth of x
}

// alternatives returns how the condition can come to have that truth: in each alternative
// all atoms hold. Of a condition with more than sixteen it returns none, so that no path
// leads through it.
func (m *model) alternatives(x ast.Expr, truth bool) [][]atom {
	known := alternativesKey{x, truth}
	all, ok := m.conditions[known]
	if !ok {
		all = m.newAlternatives(x, truth)
		if !m.done { // the rules share the model, and run side by side
			m.conditions[known] = all
		}
	}
	return all
}

// An alternativesKey names a condition that was looked at before.
type alternativesKey struct {
	x     ast.Expr
	truth bool
}

func (m *model) newAlternatives(x ast.Expr, truth bool) [][]atom {
	switch e := ast.Unparen(x).(type) {
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return m.alternatives(e.X, !truth)
		}
	case *ast.BinaryExpr:
		if e.Op != token.LAND && e.Op != token.LOR {
			break
		}
		// a && b holds when both do; it fails when a does, or a holds and b fails.
		decides := e.Op == token.LOR // the truth of a that decides without b
		if truth != decides {
			return product(m.alternatives(e.X, truth), m.alternatives(e.Y, truth))
		}
		a, b := m.alternatives(e.X, truth), product(m.alternatives(e.X, !truth), m.alternatives(e.Y, truth))
		if len(a) == 0 || len(b) == 0 || len(a)+len(b) > 16 {
			return nil
		}
		return slices.Concat(a, b)
	}
	return [][]atom{{m.atomOf(x, truth)}}
}

func product(a, b [][]atom) [][]atom {
	if len(a)*len(b) > 16 {
		return nil
	}
	var all [][]atom
	for _, x := range a {
		for _, y := range b {
			all = append(all, slices.Concat(x, y))
		}
	}
	return all
}

// atomOf returns the atom of a condition without !, && and ||.
func (m *model) atomOf(x ast.Expr, truth bool) atom {
	a := atom{x: ast.Unparen(x), truth: truth, as: truth}
	e, ok := a.x.(*ast.BinaryExpr)
	if !ok {
		return a
	}
	a.l, a.r = ast.Unparen(e.X), ast.Unparen(e.Y)
	switch e.Op {
	case token.EQL:
		a.op = token.EQL
	case token.NEQ:
		a.op, a.truth = token.EQL, !truth
	case token.LSS:
		a.op = token.LSS
	case token.GEQ:
		a.op, a.truth = token.LSS, !truth
	case token.GTR:
		a.op, a.l, a.r = token.LSS, a.r, a.l
	case token.LEQ:
		a.op, a.l, a.r, a.truth = token.LSS, a.r, a.l, !truth
	default:
		a.l, a.r = nil, nil
		return a
	}
	if a.op == token.EQL && m.isConstant(a.l) && !m.isConstant(a.r) {
		a.l, a.r = a.r, a.l
	}
	// x == true is x.
	if a.op == token.EQL {
		if v := m.constant(a.r); v != nil && v.Kind() == constant.Bool {
			if !constant.BoolVal(v) {
				a.truth = !a.truth
			}
			return atom{x: a.x, l: a.l, truth: a.truth, as: truth}
		}
	}
	return a
}

func (m *model) constant(x ast.Expr) constant.Value {
	if x == nil {
		return nil
	}
	return m.TypesInfo.Types[x].Value
}

func (m *model) isConstant(x ast.Expr) bool {
	return m.constant(x) != nil || m.isNil(x)
}

func (m *model) isNil(x ast.Expr) bool {
	return x != nil && m.TypesInfo.Types[x].IsNil()
}

// key names an atom: two atoms of the same key hold or fail together, as long as nothing
// in them is assigned to.
func (m *model) key(a atom) string {
	var b strings.Builder
	if x := m.measured(a); x != nil {
		return m.fullKey(x)
	}
	if a.op == token.ILLEGAL {
		x := a.x
		if a.l != nil {
			x = a.l
		}
		m.write(&b, x)
		return b.String()
	}
	m.write(&b, a.l)
	b.WriteString(a.op.String())
	m.write(&b, a.r)
	return b.String()
}

// measured returns x when an atom asks whether x is empty: len(x) == 0 or 0 < len(x).
func (m *model) measured(a atom) ast.Expr {
	var size ast.Expr
	switch {
	case a.op == token.EQL && m.isZero(a.r):
		size = a.l
	case a.op == token.LSS && m.isZero(a.l):
		size = a.r
	default:
		return nil
	}
	call, ok := size.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return nil
	}
	if b, ok := m.TypesInfo.Uses[identOf(call.Fun)].(*types.Builtin); !ok || b.Name() != "len" {
		return nil
	}
	return call.Args[0]
}

func identOf(x ast.Expr) *ast.Ident {
	id, _ := ast.Unparen(x).(*ast.Ident)
	return id
}

// fullKey is the key of the assumption that there is something in x to range over.
func (m *model) fullKey(x ast.Expr) string {
	var b strings.Builder
	b.WriteString("range ")
	m.write(&b, ast.Unparen(x))
	return b.String()
}

// holds returns what an atom says of its key.
func (m *model) holds(a atom) bool {
	if a.op == token.EQL && m.measured(a) != nil {
		return !a.truth
	}
	return a.truth
}

// isFull reports whether a loop ranges over something whose size stays as it is.
func (m *model) isFull(loop *ast.RangeStmt) bool {
	t := m.TypesInfo.TypeOf(loop.X)
	if t == nil {
		return false
	}
	switch t := types.Unalias(t).Underlying().(type) {
	case *types.Slice, *types.Map, *types.Array:
		return true
	case *types.Basic:
		return t.Info()&(types.IsInteger|types.IsString) != 0
	}
	return false
}

// write writes an expression with each identifier made unique.
func (m *model) write(b *strings.Builder, x ast.Expr) {
	ast.Inspect(x, func(n ast.Node) bool {
		switch n := n.(type) {
		case nil:
			b.WriteByte(')')
		case *ast.ParenExpr:
			b.WriteByte('(')
		case *ast.Ident:
			if obj := m.TypesInfo.ObjectOf(n); obj != nil && obj.Pos().IsValid() {
				fmt.Fprintf(b, "%s#%d(", n.Name, obj.Pos())
			} else {
				fmt.Fprintf(b, "%s(", n.Name)
			}
		case *ast.BasicLit:
			fmt.Fprintf(b, "%s(", n.Value)
		case *ast.BinaryExpr:
			fmt.Fprintf(b, "%s(", n.Op)
		case *ast.UnaryExpr:
			fmt.Fprintf(b, "%s(", n.Op)
		case *ast.FuncLit:
			fmt.Fprintf(b, "func@%d(", n.Pos())
		default:
			fmt.Fprintf(b, "%T(", n)
		}
		return true
	})
}

// name is how an object is written in keys.
func objectName(obj types.Object) string { return fmt.Sprintf("%s#%d(", obj.Name(), obj.Pos()) }

// parts returns the variables, fields and functions that a condition asks, but for
// errors, which are assigned again and again.
func (m *model) parts(list ...ast.Expr) map[types.Object]bool {
	found := make(map[types.Object]bool)
	for _, x := range list {
		if x == nil {
			continue
		}
		ast.Inspect(x, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if obj := m.TypesInfo.Uses[sel.Sel]; obj != nil {
					found[obj] = true
				}
				if _, ok := m.TypesInfo.Selections[sel]; ok {
					return false
				}
			}
			if id, ok := n.(*ast.Ident); ok {
				switch obj := m.TypesInfo.Uses[id].(type) {
				case *types.Var:
					if !isError(obj.Type()) {
						found[obj] = true
					}
				case *types.Func:
					found[obj] = true
				}
			}
			return true
		})
	}
	return found
}

// A branch is one of two ways on from the end of a block.
type branch struct {
	stmt ast.Node // *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.CaseClause, *ast.CommClause
	cond ast.Expr // nil where the choice is not a condition
	into ast.Node // the code that this way leads into; nil when it leads past the statement
}

// branchOf describes the way to successor i; ok is false when there is no choice.
func (fn *function) branchOf(b *cfg.Block, i int) (br branch, ok bool) {
	if len(b.Succs) != 2 {
		return branch{}, false
	}
	first := b.Succs[0]
	switch stmt := first.Stmt.(type) {
	case *ast.IfStmt:
		br = branch{stmt: stmt, cond: stmt.Cond, into: stmt.Body}
		if i == 1 {
			br.into = nil
			if stmt.Else != nil {
				br.into = stmt.Else
			}
		}
	case *ast.ForStmt:
		br = branch{stmt: stmt, cond: stmt.Cond, into: stmt.Body}
	case *ast.RangeStmt:
		br = branch{stmt: stmt, into: stmt.Body}
	case *ast.CommClause:
		br = branch{stmt: stmt, into: stmt}
	case *ast.CaseClause:
		br = branch{stmt: stmt, into: stmt}
		sw, ok := fn.switches[stmt].(*ast.SwitchStmt)
		if !ok || len(b.Nodes) == 0 {
			break
		}
		value, ok := b.Nodes[len(b.Nodes)-1].(ast.Expr)
		if !ok {
			break
		}
		if sw.Tag == nil {
			br.cond = value
		} else {
			br.cond = &ast.BinaryExpr{X: sw.Tag, OpPos: value.Pos(), Op: token.EQL, Y: value}
		}
	default:
		return branch{}, true
	}
	if _, isIf := br.stmt.(*ast.IfStmt); i == 1 && !isIf {
		br.into = nil
	}
	return br, true
}

// prepareAll prepares the functions that the rules search: those that take a lock, and
// those that are given one.
func (m *model) prepareAll() {
	for _, s := range m.sources {
		if s.fn != nil {
			m.prepare(s.fn)
		}
	}
	for _, fn := range m.functions {
		if fn.sig == nil {
			continue
		}
		for i := range fn.sig.Params().Len() {
			if k := kindOf(fn.sig.Params().At(i).Type()); k == aLock || k == aReservation {
				m.prepare(fn)
			}
		}
	}
}

// prepare fills the maps of a function.
func (m *model) prepare(fn *function) {
	if fn.switches != nil || fn.body == nil {
		return
	}
	fn.comms = make(map[ast.Stmt]bool)
	fn.switches = make(map[*ast.CaseClause]ast.Stmt)
	fn.atoms = make(map[string]int)
	count := func(x ast.Expr, at ast.Node) {
		if x == nil {
			return
		}
		seen := make(map[string]int) // twice in one alternative matters too: x && !x
		for _, truth := range []bool{false, true} {
			for _, alternative := range m.alternatives(x, truth) {
				here := make(map[string]int)
				for _, a := range alternative {
					key := m.key(a)
					here[key]++
					seen[key] = max(seen[key], here[key])
				}
			}
		}
		for key, n := range seen {
			fn.atoms[key] += n
			if m.inLoop(at, fn) && !strings.Contains(key, "*ast.CallExpr(") {
				fn.atoms[key]++ // each round asks again, for what may not have changed
			}
		}
	}
	ast.Inspect(fn.body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.IfStmt:
			count(n.Cond, n)
		case *ast.RangeStmt:
			if m.isFull(n) {
				fn.atoms[m.fullKey(n.X)]++
				if m.inLoop(m.parents[n], fn) {
					fn.atoms[m.fullKey(n.X)]++
				}
			}
		case *ast.ForStmt:
			count(n.Cond, n)
		case *ast.SwitchStmt:
			for _, clause := range n.Body.List {
				clause := clause.(*ast.CaseClause)
				fn.switches[clause] = n
				for _, x := range clause.List {
					if n.Tag != nil {
						x = &ast.BinaryExpr{X: n.Tag, Op: token.EQL, Y: x}
					}
					count(x, clause)
				}
			}
		case *ast.TypeSwitchStmt:
			for _, clause := range n.Body.List {
				fn.switches[clause.(*ast.CaseClause)] = n
			}
		case *ast.CommClause:
			if n.Comm != nil {
				fn.comms[n.Comm] = true
			}
		case *ast.AssignStmt:
			// A flag: one condition that asks for it is enough to matter.
			for i, l := range n.Lhs {
				if len(n.Lhs) == len(n.Rhs) && m.isFlag(n.Rhs[i]) {
					fn.atoms[m.key(atom{x: ast.Unparen(l)})]++
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				if v := m.variable(name); v != nil && isBool(v.Type()) {
					fn.atoms[m.key(atom{x: name})]++
				}
			}
		}
		return true
	})
}

// inLoop reports whether a statement can run more than once.
func (m *model) inLoop(n ast.Node, fn *function) bool {
	for ; n != nil && n != fn.node; n = m.parents[n] {
		switch n.(type) {
		case *ast.ForStmt, *ast.RangeStmt, *ast.LabeledStmt:
			return true
		}
	}
	return false
}

// isFlag reports whether x is true or false.
func (m *model) isFlag(x ast.Expr) bool {
	v := m.constant(x)
	return v != nil && v.Kind() == constant.Bool
}

// assumptions are what the conditions that a path has passed say of later ones.
type assumptions map[string]bool

func (a assumptions) String() string {
	keys := make([]string, 0, len(a))
	for key, truth := range a {
		keys = append(keys, fmt.Sprint(key, truth, ";"))
	}
	slices.Sort(keys)
	return strings.Join(keys, "")
}

// forget returns the assumptions without those about an object.
func (a assumptions) forget(obj types.Object) assumptions {
	name := objectName(obj)
	kept := a
	for key := range a {
		if strings.Contains(key, name) {
			if len(kept) == len(a) {
				kept = assumptions{}
				for k, v := range a {
					kept[k] = v
				}
			}
			delete(kept, key)
		}
	}
	return kept
}

func (a assumptions) with(key string, truth bool) assumptions {
	if old, ok := a[key]; ok && old == truth {
		return a
	}
	more := make(assumptions, len(a)+1)
	for k, v := range a {
		more[k] = v
	}
	more[key] = truth
	return more
}

// after returns the assumptions after a node: what it assigns to is no longer known, but
// for flags.
func (m *model) after(fn *function, a assumptions, n ast.Node) assumptions {
	set := func(x ast.Expr, value ast.Expr, zero bool) {
		x = ast.Unparen(x)
		if obj := m.target(x); obj != nil {
			a = a.forget(obj)
		}
		if key := m.key(atom{x: x}); fn.atoms[key] >= 2 {
			if zero {
				a = a.with(key, false)
			} else if value != nil && m.isFlag(value) {
				a = a.with(key, constant.BoolVal(m.constant(value)))
			}
		}
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		for i, l := range n.Lhs {
			var value ast.Expr
			if len(n.Lhs) == len(n.Rhs) {
				value = n.Rhs[i]
			}
			set(l, value, false)
		}
	case *ast.IncDecStmt:
		set(n.X, nil, false)
	case *ast.ValueSpec:
		for i, name := range n.Names {
			var value ast.Expr
			if len(n.Names) == len(n.Values) {
				value = n.Values[i]
			}
			v := m.variable(name)
			set(name, value, len(n.Values) == 0 && v != nil && isBool(v.Type()))
		}
	}
	return a
}

// target returns the variable or field that an expression on the left assigns to.
func (m *model) target(x ast.Expr) types.Object {
	switch x := ast.Unparen(x).(type) {
	case *ast.Ident:
		return m.TypesInfo.ObjectOf(x)
	case *ast.SelectorExpr:
		return m.TypesInfo.ObjectOf(x.Sel)
	case *ast.IndexExpr:
		return m.target(x.X)
	case *ast.StarExpr:
		return m.target(x.X)
	}
	return nil
}

// A standing says whether there may be no lock, because the source failed or it was handed off, and
// whether there may be one.
type standing uint8

const (
	fails standing = 1 << iota
	succeeds
	unknown = fails | succeeds
)

// Doubts are what a source that fails may leave for later conditions to ask, instead of its error.
type doubts struct {
	reached map[*cfg.Block]standing // at the ends of blocks, while the variable has what the source returned
	changed map[types.Object]bool   // where it is known whether the source failed, or from what it returned
	nodes   map[ast.Node]standing
	any     bool // a function that is not known was called there, as a literal in a variable
}

// findDoubts fills doubts. A path on which the source failed may go on to where others go that have
// the lock. What only one of them assigns to tells them apart, and so may what only one passes to a
// function, or calls a method of.
func (q *search) findDoubts() {
	type place struct {
		block    *cfg.Block
		standing standing
		live     bool // the error or bool is still that of the source
	}
	nodes := make(map[ast.Node]standing)
	q.doubts = doubts{make(map[*cfg.Block]standing), make(map[types.Object]bool), nodes, false}
	f := &flow{fn: q.fn}
	seen := make(map[place]bool)
	var visit func(at place, list []ast.Node)
	follow := func(at place) {
		q.doubts.reached[at.block] |= at.standing
		for i, succ := range at.block.Succs {
			to := place{succ, at.standing, at.live}
			if br, ok := q.fn.branchOf(at.block, i); ok && br.cond != nil {
				to.standing = q.standingAfter(br.cond, i == 0, at.standing, at.live)
			}
			if to.standing != 0 && !seen[to] {
				seen[to] = true
				visit(to, f.nodes(succ))
			}
		}
	}
	visit = func(at place, list []ast.Node) {
		for _, n := range list {
			if n == q.s.stmt || q.ends(n) || q.overwrites(n) {
				return
			}
			nodes[n] |= at.standing
			at.live = at.live && !q.isAt(n, q.fails)
		}
		follow(at)
	}
	first := succeeds
	if q.s.fails {
		first = unknown
	}
	for _, b := range q.fn.graph.Blocks {
		if i := slices.Index(f.nodes(b), q.s.stmt); i >= 0 && b.Live {
			visit(place{b, first, q.s.fail != nil}, f.nodes(b)[i+1:])
		}
	}
	for n, standing := range nodes {
		if standing != unknown || q.mentionsLock(n) {
			q.findChanges(n)
		}
	}
}

// isAt reports whether a node assigns to the variable of one of the mentions.
func (q *search) isAt(n ast.Node, mentions []*ast.Ident) bool {
	from, to := span(n)
	return slices.ContainsFunc(mentions, func(id *ast.Ident) bool {
		return id.Pos() >= from && id.Pos() < to && q.useOf(id) == overwrite && q.literals[id] == nil
	})
}

// standingAfter returns what is possible when a condition has that truth, 0 when nothing is.
func (q *search) standingAfter(cond ast.Expr, truth bool, before standing, live bool) (after standing) {
	alternatives := q.alternatives(cond, truth)
	if len(alternatives) == 0 {
		return before
	}
	for _, alternative := range alternatives {
		possible := before
		for _, a := range alternative {
			switch is := q.verdict(a, live); {
			case q.isHandoff(a):
				if is == failed {
					possible = fails
				}
			case is == failed:
				possible &= fails
			case is == granted:
				possible &= succeeds
			}
		}
		after |= possible
	}
	return after
}

// mentionsLock reports whether a node mentions the lock.
func (q *search) mentionsLock(n ast.Node) bool {
	from, to := span(n)
	return slices.ContainsFunc(q.mentions[q.s.lock], func(id *ast.Ident) bool { return id.Pos() >= from && id.Pos() < to })
}

// findChanges notes what a node may change.
func (q *search) findChanges(n ast.Node) {
	change := func(obj types.Object) {
		if v, ok := obj.(*types.Var); ok && v != q.s.lock && v != q.s.fail {
			q.doubts.changed[v] = true
		}
	}
	assign := func(x ast.Expr) {
		for ok := true; ok; { // a field, and what it is a field of
			change(q.target(x))
			var sel *ast.SelectorExpr
			if sel, ok = ast.Unparen(x).(*ast.SelectorExpr); ok {
				x = sel.X
			}
		}
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				assign(l)
			}
		case *ast.IncDecStmt:
			assign(n.X)
		case *ast.ValueSpec:
			for _, name := range n.Names {
				assign(name)
			}
		case *ast.SendStmt:
			assign(n.Chan)
		case *ast.CallExpr:
			fn := callee(q.TypesInfo, n)
			if is := q.TypesInfo.Types[n.Fun]; fn == nil && !is.IsType() && !is.IsBuiltin() {
				q.doubts.any = true
			}
			if fn != nil && fn.Pkg() != nil && printsOnly(fn) && fn.Pkg().Path() != "testing" {
				break
			}
			ast.Inspect(n, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					if obj := q.TypesInfo.Uses[id]; obj != nil && mayChange(obj.Type()) {
						change(obj)
					}
				}
				_, isLit := n.(*ast.FuncLit)
				return !isLit
			})
		}
		return true
	})
}

// mayChange reports whether a function that is given something of a type may change what is behind it.
func mayChange(t types.Type) bool {
	_, isBasic := t.Underlying().(*types.Basic)
	return !isBasic && t.String() != "context.Context"
}

// asked returns what a statement asks that has no condition.
func (q *search) asked(stmt ast.Node) ast.Node {
	switch stmt := stmt.(type) {
	case *ast.RangeStmt:
		return stmt.X
	case *ast.CommClause:
		if stmt.Comm != nil {
			return stmt.Comm
		}
	case *ast.CaseClause:
		if sw, ok := q.fn.switches[stmt].(*ast.TypeSwitchStmt); ok {
			return sw.Assign
		}
	}
	return nil
}

// inDoubt reports whether what a node asks may depend on whether the source failed.
func (q *search) inDoubt(n ast.Node) (yes bool) {
	if n == nil || q.doubts.any {
		return q.doubts.any
	}
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			v, ok := q.TypesInfo.ObjectOf(id).(*types.Var)
			yes = yes || ok && (v == q.s.lock || q.doubts.changed[v] || q.isSetElsewhere(v))
		}
		return !yes
	})
	return yes
}

// isSetElsewhere reports whether another function assigns to a variable, as a literal in this one.
func (q *search) isSetElsewhere(v *types.Var) bool {
	return v != q.s.fail && slices.ContainsFunc(q.mentions[v], func(id *ast.Ident) bool {
		return q.TypesInfo.Defs[id] == nil && q.useOf(id) == overwrite && q.within(id) != q.fn
	})
}
