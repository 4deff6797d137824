package lockhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

// start starts a manager that notes everything.
func start[K comparable](t *testing.T) *keylock.Manager[K] {
	m := keylock.Start[K](t.Context(), keylock.WithHoldTimes(), keylock.WithCallers())
	t.Cleanup(func() { m.Close() })
	return m
}

// serve serves managers over real HTTP, and records the paths that were asked for.
func serve(t *testing.T, managers map[string]lockhttp.Manager) (address string) {
	server := httptest.NewServer(lockhttp.Handler(managers))
	t.Cleanup(func() {
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server.URL
}

func request(t *testing.T, method, address, accept string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	require.NoError(t, err)
	r.Header.Set("Accept", accept)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer, string(body)
}

func get(t *testing.T, address string) (*http.Response, string) {
	t.Helper()
	return request(t, "GET", address, "text/html")
}

// What ?format=json tells.
type shown struct {
	Error    string
	Managers []struct {
		Name          string
		Closed        bool
		Stats         map[string]any
		LongestQueues []shownKey `json:"longest_queues"`
		OldestHolds   []shownKey `json:"oldest_holds"`
		Key           *shownKey
	}
}

type shownKey struct {
	Key              string
	Bytes            int `json:"key_bytes"`
	Query            string
	Held, Waiting    int
	Holders, Waiters []struct {
		Grant    uint64
		Position int
		Mode     string
		Session  string
		Age      *float64 `json:"age_seconds"`
		Caller   string
		WaitsFor string `json:"waits_for"`
	}
}

func getJSON(t *testing.T, address string) (status int, s shown) {
	t.Helper()
	answer, body := request(t, "GET", address, "application/json")
	require.Equal(t, "application/json", answer.Header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(body), &s))
	return answer.StatusCode, s
}

func TestQueuesAndHoldersAreShown(t *testing.T) {
	m := start[string](t)
	m.Session("culprit").TryAcquire("k")
	m.Session("victim").Reserve("k")
	m.ReserveSet(locktest.Sharing("k")...)
	m.ReserveSet(keylock.Want[string]{Key: "k"}, keylock.Want[string]{Key: "free"})
	address := serve(t, map[string]lockhttp.Manager{"orders": lockhttp.Of(m)})

	_, s := getJSON(t, address)
	require.Len(t, s.Managers, 1)
	got := s.Managers[0]
	assert.Equal(t, "orders", got.Name)
	assert.EqualValues(t, 3, got.Stats["longest_queue"])
	assert.EqualValues(t, 3, got.Stats["waiting"])
	require.Len(t, got.LongestQueues, 2)
	require.Len(t, got.OldestHolds, 1)
	k := got.LongestQueues[0]
	assert.Equal(t, "k", k.Key)
	assert.Equal(t, "key=k", k.Query)
	assert.Equal(t, 1, k.Held)
	assert.Equal(t, 3, k.Waiting)
	assert.Equal(t, "culprit", k.Holders[0].Session)
	assert.NotNil(t, k.Holders[0].Age)
	assert.Contains(t, k.Holders[0].Caller, "lockhttp/lockhttp_test.go:")
	assert.Equal(t, "victim", k.Waiters[0].Session)
	var waitsFor []string
	for _, w := range k.Waiters {
		waitsFor = append(waitsFor, w.WaitsFor)
	}
	assert.Equal(t, []string{"the holder", "waiter 1", "waiter 2 (1 of its 2 keys)"}, waitsFor)
	assert.Equal(t, "its other keys (1 of its 2 keys)", got.LongestQueues[1].Waiters[0].WaitsFor)

	_, one := getJSON(t, address+"?manager=orders&"+k.Query)
	assert.Equal(t, "k", one.Managers[0].Key.Key)
	assert.Len(t, one.Managers[0].Key.Waiters, 3)

	_, page := get(t, address+"?manager=orders&key=k")
	assert.Contains(t, page, "culprit")
	assert.Contains(t, page, "waiter 2 (1 of its 2 keys)")
	_, text := request(t, "GET", address+"?manager=orders&key=k", "text/plain")
	assert.Contains(t, text, "key k, held by 1, waited for by 3")
	assert.Regexp(t, `1\.\s+\S.*exclusive\s+victim\s+lockhttp/lockhttp_test.go:\d+ .*the holder`, text)
	_, text = request(t, "GET", address, "text/plain")
	assert.Contains(t, text, "keys 2, held 1 (shared 0), waiting 3 (longest queue 3)")
}

// Every key that is shown can be asked for, whatever its type.
func TestKeysOfAnyTypeAreFound(t *testing.T) {
	type structKey struct {
		Tenant string
		n      int
	}
	type named string
	anys := start[any](t)
	for _, key := range []any{1, "1", 1.5, structKey{"t", 1}, [2]int{1, 2}, nil, true} {
		anys.TryAcquire(key)
	}
	structs := start[structKey](t)
	structs.TryAcquire(structKey{"a", 1})
	structs.TryAcquire(structKey{"a", 2})
	ints := start[int8](t)
	ints.TryAcquire(-7)
	uints := start[uint16](t)
	uints.TryAcquire(7)
	bools := start[bool](t)
	bools.TryAcquire(true)
	floats := start[float64](t)
	floats.TryAcquire(0.1)
	strings_ := start[named](t)
	for _, key := range []named{"", "a b&c=d", "\xff\xfe", "x\x00y", named(strings.Repeat("x", 1<<20)), named(strings.Repeat("x", 1<<20) + "y")} {
		strings_.TryAcquire(key)
	}
	stringers := start[liar](t)
	stringers.TryAcquire(liar{"truth"})
	address := serve(t, map[string]lockhttp.Manager{
		"anys": lockhttp.Of(anys), "structs": lockhttp.Of(structs), "ints": lockhttp.Of(ints), "uints": lockhttp.Of(uints),
		"bools": lockhttp.Of(bools), "floats": lockhttp.Of(floats), "strings": lockhttp.Of(strings_), "stringers": lockhttp.Of(stringers),
	})
	_, s := getJSON(t, address+"?n=100")
	count := 0
	for _, m := range s.Managers {
		for _, k := range m.OldestHolds {
			status, one := getJSON(t, address+"?manager="+m.Name+"&"+k.Query)
			require.Equal(t, 200, status, k.Key)
			got := one.Managers[0].Key
			assert.Equal(t, k.Key, got.Key)
			assert.Equal(t, k.Holders[0].Grant, got.Holders[0].Grant, "it is the same key")
			count++
		}
	}
	assert.Equal(t, 7+2+1+1+1+1+6+1, count)
}

// liar is a key that does not print as it is.
type liar struct{ name string }

func (liar) String() string { panic("in a key's String") }

func TestHostileTextIsShownHarmlessly(t *testing.T) {
	m := start[string](t)
	hostile := []string{
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "a\nb\r\nSet-Cookie: x=1", "\x1b[31mred", "\xff\xfe\x00",
		"\u202eright to left", strings.Repeat("é", 1<<19), "{{.}}", "javascript:alert(1)", "</style></main>", "",
	}
	for _, text := range hostile {
		m.Session(text).TryAcquire(text)
		m.Session(text).Reserve(text)
	}
	address := serve(t, map[string]lockhttp.Manager{"<i>" + hostile[0]: lockhttp.Of(m)})
	for _, text := range hostile {
		for _, format := range []string{"html", "text", "json"} {
			for _, query := range []string{"", url.Values{"manager": {"<i>" + hostile[0]}, "key": {text}}.Encode()} {
				if len(query) > 10_000 {
					continue // no server would take it
				}
				_, body := get(t, address+"?format="+format+"&"+query)
				assert.True(t, utf8.ValidString(body))
				assert.Less(t, len(body), 100_000)
				assert.False(t, strings.ContainsFunc(body, func(r rune) bool {
					return r != '\n' && r != '\u202f' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r))
				}))
				if format == "html" {
					assert.NotContains(t, body, "<script>")
					assert.NotContains(t, body, "<img")
					assert.Equal(t, 1, strings.Count(body, "</style>"))
					assert.Equal(t, 1, strings.Count(body, "</main>"))
					assert.NotContains(t, body, "href=\"javascript")
				}
			}
		}
	}
}

