// Package lockhttp shows over HTTP who holds what and who waits for it, in the manner of
// /debug/pprof.
//
//	orders := keylock.Start[string](ctx, keylock.WithHoldTimes(), keylock.WithCallers())
//	http.Handle("/debug/locks", lockhttp.Handler(map[string]lockhttp.Manager{
//		"orders": lockhttp.Of(orders),
//	}))
//
// A browser gets a page that refreshes itself: the totals, how long waits took, the keys
// with the longest queues and those that have been held for longest; a click leads to the
// whole line of a key. Accept: application/json or ?format=json gets the same as JSON,
// text/plain or ?format=text as text.
//
// Queries are ?manager=NAME for one manager, then also &key=KEY for one key, and &n=N for
// at most N rows of each kind: 20 unless told otherwise, 1000 for one key, and never more
// than 1000.
//
// A look costs the managers next to nothing, however much they hold, see
// [keylock.Manager.Top]; only that at one key costs in proportion to its line. Nothing
// can be changed through the handler. It shows keys, labels and the places of calls to
// everybody who can reach it, so put it where only those can who may see them: nothing
// here registers itself in [http.DefaultServeMux].
//
// Keys and labels may be hostile. They are cut where they are long, control characters
// and what is not UTF-8 are shown as escapes, and the content security policy lets
// nothing run but the page's own script.
package lockhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-46f81e6d/keylock"
)

// Handler shows the managers under their names. It serves any path, to GET and HEAD.
func Handler(managers map[string]Manager) http.Handler {
	return &handler{managers: maps.Clone(managers), names: slices.Sorted(maps.Keys(managers))}
}

type handler struct {
	managers map[string]Manager
	names    []string // sorted
}

// maxRows bounds what one request may ask for.
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
	query := r.URL.Query()
	show, ok := formats[format(query, r.Header.Get("Accept"))]
	if !ok {
		http.Error(w, "format is one of html, json, text", http.StatusBadRequest)
		return
	}
	answer, status := h.answer(r.Context(), query)
	var body bytes.Buffer
	if err := show.write(&body, answer); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", show.contentType)
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body.Bytes()) // nobody is left to tell
	}
}

// formats are the ways to show an answer.
var formats = map[string]struct {
	contentType string
	write       func(*bytes.Buffer, answer) error
}{
	"html": {"text/html; charset=utf-8", writePage},
	"text": {"text/plain; charset=utf-8", writeText},
	"json": {"application/json", func(b *bytes.Buffer, a answer) error {
		e := json.NewEncoder(b)
		e.SetIndent("", "  ")
		return e.Encode(a)
	}},
}

// format is what the query says, or else the first that the client accepts and that is
// known here.
func format(query url.Values, accept string) string {
	if query.Has("format") {
		return query.Get("format")
	}
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

// answer looks at what the query asks for.
func (h *handler) answer(ctx context.Context, query url.Values) (answer, int) {
	name, one := query.Get("manager"), query.Has("manager")
	names := h.names
	if one {
		if _, ok := h.managers[name]; !ok {
			return answer{Error: "there is no such manager"}, http.StatusNotFound
		}
		names = []string{name}
	}
	if query.Has("key") || query.Has("id") {
		if !one {
			return answer{Error: "a key needs a manager"}, http.StatusBadRequest
		}
		return h.key(ctx, name, query)
	}
	var a answer
	for _, name := range names {
		m := h.managers[name].look(ctx, rows(query, 20))
		m.Name = name
		a.Managers = append(a.Managers, m)
	}
	return a, http.StatusOK
}

// key looks at one key of one manager.
func (h *handler) key(ctx context.Context, name string, query url.Values) (answer, int) {
	k, err := h.managers[name].inspect(ctx, query)
	switch {
	case errors.Is(err, keylock.ErrClosed):
		return answer{Managers: []manager{{Name: name, Closed: true}}}, http.StatusOK
	case errors.Is(err, errGone):
		return answer{Error: err.Error()}, http.StatusNotFound
	case err != nil:
		return answer{Error: err.Error()}, http.StatusBadRequest
	}
	n := rows(query, maxRows)
	k.Holders, k.Waiters = k.Holders[:min(n, len(k.Holders))], k.Waiters[:min(n, len(k.Waiters))]
	return answer{Managers: []manager{{Name: name, Key: &k}}}, http.StatusOK
}

// rows is how many rows the query asks for.
func rows(query url.Values, usual int) int {
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 1 {
		return usual
	}
	return min(n, maxRows)
}
