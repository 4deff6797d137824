package keylockcheck

import (
	"go/ast"
	"go/token"
	"go/types"
	"reflect"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/cfg"
)

// A model is what the rules share about one package.
type model struct {
	*analysis.Pass
	cfgs *ctrlflow.CFGs

	parents   map[ast.Node]ast.Node
	functions []*function            // in the order of the source
	inner     map[ast.Node]*function // of an *ast.FuncDecl or *ast.FuncLit
	mentions  map[*types.Var][]*ast.Ident
	calls     []*ast.CallExpr // all of them, in the order of the source
	sources   []*source       // calls that return a lock or a reservation

	lockers map[*types.Var]*locker

	borrowed map[*types.Func]map[int]bool
	fresh    map[*types.Func]*returnsFresh

	sessions bool                    // the package makes or uses sessions, also in fields
	held     map[string]map[int]bool // lines of the marker by file

	conditions map[alternativesKey][][]atom
	done       bool // nothing above is changed any more

	changed map[types.Object]bool // fields and package variables that are assigned to
}

var modelType = reflect.TypeFor[*model]()

// A function is a declared function or a function literal.
type function struct {
	node  ast.Node // *ast.FuncDecl or *ast.FuncLit
	body  *ast.BlockStmt
	outer *function   // which contains the literal; nil for a declared function
	obj   *types.Func // nil for a literal
	sig   *types.Signature
	graph *cfg.CFG

	comms    map[ast.Stmt]bool            // statements that select chooses from
	switches map[*ast.CaseClause]ast.Stmt // switch of each clause
	atoms    map[string]int               // how many conditions contain each comparison
}

// A source is a call that returns a lock or a reservation.
type source struct {
	call   *ast.CallExpr
	callee *types.Func
	fn     *function // that makes the call
	kind   kind
	shared bool // a shared lock, or perhaps one
	kept   bool // something else takes care of it: its session, or the marker says so

	stmt    ast.Node   // statement that takes the results: assignment, var spec, go, defer, expression; nil when they go elsewhere
	unused  bool       // the lock or reservation is dropped
	blank   *ast.Ident // the _ to which it is assigned
	lock    *types.Var // local variable that takes it; nil when it goes elsewhere
	defines bool       // the statement declares lock
	fail    *types.Var // takes the error or bool beside it
	noFail  bool       // the error or bool is assigned to _
	fails   bool       // there is an error or bool
}

// runGrants builds the model, nil when the package has nothing to do with keylock.
func runGrants(pass *analysis.Pass) (any, error) {
	if !concerned(pass) {
		return (*model)(nil), nil
	}
	m := &model{
		Pass:     pass,
		cfgs:     pass.ResultOf[ctrlflow.Analyzer].(*ctrlflow.CFGs),
		parents:  make(map[ast.Node]ast.Node),
		inner:    make(map[ast.Node]*function),
		mentions: make(map[*types.Var][]*ast.Ident),
		lockers:  make(map[*types.Var]*locker),
		borrowed: make(map[*types.Func]map[int]bool),
		fresh:    make(map[*types.Func]*returnsFresh),
		held:     make(map[string]map[int]bool),

		conditions: make(map[alternativesKey][][]atom),
	}
	for _, file := range pass.Files {
		m.read(file)
	}
	m.findLockers()
	m.learn()
	m.findSources()
	m.exportFacts()
	m.prepareAll()
	m.done = true
	return m, nil
}

// concerned reports whether the package imports keylock, or a package that returns locks.
func concerned(pass *analysis.Pass) bool {
	for _, imported := range pass.Pkg.Imports() {
		if known(imported) != "" || pass.ImportPackageFact(imported, new(speaksKeylock)) {
			return true
		}
	}
	return false
}

