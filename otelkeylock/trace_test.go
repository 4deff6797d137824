package otelkeylock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/otelkeylock"
)

// A traced is a manager in a bubble, traced, below a span that is recorded.
type traced struct {
	*otelkeylock.Manager[string]
	ctx    context.Context // has the span "request"
	root   tracetest.SpanStub
	spans  *tracetest.InMemoryExporter
	tracer *sdktrace.TracerProvider
}

func bubble(t *testing.T, test func(t *testing.T, m traced), opts ...otelkeylock.Option) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		ctx, span := provider.Tracer("test").Start(t.Context(), "request")
		m := keylock.Start[string](t.Context(), keylock.WithMaxWaiters(2))
		defer m.Close()
		test(t, traced{
			Manager: otelkeylock.Trace(m, append(opts, otelkeylock.WithTracerProvider(provider), otelkeylock.WithName("orders"))...),
			ctx:     ctx, root: tracetest.SpanStub{SpanContext: span.SpanContext()}, spans: spans, tracer: provider,
		})
	})
}

// one returns the only span so far, with its attributes by name.
func (m traced) one(t *testing.T) (tracetest.SpanStub, map[string]any) {
	t.Helper()
	spans := m.spans.GetSpans()
	require.Len(t, spans, 1)
	m.spans.Reset()
	attributes := map[string]any{}
	for _, a := range spans[0].Attributes {
		attributes[string(a.Key)] = a.Value.AsInterface()
	}
	return spans[0], attributes
}

func TestWaitIsAChildOfTheCallersSpan(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		holder, err := m.Acquire(m.ctx, "k")
		require.NoError(t, err)
		assert.Empty(t, m.spans.GetSpans(), "it was granted at once")
		m.Reserve("k").Cancel()
		other := m.Reserve("k")
		time.AfterFunc(time.Second, holder.Release)
		time.AfterFunc(3*time.Second, other.Cancel)
		begun := time.Now()
		lock, err := m.Acquire(m.ctx, "k")
		require.NoError(t, err)

		span, attributes := m.one(t)
		assert.Equal(t, "keylock wait", span.Name)
		assert.Equal(t, m.root.SpanContext.SpanID(), span.Parent.SpanID())
		assert.Equal(t, m.root.SpanContext.TraceID(), span.SpanContext.TraceID())
		assert.Equal(t, otelkeylock.ScopeName, span.InstrumentationScope.Name)
		assert.True(t, span.StartTime.Equal(begun))
		assert.Equal(t, 3*time.Second, span.EndTime.Sub(span.StartTime))
		assert.Equal(t, codes.Unset, span.Status.Code)
		assert.Equal(t, map[string]any{
			"keylock.manager.name": "orders", "keylock.mode": "exclusive", "keylock.outcome": "granted",
			"keylock.queue.length": int64(1), "keylock.grant": int64(lock.Seq()),
		}, attributes)
		lock.Release()
	})
}

func nothing(context.Context) error { return nil }

