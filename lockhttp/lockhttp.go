// Package lockhttp shows over HTTP who holds which key and who waits for it, in the manner of
// /debug/pprof.
//
//	orders := keylock.Start[string](ctx, keylock.WithHoldTimes(), keylock.WithCallers())
//	http.Handle("/debug/locks", lockhttp.Handler(map[string]lockhttp.Manager{
//		"orders": lockhttp.Of(orders),
//	}))
//
// A browser gets a page that refreshes itself. It begins with what is worst: the manager in
// which most time is lost to waiting, the key that is waited for there, who holds it, since
// when, and from which line of code it was called. Then come the managers, worst first: totals
// since Start and rates of the last seconds, how long waits and holds took, the keys with the
// longest queues, and those that have been held for longest. A key leads to its queue. What
// has waited for a second or longer is coloured, and so is what makes it wait.
//
// A cohort, in front of an engine such as etcd, is shown by [OfCohort].
//
// Accept: application/json or ?format=json gets the same as JSON, text/plain or ?format=text
// as text. The other parameters are manager=NAME for one manager, with it key=KEY for one
// key, and n=N for at most N rows of each list: from 1 to 1000, of several managers at most 1000 in
// all; by default 20, 5 where several managers are shown, and 100 for one key. Anything else is answered with status 400, and a
// manager that does not exist with 404.
//
// A look costs the managers next to nothing, however much they hold, see
// [keylock.Manager.Top] and [keylock.Manager.Inspect], and it costs the page what it shows.
// Nothing can be changed through the handler. It shows keys, labels and lines of code to all
// who can reach it, so serve it only to people who may see them: nothing here registers itself
// in [http.DefaultServeMux].
//
// Keys and labels may be hostile. A key is shown by its content: what a pointer points to is
// not read, and no method of a key is called. Long ones are cut, invisible characters are
// escaped, and the content security policy allows no script but the page's own.
package lockhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// Handler shows the managers under their names. It serves any path, to GET and HEAD. It panics for
// a Manager that neither Of nor OfCohort made.
func Handler(managers map[string]Manager) http.Handler {
	for name, m := range managers {
		if m.look == nil {
			panic(fmt.Sprintf("lockhttp: Handler with manager %q, which Of did not make", name))
		}
	}
	return &handler{managers: maps.Clone(managers), names: slices.Sorted(maps.Keys(managers))}
}

type handler struct {
	managers map[string]Manager
	names    []string // sorted
}

// maxRows is how many rows of one kind a request may ask for.
const maxRows = 1000

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer") // an address may name a key
	header.Set("Vary", "Accept")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	q, err := parseQuery(r)
	shown := formats[q.format]
	var a answer
	status := http.StatusBadRequest
	if err == nil {
		a, status, err = h.answer(r.Context(), q)
	}
	if err != nil {
		a = answer{Error: err.Error()}
	}
	a.At, a.Host, a.Process, a.PID = time.Now(), host, process, os.Getpid()
	a.names = h.names
	var body bytes.Buffer
	if err := shown.write(&body, a); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", shown.contentType)
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body.Bytes()) // the client may be gone
	}
}

// host and process say where the page comes from.
var (
	host = func() string {
		name, err := os.Hostname()
		if err != nil {
			return "unknown"
		}
		return show.Bare(&name)
	}()
	process = func() string {
		name := filepath.Base(os.Args[0])
		return show.Bare(&name)
	}()
)

// formats are the ways to show an answer.
var formats = map[string]struct {
	contentType string
	entries     int // holders and waiters that are shown of each key in a list
	write       func(*bytes.Buffer, answer) error
}{
	"html": {"text/html; charset=utf-8", 1, writePage},
	"text": {"text/plain; charset=utf-8", 1, writeText},
	"json": {"application/json", maxRows, func(b *bytes.Buffer, a answer) error {
		e := json.NewEncoder(b)
		e.SetIndent("", "  ")
		return e.Encode(a)
	}},
}

// A query is what a request asks for.
type query struct {
	format  string
	manager *string // nil for all
	key     *string // as typed; nil for none
	id      *string // in place of key, where a key cannot be typed; nil for none
	n       int     // 0 for as many as usual
}