// read notes the functions, calls, variables and markers of a file.
func (m *model) read(file *ast.File) {
	for _, group := range file.Comments {
		for _, c := range group.List {
			more, ok := strings.CutPrefix(c.Text, "//keylock:held")
			if !ok || more != "" && strings.TrimLeft(more, " \t:,") == more {
				continue
			}
			at := m.Fset.Position(c.Pos())
			if m.held[at.Filename] == nil {
				m.held[at.Filename] = make(map[int]bool)
			}
			m.held[at.Filename][at.Line] = true
			if !m.followsCode(file, c) { // it is about the line after the comments
				m.held[at.Filename][m.line(group.End())+1] = true
			}
		}
	}
	var stack []ast.Node
	var within []*function
	ast.Inspect(file, func(n ast.Node) bool {
		if n == nil {
			if _, ok := m.inner[stack[len(stack)-1]]; ok {
				within = within[:len(within)-1]
			}
			stack = stack[:len(stack)-1]
			return true
		}
		if len(stack) > 0 {
			m.parents[n] = stack[len(stack)-1]
		}
		stack = append(stack, n)
		switch n := n.(type) {
		case *ast.FuncDecl:
			fn := &function{node: n, body: n.Body}
			if obj, ok := m.TypesInfo.Defs[n.Name].(*types.Func); ok {
				fn.obj, fn.sig = obj, obj.Signature()
				if n.Body != nil {
					fn.graph = m.cfgs.FuncDecl(n)
				}
			}
			m.enter(n, fn, &within)
		case *ast.FuncLit:
			fn := &function{node: n, body: n.Body, graph: m.cfgs.FuncLit(n)}
			fn.sig, _ = m.TypesInfo.TypeOf(n).(*types.Signature)
			if len(within) > 0 {
				fn.outer = within[len(within)-1]
			}
			m.enter(n, fn, &within)
		case *ast.CallExpr:
			m.calls = append(m.calls, n)
			m.sessions = m.sessions || kindOf(m.TypesInfo.TypeOf(n)) == aSession || m.ownerOf(callee(m.TypesInfo, n)) == aSession
		case *ast.Ident:
			if v := m.variable(n); v != nil {
				m.mentions[v] = append(m.mentions[v], n)
			}
			if v, ok := m.TypesInfo.ObjectOf(n).(*types.Var); ok && kindOf(v.Type()) == aSession {
				m.sessions = true
			}
		}
		return true
	})
}

// followsCode reports whether there is code before a comment on its line.
func (m *model) followsCode(file *ast.File, c *ast.Comment) (follows bool) {
	line := m.line(c.Pos())
	ast.Inspect(file, func(n ast.Node) bool {
		switch n.(type) {
		case nil, *ast.CommentGroup:
			return false
		case *ast.File:
			return true
		}
		follows = follows || n.Pos() < c.Pos() && m.line(n.Pos()) == line || n.End() <= c.Pos() && m.line(n.End()) == line
		return !follows
	})
	return follows
}

func (m *model) enter(n ast.Node, fn *function, within *[]*function) {
	m.functions = append(m.functions, fn)
	m.inner[n] = fn
	*within = append(*within, fn)
}

// variable returns the variable that an identifier declares or uses, if it is no field.
func (m *model) variable(id *ast.Ident) *types.Var {
	v, ok := m.TypesInfo.ObjectOf(id).(*types.Var)
	if !ok || v.IsField() {
		return nil
	}
	return v
}

// within returns the innermost function that contains a node, which may be the node.
func (m *model) within(n ast.Node) *function {
	for ; n != nil; n = m.parents[n] {
		if fn, ok := m.inner[n]; ok {
			return fn
		}
	}
	return nil
}

// parent returns the node around n, parentheses left out.
func (m *model) parent(n ast.Node) ast.Node {
	n = m.parents[n]
	for {
		paren, ok := n.(*ast.ParenExpr)
		if !ok {
			return n
		}
		n = m.parents[paren]
	}
}

// isHeldOnPurpose reports whether the marker stands before the statement of a node, or beside it up
// to where the node ends.
func (m *model) isHeldOnPurpose(n ast.Node) bool {
	stmt := n
	for {
		if _, ok := stmt.(ast.Stmt); ok || m.parents[stmt] == nil {
			break
		}
		stmt = m.parents[stmt]
	}
	if _, isFile := stmt.(*ast.File); isFile {
		stmt = n
	}
	at := m.Fset.Position(stmt.Pos())
	lines := m.held[at.Filename]
	for line := at.Line; line <= m.line(n.End()); line++ {
		if lines[line] {
			return true
		}
	}
	return false
}

// declaredIn reports whether a variable is a parameter, a result, or a local variable of
// this very function, not of one around it.
func (m *model) declaredIn(v *types.Var, fn *function) bool {
	if v == nil || fn == nil || v.Pos() < fn.node.Pos() || v.Pos() >= fn.node.End() {
		return false
	}
	for _, id := range m.mentions[v] {
		if m.TypesInfo.Defs[id] == v {
			return m.declaring(id) == fn
		}
	}
	return false
}

// declaring returns the function whose variable id declares.
func (m *model) declaring(id *ast.Ident) *function {
	return m.within(m.parents[id])
}

