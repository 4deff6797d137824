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
	in     string // the function
	text   string // of the line
	change string
	nth    int // how many of this name came before it in the function
}

func (m mutant) String() string { return fmt.Sprintf("%s:%d: %s", m.file, m.line, m.name()) }

// name tells the mutant from all others, by text alone: lines, and whole functions, may
// move.
func (m mutant) name() string {
	name := fmt.Sprintf("%s: %s: %s", m.in, m.change, m.text)
	if m.nth > 0 {
		name += fmt.Sprintf(" (#%d)", m.nth+1)
	}
	return name
}

// A mutator writes a source in which every mutant is there, and asleep: it inserts text
// that asks mutated(number) around what the mutant changes.
type mutator struct {
	file    string
	source  string
	lines   []string
	in      string // the function that is being looked at
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
	m := &mutator{
		file: file, source: source, lines: strings.Split(source, "\n"), files: token.NewFileSet(), mutants: mutants,
	}
	parsed, err := parser.ParseFile(m.files, file, source, parser.ParseComments)
	if err != nil {
		return "", err
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			m.in = parsed.Name.Name + "." + nameOf(f)
			ast.Inspect(f.Body, m.visit)
		}
	}
	return m.apply(), nil
}

// nameOf is a function's name, after the type whose method it is.
func nameOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
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
	line := m.files.Position(n.Pos()).Line
	a := mutant{
		number: len(*m.mutants) + 1, file: m.file, line: line, in: m.in, text: code(m.lines[line-1]), change: change,
	}
	for _, b := range *m.mutants {
		if a.in == b.in && a.change == b.change && a.text == b.text {
			a.nth++
		}
	}
	*m.mutants = append(*m.mutants, a)
	return fmt.Sprintf("mutated(%d)", a.number)
}

// code is a line without its comment.
func code(line string) string {
	line, _, _ = strings.Cut(line, " // ")
	return strings.TrimSpace(line)
}

// visit adds the mutants of a node.
func (m *mutator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		m.statements(n.List)
	case *ast.CaseClause:
		m.statements(n.Body)
	case *ast.CommClause:
		m.statements(n.Body)
	case *ast.SwitchStmt:
		if n.Tag == nil {
			for _, clause := range n.Body.List {
				for _, e := range clause.(*ast.CaseClause).List {
					m.condition(e)
				}
			}
		}
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

// opposites are what a mutant does instead.
var opposites = map[token.Token]string{
	token.INC: "--", token.DEC: "++",
	token.ADD_ASSIGN: "-=", token.SUB_ASSIGN: "+=",
	token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*",
}

// statements adds a mutant for each statement that can be left out and still compiles, and
// turns round those that count.
func (m *mutator) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.IncDecStmt:
			alive := m.add(s, "count the other way")
			m.around(s, fmt.Sprintf("if %s { %s%s } else { ", alive, m.textOf(s.X), opposites[s.Tok]), " }")
			continue
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok && (isPanic(call) || isGate(call)) {
				continue // what comes after a panic may need it to compile
			}
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
			if opposite, ok := opposites[s.Tok]; ok && !isText(s.Rhs[0]) {
				alive := m.add(s, "count the other way")
				m.around(s, fmt.Sprintf("if %s { %s %s %s } else { ",
					alive, m.textOf(s.Lhs[0]), opposite, m.textOf(s.Rhs[0])), " }")
			}
		case *ast.ReturnStmt:
			if len(s.Results) > 0 {
				continue
			}
		case *ast.BranchStmt:
			if s.Tok == token.CONTINUE && s.Label == nil {
				m.around(s, fmt.Sprintf("if %s { break } else { ", m.add(s, "break")), " }")
			}
		case *ast.SendStmt, *ast.DeferStmt, *ast.GoStmt:
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

// isGate is true for a gate of the explorer, which does nothing without it.
func isGate(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	field, ok := method.X.(*ast.SelectorExpr)
	return ok && field.Sel.Name == "gate"
}

// isText is true for what cannot be subtracted.
func isText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Kind == token.STRING
	case *ast.BinaryExpr:
		return isText(e.X) || isText(e.Y)
	}
	return false
}

// isLiteral is true for a number that is written as a calculation. Its type depends on where it
// stands, which the type of a mutant would not.
func isLiteral(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.BinaryExpr:
		return isLiteral(e.X) && isLiteral(e.Y)
	}
	return false
}

// condition negates an expression, unless binary does.
func (m *mutator) condition(e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		m.condition(e.X)
	case *ast.UnaryExpr, *ast.CallExpr, *ast.SelectorExpr, *ast.Ident:
		m.around(e, fmt.Sprintf("(%s != (", m.add(e, "negate "+m.oneLine(e))), "))")
	}
}

// binary mutates a comparison, a side of a conjunction, or a calculation.
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
	case token.ADD, token.SUB, token.MUL, token.QUO:
		if isText(e) || isLiteral(e) {
			return
		}
		opposite := opposites[e.Op]
		alive := m.add(e, fmt.Sprintf("%s instead: %s", opposite, what))
		m.around(e, fmt.Sprintf("instead(%s, (%s) %s (%s), ", alive, x, opposite, y), ")")
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
