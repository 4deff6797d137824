// Package otelkeylock shows a keylock manager to OpenTelemetry: its totals as metrics, and
// waits as spans.
//
//	_, err := otelkeylock.Register(otel.GetMeterProvider(), "orders", orders)
//	traced := otelkeylock.Trace(orders, otelkeylock.WithName("orders"))
//	lock, err := traced.Acquire(ctx, "order/42") // a wait is a span below that of ctx
//
// A collection asks the manager once for its Stats, and a producer once more, which costs the
// same however many keys it has, but for those that keylock.WithKeptGrants keeps. No key is an
// attribute of a metric, and a key is one of a span only [WithKeys]. The attribute
// keylock.manager.name carries the name.
//
// # Metrics
//
// [Register] makes these instruments, which are read when metrics are collected:
//
//	keylock.up                       gauge            {manager}  1; 0, and nothing else, when the manager has ended or does not reply within 5 s
//	keylock.key.count                up-down counter  {key}      that are held or waited for
//	keylock.holder.count             up-down counter  {grant}    live grants; keylock.mode is exclusive or shared
//	keylock.waiter.count             up-down counter  {request}  requests that wait
//	keylock.queue.longest            gauge            {request}  the most waiters of any key
//	keylock.requests                 counter          {request}  that are decided; keylock.outcome is immediate (granted at once),
//	                                                             waited (granted after a wait), cancelled, or rejected
//	keylock.releases                 counter          {grant}    grants that have ended
//	keylock.owner.requests           counter          {message}  of any kind, that the manager's goroutine, its owner, received
//	keylock.owner.busy.time          counter          s          that the owner spent on them, estimated; its rate is how busy it is
//	keylock.slow_log.lost            counter          {record}   that keylock.WithSlowLog did not log
//	keylock.hold.oldest              gauge            s          how long the oldest live grant has been held; with keylock.WithHoldTimes
//	keylock.wait.oldest              gauge            s          how long the oldest wait has lasted; likewise
//
// No instrument of OpenTelemetry takes a histogram that has been counted elsewhere, so these come
// from [NewProducer], which the reader of the metrics is given:
//
//	keylock.wait.duration            histogram        s          how long requests waited that had to, granted or cancelled
//	keylock.hold.duration            histogram        s          how long grants that have ended were held; with keylock.WithHoldTimes
//
// A cohort has these of its local manager, in which a process that waits at the engine holds
// the key. [RegisterCohort] and [NewCohortProducer] add
//
//	keylock.cohort.claim.count             up-down counter  {claim}    of this process at the engine; keylock.state is waiting, held or kept
//	keylock.cohort.engine.grants           counter          {grant}    of the engine to this process
//	keylock.cohort.engine.refusals         counter          {request}  that ended at the engine without a grant
//	keylock.cohort.handoffs                counter          {handoff}  of an engine's lock within this process
//	keylock.cohort.losses                  counter          {grant}    that were lost before they were released
//	keylock.cohort.kept.hits               counter          {lock}     of a caller that found its key kept, also one that waited for it here
//	keylock.cohort.kept.recalls            counter          {key}      kept, and given back because another process wanted it
//	keylock.cohort.slow_log.lost           counter          {record}   that cohort.WithSlowLog did not log
//	keylock.cohort.engine.retries          counter          {request}  to the service that failed and were repeated
//	keylock.cohort.engine.orphans          counter          {key}      left behind by requests that were carried out too late, and removed
//	keylock.cohort.engine.session.begun    counter          {session}  that have begun, such as leases
//	keylock.cohort.engine.session.lost     counter          {session}  that ended before the engine was closed
//	keylock.cohort.engine.session.age      gauge            s          how long ago the session began; absent when there is none
//	keylock.cohort.engine.wait.duration    histogram        s          how long the engine took to grant
//	keylock.cohort.engine.release.duration histogram        s          how long the engine took to confirm a release
//
// # Spans
//
// [Trace] and [TraceCohort] return a manager whose waits are spans named "keylock wait". See
// there for when a request has one, and for its attributes.
package otelkeylock

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

// ScopeName is the name of the instrumentation scope of all metrics and spans.
const ScopeName = "github.com/seed-46f81e6d/keylock/otelkeylock"

// A Source is a [keylock.Manager], of keys of any type.
type Source interface {
	Stats(ctx context.Context) (keylock.Stats, error)
}

// A CohortSource is a [cohort.Manager].
type CohortSource interface {
	Stats(ctx context.Context) (cohort.Stats, error)
}

// Register makes the manager's totals metrics of the provider, under a name that no other
// manager has there. It returns the provider's error when it has one. The manager is asked
// until the registration is unregistered, also when it has ended. A nil provider or manager panics, and so
// does a manager that was not made by Start.
func Register(provider metric.MeterProvider, name string, manager Source) (metric.Registration, error) {
	if manager == nil {
		panic("otelkeylock: Register with a nil manager")
	}
	mustBeStarted(manager)
	return register(provider, name, local(manager), localMetrics)
}