func TestHeadersKeepPagesPrivateAndPlain(t *testing.T) {
	address := serve(t, map[string]lockhttp.Manager{"m": lockhttp.Of(start[int](t))})
	for _, query := range []string{"", "?format=json", "?format=text", "?format=gif", "?manager=none", "?manager=m&key=x"} {
		answer, _ := get(t, address+query)
		h := answer.Header
		assert.Equal(t, "no-store", h.Get("Cache-Control"))
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		assert.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
		assert.Equal(t, "DENY", h.Get("X-Frame-Options"))
		policy := h.Get("Content-Security-Policy")
		assert.Contains(t, policy, "default-src 'none'")
		assert.Contains(t, policy, "script-src 'sha256-")
		assert.NotContains(t, policy, "unsafe")
	}
}

func TestFormatIsWhatIsAskedFor(t *testing.T) {
	address := serve(t, map[string]lockhttp.Manager{"m": lockhttp.Of(start[int](t))})
	for _, c := range []struct{ query, accept, want string }{
		{"", "", "text/html; charset=utf-8"},
		{"", "*/*", "text/html; charset=utf-8"},
		{"", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"},
		{"", "application/json", "application/json"},
		{"", "image/png, text/plain;q=0.5", "text/plain; charset=utf-8"},
		{"?format=json", "text/html", "application/json"},
		{"?format=text", "text/html", "text/plain; charset=utf-8"},
		{"?format=html", "application/json", "text/html; charset=utf-8"},
	} {
		answer, body := request(t, "GET", address+c.query, c.accept)
		assert.Equal(t, http.StatusOK, answer.StatusCode)
		assert.Equal(t, c.want, answer.Header.Get("Content-Type"), c)
		assert.EqualValues(t, len(body), answer.ContentLength)
	}
}

func TestWhatCannotBeShownSaysWhy(t *testing.T) {
	m := start[int](t)
	closed := keylock.Start[int](t.Context())
	closed.Close()
	address := serve(t, map[string]lockhttp.Manager{"m": lockhttp.Of(m), "closed": lockhttp.Of(closed), "f": lockhttp.Of(start[float64](t))})
	for _, c := range []struct {
		query string
		want  int
	}{
		{"?manager=none", 404}, {"?key=1", 400}, {"?manager=m&key=x", 400}, {"?manager=f&key=1", 400},
		{"?manager=m&id=none", 404}, {"?manager=m&key=1", 200}, {"?format=gif", 400}, {"?manager=closed&key=1", 200}, {"?manager=closed&id=1", 200},
		{"?n=0", 400}, {"?n=-1", 400}, {"?n=x", 400}, {"?n=", 400}, {"?n=1001", 400}, {"?n=99999999999999999999", 400}, {"?n=1000", 200},
		{"?manger=m", 400}, {"?manager=m&manager=m", 400}, {"?manager=m&key=1&id=1", 400}, {"?id=1", 400}, {"?manager=%zz", 400},
		{"?a;b", 400}, {"?manager=m&key=99999999999999999999", 400}, {"?%ff=1", 400}, {"?format=", 400},
	} {
		answer, _ := get(t, address+c.query)
		assert.Equal(t, c.want, answer.StatusCode, c.query)
	}
	_, page := get(t, address)
	assert.Contains(t, page, "This manager is closed.")
	_, text := get(t, address+"?format=text")
	assert.Contains(t, text, "manager closed\nclosed")
	_, page = get(t, address+"?manager=m&key=1")
	assert.Contains(t, page, "This key is neither held nor waited for.")
	_, page = get(t, serve(t, nil))
	assert.Contains(t, page, "No managers are shown here.")
}

func TestNothingChangesByLooking(t *testing.T) {
	m := start[int](t)
	m.TryAcquire(1)
	m.Reserve(1)
	address := serve(t, map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	before, err := m.Inspect(t.Context(), 1)
	require.NoError(t, err)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		answer, _ := request(t, method, address, "")
		assert.Equal(t, http.StatusMethodNotAllowed, answer.StatusCode, method)
		assert.Equal(t, "GET, HEAD", answer.Header.Get("Allow"))
	}
	get(t, address+"?manager=m&key=1")
	get(t, address+"?manager=m&key=2")
	answer, body := request(t, "HEAD", address, "")
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.Empty(t, body)
	assert.Positive(t, answer.ContentLength)
	after, err := m.Inspect(t.Context(), 1)
	require.NoError(t, err)
	after.At = before.At
	assert.Equal(t, before, after)
	s, err := m.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, s.Keys)
}

