package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// A mutant is one small change.
type mutant struct {
	number int // from 1
	file   string
	line   int
	text   string // of the line
	change string
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", m.file, m.line, m.change, m.text)
}

// key names the mutant wherever its line has moved.
func (m mutant) key() string { return fmt.Sprintf("%s: %s: %s", m.file, m.change, m.text) }

// A mutator writes a source in which every mutant is there, and asleep: it inserts text
// that asks mutated(number) around what the mutant changes.
type mutator struct {
	file    string
	source  string
	files   *token.FileSet
	mutants *[]mutant
	inserts []insert
}

// An insert goes before a position. Of two at one place, what begins goes inwards and what
// ends goes outwards.
type insert struct {
	at   int
	ends bool
	text string
}

// mutate returns the source with its mutants, which it adds to the others.
func mutate(file, source string, mutants *[]mutant) (string, error) {
	m := &mutator{file: file, source: source, files: token.NewFileSet(), mutants: mutants}
	parsed, err := parser.ParseFile(m.files, file, source, parser.ParseComments)
	if err != nil {
		return "", err
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			ast.Inspect(f.Body, m.visit)
		}
	}
	return m.apply(), nil
}

// apply makes the inserts.
func (m *mutator) apply() string {
	// What ends at a place goes before what begins there, and what began last ends first.
	order := make([]int, len(m.inserts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := m.inserts[i], m.inserts[j]
		switch {
		case a.at != b.at:
			return a.at - b.at
		case a.ends != b.ends:
			if a.ends {
				return -1
			}
			return 1
		case a.ends:
			return j - i
		}
		return i - j
	})
	var b strings.Builder
	last := 0
	for _, i := range order {
		b.WriteString(m.source[last:m.inserts[i].at])
		b.WriteString(m.inserts[i].text)
		last = m.inserts[i].at
	}
	b.WriteString(m.source[last:])
	return b.String()
}

func (m *mutator) offset(p token.Pos) int { return m.files.Position(p).Offset }

func (m *mutator) textOf(n ast.Node) string { return m.source[m.offset(n.Pos()):m.offset(n.End())] }

// around puts text before and after a node.
func (m *mutator) around(n ast.Node, before, after string) {
	m.inserts = append(m.inserts,
		insert{m.offset(n.Pos()), false, before}, insert{m.offset(n.End()), true, after})
}

// add adds a mutant and returns the expression that asks whether it is alive.
func (m *mutator) add(n ast.Node, change string) string {
	p := m.files.Position(n.Pos())
	lines := strings.Split(m.source, "\n")
	number := len(*m.mutants) + 1
	*m.mutants = append(*m.mutants, mutant{number, m.file, p.Line, strings.TrimSpace(lines[p.Line-1]), change})
	return fmt.Sprintf("mutated(%d)", number)
}

// visit adds the mutants of a node.
func (m *mutator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		m.drop(n.List)
	case *ast.CaseClause:
		m.drop(n.Body)
		for _, e := range n.List {
			m.condition(e)
		}
	case *ast.CommClause:
		m.drop(n.Body)
	case *ast.IfStmt:
		m.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			m.condition(n.Cond)
		}
	case *ast.BinaryExpr:
		m.binary(n)
	case *ast.ReturnStmt:
		for _, r := range n.Results {
			m.literal(r)
		}
	case *ast.AssignStmt:
		for _, r := range n.Rhs {
			m.literal(r)
		}
	case *ast.SendStmt:
		m.literal(n.Value)
	}
	return true
}

// drop adds a mutant for each statement that can be left out and still compiles, and turns
// round those that count.
func (m *mutator) drop(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.IncDecStmt:
			opposite := map[token.Token]string{token.INC: "--", token.DEC: "++"}[s.Tok]
			alive := m.add(s, "count the other way")
			m.around(s, fmt.Sprintf("if %s { %s%s } else { ", alive, m.textOf(s.X), opposite), " }")
			continue
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok && isPanic(call) {
				continue // what comes after may need it to compile
			}
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		case *ast.ReturnStmt:
			if len(s.Results) > 0 {
				continue
			}
		case *ast.BranchStmt, *ast.SendStmt:
		default:
			continue
		}
		m.around(s, fmt.Sprintf("if !%s { ", m.add(s, "leave out "+m.oneLine(s))), " }")
	}
}

func isPanic(call *ast.CallExpr) bool {
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "panic"
}

// condition negates an expression, unless binary does.
func (m *mutator) condition(e ast.Expr) {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return
	case *ast.UnaryExpr, *ast.CallExpr, *ast.SelectorExpr, *ast.ParenExpr:
		if p, ok := e.(*ast.ParenExpr); ok {
			m.condition(p.X)
			return
		}
		if !isBool(e) {
			return
		}
		m.around(e, fmt.Sprintf("(%s != (", m.add(e, "negate "+m.oneLine(e))), "))")
	}
}

// isBool is false for the labels of a switch over constants.
func isBool(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return true
	}
	pkg, ok := s.X.(*ast.Ident)
	return !ok || pkg.Name != "table"
}

// binary mutates a comparison, or a side of a conjunction.
func (m *mutator) binary(e *ast.BinaryExpr) {
	x, y := m.textOf(e.X), m.textOf(e.Y)
	what := m.oneLine(e)
	switch e.Op {
	case token.EQL, token.NEQ:
		m.around(e, fmt.Sprintf("(%s != (", m.add(e, "negate "+what)), "))")
	case token.LSS, token.GTR:
		alive := m.add(e, "let in equality: "+what)
		m.around(e, fmt.Sprintf("(%s != (", m.add(e, "negate "+what)), fmt.Sprintf(" || %s && %s == %s))", alive, x, y))
	case token.LEQ, token.GEQ:
		alive := m.add(e, "leave out equality: "+what)
		m.around(e, fmt.Sprintf("(%s != (", m.add(e, "negate "+what)), fmt.Sprintf(" && !(%s && %s == %s)))", alive, x, y))
	case token.LAND:
		m.around(e.X, fmt.Sprintf("(%s || ", m.add(e, "forget "+m.oneLine(e.X))), ")")
		m.around(e.Y, fmt.Sprintf("(%s || ", m.add(e, "forget "+m.oneLine(e.Y))), ")")
	case token.LOR:
		m.around(e.X, fmt.Sprintf("(!%s && (", m.add(e, "forget "+m.oneLine(e.X))), "))")
		m.around(e.Y, fmt.Sprintf("(!%s && (", m.add(e, "forget "+m.oneLine(e.Y))), "))")
	}
}

// literal negates a true or a false.
func (m *mutator) literal(e ast.Expr) {
	if name, ok := e.(*ast.Ident); ok && (name.Name == "true" || name.Name == "false") {
		m.around(e, fmt.Sprintf("(%s != ", m.add(e, "negate "+name.Name)), ")")
	}
}

// oneLine is the text of a node, for people.
func (m *mutator) oneLine(n ast.Node) string { return strings.Join(strings.Fields(m.textOf(n)), " ") }
