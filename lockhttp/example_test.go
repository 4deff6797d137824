package lockhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

// A handler shows any number of managers. Serve it only to people who may see keys and labels.
func ExampleHandler() {
	ctx := context.Background()
	orders := keylock.Start[string](ctx, keylock.WithHoldTimes(), keylock.WithCallers())
	defer orders.Close()
	users := keylock.Start[int](ctx, keylock.WithHoldTimes(), keylock.WithCallers())
	defer users.Close()

	mux := http.NewServeMux()
	mux.Handle("/debug/locks", lockhttp.Handler(map[string]lockhttp.Manager{
		"orders": lockhttp.Of(orders),
		"users":  lockhttp.Of(users),
	}))

	reply := httptest.NewRecorder()
	mux.ServeHTTP(reply, httptest.NewRequest("GET", "/debug/locks", nil))
	fmt.Println(reply.Code, reply.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

// The page of a cohort's manager shows its local queues, its claims at the engine, and the
// session of the engine. In text it is for a terminal.
func ExampleOfCohort() {
	ctx := context.Background()
	store := cohorttest.NewStore() // for tests; a service takes etcd and etcdlock.New
	defer store.Close()
	orders := cohort.Start(ctx, store.Engine())
	defer orders.Close()

	handler := lockhttp.Handler(map[string]lockhttp.Manager{"orders": lockhttp.OfCohort(orders)})
	reply := httptest.NewRecorder()
	handler.ServeHTTP(reply, httptest.NewRequest("GET", "/debug/locks?format=text", nil))
	fmt.Println(reply.Code, reply.Header().Get("Content-Type"))
	// Output: 200 text/plain; charset=utf-8
}
