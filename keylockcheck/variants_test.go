package keylockcheck_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

// A variant rewrites the functions of a package, in text, into others that do the same.
type variant struct {
	name string
	file func(text string) string       // the rest of a file, nil to leave it as it is
	fn   func(name, text string) string // a function of the tables
	all  func(text string) string       // every declaration, nil to leave them as they are
	base func(name, text string) string // what fn is tried with next when it does not compile; nil: left out
	min  int                            // how many functions remain at least, of the correct and of the wrong ones
}

var typeArg = regexp.MustCompile(`(map)?\[string\]`)

// ofString applies to [string] but not to map[string].
func ofString(text, with string) string {
	return typeArg.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, "map") {
			return found
		}
		return with
	})
}

var variants = []variant{
	{name: "method", min: 50, fn: func(name, text string) string {
		return strings.Replace(text, "func "+name, "func (subject) "+name, 1)
	}},
	{name: "literal", min: 50, fn: func(name, text string) string {
		return strings.Replace(text, "func "+name+"(", "var "+name+" = func(", 1)
	}},
	{name: "nested", min: 50, fn: func(name, text string) string {
		head, body, _ := strings.Cut(text, " {\n")
		return head + " {\nreturn func() error {\n" + body[:strings.LastIndex(body, "}")] + "}()\n}"
	}},
	{name: "generic", min: 40,
		fn: func(name, text string) string {
			text = strings.Replace(text, "func "+name+"(", "func "+name+"[K ~string](", 1)
			text = strings.ReplaceAll(ofString(text, "[K]"), "string(key)", "K(key)")
			return strings.ReplaceAll(text, "[]string{", "[]K{")
		},
		base: func(name, text string) string {
			return strings.Replace(text, "func "+name+"(", "func "+name+"[T any](", 1)
		}},
	{name: "aliased", min: 50,
		all: func(text string) string { return strings.ReplaceAll(text, "keylock.", "locks_.") },
		file: func(text string) string {
			return strings.Replace(text, `"github.com/seed-46f81e6d/keylock"`, `locks_ "github.com/seed-46f81e6d/keylock"`, 1)
		}},
	{name: "cohort", min: 20,
		all: func(text string) string {
			text = strings.NewReplacer("keylock.Manager[string]", "cohort.Manager", "keylock.Manager[K]", "cohort.Manager",
				"keylock.Lock[string]", "cohort.Lock", "keylock.Lock[K]", "cohort.Lock", "[K comparable]", "").Replace(text)
			return strings.ReplaceAll(ofString(text, ""), "[K]", "")
		},
		file: func(text string) string {
			return strings.Replace(text, `"github.com/seed-46f81e6d/keylock"`,
				"\"github.com/seed-46f81e6d/keylock\"\n\"github.com/seed-46f81e6d/keylock/cohort\"", 1)
		}},
}

// A subject is a package of testdata, cut into its declarations.
type subject struct {
	dir   string
	files map[string][]declaration // by path; the first is the head with the imports
}

type declaration struct {
	id   string // unique; the name of functions of the tables
	name string // of a function of the tables, else ""
	text string
}

func read(t *testing.T, dir string, tabled func(name string) bool) *subject {
	t.Helper()
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	s := &subject{dir, make(map[string][]declaration)}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range paths {
		src, err := os.ReadFile(path)
		require.NoError(t, err)
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, 0)
		require.NoError(t, err)
		text := func(from, to token.Pos) string {
			return string(src[fset.Position(from).Offset:fset.Position(to).Offset])
		}
		last := file.Imports[len(file.Imports)-1]
		decls := []declaration{{"head", "", text(file.FileStart, last.End()) + "\n)\n"}}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.GenDecl:
				if decl.Tok == token.IMPORT {
					continue
				}
				if spec, ok := decl.Specs[0].(*ast.ValueSpec); ok && slices.Contains([]string{"Before", "After", "Unseen", "Traps", "Outside"}, spec.Names[0].Name) {
					continue // the tables, which name the functions
				}
				decls = append(decls, declaration{text(decl.Pos(), decl.End()), "", text(decl.Pos(), decl.End())})
			case *ast.FuncDecl:
				d := declaration{text(decl.Pos(), decl.End()), "", text(decl.Pos(), decl.End())}
				if decl.Recv == nil && tabled(decl.Name.Name) {
					d.id, d.name = decl.Name.Name, decl.Name.Name
				}
				decls = append(decls, d)
			}
		}
		s.files[path] = decls
	}
	return s
}