// RegisterCohort is [Register] for a cohort: the metrics of its local manager, and those of
// its engine.
func RegisterCohort(provider metric.MeterProvider, name string, manager CohortSource) (metric.Registration, error) {
	if manager == nil {
		panic("otelkeylock: RegisterCohort with a nil manager")
	}
	mustBeStarted(manager)
	return register(provider, name, manager.Stats, localMetrics, cohortMetrics)
}

// mustBeStarted panics for a nil pointer to a manager, and for one that Start did not make. A collection would
// panic as well, but on a goroutine of the reader's, which ends the process.
func mustBeStarted(manager any) {
	if m, ok := manager.(interface{ Done() <-chan struct{} }); ok {
		m.Done()
	}
}

// A statsFunc asks a manager for its totals; those of one without an engine are Local.
type statsFunc func(context.Context) (cohort.Stats, error)

func local(manager Source) statsFunc {
	return func(ctx context.Context) (cohort.Stats, error) {
		s, err := manager.Stats(ctx)
		return cohort.Stats{Local: s}, err
	}
}

// patience is how long a collection waits for the owner, which replies in microseconds
// unless the whole process is in trouble.
const patience = 5 * time.Second

// ask returns the totals, and whether the manager runs and has replied in time.
func (stats statsFunc) ask(ctx context.Context) (cohort.Stats, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := stats(ctx)
	return s, err == nil
}

func nameOf(name string) attribute.KeyValue {
	return attribute.String("keylock.manager.name", strings.ToValidUTF8(name, "\uFFFD")) // or an exporter sends nothing at all
}

// register makes the instruments of all sets, and one callback that observes them.
func register(provider metric.MeterProvider, name string, stats statsFunc, sets ...func(*instruments)) (metric.Registration, error) {
	if provider == nil {
		panic("otelkeylock: Register with a nil provider")
	}
	made := &instruments{meter: provider.Meter(ScopeName), name: nameOf(name)}
	up := gauge(made, "keylock.up", "{manager}", "Whether the manager runs: 0 when it has ended, or did not reply in time.")
	for _, set := range sets {
		set(made)
	}
	if made.err != nil {
		return nil, made.err
	}
	return made.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		s, ok := stats.ask(ctx)
		if !ok {
			up(o, 0)
			return nil
		}
		up(o, 1)
		for _, observe := range made.observe {
			observe(o, s)
		}
		return nil
	}, made.all...)
}

// instruments are those of one manager while they are made.
type instruments struct {
	meter   metric.Meter
	name    attribute.KeyValue
	all     []metric.Observable
	observe []func(metric.Observer, cohort.Stats)
	err     error // the first
}

func (made *instruments) add(i metric.Observable, err error) {
	made.all = append(made.all, i)
	if made.err == nil {
		made.err = err
	}
}

// An observation reports a value of one instrument.
type observation func(o metric.Observer, value float64, attributes ...attribute.KeyValue)

// counted observes an instrument of whole numbers.
func (made *instruments) counted(i metric.Int64Observable, err error) observation {
	made.add(i, err)
	return func(o metric.Observer, value float64, attributes ...attribute.KeyValue) {
		o.ObserveInt64(i, int64(value), metric.WithAttributes(append(attributes, made.name)...))
	}
}

// measured observes an instrument of seconds.
func (made *instruments) measured(i metric.Float64Observable, err error) observation {
	made.add(i, err)
	return func(o metric.Observer, value float64, attributes ...attribute.KeyValue) {
		o.ObserveFloat64(i, value, metric.WithAttributes(append(attributes, made.name)...))
	}
}

func counter(made *instruments, name, unit, description string) observation {
	if unit == "s" {
		return made.measured(made.meter.Float64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	return made.counted(made.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description)))
}

func gauge(made *instruments, name, unit, description string) observation {
	if unit == "s" {
		return made.measured(made.meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	return made.counted(made.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description)))
}

func upDown(made *instruments, name, unit, description string) observation {
	return made.counted(made.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description)))
}

func modeOf(mode keylock.Mode) attribute.KeyValue {
	return attribute.String("keylock.mode", mode.String())
}