// grantsOf says what a call returns: the indexes of the lock or reservation and of the
// error or bool beside it, -1 when there is none; ok is false for any other call.
func (m *model) grantsOf(call *ast.CallExpr) (fn *types.Func, lock, fail int, ok bool) {
	fn = callee(m.TypesInfo, call)
	if fn == nil {
		return nil, 0, 0, false
	}
	results := fn.Signature().Results()
	switch {
	case known(fn.Pkg()) != "" && isGranting(fn.Name()):
	case isInterfaceMethod(fn) && isGranting(fn.Name()):
	default:
		fresh := m.freshOf(fn)
		if fresh == nil {
			return nil, 0, 0, false
		}
		return fn, fresh.Result, fresh.Fail, true
	}
	if results.Len() == 0 {
		return nil, 0, 0, false
	}
	if k := kindOf(results.At(0).Type()); k != aLock && k != aReservation {
		return nil, 0, 0, false
	}
	return fn, 0, failIndex(results), true
}

// failIndex returns the index of the result that says whether a call failed: the last one
// if it is an error or a bool; else -1.
func failIndex(results *types.Tuple) int {
	last := results.Len() - 1
	if last < 1 {
		return -1
	}
	if t := results.At(last).Type(); isError(t) || isBool(t) {
		return last
	}
	return -1
}

func isInterfaceMethod(fn *types.Func) bool {
	recv := fn.Signature().Recv()
	return recv != nil && types.IsInterface(recv.Type())
}

var errorType = types.Universe.Lookup("error").Type()

func isError(t types.Type) bool { return types.Identical(t, errorType) }

func isBool(t types.Type) bool {
	basic, ok := types.Unalias(t).(*types.Basic)
	return ok && basic.Info()&types.IsBoolean != 0
}

// findSources fills sources.
func (m *model) findSources() {
	for _, call := range m.calls {
		if s := m.sourceOf(call); s != nil {
			s.kept = s.kept || m.closedSession(s) || m.isHeldOnPurpose(call) ||
				s.unused && m.sessions && isInterfaceMethod(s.callee) && !isLocker(s.callee) // behind it may be a session
			m.sources = append(m.sources, s)
		}
	}
}

// sourceOf returns what becomes of the results of a call, nil when it returns no lock.
func (m *model) sourceOf(call *ast.CallExpr) *source {
	if s := m.lockingOf(call); s != nil {
		return s
	}
	fn, lock, fail, ok := m.grantsOf(call)
	if !ok {
		return nil
	}
	s := &source{
		call:   call,
		callee: fn,
		fn:     m.within(call),
		kind:   kindOf(fn.Signature().Results().At(lock).Type()),
		shared: m.isShared(fn, call),
		fails:  fail >= 0,
	}
	switch p := m.parent(call).(type) {
	case *ast.ExprStmt, *ast.GoStmt, *ast.DeferStmt:
		s.stmt, s.unused = p, true
	case *ast.AssignStmt:
		if len(p.Rhs) > 1 {
			lock += indexOf(p.Rhs, call)
		}
		m.bind(s, p, p.Lhs, lock, fail, p.Tok == token.DEFINE)
	case *ast.ValueSpec:
		lhs := make([]ast.Expr, len(p.Names))
		for i, name := range p.Names {
			lhs[i] = name
		}
		if len(p.Values) > 1 {
			lock += indexOf(p.Values, call)
		}
		m.bind(s, p, lhs, lock, fail, true)
	}
	return s
}

func indexOf(list []ast.Expr, x ast.Expr) int {
	for i, e := range list {
		if ast.Unparen(e) == x {
			return i
		}
	}
	return 0
}

// bind notes which variables take the results.
func (m *model) bind(s *source, stmt ast.Node, lhs []ast.Expr, lock, fail int, define bool) {
	if lock >= len(lhs) || fail >= len(lhs) || s.fn == nil {
		return // type errors, or a package variable
	}
	id, ok := ast.Unparen(lhs[lock]).(*ast.Ident)
	if !ok {
		return
	}
	if id.Name == "_" {
		s.stmt, s.unused, s.blank = stmt, true, id
	}
	if fail >= 0 {
		failID, ok := ast.Unparen(lhs[fail]).(*ast.Ident)
		if !ok {
			return // kept somewhere, to be looked at elsewhere
		}
		if s.noFail = failID.Name == "_"; !s.noFail {
			s.fail = m.variable(failID)
		}
	}
	s.stmt = stmt
	if s.unused {
		return
	}
	v := m.variable(id)
	if v == nil || !m.declaredIn(v, s.fn) {
		return
	}
	s.lock = v
	s.defines = define && m.TypesInfo.Defs[id] == v
}

