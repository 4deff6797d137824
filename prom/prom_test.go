package prom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/prom"
)

func TestMetricsAreTheTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := locktest.Busy(t)
		defer m.Close()
		registry := prometheus.NewPedanticRegistry()
		require.NoError(t, registry.Register(prom.NewCollector("orders", m)))
		want := `
			# HELP keylock_holders Live grants.
			# TYPE keylock_holders gauge
			keylock_holders{manager="orders",mode="exclusive"} 1
			keylock_holders{manager="orders",mode="shared"} 2
			# HELP keylock_keys Keys that are held or waited for.
			# TYPE keylock_keys gauge
			keylock_keys{manager="orders"} 2
			# HELP keylock_longest_queue_waiters The most waiters that any key has.
			# TYPE keylock_longest_queue_waiters gauge
			keylock_longest_queue_waiters{manager="orders"} 2
			# HELP keylock_oldest_hold_seconds How long the oldest live grant has been held.
			# TYPE keylock_oldest_hold_seconds gauge
			keylock_oldest_hold_seconds{manager="orders"} 4
			# HELP keylock_oldest_wait_seconds How long the oldest wait has lasted.
			# TYPE keylock_oldest_wait_seconds gauge
			keylock_oldest_wait_seconds{manager="orders"} 4
			# HELP keylock_releases_total Grants that have ended.
			# TYPE keylock_releases_total counter
			keylock_releases_total{manager="orders"} 1
			# HELP keylock_requests_total Requests for locks that are decided.
			# TYPE keylock_requests_total counter
			keylock_requests_total{manager="orders",outcome="cancelled"} 1
			keylock_requests_total{manager="orders",outcome="immediate"} 3
			keylock_requests_total{manager="orders",outcome="rejected"} 1
			keylock_requests_total{manager="orders",outcome="waited"} 1
			# HELP keylock_up Whether the manager runs: 0 when it has ended, or did not reply in time.
			# TYPE keylock_up gauge
			keylock_up{manager="orders"} 1
			# HELP keylock_waiters Requests that wait.
			# TYPE keylock_waiters gauge
			keylock_waiters{manager="orders"} 2
			# HELP keylock_slow_log_lost_records_total Records that the slow log did not log.
			# TYPE keylock_slow_log_lost_records_total counter
			keylock_slow_log_lost_records_total{manager="orders"} 0
		`
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(want),
			"keylock_holders", "keylock_keys", "keylock_longest_queue_waiters", "keylock_oldest_hold_seconds", "keylock_oldest_wait_seconds",
			"keylock_releases_total", "keylock_requests_total", "keylock_up", "keylock_waiters", "keylock_slow_log_lost_records_total"))

		families := gather(t, registry)
		waits := families["keylock_wait_seconds"].Metric[0].Histogram
		assert.EqualValues(t, 2, waits.GetSampleCount())
		assert.InDelta(t, 4, waits.GetSampleSum(), 1e-9)
		assert.Len(t, waits.Bucket, 31)
		for _, b := range waits.Bucket {
			want := uint64(0)
			if b.GetUpperBound() > 1 {
				want = 1
			}
			if b.GetUpperBound() > 3 {
				want = 2
			}
			assert.Equal(t, want, b.GetCumulativeCount(), b.GetUpperBound())
		}
		assert.InDelta(t, 3, families["keylock_hold_seconds"].Metric[0].Histogram.GetSampleSum(), 1e-9)
	})
}

func gather(t *testing.T, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := g.Gather()
	require.NoError(t, err)
	families := make(map[string]*dto.MetricFamily)
	for _, f := range all {
		families[f.GetName()] = f
	}
	return families
}

func TestLinterFindsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := locktest.Busy(t)
		defer m.Close()
		problems, err := testutil.CollectAndLint(prom.NewCollector("orders", m))
		require.NoError(t, err)
		assert.Empty(t, problems)
	})
}

// However many keys there are, there are as many series.
func TestNoKeyIsALabel(t *testing.T) {
	series := func(keys int) int {
		m := keylock.Start[int](t.Context(), keylock.WithHoldTimes())
		defer m.Close()
		for key := range keys {
			m.TryAcquire(key)
			m.Reserve(key)
		}
		return testutil.CollectAndCount(prom.NewCollector("m", m))
	}
	assert.Equal(t, series(0), series(1000))
}

