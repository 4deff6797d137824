package prom_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
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

// The collector of a cohort's manager has the metrics of its local queues too, so that it
// replaces that of a manager of one process.
func ExampleNewCohortCollector() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	orders := cohort.Start(ctx, store.Engine())
	defer orders.Close()

	lock, err := orders.Acquire(ctx, "order/42")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = lock.Release() }()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prom.NewCohortCollector("orders", orders))
	fmt.Println(testutil.GatherAndCount(registry, "keylock_cohort_engine_grants_total"))
	// Output: 1 <nil>
}
