package otelkeylock_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/otelkeylock"
)

// A reader, here one for tests, is given the producer of the histograms; everything else is
// registered at the provider of the metrics.
func ExampleRegister() {
	ctx := context.Background()
	orders := keylock.Start[string](ctx)
	defer orders.Close()

	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(otelkeylock.NewProducer("orders", orders)))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	registration, err := otelkeylock.Register(provider, "orders", orders)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer registration.Unregister()

	orders.Reserve("order/42")
	orders.Reserve("order/42")
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &collected); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if m.Name == "keylock.waiter.count" {
			fmt.Println(m.Name, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
		}
	}
	// Output: keylock.waiter.count 1
}

// The metrics of a cohort's manager are those of its local queues, and of its engine.
func ExampleRegisterCohort() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	orders := cohort.Start(ctx, store.Engine())
	defer orders.Close()

	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(otelkeylock.NewCohortProducer("orders", orders)))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	registration, err := otelkeylock.RegisterCohort(provider, "orders", orders)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer registration.Unregister()

	lock, err := orders.Acquire(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = lock.Release() }()
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &collected); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if m.Name == "keylock.cohort.engine.grants" {
			fmt.Println(m.Name, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value)
		}
	}
	// Output: keylock.cohort.engine.grants 1
}

// A wait is a span below that of the request which is being handled.
func ExampleTrace() {
	spans := tracetest.NewInMemoryExporter() // for tests; a service takes one of OTLP
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	ctx, request := provider.Tracer("example").Start(context.Background(), "POST /orders")
	defer request.End()

	manager := keylock.Start[string](ctx)
	defer manager.Close()
	orders := otelkeylock.Trace(manager, otelkeylock.WithName("orders"), otelkeylock.WithTracerProvider(provider))

	holder, _ := orders.TryAcquire("order/42")
	go func() {
		<-holder.Wanted() // until the other waits
		holder.Release()
	}()
	lock, err := orders.Acquire(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Release()

	span := spans.GetSpans()[0]
	attributes := attribute.NewSet(span.Attributes...)
	outcome, _ := attributes.Value("keylock.outcome")
	fmt.Println(span.Name, outcome.AsString(), span.Parent.SpanID() == request.SpanContext().SpanID())
	// Output: keylock wait granted true
}
