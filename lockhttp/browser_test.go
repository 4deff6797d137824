package lockhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/locktest"
	"github.com/seed-46f81e6d/keylock/lockhttp"
)

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
		if r.URL.Path == "/" && pages.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	dom := browse(t, server.URL, "5")
	assert.Contains(t, dom, `class="stale"`)
	assert.Greater(t, pages.Load(), int64(1))
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
