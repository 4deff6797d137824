package lockhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

// A source is a manager that says what a test wants.
type source[K comparable] struct {
	top  keylock.Top[K]
	key  keylock.KeyInfo[K]
	err  error
	wait bool // until the context ends
}

func (s *source[K]) Top(ctx context.Context, n int) (keylock.Top[K], error) {
	if s.wait {
		<-ctx.Done()
		return keylock.Top[K]{}, ctx.Err()
	}
	top := s.top
	top.LongestQueues, top.OldestHolds = top.LongestQueues[:min(n, len(top.LongestQueues))], top.OldestHolds[:min(n, len(top.OldestHolds))]
	return top, s.err
}

func (s *source[K]) Inspect(context.Context, K) (keylock.KeyInfo[K], error) { return s.key, s.err }

// page returns what a handler answers, without a server.
func page(managers map[string]lockhttp.Manager, query string) string {
	w := httptest.NewRecorder()
	lockhttp.Handler(managers).ServeHTTP(w, httptest.NewRequest("GET", "/"+query, nil))
	return w.Body.String()
}

// waiting describes a key that n requests wait for, the first for that long.
func waiting[K comparable](key K, n int, first, held time.Duration) keylock.KeyInfo[K] {
	at := time.Now()
	return keylock.KeyInfo[K]{
		Key: key, At: at, Held: 1, Waiting: n,
		Holders: []keylock.Entry{{Seq: 7, Session: "the culprit", Since: at.Add(-held)}},
		Waiters: []keylock.Entry{{Position: 1, Since: at.Add(-first), Keys: 1, Blocked: 1}},
	}
}

func busySource(waiters int, first, held time.Duration) *source[string] {
	k := waiting("k", waiters, first, held)
	return &source[string]{top: keylock.Top[string]{
		Stats: keylock.Stats{
			Keys: 1, Held: 1, Waiting: waiters, LongestQueue: waiters, Timed: true, OldestWait: first, OldestHold: held, Uptime: time.Hour,
			Holds: keylock.Histogram{Count: 31, Max: 270 * time.Millisecond, Buckets: [32]uint64{18: 31}},
		},
		LongestQueues: []keylock.KeyInfo[string]{k}, OldestHolds: []keylock.KeyInfo[string]{k},
	}}
}

func TestWorstManagerComesFirst(t *testing.T) {
	managers := map[string]lockhttp.Manager{
		"a busy one":  lockhttp.Of(busySource(50, time.Millisecond, time.Millisecond)),
		"a quiet one": lockhttp.Of(&source[int]{top: keylock.Top[int]{Stats: keylock.Stats{Timed: true}}}),
		"an old wait": lockhttp.Of(busySource(1, time.Hour, time.Hour)),
		"closed":      lockhttp.Of(&source[int]{err: keylock.ErrClosed}),
		"the worst":   lockhttp.Of(busySource(6000, 41*time.Second, 42*time.Second)),
		"broken":      lockhttp.Of(&source[int]{err: fmt.Errorf("no\nluck")}),
	}
	text := page(managers, "?format=text")
	last := -1
	for _, name := range []string{"broken", "the worst", "an old wait", "a busy one", "a quiet one", "closed"} {
		at := strings.Index(text, "manager "+name+"\n")
		assert.Greater(t, at, last, name)
		last = at
	}
	want := "1 manager could not be asked. 6\u202f051 requests wait, most of all in manager the worst. Key \"k\" has 6\u202f000 waiters, the first for 41 s; it has been held for 42 s by session \"the culprit\"."
	assert.Contains(t, text, "\n"+want+"\n")
	assert.Contains(t, text, `"no\nluck"`)
	html := page(managers, "")
	assert.Contains(t, html, `<p class="summary wrong"><a href="?manager=the&#43;worst&amp;key=k">`+strings.ReplaceAll(want, `"`, "&#34;"))
	assert.Contains(t, page(map[string]lockhttp.Manager{"m": managers["a quiet one"]}, ""), `<p class="summary">Nothing waits.</p>`)
}

