package keylockcheck

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/cfg"
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
			if fn := callee(m.TypesInfo, p); fn != nil && (m.isBorrowed(fn, i) || fn.Pkg() != nil && printsOnly(fn)) {
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

// A flow computes what is certain at each point of a function: on all paths that lead
// there. States are small numbers of which the smallest is "nothing is certain".
type flow struct {
	fn   *function
	node func(state int, n ast.Node) int
	edge func(state int, b *cfg.Block, succ int) int // may be nil
}

// unreached is the state of a block that no path has reached so far.
const unreached = -1

// before returns the states at the begin of each block.
func (f *flow) before() []int {
	blocks := f.fn.graph.Blocks
	in := make([]int, len(blocks))
	for i := range in {
		in[i] = unreached
	}
	in[0] = 0
	work := []*cfg.Block{blocks[0]}
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		out := in[b.Index]
		for _, n := range f.nodes(b) {
			out = f.node(out, n)
		}
		for i, succ := range b.Succs {
			state := out
			if f.edge != nil {
				if state = f.edge(out, b, i); state == unreached {
					continue
				}
			}
			switch old := in[succ.Index]; {
			case old == unreached:
				in[succ.Index] = state
			case state < old:
				in[succ.Index] = state
			default:
				continue
			}
			work = append(work, succ)
		}
	}
	return in
}

// each calls visit with every node that is reached and the state before it.
func (f *flow) each(visit func(state int, n ast.Node)) {
	in := f.before()
	for _, b := range f.fn.graph.Blocks {
		state := in[b.Index]
		if state == unreached {
			continue
		}
		for _, n := range f.nodes(b) {
			visit(state, n)
			state = f.node(state, n)
		}
	}
}

// nodes returns the nodes of a block, those of a select in the case that is chosen.
func (f *flow) nodes(b *cfg.Block) []ast.Node {
	var all []ast.Node
	if clause, ok := b.Stmt.(*ast.CommClause); ok && b.Kind == cfg.KindSelectCaseBody && clause.Comm != nil {
		all = append(all, clause.Comm)
	}
	for _, n := range b.Nodes {
		if stmt, ok := n.(ast.Stmt); ok && f.fn.comms[stmt] {
			continue
		}
		all = append(all, n)
	}
	return all
}

// span returns where the source of a node begins and ends: a return that the graph adds
// has no end.
func span(n ast.Node) (from, to token.Pos) {
	if ret, ok := n.(*ast.ReturnStmt); ok && len(ret.Results) == 0 {
		return n.Pos(), n.Pos()
	}
	return n.Pos(), n.End()
}
