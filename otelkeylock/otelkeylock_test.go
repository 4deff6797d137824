package otelkeylock_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/otelkeylock"
)

// collect registers a manager and returns its metrics by name.
func collect(t *testing.T, name string, manager otelkeylock.Source) map[string]metricdata.Metrics {
	t.Helper()
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(otelkeylock.NewProducer(name, manager)))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	_, err := otelkeylock.Register(provider, name, manager)
	require.NoError(t, err)
	return read(t, reader)
}

func read(t *testing.T, reader sdkmetric.Reader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	metrics := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		assert.Equal(t, instrumentation.Scope{Name: otelkeylock.ScopeName}, scope.Scope)
		for _, m := range scope.Metrics {
			metrics[m.Name] = m
		}
	}
	return metrics
}

func point[N int64 | float64](value N, more ...attribute.KeyValue) metricdata.DataPoint[N] {
	return metricdata.DataPoint[N]{Value: value, Attributes: attribute.NewSet(append(more, attribute.String("keylock.manager.name", "orders"))...)}
}

func sum[N int64 | float64](monotonic bool, points ...metricdata.DataPoint[N]) metricdata.Sum[N] {
	return metricdata.Sum[N]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: monotonic, DataPoints: points}
}

func TestMetricsAreTheTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := locktest.Busy(t)
		defer m.Close()
		metrics := collect(t, "orders", m)
		mode, outcome := attribute.Key("keylock.mode").String, attribute.Key("keylock.outcome").String
		for name, want := range map[string]struct {
			unit string
			data metricdata.Aggregation
		}{
			"keylock.up":           {"{manager}", metricdata.Gauge[int64]{DataPoints: []metricdata.DataPoint[int64]{point[int64](1)}}},
			"keylock.key.count":    {"{key}", sum(false, point[int64](2))},
			"keylock.holder.count": {"{grant}", sum(false, point[int64](1, mode("exclusive")), point[int64](2, mode("shared")))},
			"keylock.waiter.count": {"{request}", sum(false, point[int64](2))},
			"keylock.requests": {"{request}", sum(true,
				point[int64](3, outcome("immediate")), point[int64](1, outcome("waited")),
				point[int64](1, outcome("cancelled")), point[int64](1, outcome("rejected")))},
			"keylock.releases":      {"{grant}", sum(true, point[int64](1))},
			"keylock.slow_log.lost": {"{record}", sum(true, point[int64](0))},
			"keylock.queue.longest": {"{request}", metricdata.Gauge[int64]{DataPoints: []metricdata.DataPoint[int64]{point[int64](2)}}},
			"keylock.hold.oldest":   {"s", metricdata.Gauge[float64]{DataPoints: []metricdata.DataPoint[float64]{point(4.)}}},
			"keylock.wait.oldest":   {"s", metricdata.Gauge[float64]{DataPoints: []metricdata.DataPoint[float64]{point(4.)}}},
		} {
			assert.Equal(t, want.unit, metrics[name].Unit, name)
			metricdatatest.AssertAggregationsEqual(t, want.data, metrics[name].Data, metricdatatest.IgnoreTimestamp())
		}
		assert.Equal(t, "s", metrics["keylock.owner.busy.time"].Unit)
		assert.Equal(t, "{message}", metrics["keylock.owner.requests"].Unit)
		assert.Len(t, metrics, 14)

		waits := metrics["keylock.wait.duration"].Data.(metricdata.Histogram[float64]).DataPoints[0]
		assert.Equal(t, "s", metrics["keylock.wait.duration"].Unit)
		assert.EqualValues(t, 2, waits.Count)
		assert.InDelta(t, 4, waits.Sum, 1e-9)
		assert.Equal(t, 7*time.Second, waits.Time.Sub(waits.StartTime), "since Start")
		longest, _ := waits.Max.Value()
		assert.InDelta(t, 3, longest, 1e-9)
		require.Len(t, waits.BucketCounts, len(waits.Bounds)+1)
		for i, bound := range waits.Bounds { // one wait of a second, and one of three
			want := uint64(0)
			if bound > 1 && bound < 2 || bound > 3 && bound < 6 {
				want = 1
			}
			assert.Equal(t, want, waits.BucketCounts[i], bound)
		}
		holds := metrics["keylock.hold.duration"].Data.(metricdata.Histogram[float64]).DataPoints[0]
		assert.InDelta(t, 3, holds.Sum, 1e-9)
	})
}

// Names and units follow the semantic conventions: dotted, in lower case, in a namespace, none of which
// is a plural; an up-down counter has no plural either; the unit is not in the name; units are of UCUM, and
// what is counted stands in braces.
func TestNamesAndUnitsFollowTheConventions(t *testing.T) {
	store := cohorttest.NewStore()
	defer store.Close()
	m := cohort.Start(t.Context(), store.Engine(), cohort.WithLocal(keylock.WithHoldTimes()))
	defer m.Close()
	metrics := collectCohort(t, m)
	assert.Len(t, metrics, 28) // and keylock.cohort.engine.session.age, which this engine does not know
	for name, m := range metrics {
		assert.Regexp(t, `^keylock(\.[a-z]+(_[a-z]+)*)+$`, name)
		assert.NotRegexp(t, `seconds|total`, name)
		assert.NotRegexp(t, `s\.`, name)
		if counts, ok := m.Data.(metricdata.Sum[int64]); ok && !counts.IsMonotonic {
			assert.NotRegexp(t, `s$`, name)
		}
		assert.Regexp(t, `^(s|\{[a-z]+\})$`, m.Unit, name)
		assert.NotEmpty(t, m.Description, name)
	}
}

