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
	"css":   func() template.CSS { return template.CSS(pageCSS) },
	"js":    func() template.JS { return template.JS(pageJS) },
	"age":   age,
	"count": count,
	"plot":  newPlot,
	"titled": func(title string, of keylock.Histogram) any {
		return struct {
			Title string
			Of    keylock.Histogram
		}{title, of}
	},
	"share": func(part, whole int) int { return 100 * part / max(whole, 1) },
	"percent": func(share float64) string {
		if share < 0.1 {
			return fmt.Sprintf("%.2g%%", 100*share)
		}
		return fmt.Sprintf("%.0f%%", 100*share)
	},
	"keyURL": func(manager string, k key) string { return managerURL(manager) + "&" + k.Query },
	"url":    managerURL,
	"more":   func(all int, shown []who) int { return all - len(shown) },
	"first": func(all []who) (first who) {
		if len(all) > 0 {
			first = all[0]
		}
		return first
	},
}).Parse(pageHTML))

func managerURL(name string) string { return "?" + url.Values{"manager": {name}}.Encode() }

func writePage(b *bytes.Buffer, a answer) error { return page.Execute(b, a) }

// age tells a duration in the two units that matter.
func age(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d)
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd %02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// count tells a number with its thousands apart.
func count(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

// A plot is a histogram drawn: one bar for each bucket, on the same axis always, so that
// plots can be compared and do not jump when they are refreshed.
type plot struct {
	Width int
	Bars  []bar
	Ticks []tick
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

// newPlot draws a histogram; nil when it is empty.
func newPlot(h keylock.Histogram) *plot {
	if h.Count == 0 {
		return nil
	}
	p := &plot{Width: len(h.Buckets)*barWidth + labelRest}
	most := slices.Max(h.Buckets[:])
	for i, n := range h.Buckets {
		x, last := i*barWidth, i == len(h.Buckets)-1
		title := fmt.Sprintf("%s below %s", count(n), short(h.Bound(i)))
		if last {
			title = fmt.Sprintf("%s longer than %s", count(n), short(h.Bound(i-1)))
		}
		if n > 0 {
			height := max(int(n*plotHeight/most), 2) // so that the few slow ones are seen
			p.Bars = append(p.Bars, bar{X: x + 1, Y: plotHeight - height, Height: height, Title: title})
		}
		if i%5 == 0 && !last {
			p.Ticks = append(p.Ticks, tick{X: x + barWidth, Text: short(h.Bound(i))})
		}
	}
	return p
}

// short tells a bound of a histogram in two digits.
func short(d time.Duration) string {
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{time.Minute, "min"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if d >= unit.d {
			return fmt.Sprintf("%.2g %s", float64(d)/float64(unit.d), unit.name)
		}
	}
	return fmt.Sprintf("%.2g µs", float64(d)/float64(time.Microsecond))
}