func TestWithoutHoldTimesThereAreNone(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prom.NewCollector("m", m))
	families := gather(t, registry)
	assert.Contains(t, families, "keylock_wait_seconds")
	for _, timed := range []string{"keylock_hold_seconds", "keylock_oldest_hold_seconds", "keylock_oldest_wait_seconds"} {
		assert.NotContains(t, families, timed)
	}
}

func TestManagerThatHasEndedIsDown(t *testing.T) {
	m := keylock.Start[int](t.Context())
	m.Close()
	c := prom.NewCollector("m", m)
	assert.Equal(t, 1, testutil.CollectAndCount(c))
	assert.Zero(t, testutil.ToFloat64(c))
}

func TestManagersShareARegistryUnderTheirNames(t *testing.T) {
	a, b := keylock.Start[int](t.Context()), keylock.Start[string](t.Context())
	defer a.Close()
	defer b.Close()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(prom.NewCollector("a", a)))
	require.NoError(t, registry.Register(prom.NewCollector("b", b)))
	require.Error(t, registry.Register(prom.NewCollector("a", b)))
	assert.Len(t, gather(t, registry)["keylock_up"].Metric, 2)
}

func TestCohortHasTheMetricsOfItsEngineToo(t *testing.T) {
	ctx := t.Context()
	store := cohorttest.NewStore()
	defer store.Close()
	engine := store.Engine()
	m := cohort.Start(ctx, engine)
	defer m.Close()
	require.NoError(t, m.Do(ctx, "k", func(context.Context) error { return nil }))
	l, err := m.Acquire(ctx, "held")
	require.NoError(t, err)
	engine.Script(cohorttest.Fault{Call: cohorttest.Acquire, Err: errors.New("refused")})
	_, err = m.Acquire(ctx, "refused")
	require.Error(t, err)
	engine.Expire()
	require.ErrorIs(t, l.Release(), cohort.ErrLost)
	l, err = m.Acquire(ctx, "held")
	require.NoError(t, err)
	defer l.Release()
	want := `
		# HELP keylock_cohort_claims Claims of this process at the engine.
		# TYPE keylock_cohort_claims gauge
		keylock_cohort_claims{manager="orders",state="held"} 1
		keylock_cohort_claims{manager="orders",state="kept"} 0
		keylock_cohort_claims{manager="orders",state="waiting"} 0
		# HELP keylock_cohort_engine_refusals_total Requests for locks that ended at the engine without a grant.
		# TYPE keylock_cohort_engine_refusals_total counter
		keylock_cohort_engine_refusals_total{manager="orders"} 1
		# HELP keylock_cohort_engine_sessions_lost_total Sessions that ended before the engine was closed.
		# TYPE keylock_cohort_engine_sessions_lost_total counter
		keylock_cohort_engine_sessions_lost_total{manager="orders"} 1
		# HELP keylock_cohort_engine_sessions_total Sessions that have begun.
		# TYPE keylock_cohort_engine_sessions_total counter
		keylock_cohort_engine_sessions_total{manager="orders"} 2
		# HELP keylock_cohort_engine_grants_total Locks that the engine granted to this process.
		# TYPE keylock_cohort_engine_grants_total counter
		keylock_cohort_engine_grants_total{manager="orders"} 3
		# HELP keylock_cohort_handoffs_total Times that an engine's lock was handed off within this process.
		# TYPE keylock_cohort_handoffs_total counter
		keylock_cohort_handoffs_total{manager="orders"} 0
		# HELP keylock_cohort_losses_total Engine's locks that were lost before they were released.
		# TYPE keylock_cohort_losses_total counter
		keylock_cohort_losses_total{manager="orders"} 1
	`
	c := prom.NewCohortCollector("orders", m)
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(want),
		"keylock_cohort_engine_grants_total", "keylock_cohort_handoffs_total", "keylock_cohort_losses_total", "keylock_cohort_claims",
		"keylock_cohort_engine_refusals_total", "keylock_cohort_engine_sessions_total", "keylock_cohort_engine_sessions_lost_total"))
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	assert.Contains(t, gather(t, registry), "keylock_wait_seconds")
	assert.Contains(t, gather(t, registry), "keylock_cohort_engine_wait_seconds")
	assert.Contains(t, gather(t, registry), "keylock_cohort_engine_release_seconds")
	problems, err := testutil.CollectAndLint(c)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestKeptKeysAreCounted(t *testing.T) {
	ctx := t.Context()
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(ctx, store.Engine(), cohort.WithKeep(time.Hour, 10))
	defer m.Close()
	theirs := cohort.Start(ctx, store.Engine())
	defer theirs.Close()
	for _, key := range []string{"a", "b", "a", "a"} {
		require.NoError(t, m.Do(ctx, key, func(context.Context) error { return nil }))
	}
	require.NoError(t, theirs.Do(ctx, "b", func(context.Context) error { return nil }))
	want := `
		# HELP keylock_cohort_claims Claims of this process at the engine.
		# TYPE keylock_cohort_claims gauge
		keylock_cohort_claims{manager="orders",state="held"} 0
		keylock_cohort_claims{manager="orders",state="kept"} 1
		keylock_cohort_claims{manager="orders",state="waiting"} 0
		# HELP keylock_cohort_kept_hits_total Times that a caller found its key kept in this process.
		# TYPE keylock_cohort_kept_hits_total counter
		keylock_cohort_kept_hits_total{manager="orders"} 2
		# HELP keylock_cohort_kept_recalls_total Kept keys that were given back because another process wanted them.
		# TYPE keylock_cohort_kept_recalls_total counter
		keylock_cohort_kept_recalls_total{manager="orders"} 1
	`
	require.EventuallyWithT(t, func(c *assert.CollectT) { // the other process has the key before this one has counted the recall
		assert.NoError(c, testutil.CollectAndCompare(prom.NewCohortCollector("orders", m), strings.NewReader(want),
			"keylock_cohort_claims", "keylock_cohort_kept_hits_total", "keylock_cohort_kept_recalls_total"))
	}, 10*time.Second, time.Millisecond)
}