// Misuse panics in the caller, as with a manager that is not traced, and before anything is acquired.
func TestMisusePanicsInTheCaller(t *testing.T) {
	metrics := sdkmetric.NewMeterProvider()
	for want, misuse := range map[string]func(){
		"otelkeylock: Trace with a nil manager":             func() { otelkeylock.Trace[string](nil) },
		"otelkeylock: TraceCohort with a nil manager":       func() { otelkeylock.TraceCohort(nil) },
		"otelkeylock: nil Option":                           func() { otelkeylock.Trace(keylock.Start[string](t.Context()), nil) },
		"otelkeylock: WithTracerProvider(nil)":              func() { otelkeylock.WithTracerProvider(nil) },
		"otelkeylock: Register with a nil provider":         func() { _, _ = otelkeylock.Register(nil, "orders", locktest.Stubborn{}) },
		"otelkeylock: Register with a nil manager":          func() { _, _ = otelkeylock.Register(metrics, "orders", nil) },
		"otelkeylock: RegisterCohort with a nil manager":    func() { _, _ = otelkeylock.RegisterCohort(metrics, "orders", nil) },
		"otelkeylock: NewProducer with a nil manager":       func() { otelkeylock.NewProducer("orders", nil) },
		"otelkeylock: NewCohortProducer with a nil manager": func() { otelkeylock.NewCohortProducer("orders", nil) },
	} {
		assert.PanicsWithValue(t, want, misuse, want)
	}
	for _, m := range []*keylock.Manager[string]{nil, {}} { // a collection would panic, on a goroutine of the reader's
		const want = "keylock: a Manager must be made by Start"
		assert.PanicsWithValue(t, want, func() { _, _ = otelkeylock.Register(metrics, "orders", m) })
		assert.PanicsWithValue(t, want, func() { otelkeylock.NewProducer("orders", m) })
	}
	assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() { otelkeylock.Trace(new(keylock.Manager[string])) })
	assert.PanicsWithValue(t, "cohort: a Manager must be made by Start", func() { otelkeylock.TraceCohort(new(cohort.Manager)) })
	for _, m := range []*cohort.Manager{nil, {}} {
		const want = "cohort: a Manager must be made by Start"
		assert.PanicsWithValue(t, want, func() { _, _ = otelkeylock.RegisterCohort(metrics, "orders", m) })
		assert.PanicsWithValue(t, want, func() { otelkeylock.NewCohortProducer("orders", m) })
	}
	bubble(t, func(t *testing.T, m traced) {
		assert.PanicsWithValue(t, "keylock: Do with a nil function", func() { _ = m.Do(m.ctx, "k", nil) })
		_, free := m.TryAcquire("k")
		assert.True(t, free)
	})
}

func TestEachCallIsTracedWithItsMode(t *testing.T) {
	for name, c := range map[string]struct {
		call func(m traced) error
		want map[string]any
	}{
		"AcquireShared": {func(m traced) error { _, err := m.AcquireShared(m.ctx, "k"); return err }, map[string]any{"keylock.mode": "shared", "keylock.grant": int64(2)}},
		"AcquireAll": {func(m traced) error { _, err := m.AcquireAll(m.ctx, "free", "k"); return err },
			map[string]any{"keylock.mode": "exclusive", "keylock.grant": int64(2), "keylock.set.size": int64(2)}},
		"AcquireSet": {func(m traced) error {
			_, err := m.AcquireSet(m.ctx, keylock.Want[string]{Key: "free"}, keylock.Want[string]{Key: "k", Mode: keylock.Shared})
			return err
		}, map[string]any{"keylock.mode": "exclusive", "keylock.grant": int64(2), "keylock.set.size": int64(2)}},
		"AcquireSet shared": {func(m traced) error { _, err := m.AcquireSet(m.ctx, locktest.Sharing("k")...); return err },
			map[string]any{"keylock.mode": "shared", "keylock.grant": int64(2), "keylock.set.size": int64(1)}},
		"Do": {func(m traced) error { return m.Do(m.ctx, "k", nothing) }, map[string]any{"keylock.mode": "exclusive"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m traced) {
				holder, _ := m.TryAcquire("k")
				time.AfterFunc(time.Second, holder.Release)
				require.NoError(t, c.call(m))
				span, attributes := m.one(t)
				assert.Equal(t, time.Second, span.EndTime.Sub(span.StartTime))
				for key, value := range c.want {
					assert.Equal(t, value, attributes[key], key)
				}
				assert.Equal(t, "granted", attributes["keylock.outcome"])
				assert.Equal(t, int64(0), attributes["keylock.queue.length"])
			})
		})
	}
}

func TestSpanOfDoEndsWhereItsFunctionBegins(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		holder, _ := m.TryAcquire("k")
		time.AfterFunc(time.Second, holder.Release)
		failed := errors.New("printer on fire")
		assert.Equal(t, failed, m.Do(m.ctx, "k", func(context.Context) error {
			span, attributes := m.one(t)
			assert.Equal(t, time.Now(), span.EndTime)
			assert.Equal(t, "granted", attributes["keylock.outcome"])
			time.Sleep(time.Hour)
			return failed
		}))
		assert.Empty(t, m.spans.GetSpans(), "what the function returns is not how the wait ended")
	})
}