func TestWhatIsWrongIsColoured(t *testing.T) {
	m := busySource(3, 999*time.Millisecond, time.Hour)
	body := func() string {
		_, body, _ := strings.Cut(page(map[string]lockhttp.Manager{"m": lockhttp.Of(m)}, ""), "</style>")
		return body
	}
	assert.NotContains(t, body(), "wrong", "a short wait behind an old hold")
	m = busySource(3, time.Second, time.Hour)
	for _, wrong := range []string{
		`<div class="wrong"><dt>longest queue</dt><dd><a href="?manager=m&amp;key=k">3</a>`,
		`<div class="wrong"><dt>oldest wait</dt><dd><a href="?manager=m&amp;key=k">1 s</a>`,
		`<div class="wrong"><dt>oldest hold</dt><dd><a href="?manager=m&amp;key=k">1h 00m</a>`,
		`<td class="n wrong" data-label="first waits">1 s</td>`, `<td class="n wrong" data-label="held for">1h 00m</td>`,
	} {
		assert.Contains(t, body(), wrong)
	}
	m = busySource(0, 0, time.Hour)
	m.top.LongestQueues, m.top.OldestHolds[0].Waiters, m.top.OldestHolds[0].Waiting = nil, nil, 0
	assert.NotContains(t, body(), "wrong", "an old hold that nothing waits for")
	m.top.Stats.SlowLogLost, m.top.Stats.Serving = 1, 59*time.Minute
	assert.Equal(t, 2, strings.Count(body(), "wrong"), "lost records, and a busy owner")
}

func TestOverviewColoursTheHoldThatOthersWaitFor(t *testing.T) {
	html := page(map[string]lockhttp.Manager{
		"waited for":     lockhttp.Of(busySource(3, time.Second, time.Hour)),
		"not waited for": lockhttp.Of(busySource(3, time.Millisecond, 2*time.Hour)),
	}, "")
	assert.Contains(t, html, `<td class="n wrong" data-label="oldest hold">1h 00m</td>`)
	assert.Contains(t, html, `<td class="n" data-label="oldest hold">2h 00m</td>`)
}

func TestTextShowsNumbersAsThePageDoes(t *testing.T) {
	m := busySource(6000, 41*time.Second, 21*time.Second)
	m.top.Stats.Acquired, m.top.Stats.Shared = 1234567, 0
	text := page(map[string]lockhttp.Manager{"m": lockhttp.Of(m)}, "?format=text")
	assert.Contains(t, text, "waiting 6\u202f000 (longest queue 6\u202f000), acquired 1\u202f234\u202f567 (waited 0)")
	assert.Contains(t, text, "holds 31 (half within 268 ms, 99% within 268 ms, longest 270 ms), oldest hold 21 s, oldest wait 41 s, owner busy 0%\n")
	assert.NotContains(t, text, "6000")
}

func TestLiveHoldsAreShownBesideEndedOnes(t *testing.T) {
	m := map[string]lockhttp.Manager{"m": lockhttp.Of(busySource(1, time.Second, 21*time.Second))}
	html := page(m, "")
	assert.Contains(t, html, "longest 270 ms")
	assert.Contains(t, html, "now 1 grant, the oldest for 21 s")
	assert.Regexp(t, `<line class="now wrong" x1="357" x2="357"`, html)
	assert.Contains(t, html, "31 below 268 ms")
}

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	s := busySource(1, time.Second, time.Second)
	s.top.Stats.Acquired, s.top.Stats.Waits = 1_000_000, keylock.Histogram{Count: 5, Max: time.Second, Buckets: [32]uint64{20: 5}}
	m := map[string]lockhttp.Manager{"m": lockhttp.Of(s)}
	pass := func(d time.Duration, acquired uint64) {
		s.top.Stats.Uptime += d
		s.top.Stats.Acquired += acquired
		s.top.Stats.Serving += d / 4
	}
	assert.NotContains(t, page(m, "?format=text"), "\nlast ", "there was no look before")
	pass(100*time.Millisecond, 1000)
	assert.NotContains(t, page(m, "?format=text"), "\nlast ", "that was a moment ago")
	pass(1900*time.Millisecond, 1000)
	s.top.Stats.Waits.Count, s.top.Stats.Waits.Buckets[10] = 7, 2
	text := page(m, "?format=text")
	assert.Contains(t, text, "\nlast 2 s: acquired 1\u202f000/s (waited 0/s)")
	assert.Contains(t, text, "waits 2 (half within 1.05 ms")
	assert.Contains(t, text, "owner busy 25%\n")
	for range 30 {
		pass(2*time.Second, 20)
		text = page(m, "?format=text")
	}
	assert.Contains(t, text, "\nlast 10 s: acquired 10/s", "the first looks do not count any more")
	assert.Contains(t, page(m, ""), "<td>last 10 s</td>")
	pass(time.Hour, 5)
	assert.NotContains(t, page(m, "?format=text"), "\nlast ")
}

