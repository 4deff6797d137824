package lockhttp

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// policy is the content security policy: nothing but the page's own style and script,
// known by their hashes, and requests to where the page came from.
var policy = fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; form-action 'self'; "+
	"base-uri 'none'; frame-ancestors 'none'", sourceHash(pageCSS), sourceHash(pageJS))

func sourceHash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"css":            func() template.CSS { return template.CSS(pageCSS) },
	"js":             func() template.JS { return template.JS(pageJS) },
	"age":            age,
	"count":          count,
	"percent":        percent,
	"rate":           rate,
	"utc":            func(t time.Time) string { return t.UTC().Format(time.DateTime + " UTC") },
	"slow":           func(d time.Duration) bool { return d >= slow },
	"busy":           func(share float64) bool { return share >= 0.8 },
	"share":          func(part, whole int) int { return 100 * part / max(whole, 1) },
	"to":             func(query string) string { return "?" + query },
	"keyURL":         func(m manager, k key) string { return "?" + m.Query + "&" + k.Query },
	"claimURL":       func(m manager, c claim) string { return "?" + m.Query + "&" + c.Query },
	"moreContenders": func(k key) int { return k.Contenders - len(k.Engine) },
	"more":           func(all int, shown []who) int { return all - len(shown) },
	"first":          func(k key, all []who) who { return k.first(all) },
}).Parse(pageHTML))

func writePage(b *bytes.Buffer, a answer) error { return page.Execute(b, a) }

// A link leads to a manager.
type link struct{ Query, Name string }

// Links lead to all managers.
func (a answer) Links() (links []link) {
	for _, name := range a.names {
		links = append(links, link{url.Values{"manager": {name}}.Encode(), show.Bare(&name)})
	}
	return links
}

// LongestQueue is the key with the longest queue; nil for none.
func (m manager) LongestQueue() *key { return firstKey(m.LongestQueues) }

// OldestHold is the key that has been held for longest; nil for none.
func (m manager) OldestHold() *key { return firstKey(m.OldestHolds) }

// OldestWaiting is the key of the oldest wait, as far as it is known; nil for none.
func (m manager) OldestWaiting() *key {
	for i := range m.LongestQueues {
		k := &m.LongestQueues[i]
		if k.first(k.Waiters).Age == m.OldestWait {
			return k
		}
	}
	return nil
}

func firstKey(keys []key) *key {
	if len(keys) == 0 {
		return nil
	}
	return &keys[0]
}

// A plot is a histogram drawn: one bar for each bucket, on the same axis always, so that
// plots can be compared and do not jump when they are refreshed.
type plot struct {
	Title, Live string
	Of          keylock.Histogram
	Recent      *histogram
	Seconds     float64

	Width  int
	Bars   []bar
	Ticks  []tick
	Oldest int // where the oldest live one would be counted; 0 for none
	Wrong  bool
}

type bar struct {
	X, Y, Height int
	Title        string
}

type tick struct {
	X    int
	Text string
}

const (
	plotHeight = 64
	barWidth   = 14
	labelRest  = 8 // of the last label, which is longer than its bar is broad
)

// Plots draw how long waits and holds took, and how long the oldest of now has lasted.
func (m manager) Plots() (plots []plot) {
	s := m.Stats
	waits := newPlot("waits that have ended", s.Waits.All, m.OldestWait, m.OldestWait >= slow)
	waits.Live = fmt.Sprintf("now %s", plural(s.Waiting, "waiter"))
	if s.Waiting > 0 {
		waits.Live += fmt.Sprintf(", the oldest for %s", age(m.OldestWait))
	}
	holds := newPlot("holds that have ended", s.Holds.All, s.All.OldestHold, m.OldestHold() != nil && m.OldestHold().Slow())
	holds.Live = fmt.Sprintf("now %s", plural(s.Held, "grant"))
	if s.Held > 0 {
		holds.Live += fmt.Sprintf(", the oldest for %s", age(s.All.OldestHold))
	}
	if r := m.Recent; r != nil {
		waits.Recent, holds.Recent, waits.Seconds, holds.Seconds = &r.Waits, &r.Holds, r.Seconds, r.Seconds
	}
	if s.Waits.Count > 0 || s.Waiting > 0 {
		plots = append(plots, waits)
	}
	if s.All.Timed && (s.Holds.Count > 0 || s.Held > 0) {
		plots = append(plots, holds)
	}
	return plots
}

// newPlot draws a histogram, and where the oldest of now would be counted.
func newPlot(title string, h keylock.Histogram, oldest time.Duration, wrong bool) plot {
	p := plot{Title: title, Of: h, Wrong: wrong, Width: len(h.Buckets)*barWidth + labelRest}
	most := max(slices.Max(h.Buckets[:]), 1)
	for i, n := range h.Buckets {
		x, last := i*barWidth, i == len(h.Buckets)-1
		if n > 0 {
			title := fmt.Sprintf("%s below %s", count(n), short(h.Bound(i)))
			if last {
				title = fmt.Sprintf("%s longer than %s", count(n), short(h.Bound(i-1)))
			}
			height := max(int(n*plotHeight/most), 2) // so that the few slow ones are seen
			p.Bars = append(p.Bars, bar{X: x + 1, Y: plotHeight - height, Height: height, Title: title})
		}
		if i%5 == 0 && !last {
			p.Ticks = append(p.Ticks, tick{X: x + barWidth, Text: short(h.Bound(i))})
		}
	}
	if oldest > 0 {
		p.Oldest = bucket(oldest)*barWidth + barWidth/2
	}
	return p
}
