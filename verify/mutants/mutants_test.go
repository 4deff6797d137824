package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// TestSuite is what the next test runs as a suite, with a mutant alive that it sees, or not.
func TestSuite(t *testing.T) {
	switch mutant, _ := strconv.Atoi(os.Getenv("MUTANT")); mutant {
	case 2:
		t.Run("fails", func(t *testing.T) { t.Fail() })
	case 3:
		t.Run("hangs", func(t *testing.T) { time.Sleep(time.Hour) })
	}
}

func TestWhatFailsOrHangsKillsAMutant(t *testing.T) {
	binary, err := os.Executable()
	require.NoError(t, err)
	test := func(number int, least time.Duration) (string, []known) {
		u := suite{name: "suite", binary: binary, args: []string{"-test.run=^TestSuite$"}, normal: times{}}
		s := &suites{all: []suite{u}, least: least}
		return s.kill(mutant{number: number, file: "a.go"}, false), s.recent.of("a.go")
	}
	killer, recent := test(1, time.Hour)
	assert.Empty(t, killer)
	assert.Empty(t, recent)

	killer, recent = test(2, time.Hour)
	assert.Equal(t, "suite: TestSuite/fails", killer)
	require.Len(t, recent, 1)
	assert.Equal(t, "TestSuite/fails", recent[0].test)

	killer, _ = test(3, 100*time.Millisecond)
	assert.Contains(t, killer, "suite: hangs in")
}

func TestTestsAreTimedUntilTheNextBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		w := watch(func(test string) time.Duration {
			if test == "TestA/b" {
				return 5 * time.Second
			}
			return time.Minute
		}, func() { ended.Store(true) })
		for _, text := range []string{"=== R", "UN   TestA\n=== PAUSE", "\n=== RUN   TestA/b\n"} {
			time.Sleep(time.Second)
			n, err := w.Write([]byte(text))
			require.NoError(t, err)
			require.Equal(t, len(text), n)
		}
		time.Sleep(4 * time.Second)
		assert.False(t, ended.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.True(t, ended.Load())
		w.ends()
		assert.Equal(t, times{"": 2 * time.Second, "TestA": time.Second, "TestA/b": 6 * time.Second}, w.took)
		assert.Equal(t, 9*time.Second, w.took.sum())
		assert.Equal(t, 20*time.Second, times{"TestC": 2 * time.Second}.limit("TestD"), "it is not known")
		assert.Equal(t, 10*time.Second, times{"TestC": 2 * time.Second, "TestD": time.Second}.limit("TestD"))
	})
}

func TestTestsThatKilledTheLastMutantsGoFirst(t *testing.T) {
	var r recent
	for i := range recentMax + 2 {
		r.add("a.go", known{nil, strconv.Itoa(i)})
	}
	r.add("a.go", known{nil, "4"})
	r.add("b.go", known{nil, ""})
	var tests []string
	for _, k := range r.of("a.go") {
		tests = append(tests, k.test)
	}
	assert.Equal(t, []string{"4", "7", "6", "5", "3", "2"}, tests)
	assert.Empty(t, r.of("b.go"))
	assert.Equal(t, `^TestA$/^b\.c$`, pattern("TestA/b.c"))
	assert.Empty(t, pattern(""))
}