func TestHintsSayWhichOptionsWouldShowMore(t *testing.T) {
	for want, opts := range map[string][]keylock.Option{
		"WithHoldTimes WithCallers": nil, "WithHoldTimes": {keylock.WithCallers()}, "WithCallers": {keylock.WithHoldTimes()},
		"": {keylock.WithHoldTimes(), keylock.WithCallers()},
	} {
		m := keylock.Start[int](t.Context(), opts...)
		m.TryAcquire(1)
		m.Reserve(1)
		for _, format := range []string{"html", "text", "json"} {
			body := page(map[string]lockhttp.Manager{"m": lockhttp.Of(m)}, "?format="+format)
			for _, option := range []string{"WithHoldTimes", "WithCallers"} {
				assert.Equal(t, strings.Contains(want, option), strings.Contains(body, "keylock."+option+"()"), "%s: %s", want, option)
			}
		}
		m.Close()
	}
}

func TestPageSaysWhenAndWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := page(nil, "?format=text")
		assert.Regexp(t, `^2000-01-01 00:00:00 UTC  host \S+  process lockhttp.test \(\d+\)\n`, text)
		assert.Contains(t, page(nil, ""), "<b>2000-01-01 00:00:00 UTC</b>")
	})
}

func TestManagerThatDoesNotReplyHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := page(map[string]lockhttp.Manager{"a": lockhttp.Of(&source[int]{wait: true}), "b": lockhttp.Of(busySource(1, 0, 0))}, "?format=text")
		assert.Contains(t, text, "manager a\nThe manager did not reply within 2 s.\n")
		assert.Contains(t, text, "manager b\nsince start")
		assert.Contains(t, text, "\n1 manager could not be asked. 1 request waits, most of all in manager b.")
		quiet, closed := lockhttp.Of(&source[int]{}), lockhttp.Of(&source[int]{err: keylock.ErrClosed})
		a := lockhttp.Of(&source[int]{wait: true})
		began := time.Now()
		page(map[string]lockhttp.Manager{"a": a, "b": a, "c": a, "d": a, "e": a, "f": a}, "")
		assert.Equal(t, 2*time.Second, time.Since(began), "all are asked at once")
		assert.Contains(t, page(map[string]lockhttp.Manager{"a": a, "b": quiet, "c": closed}, "?format=text"),
			"\n1 manager could not be asked. Nothing waits in the others.\n")
		assert.Contains(t, page(map[string]lockhttp.Manager{"a": a}, ""), `<p class="summary wrong">1 manager could not be asked.</p>`)
	})
}

// A bad is a source that does not return.
type bad struct {
	*source[int]
	do func()
}

func (b bad) Top(context.Context, int) (keylock.Top[int], error) {
	b.do()
	return keylock.Top[int]{}, nil
}

// panicInASource panics with a value that cannot be compared.
func panicInASource(value []int) { panic(value) }

// A source that panics ends its own request, as any handler that does, and not the process.
func TestSourceThatPanicsEndsTheRequest(t *testing.T) {
	panicked := func(do func()) (p any) {
		defer func() { p = recover() }()
		page(map[string]lockhttp.Manager{"m": lockhttp.Of(bad{nil, do})}, "")
		return nil
	}
	assert.Equal(t, "lockhttp: a Source has ended its goroutine", panicked(runtime.Goexit))
	assert.Equal(t, http.ErrAbortHandler, panicked(func() { panic(http.ErrAbortHandler) }))
	p := panicked(func() { panicInASource([]int{7}) })
	assert.Contains(t, p, "[7]")
	assert.Contains(t, p, "panicInASource(", "the stack says where")
}

// A cohortSource has the engine's totals too.
type cohortSource struct{ *source[string] }

func (cohortSource) Stats(context.Context) (cohort.Stats, error) {
	return cohort.Stats{Granted: 5, Handoffs: 1234, Lost: 1}, nil
}

