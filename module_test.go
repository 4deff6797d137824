package keylock_test

import (
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/seed-46f81e6d/keylock"

func TestImportingTheModuleBringsInTheStandardLibraryOnly(t *testing.T) {
	for _, p := range goList(t, "-deps", "./...") {
		ours := p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
		assert.True(t, p.Standard || ours, p.ImportPath)
	}
}

func TestTableKnowsNothingOfGoroutinesContextsAndClocks(t *testing.T) {
	table := goList(t, "./internal/table")
	require.Len(t, table, 1)
	for _, imported := range table[0].Imports {
		assert.NotContains(t, []string{"sync", "context", "time"}, imported)
		assert.False(t, strings.HasPrefix(imported, "sync/"), imported)
	}
}

// What package sync has to lock with. Other things of it are looked at by people.
var mutexes = []string{"Mutex", "RWMutex", "Once", "OnceFunc", "OnceValue", "OnceValues", "Cond", "NewCond", "Map"}

// Package inorder has one, and says why; so has the proxy that cohorttest runs beside an engine.
func TestNoMutexIsNamedAnywhereElse(t *testing.T) {
	files := 0
	for _, p := range goList(t, "./...") {
		if p.ImportPath == module+"/inorder" || p.ImportPath == module+"/cohort/cohorttest" {
			continue
		}
		for _, name := range p.GoFiles {
			files++
			for _, found := range mutexesIn(t, filepath.Join(p.Dir, name), nil) {
				t.Error(found)
			}
		}
	}
	assert.Greater(t, files, 5)
}

func TestMutexesAreFoundUnderAnyName(t *testing.T) {
	for source, want := range map[string]int{
		`package p; import "sync"; var m sync.Mutex; var p sync.Pool`:       1,
		`package p; import s "sync"; type t struct { s.RWMutex; m *s.Map }`: 2,
		`package p; import . "sync"; var m Mutex`:                           1,
		`package p; import sync "sync/atomic"; var b sync.Bool`:             0,
		`package p; import "sync"; var f = sync.OnceFunc(func() {})`:        1,
		`package p; type sync struct{ Mutex int }; var m = sync{}.Mutex`:    0,
	} {
		assert.Len(t, mutexesIn(t, "p.go", source), want, source)
	}
}

// mutexesIn returns where a file names a mutex. A dot import of package sync counts.
func mutexesIn(t *testing.T, file string, source any) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, file, source, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, spec := range tree.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		if imported != "sync" {
			continue
		}
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			found = append(found, files.Position(spec.Pos()).String()+": dot import of sync")
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(mutexes, s.Sel.Name) {
				found = append(found, files.Position(s.Pos()).String()+": "+local+"."+s.Sel.Name)
			}
			return true
		})
	}
	return found
}

func TestModuleRequiresOnlyItsTestLibraries(t *testing.T) {
	var mod struct {
		Module  struct{ Path string }
		Go      string
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	require.NoError(t, json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &mod))
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	assert.Equal(t, module, mod.Module.Path)
	assert.Equal(t, "1.25", mod.Go)
	assert.ElementsMatch(t, []string{"github.com/stretchr/testify", "go.uber.org/goleak"}, direct)
	assert.Empty(t, mod.Replace)
}

// A goPackage is what go list says of one.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string // without those of tests
	Imports    []string
}

// goList describes packages of this module.
func goList(t *testing.T, args ...string) (packages []goPackage) {
	t.Helper()
	out := json.NewDecoder(strings.NewReader(string(goCommand(t, append([]string{"list", "-json"}, args...)...))))
	for {
		var p goPackage
		err := out.Decode(&p)
		if err == io.EOF {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}

func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	require.NoError(t, err, "go %v", args)
	return out
}

// What is exported is read by all users of the package, and stays. Who adds a name finds
// another to merge, or argues here for a larger number.
func TestExportedNamesDoNotGrow(t *testing.T) {
	const mostNames, mostFields = 84, 50
	pkg, err := importer.ForCompiler(token.NewFileSet(), "source", nil).Import("github.com/seed-46f81e6d/keylock")
	require.NoError(t, err)
	var names, fields []string
	for _, name := range pkg.Scope().Names() {
		object := pkg.Scope().Lookup(name)
		if !object.Exported() {
			continue
		}
		names = append(names, name)
		if _, isType := object.(*types.TypeName); !isType {
			continue
		}
		named := object.Type().(*types.Named)
		for method := range named.Methods() {
			if method.Exported() {
				names = append(names, name+"."+method.Name())
			}
		}
		if structure, ok := named.Underlying().(*types.Struct); ok {
			for field := range structure.Fields() {
				if field.Exported() {
					fields = append(fields, name+"."+field.Name())
				}
			}
		}
	}
	t.Logf("%d names, %d fields", len(names), len(fields))
	assert.LessOrEqual(t, len(names), mostNames, "%v", names)
	assert.LessOrEqual(t, len(fields), mostFields, "%v", fields)
}

// Every Go snippet of these documents is a piece of an example that is compiled and run;
// the whole program in the README is run by verify/fetch.
func TestReadmeSnippetsAreCompiledExamples(t *testing.T) {
	files, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	files = append(files, filepath.Join("cohort", "example_recipes_test.go"))
	var examples strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		examples.WriteString(unindented(string(text)))
	}

	for _, document := range []string{"README.md", "docs/MIGRATING.md", "docs/RECIPES.md"} {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		snippets := strings.Split(string(text), "```go\n")[1:]
		require.NotEmpty(t, snippets)
		for _, snippet := range snippets {
			snippet, _, _ = strings.Cut(snippet, "```")
			if !strings.HasPrefix(snippet, "package main\n") && !usesAnother(snippet) {
				assert.Contains(t, examples.String(), unindented(snippet), document)
			}
		}
	}
}

// usesAnother reports whether a snippet shows the calls of a library that is not required
// here.
func usesAnother(snippet string) bool {
	for _, call := range []string{"byName.Lock(", "hashed.LockKey(", "flight.Do(", "semaphoreOf("} {
		if strings.Contains(snippet, call) {
			return true
		}
	}
	return false
}

// Each way over ends in lines of Go that are compiled and run.
func TestEverySectionOfMigratingHasItsLines(t *testing.T) {
	text, err := os.ReadFile("docs/MIGRATING.md")
	require.NoError(t, err)
	sections := strings.Split(string(text), "\n## ")[1:]
	require.Len(t, sections, 11)
	for _, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		snippets := strings.Split(section, "```go\n")
		last, _, _ := strings.Cut(snippets[len(snippets)-1], "```")
		assert.True(t, len(snippets) > 1 && !usesAnother(last), title)
	}
}

func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