// However many keys there are, there are as many series.
func TestNoKeyIsAnAttributeOfAMetric(t *testing.T) {
	series := func(keys int) int {
		m := keylock.Start[int](t.Context(), keylock.WithHoldTimes())
		defer m.Close()
		for key := range keys {
			m.TryAcquire(key)
			m.Reserve(key)
		}
		text, err := json.Marshal(collect(t, "orders", m))
		require.NoError(t, err)
		return strings.Count(string(text), "keylock.manager.name")
	}
	assert.Equal(t, series(0), series(1000))
	assert.Positive(t, series(0))
}

func TestWithoutHoldTimesThereAreNone(t *testing.T) {
	m := keylock.Start[int](t.Context())
	defer m.Close()
	metrics := collect(t, "orders", m)
	assert.Contains(t, metrics, "keylock.wait.duration")
	for _, timed := range []string{"keylock.hold.duration", "keylock.hold.oldest", "keylock.wait.oldest"} {
		assert.NotContains(t, metrics, timed)
	}
}

func TestManagerThatHasEndedIsDown(t *testing.T) {
	m := keylock.Start[int](t.Context())
	m.Close()
	metrics := collect(t, "orders", m)
	assert.Len(t, metrics, 1)
	assert.Zero(t, metrics["keylock.up"].Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
}

func TestManagerThatDoesNotReplyIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		metrics := collect(t, "orders", locktest.Stubborn{})
		assert.Zero(t, metrics["keylock.up"].Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
		assert.Equal(t, 10*time.Second, time.Since(begun), "once for the instruments, once for the histograms")
	})
}

func TestManagersShareAProviderUnderTheirNames(t *testing.T) {
	a, b := keylock.Start[int](t.Context()), keylock.Start[string](t.Context())
	defer a.Close()
	defer b.Close()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	ofA, err := otelkeylock.Register(provider, "a", a)
	require.NoError(t, err)
	_, err = otelkeylock.Register(provider, "b", b)
	require.NoError(t, err)
	assert.Len(t, read(t, reader)["keylock.up"].Data.(metricdata.Gauge[int64]).DataPoints, 2)
	require.NoError(t, ofA.Unregister())
	assert.Len(t, read(t, reader)["keylock.up"].Data.(metricdata.Gauge[int64]).DataPoints, 1)
}

func collectCohort(t *testing.T, m *cohort.Manager) map[string]metricdata.Metrics {
	t.Helper()
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(otelkeylock.NewCohortProducer("orders", m)))
	_, err := otelkeylock.RegisterCohort(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), "orders", m)
	require.NoError(t, err)
	return read(t, reader)
}

func TestCohortHasTheMetricsOfItsEngineToo(t *testing.T) {
	ctx := t.Context()
	store := cohorttest.NewStore()
	defer store.Close()
	engine := store.Engine()
	m := cohort.Start(ctx, engine, cohort.WithKeep(time.Hour, 10))
	defer m.Close()
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
	for range 3 {
		require.NoError(t, m.Do(ctx, "k", func(context.Context) error { return nil }))
	}

	metrics := collectCohort(t, m)
	state := attribute.Key("keylock.state").String
	for name, want := range map[string]metricdata.Aggregation{
		"keylock.cohort.claim.count":          sum(false, point[int64](0, state("waiting")), point[int64](1, state("held")), point[int64](1, state("kept"))),
		"keylock.cohort.engine.grants":        sum(true, point[int64](3)),
		"keylock.cohort.engine.refusals":      sum(true, point[int64](1)),
		"keylock.cohort.engine.session.begun": sum(true, point[int64](2)),
		"keylock.cohort.engine.session.lost":  sum(true, point[int64](1)),
		"keylock.cohort.handoffs":             sum(true, point[int64](0)),
		"keylock.cohort.losses":               sum(true, point[int64](1)),
		"keylock.cohort.kept.hits":            sum(true, point[int64](2)),
		"keylock.cohort.kept.recalls":         sum(true, point[int64](0)),
		"keylock.key.count":                   sum(false, point[int64](1)),
	} {
		metricdatatest.AssertAggregationsEqual(t, want, metrics[name].Data, metricdatatest.IgnoreTimestamp())
	}
	waits := metrics["keylock.cohort.engine.wait.duration"].Data.(metricdata.Histogram[float64])
	assert.EqualValues(t, 3, waits.DataPoints[0].Count)
	assert.Contains(t, metrics, "keylock.cohort.engine.release.duration")
}

// inPrometheus returns the names that the metrics have in Prometheus.
func inPrometheus(t *testing.T) map[string]bool {
	t.Helper()
	m := keylock.Start[int](t.Context(), keylock.WithHoldTimes())
	defer m.Close()
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(
		otelprometheus.WithRegisterer(registry), otelprometheus.WithProducer(otelkeylock.NewProducer("orders", m)))
	require.NoError(t, err)
	_, err = otelkeylock.Register(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)), "orders", m)
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, family := range families {
		names[family.GetName()] = true
		for _, label := range family.Metric[0].Label {
			names[label.GetName()] = true
		}
	}
	return names
}

// Its names are those that the metrics have in Prometheus.
// One string that is not UTF-8 keeps an exporter from sending what others have measured, too: protobuf refuses the whole message.
func TestNameIsUTF8(t *testing.T) {
	m := keylock.Start[string](t.Context())
	defer m.Close()
	metrics, err := otelkeylock.NewProducer("a\xffb", m).Produce(t.Context())
	require.NoError(t, err)
	point := metrics[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints[0]
	name, _ := point.Attributes.Value("keylock.manager.name")
	assert.Equal(t, "a\uFFFDb", name.AsString())
}

func TestDashboardIsSound(t *testing.T) { locktest.Dashboard(t, "grafana.json", inPrometheus(t)) }