func TestEngineOfACohortIsShown(t *testing.T) {
	m := map[string]lockhttp.Manager{"m": lockhttp.Of(cohortSource{busySource(0, 0, 0)})}
	assert.Contains(t, page(m, ""), "5 granted · 1\u202f234 handed off within this process")
	assert.Contains(t, page(m, "?format=text"), "granted 5, refused 0, handed off 1\u202f234, lost 1")
	assert.Contains(t, page(m, "?format=json"), `"handoffs": 1234`)
}

// An account is locked by its address, and changed only under its lock.
type account struct {
	seen   map[int]bool
	secret string
}

func TestPageDoesNotReadWhatAHolderWrites(t *testing.T) {
	a := &account{seen: map[int]bool{}, secret: "hunter2"}
	pointers, anys := start[*account](t), start[any](t)
	pointers.TryAcquire(a)
	pointers.Reserve(a)
	anys.TryAcquire([1]any{a})
	managers := map[string]lockhttp.Manager{"pointers": lockhttp.Of(pointers), "anys": lockhttp.Of(anys)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i, end := 0, time.Now().Add(30*time.Millisecond); time.Now().Before(end); i++ {
			a.seen[i%1000] = true
		}
	}()
	for range 20 {
		for _, format := range []string{"html", "text", "json"} {
			body := page(managers, "?format="+format)
			assert.NotContains(t, body, "hunter2")
			assert.Contains(t, body, fmt.Sprintf("%p", a))
		}
	}
	<-over
}

// allocated returns how many bytes a page of that many costs.
func allocated(managers map[string]lockhttp.Manager, query string) (cost uint64, size int) {
	page(managers, query)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	size = len(page(managers, query))
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, size
}

// A page costs what it shows.
func TestPageCostsWhatItShows(t *testing.T) {
	t.Run("of huge keys", func(t *testing.T) {
		m := keylock.Start[string](t.Context(), keylock.WithHoldTimes())
		defer m.Close()
		for i := range 200 {
			m.TryAcquire(fmt.Sprint(i) + strings.Repeat("\x00", 1<<20))
		}
		for _, format := range []string{"html", "text", "json"} {
			cost, size := allocated(map[string]lockhttp.Manager{"m": lockhttp.Of(m)}, "?n=200&format="+format)
			assert.Less(t, cost, uint64(20<<20), format)
			assert.Less(t, size, 1<<20, format)
		}
	})
	t.Run("of many waiters", func(t *testing.T) {
		m := start[int](t)
		lock, _ := m.TryAcquire(1)
		for range 20_000 {
			m.Reserve(1)
		}
		info, err := m.Inspect(t.Context(), 1)
		require.NoError(t, err)
		lock.Release()
		for len(info.Waiters) < 300_000 {
			info.Waiters = append(info.Waiters, info.Waiters...)
		}
		info.Waiting = len(info.Waiters)
		s := map[string]lockhttp.Manager{"m": lockhttp.Of(&source[int]{key: info})}
		for _, format := range []string{"html", "text", "json"} {
			cost, size := allocated(s, "?manager=m&key=1&format="+format)
			assert.Less(t, cost, uint64(4<<20), format)
			assert.Less(t, size, 200<<10, format)
		}
	})
}

// browse opens a page in a real browser, lets it live for some seconds of its own time,
// and returns its document as it is then.
func browse(t *testing.T, address string, seconds string, flags ...string) string {
	t.Helper()
	browser := locktest.Tool(t, "chromium", "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(),
		"--virtual-time-budget=" + seconds + "000",
	}, flags...)
	out, err := exec.CommandContext(ctx, browser, append(args, "--dump-dom", address)...).Output()
	require.NoError(t, err)
	return string(out)
}

// A visited is a server that knows which paths a browser asked for.
type visited struct {
	*httptest.Server
	pages  atomic.Int64
	strays atomic.Pointer[string] // a path that only hostile text could have led to
}

func visit(t *testing.T, managers map[string]lockhttp.Manager) *visited {
	v := &visited{}
	h := lockhttp.Handler(managers)
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			v.pages.Add(1)
		case strings.HasPrefix(r.URL.Path, "/pwned"):
			v.strays.Store(&r.URL.Path)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(v.Close)
	return v
}

