package keylockcheck_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/keylockcheck"
	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/correct"
	"github.com/seed-46f81e6d/keylock/keylockcheck/testdata/wrong"
)

func allRules() []*analysis.Analyzer {
	return append(keylockcheck.Analyzers(), keylockcheck.OrderHint)
}

// A finding is a report and the declared function in which it stands.
type finding struct {
	rule, fn, message string
	at                token.Position
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", filepath.Base(f.at.Filename), f.at.Line, f.fn, f.rule, f.message)
}

// load loads packages with what their analysis needs.
func load(t testing.TB, cfg packages.Config, patterns ...string) []*packages.Package {
	t.Helper()
	cfg.Mode = packages.LoadAllSyntax | packages.NeedModule
	pkgs, err := packages.Load(&cfg, patterns...)
	require.NoError(t, err)
	require.NotEmpty(t, pkgs)
	return pkgs
}

// findings runs the rules on packages, whose errors fail the test.
func findings(t testing.TB, rules []*analysis.Analyzer, pkgs []*packages.Package) []finding {
	t.Helper()
	for _, pkg := range pkgs {
		require.Empty(t, pkg.Errors)
	}
	graph, err := checker.Analyze(rules, pkgs, nil)
	require.NoError(t, err)
	var all []finding
	seen := make(map[finding]bool)
	for _, act := range graph.Roots {
		require.NoError(t, act.Err)
		for _, d := range act.Diagnostics {
			f := finding{act.Analyzer.Name, "", d.Message, act.Package.Fset.Position(d.Pos)}
			for _, file := range act.Package.Syntax {
				for _, decl := range file.Decls {
					if decl.Pos() <= d.Pos && d.Pos < decl.End() {
						f.fn = nameOf(decl)
					}
				}
			}
			if !seen[f] {
				seen[f] = true
				all = append(all, f)
			}
		}
	}
	slices.SortFunc(all, func(a, b finding) int { return a.at.Offset - b.at.Offset })
	return all
}

func nameOf(decl ast.Decl) string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		return decl.Name.Name
	case *ast.GenDecl:
		if spec, ok := decl.Specs[0].(*ast.ValueSpec); ok {
			return spec.Names[0].Name
		}
	}
	return ""
}

func TestNoCorrectFunctionIsReported(t *testing.T) {
	for _, f := range findings(t, allRules(), load(t, packages.Config{}, "./testdata/correct")) {
		t.Error(f)
	}
}

func TestEveryWrongFunctionIsReported(t *testing.T) {
	reported := make(map[string][]finding)
	for _, f := range findings(t, allRules(), load(t, packages.Config{}, "./testdata/wrong")) {
		t.Log(f)
		reported[f.fn] = append(reported[f.fn], f)
	}
	cases := joined(wrongCases(), wrong.Outside)
	for name, c := range cases {
		if !assert.NotEmpty(t, reported[name], "%s is not reported", name) {
			continue
		}
		for _, f := range reported[name] {
			assert.Equal(t, c.Rule, f.rule, "rule that reports %s", name)
		}
	}
	for name := range reported {
		assert.Contains(t, cases, name, "%s is reported", name)
	}
}

// Each rule, against the stub and against the real packages.
func TestRules(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	require.NoError(t, err)
	for _, a := range allRules() {
		t.Run(a.Name+"/stub", func(t *testing.T) {
			analysistest.Run(t, testdata, a, a.Name)
		})
		t.Run(a.Name+"/real", func(t *testing.T) {
			analysistest.Run(t, filepath.Dir(filepath.Dir(testdata)), a, "./keylockcheck/testdata/src/"+a.Name)
		})
	}
}

// correctCases and wrongCases are all functions by their names.
func correctCases() map[string]correct.Func {
	return joined(correct.Before, correct.Traps, correct.After, correct.Unseen)
}
func wrongCases() map[string]wrong.Case { return joined(wrong.Before, wrong.After, wrong.Unseen) }

func joined[V any](parts ...map[string]V) map[string]V {
	all := make(map[string]V)
	for _, part := range parts {
		maps.Copy(all, part)
	}
	return all
}

// The first use of package os/signal starts a goroutine, which must not belong to a bubble.
func init() {
	_, stop := signal.NotifyContext(context.Background(), syscall.SIGUSR2)
	stop()
}

// left is what a function left behind in its manager, and what it returned.
type left struct {
	held, waiting int
	err           error
}

// world is one of the situations in which every function is run.
type world struct {
	name string
	x    bool
	run  func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error
}