// closedSession reports whether s comes from a session that may release it: one that is
// closed in the same function, or that is known elsewhere.
func (m *model) closedSession(s *source) bool {
	recv := receiver(s.call)
	if recv == nil {
		return false
	}
	switch m.ownerOf(s.callee) {
	case aSession: // which may be embedded in what recv is
		return !m.isOwnSession(recv)
	case aReservation:
		return m.isOfClosedSession(recv)
	}
	return false
}

// ownerOf returns the kind of the receiver of a method, other for any other function.
func (m *model) ownerOf(fn *types.Func) kind {
	if fn == nil {
		return other
	}
	return kindOf(recvType(fn))
}

// recvType returns the type of the receiver of a method, nil for a function.
func recvType(fn *types.Func) types.Type {
	if recv := fn.Signature().Recv(); recv != nil {
		return recv.Type()
	}
	return nil
}

// isOwnSession reports whether x is a session that is only ever asked for locks: made on
// the spot or kept in a local variable, whose Close is never called.
func (m *model) isOwnSession(x ast.Expr) bool {
	if call, ok := ast.Unparen(x).(*ast.CallExpr); ok {
		return m.isSessionCall(call)
	}
	id, ok := ast.Unparen(x).(*ast.Ident)
	if !ok {
		return false
	}
	v := m.variable(id)
	if v == nil {
		return false
	}
	made := false
	for _, mention := range m.mentions[v] {
		parent := m.parent(mention)
		if assign, ok := parent.(*ast.AssignStmt); ok && m.useOf(mention) == looks && len(assign.Lhs) == 1 {
			continue // _ = session
		}
		switch p := parent.(type) {
		case *ast.AssignStmt, *ast.ValueSpec:
			value := assigned(p, mention)
			call, ok := value.(*ast.CallExpr)
			if !ok || !m.isSessionCall(call) {
				return false
			}
			made = true
		case *ast.SelectorExpr:
			if !m.isCalled(p) || p.Sel.Name == "Close" {
				return false
			}
		default:
			return false
		}
	}
	return made
}

func (m *model) isSessionCall(call *ast.CallExpr) bool {
	fn := callee(m.TypesInfo, call)
	return fn != nil && fn.Name() == "Session" && known(fn.Pkg()) != ""
}

// isCalled reports whether a selector is the function of a call: x.f in x.f().
func (m *model) isCalled(sel *ast.SelectorExpr) bool {
	call, ok := m.parent(sel).(*ast.CallExpr)
	return ok && ast.Unparen(call.Fun) == sel
}

// isOfClosedSession reports whether a reservation may come from a session that releases
// what it grants.
func (m *model) isOfClosedSession(x ast.Expr) bool {
	switch x := ast.Unparen(x).(type) {
	case *ast.CallExpr:
		s := m.sourceOf(x)
		return s == nil && m.sessions || s != nil && m.closedSession(s)
	case *ast.Ident:
		v := m.variable(x)
		if v == nil {
			return m.sessions
		}
		found := false
		for _, mention := range m.mentions[v] {
			value := assigned(m.parent(mention), mention)
			if value == nil {
				continue
			}
			call, ok := value.(*ast.CallExpr)
			if !ok {
				return m.sessions
			}
			found = true
			if s := m.sourceOf(call); s == nil && m.sessions || s != nil && m.closedSession(s) {
				return true
			}
		}
		return !found && m.sessions
	}
	return m.sessions
}

// assigned returns the expression that a statement assigns to an identifier, the call for
// one of many results, and nil when it does not assign to it.
func assigned(stmt ast.Node, id *ast.Ident) ast.Expr {
	var lhs, rhs []ast.Expr
	switch s := stmt.(type) {
	case *ast.AssignStmt:
		lhs, rhs = s.Lhs, s.Rhs
	case *ast.ValueSpec:
		for _, name := range s.Names {
			lhs = append(lhs, name)
		}
		rhs = s.Values
	}
	for i, l := range lhs {
		if ast.Unparen(l) != id {
			continue
		}
		switch {
		case len(rhs) == len(lhs):
			return ast.Unparen(rhs[i])
		case len(rhs) == 1:
			return ast.Unparen(rhs[0])
		}
	}
	return nil
}
