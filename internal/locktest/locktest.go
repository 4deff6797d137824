// Package locktest has what the tests of several packages and modules need alike.
package locktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// RaceEnabled is whether the race detector is on, which makes everything several times slower
// and lets sync.Pool drop items at random.
var RaceEnabled = func() bool {
	build, _ := debug.ReadBuildInfo()
	return build != nil && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

// Sharing wants a key shared.
func Sharing[K comparable](key K) []keylock.Want[K] {
	return []keylock.Want[K]{{Key: key, Mode: keylock.Shared}}
}

// Busy returns a manager with something in every metric: two keys, of which one is held
// exclusively and waited for by two, and the other shared by two; and behind it an immediate
// grant, one after a wait of 3 s, a cancelled wait and a refused try. What is there now has
// been so for 4 s. It must be called in a bubble.
func Busy(t testing.TB) *keylock.Manager[string] {
	t.Helper()
	ctx := t.Context()
	m := keylock.Start[string](ctx, keylock.WithHoldTimes())
	first, ok := m.TryAcquire("k")
	if !ok {
		t.Fatal("the key is not free")
	}
	second := m.Reserve("k")
	if _, ok := m.TryAcquire("k"); ok { //keylock:held never: it is refused
		t.Fatal("the key is free")
	}
	cancelled := m.Reserve("k")
	time.Sleep(time.Second)
	cancelled.Cancel()
	time.Sleep(2 * time.Second)
	first.Release()
	if _, err := second.Wait(ctx); err != nil { //keylock:held until the manager ends
		t.Fatal(err)
	}
	m.Reserve("k")                   //keylock:held waits until the manager ends
	m.Reserve("k")                   //keylock:held likewise
	m.TryAcquireSet(Sharing("s")...) //keylock:held likewise
	m.TryAcquireSet(Sharing("s")...) //keylock:held likewise
	time.Sleep(4 * time.Second)
	return m
}

// Stubborn is a manager that does not reply before the caller gives up.
type Stubborn struct{}

// Stats waits until ctx ends.
func (Stubborn) Stats(ctx context.Context) (keylock.Stats, error) {
	<-ctx.Done()
	return keylock.Stats{}, ctx.Err()
}

// EarlyContext closes Done before it sets Err.
type EarlyContext struct {
	context.Context
	Ended chan struct{}
}

// Done is closed when Ended is.
func (c EarlyContext) Done() <-chan struct{} { return c.Ended }

// Err returns nil.
func (EarlyContext) Err() error { return nil }

// patience is how long a test waits for what must happen, on a machine that is busy.
const patience = 3 * time.Minute

// atOnce is how long a call takes at most that waits for nothing, on a machine that is busy. An etcd client closes a connection on which
// nothing comes after 10 s, which would end the call too.
const atOnce = 7 * time.Second

// GiveUp acquires a key in a weather that holds back the reply, and gives up when carriedOut has returned and a reply that is to
// be lost is lost. Acquire must return at once then. A reply that is only late may come before that on a busy machine; then it
// tries again, with twice the time. It leaves the weather as it is.
func GiveUp(t testing.TB, e cohort.Engine, key string, n *cohorttest.Network, w cohorttest.Weather, carriedOut func()) {
	t.Helper()
	for ; ; w.Late *= 2 {
		n.Set(w)
		before := n.Withheld()
		ctx, cancel := context.WithCancel(t.Context())
		var g cohort.Grant
		var err error
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			g, err = e.Acquire(ctx, key)
		}()
		carriedOut()
		for deadline := time.Now().Add(patience); w.NoReplies && n.Withheld() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no reply was lost")
			}
		}
		cancel()
		Watch(t, atOnce, func() { <-returned })
		if err != nil || w.Late == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("Acquire returned %v", err)
			}
			return
		}
		n.Set(cohorttest.Weather{})
		if err := g.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// LostBy waits until a grant is lost. By then, says the clock, it must be.
func LostBy(t testing.TB, g cohort.Grant, then time.Time) {
	t.Helper()
	lost := g.Lost()
	time.Sleep(time.Until(then))
	if !ended.Is(g.Lost()) { // which asks the clock
		t.Error("the deadline is counted from a request that was sent before")
	}
	Watch(t, patience, func() { <-lost })
}

// OutlastBurst asks an engine for 2,000 locks at once, over a network that holds back each reply for 100 ms. That takes
// longer than a TTL if few are under way at a time; what is held is kept meanwhile, until the session has been renewed for so long.
func OutlastBurst(t testing.TB, e interface {
	cohort.Engine
	cohort.Reporter
}, held cohort.Grant, n *cohorttest.Network, renewed time.Duration) {
	t.Helper()
	ends := e.Report().SessionEnds
	if n.Connections() == 0 {
		t.Fatal("the engine is connected past the network")
	}
	n.Set(cohorttest.Weather{Late: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 2000 {
		all.Go(func() { _, _ = e.Acquire(ctx, strconv.Itoa(i)) })
	}
	for e.Report().SessionEnds.Sub(ends) < renewed {
		select {
		case <-held.Lost():
			t.Fatal("the lease is lost")
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	all.Wait()
	n.Set(cohorttest.Weather{})
}

// Watch runs work that must end in real time. When it does not, it prints what every goroutine
// does and fails.
func Watch(t testing.TB, limit time.Duration, work func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		t.Fatalf("not over after %v: a goroutine waits forever", limit)
	}
}

// BubbleGoroutines is the number of goroutines in the bubble, when all of them wait.
func BubbleGoroutines() int {
	synctest.Wait()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte(", synctest bubble "))
}

// Tool returns the path of a program. Where Debian's package with it is not installed the test
// is skipped, and in CI it fails.
func Tool(t testing.TB, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s: apt-get install %s", program, debian)
	}
	t.Skipf("this test needs %s: apt-get install %s", program, debian)
	return ""
}

// Promtool runs Prometheus' own checker.
func Promtool(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), Tool(t, "promtool", "prometheus"), args...).CombinedOutput(); err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Metrics fails the test where a text names a metric, or a label, that is not known, and returns
// how many it names.
func Metrics(t testing.TB, text string, known map[string]bool) int {
	t.Helper()
	names := regexp.MustCompile(`\bkeylock_\w+`).FindAllString(text, -1)
	for _, name := range names {
		if !known[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("there is no %s", name)
		}
	}
	return len(names)
}

// Dashboard checks a dashboard as far as that is possible without a Grafana: no panel covers
// another, and every expression is one, and speaks of metrics that are known.
func Dashboard(t testing.TB, file string, known map[string]bool) {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Templating struct {
			List []struct{ Definition string }
		}
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(source, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Fatal("there is no panel")
	}
	for _, v := range dashboard.Templating.List {
		Metrics(t, v.Definition, known)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("panel %d is there twice", p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is too wide", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" {
					t.Errorf("panel %q covers %q", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if Metrics(t, target.Expr, known) == 0 {
				t.Errorf("panel %q shows no metric", p.Title)
			}
			expr := strings.NewReplacer("$manager", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("panel %q has a variable that this test does not know: %s", p.Title, expr)
			}
			quoted, err := json.Marshal(expr) // JSON is YAML
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&rules, "  - {record: 'panel:%d', expr: %s}\n", p.ID, quoted)
		}
	}
	checked := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(checked, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	Promtool(t, "check", "rules", "--lint=none", checked)
}
