package neverended

import (
	"context"
	"log"
	"net/http"

	kl "github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

func function() {
	m := kl.Start[string](context.Background()) // want `nothing ends the manager that is started on line 13: its goroutine stays`
	lock, _ := m.TryAcquire("k")
	lock.Release()
}

func generic[K comparable](key K) {
	ctx := context.TODO()
	m := kl.Start[K](ctx) // want `nothing ends`
	count(m)
}

func count[K comparable](m *kl.Manager[K]) {
	m.Do(context.Background(), *new(K), func(context.Context) error { return nil })
}

type server struct{ engine cohort.Engine }

func (s server) method(ctx context.Context) {
	kl.Start[int](context.WithoutCancel(ctx))         // want `nothing ends`
	m := cohort.Start(context.Background(), s.engine) // want `nothing ends`
	func() { m.Do(ctx, "k", nil) }()
	n := kl.Start[string](context.Background()) // want `nothing ends`
	n.Do(ctx, "k", func(ctx context.Context) error { return n.Do(ctx, "l", nil) })
}

var literal = func() {
	_ = kl.Start[int](context.Background()) // want `nothing ends`
}

// What follows is right.

var locks = kl.Start[string](context.Background())

func closed(ctx context.Context) {
	a := kl.Start[string](context.Background())
	defer a.Close()
	b := kl.Start[string](context.Background())
	b.Shutdown(ctx)
	c := kl.Start[string](ctx)
	c.Do(ctx, "k", nil)
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := kl.Start[string](inner)
	d.Do(ctx, "k", nil)
	e := kl.Start[string](context.Background())
	stop := e.Close
	defer stop()
}

func goesOn(all []*kl.Manager[string]) (*kl.Manager[string], *kl.Session[string]) {
	a := kl.Start[string](context.Background())
	all[0] = a
	b := kl.Start[string](context.Background())
	c := kl.Start[string](context.Background())
	go closes(c)
	d := kl.Start[string](context.Background())
	return b, d.Session("keeps its manager")
}

func closes(m *kl.Manager[string]) { m.Close() }

// A literal may live as long as the manager.
func middleware(next http.Handler) http.Handler {
	m := kl.Start[string](context.Background())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock, err := m.Acquire(r.Context(), r.URL.Path)
		if err != nil {
			return
		}
		defer lock.Release()
		next.ServeHTTP(w, r)
	})
}

func background(jobs <-chan string) {
	m := kl.Start[string](context.Background())
	go func() {
		for job := range jobs {
			m.Do(context.Background(), job, nil)
		}
	}()
}

// A function that does not return needs its manager until the process ends.
func serves(jobs <-chan string) {
	m := kl.Start[string](context.Background())
	for {
		m.Do(context.Background(), <-jobs, nil)
	}
}

func listens(addr string) {
	m := kl.Start[string](context.Background())
	count(m)
	log.Fatal(http.ListenAndServe(addr, nil))
}