// parseQuery returns what a request asks for. Its format is right also when there is an
// error.
func parseQuery(r *http.Request) (query, error) {
	q := query{format: accepted(r.Header.Get("Accept"))}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, errors.New("the query of the address is malformed")
	}
	if f := values.Get("format"); values.Has("format") {
		if _, ok := formats[f]; !ok {
			return q, errors.New("format is one of html, json, text")
		}
		q.format = f
	}
	for name, given := range values {
		value := &given[0]
		switch {
		case len(given) > 1:
			return q, fmt.Errorf("%s is given %d times", show.Quoted(&name), len(given))
		case name == "manager":
			q.manager = value
		case name == "key":
			q.key = value
		case name == "id":
			q.id = value
		case name == "n":
			if q.n, err = strconv.Atoi(*value); err != nil || q.n < 1 || q.n > maxRows {
				return q, fmt.Errorf("n is a number from 1 to %d", maxRows)
			}
		case name != "format":
			return q, fmt.Errorf("there is no parameter %s, only manager, key, n and format", show.Quoted(&name))
		}
	}
	switch {
	case q.key != nil && q.id != nil:
		return q, errors.New("key and id exclude each other")
	case q.manager == nil && (q.key != nil || q.id != nil):
		return q, errors.New("a key needs a manager")
	}
	return q, nil
}

// accepted is the first format that the client accepts and that is known here.
func accepted(accept string) string {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(media) {
		case "text/html", "text/*":
			return "html"
		case "application/json", "application/*":
			return "json"
		case "text/plain":
			return "text"
		}
	}
	return "html"
}

// patience is how long a manager may take to reply, which takes it microseconds unless the
// whole process is in trouble.
const patience = 2 * time.Second

// answer looks at what a query asks for.
func (h *handler) answer(ctx context.Context, q query) (answer, int, error) {
	names := h.names
	if q.manager != nil {
		if _, ok := h.managers[*q.manager]; !ok {
			return answer{}, http.StatusNotFound, fmt.Errorf("there is no manager %s", show.Quoted(q.manager))
		}
		names = []string{*q.manager}
	}
	var a answer
	for i, r := range h.lookAtAll(ctx, names, q) {
		if r.panicked != nil {
			panic(r.panicked)
		}
		if r.err != nil {
			return answer{}, r.status, r.err
		}
		m, name := r.manager, names[i]
		m.Typed, m.Name, m.Query = name, show.Bare(&name), url.Values{"manager": {name}}.Encode()
		a.Managers = append(a.Managers, m)
	}
	slices.SortStableFunc(a.Managers, worstFirst)
	a.summarize()
	return a, http.StatusOK, nil
}

// A looked is what came of a look at a manager.
type looked struct {
	manager  manager
	status   int
	err      error
	panicked any // in a Source of the user's, with its stack
}

// lookAtAll looks at the managers at the same time, so that they take no longer together than the slowest.
func (h *handler) lookAtAll(ctx context.Context, names []string, q query) []looked {
	found := make([]looked, len(names))
	done := make(chan struct{})
	for i, name := range names {
		go func() {
			found[i].panicked = "lockhttp: a Source has ended its goroutine"
			defer func() {
				switch p := recover(); p {
				case nil:
				case http.ErrAbortHandler: // what net/http compares with, and does not log
					found[i].panicked = p
				default:
					found[i].panicked = fmt.Sprintf("%v\n\nfrom the Source's goroutine:\n%s", p, debug.Stack())
				}
				done <- struct{}{}
			}()
			found[i].manager, found[i].status, found[i].err = h.look(ctx, name, q, len(names))
			found[i].panicked = nil
		}()
	}
	for range names {
		<-done
	}
	return found
}

// look looks at one of so many managers, or at a key of it.
func (h *handler) look(ctx context.Context, name string, q query, managers int) (manager, int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var m manager
	var err error
	if q.key != nil || q.id != nil {
		m, err = h.managers[name].inspect(ctx, q, orUsual(q.n, 100))
	} else {
		usual := 20
		if managers > 1 {
			usual = 5
		}
		m, err = h.managers[name].look(ctx, max(min(orUsual(q.n, usual), maxRows/managers), 1), formats[q.format].entries)
	}
	var wrong badKey
	switch {
	case errors.As(err, &wrong):
		return m, http.StatusBadRequest, wrong
	case errors.Is(err, errGone):
		return m, http.StatusNotFound, err
	case errors.Is(err, keylock.ErrClosed):
		return manager{Closed: true}, 0, nil
	case errors.Is(err, context.DeadlineExceeded):
		return manager{Error: fmt.Sprintf("The manager did not reply within %s.", age(patience))}, 0, nil
	case err != nil:
		text := err.Error()
		return manager{Error: show.Bare(&text)}, 0, nil
	}
	return m, 0, nil
}

func orUsual(n, usual int) int {
	if n == 0 {
		return usual
	}
	return n
}
