package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What equivalent.txt excuses is still in the code.
func TestEquivalentsAreUpToDate(t *testing.T) {
	all, _, err := mutateAll("../..")
	require.NoError(t, err)
	equivalent, err := readEquivalents("../..")
	require.NoError(t, err)
	require.NoError(t, checkEquivalents(equivalent, all))
	names := make(map[string]bool)
	for _, m := range all {
		assert.False(t, names[m.name()], "two are named %s", m.name())
		names[m.name()] = true
	}
}

func TestEquivalentsMustBeThereAndHaveAReason(t *testing.T) {
	mutants := []mutant{{in: "p.f", change: "leave out x()", text: "x()"}}
	there := mutants[0].name()
	assert.NoError(t, checkEquivalents(map[string]string{there: "why"}, mutants))
	assert.ErrorContains(t, checkEquivalents(map[string]string{there: ""}, mutants), "reason")
	assert.ErrorContains(t, checkEquivalents(map[string]string{"p.f: leave out y(): y()": "why"}, mutants), "no such mutant")
}

const sample = `package sample

type list[K any] struct{ n uint64 }

func (l *list[K]) f(a, b int, ok bool) bool {
	for a < b && !ok {
		a++
		if a == 3 {
			continue // with the next
		}
		if a == 3 {
			continue
		}
		b -= a - 1
		println("a" + "b")
		l.n = 1<<3 - 1
	}
	switch {
	case ok:
		return true
	}
	return a <= b || ok
}
`

const stubs = `package sample
func mutated(int) bool { return false }
func instead[T any](alive bool, mutant, original T) T { return original }
`

func TestMutate(t *testing.T) {
	var mutants []mutant
	text, err := mutate("sample.go", sample, &mutants)
	require.NoError(t, err)
	var names []string
	for _, m := range mutants {
		names = append(names, m.name())
	}
	assert.Equal(t, []string{
		"sample.list.f: forget a < b: for a < b && !ok {",
		"sample.list.f: forget !ok: for a < b && !ok {",
		"sample.list.f: let in equality: a < b: for a < b && !ok {",
		"sample.list.f: negate a < b: for a < b && !ok {",
		"sample.list.f: count the other way: a++",
		"sample.list.f: count the other way: b -= a - 1",
		"sample.list.f: leave out b -= a - 1: b -= a - 1",
		`sample.list.f: leave out println("a" + "b"): println("a" + "b")`,
		"sample.list.f: leave out l.n = 1<<3 - 1: l.n = 1<<3 - 1",
		"sample.list.f: negate a == 3: if a == 3 {",
		"sample.list.f: break: continue",
		"sample.list.f: leave out continue: continue",
		"sample.list.f: negate a == 3: if a == 3 { (#2)",
		"sample.list.f: break: continue (#2)",
		"sample.list.f: leave out continue: continue (#2)",
		"sample.list.f: + instead: a - 1: b -= a - 1",
		"sample.list.f: negate ok: case ok:",
		"sample.list.f: negate true: return true",
		"sample.list.f: forget a <= b: return a <= b || ok",
		"sample.list.f: forget ok: return a <= b || ok",
		"sample.list.f: leave out equality: a <= b: return a <= b || ok",
		"sample.list.f: negate a <= b: return a <= b || ok",
	}, names)

	// It compiles.
	files := token.NewFileSet()
	var parsed []*ast.File
	for name, text := range map[string]string{"sample.go": text, "stubs.go": stubs} {
		file, err := parser.ParseFile(files, name, text, 0)
		require.NoError(t, err, text)
		parsed = append(parsed, file)
	}
	_, err = new(types.Config).Check("sample", files, parsed, nil)
	require.NoError(t, err, text)
}