// write returns the files of a variant, and of each line the declaration that it belongs
// to. Those in dropped are left out; functions in based are written with base.
func (s *subject) write(t *testing.T, v variant, dropped, based map[string]bool) (map[string][]byte, map[string]map[int]declaration) {
	overlay, lines := make(map[string][]byte), make(map[string]map[int]declaration)
	for path, decls := range s.files {
		var kept []declaration
		var body bytes.Buffer
		for _, d := range decls[1:] {
			text := d.text
			switch {
			case dropped[d.id]:
				continue
			case d.name != "" && based[d.id]:
				text = v.base(d.name, text)
			case d.name != "" && v.fn != nil:
				text = v.fn(d.name, text)
			}
			if v.all != nil {
				text = v.all(text)
			}
			fmt.Fprintf(&body, "\n%s\n", text)
			kept = append(kept, d)
		}
		head := decls[0].text
		if v.file != nil {
			head = v.file(head)
		}
		if v.name == "method" && strings.HasSuffix(path, "before.go") {
			head += "\ntype subject struct{}\n"
			kept = append([]declaration{decls[0]}, kept...)
		}
		src := onlyUsedImports(t, append([]byte(head), body.Bytes()...))
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, 0)
		require.NoError(t, err, "%s", src)
		overlay[path], lines[path] = src, make(map[int]declaration)
		i := 0
		for _, decl := range file.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok && gen.Tok == token.IMPORT {
				continue
			}
			for line := fset.Position(decl.Pos()).Line; line <= fset.Position(decl.End()).Line; line++ {
				lines[path][line] = kept[i]
			}
			i++
		}
	}
	return overlay, lines
}

// onlyUsedImports leaves out the imports of functions that were left out.
func onlyUsedImports(t *testing.T, src []byte) []byte {
	file, err := parser.ParseFile(token.NewFileSet(), "", src, parser.ImportsOnly)
	require.NoError(t, err)
	text := string(src)
	for _, spec := range file.Imports {
		line := spec.Path.Value
		name := strings.Trim(line[max(strings.LastIndex(line, "/"), 0)+1:], "\"")
		if spec.Name != nil {
			name = spec.Name.Name
			line = name + " " + line
		}
		if !regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(text) {
			text = strings.Replace(text, line, "", 1)
		}
	}
	return []byte(text)
}

// build writes a variant until it compiles, and returns its packages and the functions
// that are left.
func (s *subject) build(t *testing.T, v variant) ([]*packages.Package, map[string]bool) {
	dropped, based := make(map[string]bool), make(map[string]bool)
	for range 8 {
		overlay, lines := s.write(t, v, dropped, based)
		pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax, Overlay: overlay}, s.dir)
		require.NoError(t, err)
		if len(pkgs[0].Errors) == 0 {
			left := make(map[string]bool)
			for _, decls := range s.files {
				for _, d := range decls {
					if d.name != "" && !dropped[d.id] {
						left[d.name] = true
					}
				}
			}
			return load(t, packages.Config{Overlay: overlay}, s.dir), left
		}
		for _, e := range pkgs[0].Errors {
			parts := strings.Split(e.Pos, ":")
			if len(parts) < 2 {
				continue // the compiler's, of which the type checker has all
			}
			line, err := strconv.Atoi(parts[1])
			require.NoError(t, err)
			d := lines[parts[0]][line]
			require.NotEqual(t, "head", d.id, "%v", e)
			if v.base != nil && d.name != "" && !based[d.id] {
				based[d.id] = true
			} else {
				dropped[d.id] = true
			}
		}
	}
	require.Fail(t, "variant "+v.name+" does not compile")
	return nil, nil
}

