package otelkeylock

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

// NewProducer returns a producer of the manager's histograms, under the name of [Register].
// Give it to a reader by sdk/metric's WithProducer. They are cumulative since the manager was
// started, whatever temporality the reader prefers.
func NewProducer(name string, manager Source) sdkmetric.Producer {
	if manager == nil {
		panic("otelkeylock: NewProducer with a nil manager")
	}
	return producer{name: name, stats: local(manager), histograms: localHistograms}
}

// NewCohortProducer is [NewProducer] for a cohort: the histograms of its local manager, and
// those of its engine.
func NewCohortProducer(name string, manager CohortSource) sdkmetric.Producer {
	if manager == nil {
		panic("otelkeylock: NewCohortProducer with a nil manager")
	}
	return producer{name: name, stats: manager.Stats, histograms: func(s cohort.Stats) []histogram {
		return append(localHistograms(s),
			histogram{"keylock.cohort.engine.wait.duration", "How long the engine took to grant.", s.Waits},
			histogram{"keylock.cohort.engine.release.duration", "How long the engine took to confirm a release.", s.Releases},
		)
	}}
}

type producer struct {
	name       string
	stats      statsFunc
	histograms func(cohort.Stats) []histogram
}

type histogram struct {
	name, description string
	counts            keylock.Histogram
}

func localHistograms(s cohort.Stats) []histogram {
	all := []histogram{{"keylock.wait.duration", "How long requests waited that had to.", s.Local.Waits}}
	if s.Local.Timed {
		all = append(all, histogram{"keylock.hold.duration", "How long grants that have ended were held.", s.Local.Holds})
	}
	return all
}

// Produce returns the histograms. There are none when the manager has ended, or does not
// reply in time: keylock.up says so.
func (p producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	s, ok := p.stats.ask(ctx)
	if !ok {
		return nil, nil
	}
	now := time.Now()
	metrics := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: ScopeName}}
	for _, h := range p.histograms(s) {
		metrics.Metrics = append(metrics.Metrics, metricdata.Metrics{
			Name: h.name, Unit: "s", Description: h.description,
			Data: metricdata.Histogram[float64]{
				Temporality: metricdata.CumulativeTemporality,
				DataPoints:  []metricdata.HistogramDataPoint[float64]{p.point(h.counts, now.Add(-s.Local.Uptime), now)},
			},
		})
	}
	return []metricdata.ScopeMetrics{metrics}, nil
}

func (p producer) point(h keylock.Histogram, began, now time.Time) metricdata.HistogramDataPoint[float64] {
	point := metricdata.HistogramDataPoint[float64]{
		Attributes: attribute.NewSet(nameOf(p.name)),
		StartTime:  began, Time: now,
		Count: h.Count, Sum: h.Sum,
		BucketCounts: h.Buckets[:],
	}
	for i := range len(h.Buckets) - 1 { // the last has no bound
		point.Bounds = append(point.Bounds, h.Bound(i).Seconds())
	}
	if h.Count > 0 {
		point.Max = metricdata.NewExtrema(h.Max.Seconds())
	}
	return point
}
