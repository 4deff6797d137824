package keylockcheck_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
)

// A program is a generated function, as text and as what it does. Its inputs are bits:
// the parameters x0 to x3 and, for each acquisition, whether it succeeds.
type program struct {
	r     *rand.Rand
	text  strings.Builder
	names int
	sites int // acquisitions in the text so far
	depth int
	run   []op
}

// An op is one step of a program; it is true when the function returns.
type op func(*state) flow

type flow int

const (
	goesOn flow = iota
	breaks
	continues
	returns
)

// A state is what an execution knows.
type state struct {
	inputs   uint
	flags    map[string]bool
	held     map[string]int // grant by variable, 0 when it failed
	site     map[int]int    // site of each grant that is live
	deferred []int
	grants   int
}

func (s *state) bit(i int) bool { return s.inputs>>i&1 == 1 }

const bits = 12 // x0 to x3, six for the acquisitions, which share them, and n

func generate(r *rand.Rand, name string) *program {
	p := &program{r: r}
	fmt.Fprintf(&p.text, "func %s(ctx context.Context, m *keylock.Manager[string], x0, x1, x2, x3 bool, n int) {\nf0, f1 := false, false\n_, _ = f0, f1\n", name)
	p.run = p.block(nil, false)
	p.text.WriteString("}\n\n")
	return p
}

// block writes some statements; locks are the variables in scope.
func (p *program) block(locks []string, loop bool) []op {
	p.depth++
	defer func() { p.depth-- }()
	var ops []op
	for range 1 + p.r.IntN(4) {
		op, lock, last := p.statement(locks, loop)
		ops = append(ops, op)
		if lock != "" {
			locks = append(slices.Clip(locks), lock)
		}
		if last {
			break
		}
	}
	return ops
}

func (s *state) do(ops []op) flow {
	for _, op := range ops {
		if f := op(s); f != goesOn {
			return f
		}
	}
	return goesOn
}

// condition writes a condition, and returns what it says.
func (p *program) condition() (string, func(*state) bool) {
	i, j := p.r.IntN(4), p.r.IntN(4)
	x := func(i int) func(*state) bool { return func(s *state) bool { return s.bit(i) } }
	switch p.r.IntN(6) {
	case 0:
		return fmt.Sprintf("x%d", i), x(i)
	case 1:
		return fmt.Sprintf("!x%d", i), func(s *state) bool { return !s.bit(i) }
	case 2:
		return fmt.Sprintf("x%d && !x%d", i, j), func(s *state) bool { return s.bit(i) && !s.bit(j) }
	case 3:
		return fmt.Sprintf("x%d || x%d", i, j), func(s *state) bool { return s.bit(i) || s.bit(j) }
	}
	f := fmt.Sprintf("f%d", i%2)
	if j == 0 {
		return "!" + f, func(s *state) bool { return !s.flags[f] }
	}
	return f, func(s *state) bool { return s.flags[f] }
}

// statement writes a statement, and returns what it does, the lock that it declares, and
// whether nothing can follow.
func (p *program) statement(locks []string, loop bool) (do op, lock string, last bool) {
	kind := p.r.IntN(20)
	if p.depth > 4 && kind >= 11 && kind <= 14 {
		kind = 0
	}
	switch {
	case kind < 4 && p.sites < 4:
		return p.acquire()
	case kind < 9 && len(locks) > 0:
		l := locks[p.r.IntN(len(locks))]
		switch how := p.r.IntN(8); how {
		case 0:
			fmt.Fprintf(&p.text, "defer %s.Release()\n", l)
			return func(s *state) flow { s.deferred = append(s.deferred, s.held[l]); return goesOn }, "", false
		case 1:
			fmt.Fprintf(&p.text, "func() { %s.Release() }()\n", l)
		case 2:
			fmt.Fprintf(&p.text, "_ = %s.Key()\n", l)
			return func(*state) flow { return goesOn }, "", false
		default:
			fmt.Fprintf(&p.text, "%s.Release()\n", l)
		}
		return func(s *state) flow { delete(s.site, s.held[l]); return goesOn }, "", false
	case kind == 9:
		f, to := fmt.Sprintf("f%d", p.r.IntN(2)), p.r.IntN(2) == 0
		fmt.Fprintf(&p.text, "%s = %t\n", f, to)
		return func(s *state) flow { s.flags[f] = to; return goesOn }, "", false
	case kind == 10:
		p.text.WriteString("return\n")
		return func(*state) flow { return returns }, "", true
	case kind == 11 || kind == 12:
		text, is := p.condition()
		fmt.Fprintf(&p.text, "if %s {\n", text)
		then := p.block(locks, loop)
		var els []op
		if p.r.IntN(2) == 0 {
			p.text.WriteString("} else {\n")
			els = p.block(locks, loop)
		}
		p.text.WriteString("}\n")
		return func(s *state) flow {
			if is(s) {
				return s.do(then)
			}
			return s.do(els)
		}, "", false
	case kind == 13:
		p.text.WriteString("for range n {\n")
		body := p.block(locks, true)
		p.text.WriteString("}\n")
		return func(s *state) flow {
			for range s.inputs >> 10 {
				switch s.do(body) {
				case breaks:
					return goesOn
				case returns:
					return returns
				}
			}
			return goesOn
		}, "", false
	case kind == 14:
		a, isA := p.condition()
		fmt.Fprintf(&p.text, "switch {\ncase %s:\n", a)
		first := p.block(locks, false)
		p.text.WriteString("default:\n")
		other := p.block(locks, false)
		p.text.WriteString("}\n")
		return func(s *state) flow {
			if isA(s) {
				return s.do(first)
			}
			return s.do(other)
		}, "", false
	case kind == 15 && loop:
		p.text.WriteString("break\n")
		return func(*state) flow { return breaks }, "", true
	case kind == 16 && loop:
		p.text.WriteString("continue\n")
		return func(*state) flow { return continues }, "", true
	}
	p.text.WriteString("_ = ctx\n")
	return func(*state) flow { return goesOn }, "", false
}