func TestSharedLockBesideSharedOnesHasNoSpan(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		_, err := m.AcquireShared(m.ctx, "k")
		require.NoError(t, err)
		_, err = m.AcquireShared(m.ctx, "k")
		require.NoError(t, err)
		_, err = m.AcquireSet(m.ctx, keylock.Want[string]{Key: "free"}, keylock.Want[string]{Key: "k", Mode: keylock.Shared})
		require.NoError(t, err)
		assert.Empty(t, m.spans.GetSpans())
	})
}

// A key that as many share as the request allows is taken for it, however short its wait is.
func TestWaitForALimitHasASpan(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		want := func(limit int) keylock.Want[string] {
			return keylock.Want[string]{Key: "k", Mode: keylock.Shared, Limit: limit}
		}
		first, err := m.AcquireSet(m.ctx, want(2))
		require.NoError(t, err)
		second, err := m.AcquireSet(m.ctx, want(2))
		require.NoError(t, err)
		assert.Empty(t, m.spans.GetSpans(), "there was room for both")
		time.AfterFunc(100*time.Microsecond, first.Release)
		third, err := m.AcquireSet(m.ctx, want(2))
		require.NoError(t, err)
		_, attributes := m.one(t)
		assert.Equal(t, "granted", attributes["keylock.outcome"])
		second.Release()
		third.Release()
	})
}

func TestFailedWaitSaysWhyWithoutTheKey(t *testing.T) {
	const secret = "secret"
	failing := map[string]struct {
		call             func(m traced) error
		want             error
		outcome, theType string
	}{
		"deadline": {func(m traced) error {
			ctx, cancel := context.WithTimeout(m.ctx, time.Minute)
			defer cancel()
			return m.Do(ctx, secret, nothing)
		}, context.DeadlineExceeded, "cancelled", "deadline_exceeded"},
		"cancel": {func(m traced) error {
			ctx, cancel := context.WithCancel(m.ctx)
			time.AfterFunc(time.Second, cancel)
			_, err := m.Acquire(ctx, secret)
			return err
		}, context.Canceled, "cancelled", "canceled"},
		"queue full": {func(m traced) error {
			m.Reserve(secret)
			m.Reserve(secret)
			_, err := m.AcquireShared(m.ctx, secret)
			return err
		}, keylock.ErrQueueFull, "rejected", "queue_full"},
		"closed": {func(m traced) error {
			time.AfterFunc(time.Second, func() { m.Close() })
			_, err := m.AcquireAll(m.ctx, secret, "other")
			return err
		}, keylock.ErrClosed, "failed", "closed"},
	}
	for name, c := range failing {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m traced) {
				m.Reserve(secret)
				require.ErrorIs(t, c.call(m), c.want)
				span, attributes := m.one(t)
				assert.Equal(t, c.outcome, attributes["keylock.outcome"])
				assert.Equal(t, c.theType, attributes["error.type"])
				assert.Equal(t, codes.Error, span.Status.Code)
				assert.NotContains(t, attributes, "keylock.grant")
				assert.NotContains(t, fmt.Sprintf("%+v", span), secret)
			})
		})
	}
}

func TestInvalidKeyIsSaid(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	ctx, _ := provider.Tracer("test").Start(t.Context(), "request")
	m := keylock.Start[float64](t.Context())
	defer m.Close()
	_, err := otelkeylock.Trace(m, otelkeylock.WithTracerProvider(provider)).Acquire(ctx, math.NaN())
	require.ErrorIs(t, err, keylock.ErrInvalidKey)
	assert.Contains(t, fmt.Sprint(spans.GetSpans()[0].Attributes), "invalid_key")
}

func TestKeysAreShownWhereAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		key := strings.Repeat("long", 1000) + "\xff"
		m.Reserve(key)
		ctx, cancel := context.WithTimeout(m.ctx, time.Second)
		defer cancel()
		require.Error(t, m.Do(ctx, key, nothing))
		_, attributes := m.one(t)
		assert.Contains(t, attributes["keylock.key"], "longlong")
		assert.Less(t, len(attributes["keylock.key"].(string)), 300)

		m.Reserve("k")
		_, err := m.AcquireAll(ctx, "k", "a b")
		require.Error(t, err)
		_, attributes = m.one(t)
		assert.Equal(t, []string{"k", "a b"}, attributes["keylock.keys"])
	}, otelkeylock.WithKeys())
}