// What cannot be a label is refused when it is registered, and does not end a scrape.
func TestNameThatIsNotTextIsRefused(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	require.Error(t, prometheus.NewPedanticRegistry().Register(prom.NewCollector("\xff", m)))
}

func TestManagerThatDoesNotReplyIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		assert.Zero(t, testutil.ToFloat64(prom.NewCollector("m", locktest.Stubborn{})))
		assert.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestScrapeOverHTTP(t *testing.T) {
	m := keylock.Start[int](t.Context(), keylock.WithHoldTimes())
	defer m.Close()
	m.TryAcquire(1)
	m.Reserve(1)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prom.NewCollector("a \"quoted\"\nname", m))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	answer, err := client.Get(server.URL)
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	require.NoError(t, err)
	assert.Len(t, families, 14)
	waiters := families["keylock_waiters"].Metric[0]
	assert.InDelta(t, 1, waiters.Gauge.GetValue(), 0)
	assert.Equal(t, "a \"quoted\"\nname", waiters.Label[0].GetValue())
}

// described returns the names of all metrics.
func described(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	descs := make(chan *prometheus.Desc, 100)
	prom.NewCohortCollector("m", undecided{}).Describe(descs)
	close(descs)
	for d := range descs {
		names[regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	return names
}

// undecided is a manager that is never asked.
type undecided struct{ prom.CohortSource }

// A scrape asks the manager on a goroutine of the registry: a panic there would end the process.
func TestNilManagersPanicWhereTheyArePassed(t *testing.T) {
	for _, m := range []*keylock.Manager[string]{nil, {}} {
		assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() { prom.NewCollector("locks", m) })
	}
	for _, m := range []*cohort.Manager{nil, {}} {
		assert.PanicsWithValue(t, "cohort: a Manager must be made by Start", func() { prom.NewCohortCollector("locks", m) })
	}
	assert.PanicsWithValue(t, "prom: NewCollector with a nil manager", func() { prom.NewCollector("locks", nil) })
	assert.PanicsWithValue(t, "prom: NewCohortCollector with a nil manager", func() { prom.NewCohortCollector("locks", nil) })
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlertsFireWhenTheyShould(t *testing.T) {
	locktest.Promtool(t, "check", "rules", "alerts.yml")
	locktest.Promtool(t, "test", "rules", "testdata/alerts.test.yml")
}

func TestAlertsSpeakOfMetricsThatExist(t *testing.T) {
	alerts, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, locktest.Metrics(t, string(alerts), described(t)), 6)
}

func TestDashboardIsSound(t *testing.T) { locktest.Dashboard(t, "grafana.json", described(t)) }