func TestRowsAreBounded(t *testing.T) {
	m := start[int](t)
	for key := range 2000 {
		m.Reserve(key)
		m.Reserve(key)
		m.Reserve(0)
	}
	address := serve(t, map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	for query, want := range map[string]int{"": 20, "?n=5": 5, "?n=1000": 1000, "?manager=m": 20, "?manager=m&n=7": 7} {
		_, s := getJSON(t, address+query)
		assert.Len(t, s.Managers[0].LongestQueues, want, query)
		assert.Len(t, s.Managers[0].OldestHolds, want, query)
	}
	_, s := getJSON(t, address+"?manager=m&key=0")
	assert.Equal(t, 2001, s.Managers[0].Key.Waiting)
	assert.Len(t, s.Managers[0].Key.Waiters, 100)
	_, page := get(t, address+"?manager=m&key=0&n=1000")
	assert.Contains(t, page, "and 1\u202f001 more")
	_, text := request(t, "GET", address+"?manager=m&key=0&n=1000", "text/plain")
	assert.Contains(t, text, "and 1\u202f001 more waiters\n")

	several := serve(t, map[string]lockhttp.Manager{"a": lockhttp.Of(m), "b": lockhttp.Of(m), "c": lockhttp.Of(m)})
	for query, want := range map[string]int{"": 5, "?n=300": 300, "?n=1000": 333} {
		_, s := getJSON(t, several+query)
		require.Len(t, s.Managers, 3)
		assert.Len(t, s.Managers[2].OldestHolds, want, query)
	}
}

func TestNothingRegistersItself(t *testing.T) {
	_, pattern := http.DefaultServeMux.Handler(httptest.NewRequest("GET", "/debug/locks", nil))
	assert.Empty(t, pattern)
}

// The handler works under any path, because its links are queries.
func TestHandlerWorksWhereverItIsMounted(t *testing.T) {
	m := start[string](t)
	m.TryAcquire("k")
	recorder := httptest.NewRecorder()
	h := lockhttp.Handler(map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	h.ServeHTTP(recorder, httptest.NewRequest("GET", "/any/path?manager=m", nil))
	assert.Contains(t, recorder.Body.String(), `href="?manager=m&amp;key=k"`)
}

// A slow reader delays no lock: a page is complete before the first byte is written.
func TestSlowReaderDisturbsNoLock(t *testing.T) {
	m := start[int](t)
	stuck := &stuckWriter{header: http.Header{}, reading: make(chan struct{}), free: make(chan struct{})}
	h := lockhttp.Handler(map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	over := make(chan struct{})
	go func() {
		defer close(over)
		h.ServeHTTP(stuck, httptest.NewRequest("GET", "/", nil))
	}()
	<-stuck.reading
	for range 1000 {
		lock, err := m.Acquire(t.Context(), 1)
		require.NoError(t, err)
		lock.Release()
	}
	close(stuck.free)
	<-over
}

type stuckWriter struct {
	header        http.Header
	reading, free chan struct{}
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) Write(b []byte) (int, error) {
	close(w.reading)
	<-w.free
	return 0, fmt.Errorf("gone")
}

func TestNilManagersPanicWhereTheyArePassed(t *testing.T) {
	assert.PanicsWithValue(t, "lockhttp: Of with a nil manager", func() { lockhttp.Of[string](nil) })
	assert.PanicsWithValue(t, "lockhttp: OfCohort with a nil manager", func() { lockhttp.OfCohort(nil) })
	for _, m := range []*keylock.Manager[string]{nil, {}} {
		assert.PanicsWithValue(t, "keylock: a Manager must be made by Start", func() { lockhttp.Of(m) })
	}
	assert.PanicsWithValue(t, "cohort: a Manager must be made by Start", func() { lockhttp.OfCohort(new(cohort.Manager)) })
	assert.PanicsWithValue(t, `lockhttp: Handler with manager "locks", which Of did not make`, func() {
		lockhttp.Handler(map[string]lockhttp.Manager{"locks": {}})
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