func TestVariantsOfCorrectFunctionsAreNotReported(t *testing.T) {
	cases := correctCases()
	s := read(t, "testdata/correct", func(name string) bool { return cases[name] != nil })
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			pkgs, left := s.build(t, v)
			assert.GreaterOrEqual(t, len(left), v.min, "functions that are left")
			t.Logf("%d of %d functions", len(left), len(cases))
			for _, f := range findings(t, allRules(), pkgs) {
				t.Error(f)
			}
		})
	}
}

func TestVariantsOfWrongFunctionsAreReported(t *testing.T) {
	cases := joined(wrongCases())
	s := read(t, "testdata/wrong", func(name string) bool { return cases[name].Func != nil })
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			pkgs, left := s.build(t, v)
			assert.GreaterOrEqual(t, len(left), min(v.min, 25), "functions that are left")
			t.Logf("%d of %d functions", len(left), len(cases))
			reported := make(map[string]string)
			for _, f := range findings(t, allRules(), pkgs) {
				reported[f.fn] = f.rule
			}
			for name := range left {
				assert.Equal(t, cases[name].Rule, reported[name], "rule that reports %s", name)
			}
		})
	}
}

// What is forgotten in a correct function is found: of the calls of Release, Cancel,
// Close and Unlock, each is deleted once. Most that are not found are in helpers, in literals, and in
// functions that pass the lock on.
func TestDeletedReleasesAreFound(t *testing.T) {
	const floor = 78 // of a hundred; it was 79
	dir, err := filepath.Abs("testdata/correct")
	require.NoError(t, err)
	cases := correctCases()
	type mutant struct {
		path, fn string
		from, to int
	}
	var mutants []mutant
	sources := make(map[string][]byte)
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range paths {
		src, err := os.ReadFile(path)
		require.NoError(t, err)
		sources[path] = src
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || cases[fn.Name.Name] == nil {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				var call *ast.CallExpr
				switch n := n.(type) {
				case *ast.ExprStmt:
					call, _ = n.X.(*ast.CallExpr)
				case *ast.DeferStmt:
					call = n.Call
				}
				if call == nil {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Release", "Cancel", "Close", "Unlock"}, sel.Sel.Name) {
					mutants = append(mutants, mutant{path, fn.Name.Name, fset.Position(n.Pos()).Offset, fset.Position(n.End()).Offset})
				}
				return true
			})
		}
	}
	// One load for as many mutants as there are functions: they do not disturb each other.
	rounds := make(map[string]int)
	byRound := make(map[int][]mutant)
	for _, m := range mutants {
		byRound[rounds[m.fn]] = append(byRound[rounds[m.fn]], m)
		rounds[m.fn]++
	}
	found := 0
	for round := range len(byRound) {
		overlay := make(map[string][]byte)
		for path, src := range sources {
			overlay[path] = slices.Clone(src)
		}
		for _, m := range byRound[round] {
			blank(overlay[m.path][m.from:m.to])
		}
		pkgs := load(t, packages.Config{Overlay: overlay}, dir)
		reported := make(map[string]bool)
		for _, f := range findings(t, allRules(), pkgs) {
			reported[f.fn] = true
		}
		for _, m := range byRound[round] {
			if reported[m.fn] {
				found++
			} else {
				t.Logf("not found: %s without %s", m.fn, sources[m.path][m.from:m.to])
			}
		}
	}
	t.Logf("%d of %d are found", found, len(mutants))
	assert.GreaterOrEqual(t, found*100, floor*len(mutants), "found, of a hundred")
}

// blank replaces a call such as defer lock.Release() by _ = lock, which keeps the variable
// used, and keeps the length.
func blank(call []byte) {
	x := bytes.TrimPrefix(call, []byte("defer "))
	x = x[:bytes.LastIndexByte(x, '.')]
	text := fmt.Appendf(nil, "_ = %s", x)
	text = append(text, bytes.Repeat([]byte(" "), len(call)-len(text))...)
	copy(call, text)
}