func localMetrics(made *instruments) {
	outcome := func(text string) attribute.KeyValue { return attribute.String("keylock.outcome", text) }

	keys := upDown(made, "keylock.key.count", "{key}", "Keys that are held or waited for.")
	holders := upDown(made, "keylock.holder.count", "{grant}", "Live grants.")
	waiters := upDown(made, "keylock.waiter.count", "{request}", "Requests that wait.")
	longest := gauge(made, "keylock.queue.longest", "{request}", "The most waiters that any key has.")
	requests := counter(made, "keylock.requests", "{request}", "Requests for locks that are decided.")
	releases := counter(made, "keylock.releases", "{grant}", "Grants that have ended.")
	ownerRequests := counter(made, "keylock.owner.requests", "{message}", "Messages of any kind that the owner received.")
	ownerBusy := counter(made, "keylock.owner.busy.time", "s", "Time that the owner spent on them, estimated.")
	lost := counter(made, "keylock.slow_log.lost", "{record}", "Records that the slow log did not log.")
	oldestHold := gauge(made, "keylock.hold.oldest", "s", "How long the oldest live grant has been held.")
	oldestWait := gauge(made, "keylock.wait.oldest", "s", "How long the oldest wait has lasted.")

	made.observe = append(made.observe, func(o metric.Observer, all cohort.Stats) {
		s := all.Local
		keys(o, float64(s.Keys))
		holders(o, float64(s.Held-s.Shared), modeOf(keylock.Exclusive))
		holders(o, float64(s.Shared), modeOf(keylock.Shared))
		waiters(o, float64(s.Waiting))
		longest(o, float64(s.LongestQueue))
		requests(o, float64(s.Acquired-s.Waited), outcome("immediate"))
		requests(o, float64(s.Waited), outcome("waited"))
		requests(o, float64(s.Cancelled), outcome("cancelled"))
		requests(o, float64(s.Rejected), outcome("rejected"))
		releases(o, float64(s.Released))
		ownerRequests(o, float64(s.Requests))
		ownerBusy(o, s.Serving.Seconds())
		lost(o, float64(s.SlowLogLost))
		if s.Timed {
			oldestHold(o, s.OldestHold.Seconds())
			oldestWait(o, s.OldestWait.Seconds())
		}
	})
}

func cohortMetrics(made *instruments) {
	claims := upDown(made, "keylock.cohort.claim.count", "{claim}", "Claims of this process at the engine.")
	grants := counter(made, "keylock.cohort.engine.grants", "{grant}", "Locks that the engine granted to this process.")
	refusals := counter(made, "keylock.cohort.engine.refusals", "{request}", "Requests for locks that ended at the engine without a grant.")
	handoffs := counter(made, "keylock.cohort.handoffs", "{handoff}", "Times that an engine's lock was handed off within this process.")
	losses := counter(made, "keylock.cohort.losses", "{grant}", "Engine's locks that were lost before they were released.")
	hits := counter(made, "keylock.cohort.kept.hits", "{lock}", "Times that a caller found its key kept in this process.")
	recalls := counter(made, "keylock.cohort.kept.recalls", "{key}", "Kept keys that were given back because another process wanted them.")
	lost := counter(made, "keylock.cohort.slow_log.lost", "{record}", "Records that the slow log of the engine's waits did not log.")
	retries := counter(made, "keylock.cohort.engine.retries", "{request}", "Requests to the engine's service that failed and were repeated.")
	orphans := counter(made, "keylock.cohort.engine.orphans", "{key}", "Keys left behind at the service by requests that were carried out too late, and removed.")
	sessions := counter(made, "keylock.cohort.engine.session.begun", "{session}", "Sessions that have begun.")
	sessionsLost := counter(made, "keylock.cohort.engine.session.lost", "{session}", "Sessions that ended before the engine was closed.")
	age := gauge(made, "keylock.cohort.engine.session.age", "s", "How long ago the session began.")

	made.observe = append(made.observe, func(o metric.Observer, s cohort.Stats) {
		state := func(state cohort.State) attribute.KeyValue {
			return attribute.String("keylock.state", state.String())
		}
		claims(o, float64(s.Waiting), state(cohort.ClaimWaiting))
		claims(o, float64(s.Held-s.Kept), state(cohort.ClaimHeld))
		claims(o, float64(s.Kept), state(cohort.ClaimKept))
		grants(o, float64(s.Granted))
		refusals(o, float64(s.Refused))
		handoffs(o, float64(s.Handoffs))
		losses(o, float64(s.Lost))
		hits(o, float64(s.Hits))
		recalls(o, float64(s.Recalls))
		lost(o, float64(s.SlowLogLost))
		retries(o, float64(s.Engine.Retries))
		orphans(o, float64(s.Engine.Orphans))
		sessions(o, float64(s.Engine.Sessions))
		sessionsLost(o, float64(s.Engine.Lost))
		if began := s.Engine.SessionBegan; !began.IsZero() {
			age(o, time.Since(began).Seconds())
		}
	})
}

// NewProducer returns a producer of the manager's histograms, under the name of [Register].
// Give it to a reader by sdk/metric's WithProducer. They are cumulative since the manager was
// started, whatever temporality the reader prefers. A manager that is nil, or was not made by Start, panics.
func NewProducer(name string, manager Source) sdkmetric.Producer {
	if manager == nil {
		panic("otelkeylock: NewProducer with a nil manager")
	}
	mustBeStarted(manager)
	return producer{name: name, stats: local(manager), histograms: localHistograms}
}

// NewCohortProducer is [NewProducer] for a cohort: the histograms of its local manager, and
// those of its engine.
func NewCohortProducer(name string, manager CohortSource) sdkmetric.Producer {
	if manager == nil {
		panic("otelkeylock: NewCohortProducer with a nil manager")
	}
	mustBeStarted(manager)
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