// acquire writes an acquisition and what checks it.
func (p *program) acquire() (op, string, bool) {
	p.names++
	n, site := p.names, p.sites
	p.sites++
	l := fmt.Sprintf("l%d", n)
	if p.r.IntN(2) == 0 {
		fmt.Fprintf(&p.text, "%s, e%d := m.Acquire(ctx, \"k\") // site %d\nif e%d != nil {\nreturn\n}\n_ = %s\n", l, n, site, n, l)
	} else {
		fmt.Fprintf(&p.text, "%s, ok%d := m.TryAcquire(\"k\") // site %d\nif !ok%d {\nreturn\n}\n_ = %s\n", l, n, site, n, l)
	}
	return func(s *state) flow {
		if !s.bit(4 + site%6) {
			s.held[l] = 0
			return returns
		}
		s.grants++
		s.held[l] = s.grants
		s.site[s.grants] = site
		return goesOn
	}, l, false
}

// leaks returns the sites whose locks are left for some input.
func (p *program) leaks() map[int]bool {
	all := make(map[int]bool)
	for inputs := range uint(1 << bits) {
		s := &state{inputs: inputs, flags: make(map[string]bool), held: make(map[string]int), site: make(map[int]int)}
		s.do(p.run)
		for _, grant := range s.deferred {
			delete(s.site, grant)
		}
		for _, site := range s.site {
			all[site] = true
		}
	}
	return all
}

// fakes are packages just large enough for generated programs.
var fakes = map[string]string{
	"context": "package context\ntype Context interface{ Err() error }\n",
	"github.com/seed-46f81e6d/keylock": `package keylock
import "context"
type Manager[K comparable] struct{}
func (m *Manager[K]) Acquire(ctx context.Context, key K) (l Lock[K], err error) { return }
func (m *Manager[K]) TryAcquire(key K) (l Lock[K], ok bool) { return }
type Lock[K comparable] struct{ key K }
func (l Lock[K]) Release() {}
func (l Lock[K]) Key() K { return l.key }
`,
}

type fakeImporter map[string]*types.Package

func (f fakeImporter) Import(path string) (*types.Package, error) {
	if pkg := f[path]; pkg != nil {
		return pkg, nil
	}
	src, ok := fakes[path]
	if !ok {
		return importer.Default().Import(path)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "fake.go", src, 0)
	if err != nil {
		return nil, err
	}
	pkg, err := (&types.Config{Importer: f}).Check(path, fset, []*ast.File{file}, nil)
	f[path] = pkg
	return pkg, err
}

