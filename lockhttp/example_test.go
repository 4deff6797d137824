package lockhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

// A handler shows any number of managers. Serve it where only people may see it who are
// trusted with keys and labels.
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