// A request whose span is not recorded is that of the manager, and asks it nothing more.
func TestWhatIsNotSampledCostsNoRequest(t *testing.T) {
	bubble(t, func(t *testing.T, m traced) {
		unsampled := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
		ctx, _ := unsampled.Tracer("test").Start(t.Context(), "request")
		for _, ctx := range []context.Context{ctx, t.Context()} {
			before, err := m.Stats(t.Context())
			require.NoError(t, err)
			holder, err := m.Acquire(ctx, "k")
			require.NoError(t, err)
			time.AfterFunc(time.Second, holder.Release)
			require.NoError(t, m.Do(ctx, "k", func(context.Context) error { return nil }))
			after, err := m.Stats(t.Context())
			require.NoError(t, err)
			assert.Equal(t, before.Requests+5, after.Requests, "two locks, two releases and the question itself")
		}
		assert.Empty(t, m.spans.GetSpans())
	})
}

// A request that is overtaken between the look at its key and its arrival has waited too.
func TestWaitThatTheLookDidNotForeseeIsTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		ctx, _ := provider.Tracer("test").Start(t.Context(), "request")
		m := keylock.Start[string](t.Context(), keylock.WithSharedLimit(1)) // a bound that the look does not show
		defer m.Close()
		holder, _ := m.TryAcquireSet(locktest.Sharing("k")...)
		time.AfterFunc(time.Millisecond, holder.Release)
		_, err := otelkeylock.Trace(m, otelkeylock.WithTracerProvider(provider)).AcquireShared(ctx, "k")
		require.NoError(t, err)
		assert.Len(t, spans.GetSpans(), 1)
	})
}

func TestGlobalProviderIsTheDefault(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	before := otel.GetTracerProvider()
	defer otel.SetTracerProvider(before)
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	m := keylock.Start[string](t.Context())
	m.Close()
	ctx, _ := otel.Tracer("test").Start(t.Context(), "request")
	_, err := otelkeylock.Trace(m).Acquire(ctx, "k")
	require.ErrorIs(t, err, keylock.ErrClosed)
	assert.Len(t, spans.GetSpans(), 1)
}

func TestCohortsWaitAtTheEngineIsTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := cohorttest.NewStore()
		defer store.Close()
		here, there := cohort.Start(t.Context(), store.Engine()), cohort.Start(t.Context(), store.Engine())
		defer here.Close()
		defer there.Close()
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		ctx, _ := provider.Tracer("test").Start(t.Context(), "request")
		traced := otelkeylock.TraceCohort(here, otelkeylock.WithTracerProvider(provider), otelkeylock.WithKeys())

		for range 2 {
			holder, err := there.Acquire(ctx, "k")
			require.NoError(t, err)
			time.AfterFunc(time.Second, func() { holder.Release() })
			require.NoError(t, traced.Do(ctx, "k", func(context.Context) error { return nil }))
		}
		holder, err := there.Acquire(ctx, "k")
		require.NoError(t, err)
		time.AfterFunc(time.Second, func() { holder.Release() })
		lock, err := traced.Acquire(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, lock.Release())

		holder, err = there.Acquire(ctx, "k")
		require.NoError(t, err)
		time.AfterFunc(time.Second, func() { holder.Release() })
		all, err := traced.AcquireAll(ctx, "k", "a")
		require.NoError(t, err)
		require.NoError(t, all.Release())

		require.Len(t, spans.GetSpans(), 4)
		for _, span := range spans.GetSpans() {
			assert.GreaterOrEqual(t, span.EndTime.Sub(span.StartTime), time.Second)
			assert.Contains(t, []string{
				"[{keylock.mode exclusive} {keylock.key k} {keylock.outcome granted}]",
				`[{keylock.mode exclusive} {keylock.set.size 2} {keylock.keys ["k","a"]} {keylock.outcome granted}]`,
			}, fmt.Sprint(span.Attributes))
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