// analyze runs the rules on one file without a driver, errors of the type checker or not.
func analyze(t testing.TB, src string, strict bool) (fset *token.FileSet, file *ast.File, all []analysis.Diagnostic) {
	t.Helper()
	fset = token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", src, parser.ParseComments|parser.SkipObjectResolution)
	if strict {
		require.NoError(t, err, src)
	}
	if file == nil {
		return fset, nil, nil
	}
	info := &types.Info{
		Types: make(map[ast.Expr]types.TypeAndValue), Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object),
		Implicits: make(map[ast.Node]types.Object), Instances: make(map[*ast.Ident]types.Instance), Scopes: make(map[ast.Node]*types.Scope),
		Selections: make(map[*ast.SelectorExpr]*types.Selection), FileVersions: make(map[*ast.File]string),
	}
	cfg := &types.Config{Importer: fakeImporter{}, Error: func(err error) { require.False(t, strict, "%v\n%s", err, src) }}
	pkg, _ := cfg.Check("p", fset, []*ast.File{file}, info)
	results := make(map[*analysis.Analyzer]any)
	var run func(a *analysis.Analyzer) any
	run = func(a *analysis.Analyzer) any {
		if result, ok := results[a]; ok {
			return result
		}
		pass := &analysis.Pass{
			Analyzer: a, Fset: fset, Files: []*ast.File{file}, Pkg: pkg, TypesInfo: info, ResultOf: make(map[*analysis.Analyzer]any),
			Report:            func(d analysis.Diagnostic) { all = append(all, d) },
			ImportObjectFact:  func(types.Object, analysis.Fact) bool { return false },
			ImportPackageFact: func(*types.Package, analysis.Fact) bool { return false },
			ExportObjectFact:  func(types.Object, analysis.Fact) {},
			ExportPackageFact: func(analysis.Fact) {},
		}
		for _, required := range a.Requires {
			pass.ResultOf[required] = run(required)
		}
		result, err := a.Run(pass)
		require.NoError(t, err)
		results[a] = result
		return result
	}
	for _, a := range allRules() {
		run(a)
	}
	return fset, file, all
}

// Of generated functions all inputs are tried: what is reported is lost for some of them.
func TestWhatIsReportedInGeneratedFunctionsIsLost(t *testing.T) {
	const functions = 2000
	r := rand.New(rand.NewPCG(1, 2))
	lost, found := 0, 0
	for i := range functions {
		p := generate(r, "f")
		src := "package p\n\nimport (\n\"context\"\n\"github.com/seed-46f81e6d/keylock\"\n)\n\n" + p.text.String()
		fset, _, reports := analyze(t, src, true)
		lines := strings.Split(src, "\n")
		reported := make(map[int]bool)
		for _, d := range reports {
			if d.Category == "lostpath" {
				_, text, _ := strings.Cut(lines[fset.Position(d.Pos).Line-1], "// site ")
				var site int
				fmt.Sscan(text, &site)
				reported[site] = true
			}
		}
		leaks := p.leaks()
		for site := range reported {
			if !assert.True(t, leaks[site], "function %d, site %d is reported and never lost:\n%s", i, site, src) {
				return
			}
		}
		lost += len(leaks)
		found += len(reported)
	}
	t.Logf("%d of %d are found", found, lost)
	assert.Greater(t, lost, functions/2)
	assert.Greater(t, found*100, 80*lost, "found, of a hundred")
}

// A condition that is too long to be looked at, and one that is nested deeply, take no
// time, and no path leads through them.
func TestLongConditions(t *testing.T) {
	long, deep := "x", "x"
	for i := range 40 {
		long += " || x && !y"
		deep = fmt.Sprintf("(%s %s y) %s !x", deep, []string{"&&", "||"}[i%2], []string{"||", "&&"}[i%2])
	}
	for _, cond := range []string{long, deep, "err == nil && (" + long + ")"} {
		src := "package p\nimport (\n\"context\"\n\"github.com/seed-46f81e6d/keylock\"\n)\n" +
			"func f(ctx context.Context, m *keylock.Manager[string], x, y bool) {\nlock, err := m.Acquire(ctx, \"k\")\nif err != nil && (" + cond + ") {\nreturn\n}\nlock.Release()\n}\n"
		begun := time.Now()
		_, _, reports := analyze(t, src, true)
		assert.Empty(t, reports)
		assert.Less(t, time.Since(begun), 2*time.Minute)
	}
}

// Whatever a function looks like, the rules return, and say the same each time.
func FuzzRules(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, "")
	}
	f.Add(uint64(1), "l, err := m.Acquire(ctx, \"k\"); goto x; x: if err != nil")
	f.Add(uint64(2), "for { select { case <-ctx: defer m.Acquire } }")
	f.Fuzz(func(t *testing.T, seed uint64, extra string) {
		p := generate(rand.New(rand.NewPCG(seed, 0)), "f")
		text := p.text.String()
		at := int(seed>>32) % (len(text) + 1)
		src := "package p\nimport (\n\"context\"\n\"github.com/seed-46f81e6d/keylock\"\n)\n" + text[:at] + extra + text[at:]
		_, _, first := analyze(t, src, false)
		_, _, again := analyze(t, src, false)
		order := func(a, b analysis.Diagnostic) int { return strings.Compare(a.Message, b.Message) }
		slices.SortFunc(first, order)
		slices.SortFunc(again, order)
		require.Equal(t, len(first), len(again))
		for i := range first {
			assert.Equal(t, first[i].Message, again[i].Message)
		}
	})
}
