package keylockcheck

import (
	"go/ast"
	"go/token"

	"golang.org/x/tools/go/cfg"
)

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
