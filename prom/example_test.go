package prom_test

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/prom"
)

// Each manager is registered under a name of its own, which is the label manager of its
// metrics.
func ExampleNewCollector() {
	orders := keylock.Start[string](context.Background(), keylock.WithHoldTimes())
	defer orders.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(prom.NewCollector("orders", orders))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	// Output:
}