// worlds: all keys are free, the context has ended, or the keys are held for longer than
// the context lasts.
func worlds() []world {
	var all []world
	for _, x := range []bool{false, true} {
		all = append(all,
			world{"free", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				return f(ctx)
			}},
			world{"ended", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return f(ctx)
			}},
			world{"held", x, func(ctx context.Context, t *testing.T, m *keylock.Manager[string], f func(context.Context) error) error {
				others, err := m.AcquireAll(ctx, "k", "a", "b")
				require.NoError(t, err)
				defer others.Release()
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				return f(ctx)
			}})
	}
	return all
}

// play runs f in a bubble and waits until whatever it began is over. The bubble fails
// when f leaves a goroutine.
func play(t *testing.T, w world, f func(context.Context, *keylock.Manager[string], bool) error) (l left) {
	synctest.Test(t, func(t *testing.T) {
		m := keylock.Start[string](context.Background())
		defer m.Close()
		l.err = w.run(context.Background(), t, m, func(ctx context.Context) error { return f(ctx, m, w.x) })
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		stats, err := m.Stats(context.Background())
		require.NoError(t, err)
		l.held, l.waiting = stats.Held, stats.Waiting
	})
	return l
}

func TestCorrectFunctionsLeaveNothingBehind(t *testing.T) {
	for name, f := range correctCases() {
		t.Run(name, func(t *testing.T) {
			granted := false
			for _, w := range worlds() {
				l := play(t, w, func(ctx context.Context, m *keylock.Manager[string], x bool) error {
					err := f(ctx, m, x)
					stats, statsErr := m.Stats(context.Background())
					require.NoError(t, statsErr)
					granted = granted || w.name == "free" && stats.Acquired > 0
					return err
				})
				assert.Zero(t, l.held, "locks held, keys %s, x %t", w.name, w.x)
				assert.Zero(t, l.waiting, "requests waiting, keys %s, x %t", w.name, w.x)
			}
			if name != "OwnManager" && name != "ClosedWhileHeld" && name != "LateRelease" && name != "ManagerReturned" {
				assert.True(t, granted, "never had a lock")
			}
		})
	}
}

// losing are the rules about locks and reservations that are not given back.
var losing = map[string]bool{"dropped": true, "reservation": true, "lostpath": true}

func TestWrongFunctionsShowWhatIsWrong(t *testing.T) {
	for name, c := range wrongCases() {
		t.Run(name, func(t *testing.T) {
			var seen bool
			for _, w := range worlds() {
				l := play(t, w, c.Func)
				if losing[c.Rule] {
					seen = seen || l.held > 0
				} else {
					seen = seen || errors.Is(l.err, wrong.ErrProof)
				}
			}
			assert.True(t, seen, "nothing is wrong with it")
		})
	}
}

func TestWrongFunctionsOutsideABubbleShowWhatIsWrong(t *testing.T) {
	for name, c := range wrong.Outside {
		t.Run(name, func(t *testing.T) {
			m := keylock.Start[string](t.Context())
			defer m.Close()
			before := owners()
			err := c.Func(t.Context(), m, false)
			assert.ErrorIs(t, err, wrong.ErrProof)
			if c.Rule == "neverended" {
				runtime.GC()
				assert.Greater(t, owners(), before, "managers that run")
			}
		})
	}
}

// owners returns how many managers run.
func owners() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("created by github.com/seed-46f81e6d/keylock.Start["))
}

var update = flag.Bool("update", false, "write the golden file of the fixes")

// The fixes of all rules together give the golden file, which compiles and is clean of
// what was fixed.
func TestSuggestedFixes(t *testing.T) {
	dir, err := filepath.Abs("testdata/src/fixes")
	require.NoError(t, err)
	path := filepath.Join(dir, "fixes.go")
	src, err := os.ReadFile(path)
	require.NoError(t, err)
	pkgs := load(t, packages.Config{}, dir)
	graph, err := checker.Analyze(allRules(), pkgs, nil)
	require.NoError(t, err)
	type edit struct {
		from, to int
		text     []byte
	}
	var edits []edit
	reports, fixed := 0, 0
	for _, act := range graph.Roots {
		require.NoError(t, act.Err)
		for _, d := range act.Diagnostics {
			reports++
			if len(d.SuggestedFixes) == 0 {
				continue
			}
			fixed++
			assert.Len(t, d.SuggestedFixes, 1)
			assert.NotContains(t, []string{"errignored", "afterrelease", "deferloop", "signalctx", "reacquire", "bubble", "orderhint"}, d.Category)
			for _, e := range d.SuggestedFixes[0].TextEdits {
				edits = append(edits, edit{pkgs[0].Fset.Position(e.Pos).Offset, pkgs[0].Fset.Position(e.End).Offset, e.NewText})
			}
		}
	}
	t.Logf("%d of %d reports have a fix", fixed, reports)
	slices.SortFunc(edits, func(a, b edit) int { return b.from - a.from })
	for _, e := range edits {
		src = slices.Concat(src[:e.from], e.text, src[e.to:])
	}
	got, err := format.Source(src)
	require.NoError(t, err)
	golden := path + ".golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))

	cfg := packages.Config{Overlay: map[string][]byte{path: bytes.ReplaceAll(got, []byte("// want"), []byte("//"))}}
	left := findings(t, allRules(), load(t, cfg, dir))
	assert.Len(t, left, reports-fixed)
	for _, f := range left {
		assert.Contains(t, []string{"notDropped", "reservedInLoop", "lostSomewhere", "neverEndedInBranch"}, f.fn, f.String())
	}
}

