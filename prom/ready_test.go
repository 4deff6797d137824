package prom_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The ready-made dashboard and alerts are checked as far as that is possible without a
// Grafana: every expression is one, and speaks of metrics that exist.

// promtool runs Prometheus' own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	const missing = "this test needs promtool: apt-get install prometheus"
	tool, err := exec.LookPath("promtool")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatal(missing)
	case err != nil:
		t.Skip(missing)
	}
	out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool(t, "check", "rules", "alerts.yml")
	promtool(t, "test", "rules", "testdata/alerts.test.yml")
}

func TestAlertsSpeakOfMetricsThatExist(t *testing.T) {
	alerts, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, requireMetrics(t, string(alerts)), 6)
}

// requireMetrics fails where a text names a metric that there is not, and returns how
// many it names.
func requireMetrics(t *testing.T, text string) int {
	t.Helper()
	known := described(t)
	names := regexp.MustCompile(`\bkeylock_\w+`).FindAllString(text, -1)
	for _, name := range names {
		assert.True(t, known[strings.TrimSuffix(name, "_bucket")], name)
	}
	return len(names)
}

type dashboard struct {
	UID        string
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func TestDashboardIsSound(t *testing.T) {
	source, err := os.ReadFile("grafana.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(source, &d))
	require.NotEmpty(t, d.Panels)

	ids, taken := map[int]bool{}, map[[2]int]string{}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], "panel %d is there twice", p.ID)
		ids[p.ID] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				assert.Empty(t, taken[at], "%s covers another panel", p.Title)
				taken[at] = p.Title
			}
		}
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			assert.Positive(t, requireMetrics(t, target.Expr), p.Title)
			expr := strings.NewReplacer("$manager", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			assert.NotContains(t, expr, "$", "a variable that this test does not know")
			quoted, err := json.Marshal(expr) // JSON is YAML
			require.NoError(t, err)
			rules += fmt.Sprintf("  - {record: 'panel:%d', expr: %s}\n", p.ID, quoted)
		}
	}
	for _, v := range d.Templating.List {
		requireMetrics(t, v.Definition)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	promtool(t, "check", "rules", "--lint=none", file)
}
