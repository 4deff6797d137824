package keylock_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/seed-46f81e6d/keylock"
)

// A server handles one request per account at a time. Its locks live as long as the
// process: the context of a signal does not go to Start, because requests that wait when
// the signal comes should still be served.
func Example_server() {
	locks := keylock.Start[string](context.Background(), keylock.WithMaxWaiters(100))
	test := httptest.NewServer(handler(locks))
	defer test.Close()
	server := test.Config // the *http.Server

	res, err := http.Post(test.URL+"/accounts/alice", "", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.Status)

	// The signal has come.
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil { // no request comes any more, and each has its reply
		fmt.Println("still served:", err)
	}
	if err := locks.Shutdown(grace); err != nil { // every lock is released
		fmt.Println("still held:", err)
	}
	locks.Close() // does nothing after Shutdown has returned nil
	// Output: 204 No Content
}

func handler(locks *keylock.Manager[string]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /accounts/{account}", func(w http.ResponseWriter, r *http.Request) {
		err := locks.Do(r.Context(), r.PathValue("account"), func(ctx context.Context) error {
			return nil // the work
		})
		if err != nil {
			http.Error(w, err.Error(), status(err))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// status is the HTTP status for an error of a lock.
func status(err error) int {
	switch {
	case errors.Is(err, keylock.ErrQueueFull):
		return http.StatusTooManyRequests
	case errors.Is(err, keylock.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, keylock.ErrDeadlock):
		return http.StatusConflict // release, and try again
	case errors.Is(err, keylock.ErrInvalidKey):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError // of the work; or the client has gone
}