func TestBrowserRunsNothingHostile(t *testing.T) {
	m := start[string](t)
	for _, text := range []string{
		`<script>fetch("/pwned/script")</script>`,
		`<img src="/pwned/img" onerror="document.title='pwned'">`,
		`"><svg onload="fetch('/pwned/svg')">`,
		`</style><style>body{background:url(/pwned/style)}</style>`,
		`</script><script type="module">document.title='pwned'</script>`,
		`<iframe src="/pwned/frame"></iframe><link rel="stylesheet" href="/pwned/link">`,
		`<base href="/pwned/">`, `<meta http-equiv="refresh" content="0;url=/pwned/meta">`,
		`javascript:document.title='pwned'`,
	} {
		m.Session(text).TryAcquire(text)
		m.Session(text).Reserve(text)
	}
	v := visit(t, map[string]lockhttp.Manager{`<script>fetch("/pwned/name")</script>`: lockhttp.Of(m)})
	dom := browse(t, v.URL, "5")
	assert.Nil(t, v.strays.Load(), "hostile text made the browser ask for something")
	assert.NotContains(t, dom, "<title>pwned")
	assert.Contains(t, dom, `"&lt;script&gt;fetch(\"/pwned/script\")&lt;/script&gt;"</bdi></a>`, "it is shown")
	assert.Equal(t, 1, strings.Count(dom, "<script"))
	assert.GreaterOrEqual(t, v.pages.Load(), int64(2), "the refreshed page was judged too")
}

func TestBrowserShowsThePlotAndRefreshes(t *testing.T) {
	m := start[string](t)
	lock, _ := m.TryAcquire("before")
	next := m.Reserve("before")
	lock.Release()
	first, err := next.Wait(t.Context())
	require.NoError(t, err)
	first.Release()
	once := make(chan struct{}, 1)
	h := lockhttp.Handler(map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		select {
		case once <- struct{}{}:
			m.TryAcquire("after the first page")
		default:
		}
	}))
	t.Cleanup(server.Close)
	dom := browse(t, server.URL+"/?manager=m", "5")
	assert.Regexp(t, regexp.MustCompile(`(?s)aria-label="histogram of waits that have ended".*<rect x="\d+" y="0" width="12" height="64"`), dom)
	assert.Contains(t, dom, "after the first page", "the page shows what happened after it was loaded")
	assert.NotContains(t, dom, `class="stale"`)
}

func TestBrowserSaysWhenThereIsNoReply(t *testing.T) {
	m := start[string](t)
	h := lockhttp.Handler(map[string]lockhttp.Manager{"m": lockhttp.Of(m)})
	var pages atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			switch pages.Add(1) {
			case 1:
			case 2:
				panic(http.ErrAbortHandler)
			default:
				http.Error(w, "a proxy's page", http.StatusBadGateway)
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	dom := browse(t, server.URL, "7")
	assert.Contains(t, dom, `class="stale"`)
	assert.Contains(t, dom, "<main>", "what was shown before stays")
	assert.Greater(t, pages.Load(), int64(2))
}

// One screen is as wide as a phone, and nothing has to be scrolled sideways there, also
// not with keys that have no space to break at.
func TestBrowserFitsANarrowScreen(t *testing.T) {
	m := keylock.Start[string](t.Context(), keylock.WithHoldTimes(), keylock.WithCallers())
	t.Cleanup(func() { m.Close() })
	long := strings.Repeat("x", 5000)
	m.Session(long).TryAcquire(long)
	m.Session(long).Reserve(long)
	h := lockhttp.Handler(map[string]lockhttp.Manager{long: lockhttp.Of(m), "another": lockhttp.Of(m)})
	// The handler's policy lets no script in, so a frame around it measures the page.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/frame" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<iframe id="f" src="/page" width="390" height="800" onload="
				const d = f.contentDocument.documentElement; document.title = 'overflow ' + (d.scrollWidth - d.clientWidth)"></iframe>`))
			return
		}
		h.ServeHTTP(framed{w}, r)
	}))
	t.Cleanup(server.Close)
	assert.Contains(t, browse(t, server.URL+"/frame", "2"), "<title>overflow 0</title>")
}

// framed lets a page be shown in a frame.
type framed struct{ http.ResponseWriter }

func (w framed) WriteHeader(status int) {
	h := w.Header()
	h.Del("X-Frame-Options")
	h.Set("Content-Security-Policy", strings.Replace(h.Get("Content-Security-Policy"), "frame-ancestors 'none'", "", 1))
	w.ResponseWriter.WriteHeader(status)
}