// Facts about functions of one package are used in another, which does not import keylock.
func TestFacts(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	for _, a := range allRules() {
		if a.Name == "lostpath" {
			analysistest.Run(t, root, a, "./keylockcheck/testdata/facts/user")
			analysistest.Run(t, root, a.Requires[0], "./keylockcheck/testdata/facts/helpers")
		}
	}
}

var reportLine = regexp.MustCompile(`(?m)^(?:\S*/)?(user\.go:\d+:\d+: \w.*)$`)

// The command reports the same on its own and under go vet.
func TestDriversAgree(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "keylockcheck")
	out, err := exec.Command("go", "build", "-o", tool, "./cmd/keylockcheck").CombinedOutput()
	require.NoError(t, err, "%s", out)
	reports := func(name string, args ...string) (lines []string) {
		cmd := exec.Command(name, args...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out) // there are reports
		for _, m := range reportLine.FindAllStringSubmatch(string(out), -1) {
			lines = append(lines, m[1])
		}
		slices.Sort(lines)
		return slices.Compact(lines)
	}
	alone := reports(tool, "./testdata/facts/user")
	assert.Len(t, alone, 3)
	assert.Equal(t, alone, reports("go", "vet", "-vettool="+tool, "./testdata/facts/user"))

	// With the name of a rule only that one runs; orderhint is off unless it is named.
	only := reports(tool, "-reservation", "./testdata/facts/user")
	assert.Len(t, only, 1)
	out, err = exec.Command(tool, "./testdata/src/orderhint").CombinedOutput()
	assert.NoError(t, err, "%s", out)
	out, err = exec.Command(tool, "-orderhint", "./testdata/src/orderhint").CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "lock in any order")
	out, err = exec.Command("go", "vet", "-vettool="+tool, "-orderhint", "./testdata/src/orderhint").CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "lock in any order")
}

// Of the two examples of each rule in the README, the first is reported by that rule and
// the second by none.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	sections := strings.Split(string(readme), "\n### ")[1:]
	require.Len(t, sections, len(allRules()))
	dir, err := filepath.Abs("testdata/correct")
	require.NoError(t, err)
	var source strings.Builder
	source.WriteString(readmeHead)
	for _, section := range sections {
		rule, text, _ := strings.Cut(section, "\n")
		blocks := strings.Split(text, "```go\n")[1:]
		require.Len(t, blocks, 2, rule)
		for i, name := range []string{"reported_", "right_"} {
			code, _, _ := strings.Cut(blocks[i], "```")
			fmt.Fprintf(&source, readmeFunc, name+rule, code)
		}
	}
	overlay := map[string][]byte{filepath.Join(dir, "correct.go"): []byte(source.String())}
	for _, other := range []string{"before.go", "after.go", "unseen.go", "traps.go"} {
		overlay[filepath.Join(dir, other)] = []byte("package correct")
	}
	rules := make(map[string][]string)
	for _, f := range findings(t, allRules(), load(t, packages.Config{Overlay: overlay}, "./testdata/correct")) {
		rules[f.fn] = append(rules[f.fn], f.rule)
	}
	for _, a := range allRules() {
		assert.Contains(t, rules["reported_"+a.Name], a.Name)
		assert.Empty(t, rules["right_"+a.Name], a.Name)
	}
}

const readmeHead = `package correct

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/seed-46f81e6d/keylock"
)

var _, _, _, _ = errors.New, os.Exit, signal.Notify, synctest.Wait
`

const readmeFunc = `
func %s(ctx context.Context, locks *keylock.Manager[string], users []string, refuse bool, t *testing.T, work *sync.WaitGroup, balance map[string]int) error {
	{
%s
	}
	return nil
}
`
