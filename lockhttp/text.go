package lockhttp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// writeText writes an answer as text, for people at a terminal.
func writeText(b *bytes.Buffer, a answer) error {
	fmt.Fprintf(b, "%s  host %s  process %s (%d)\n", a.At.UTC().Format(time.DateTime+" UTC"), a.Host, a.Process, a.PID)
	for _, line := range []string{a.Error, a.Summary} {
		if line != "" {
			fmt.Fprintf(b, "%s\n", line)
		}
	}
	for _, m := range a.Managers {
		fmt.Fprintf(b, "\nmanager %s\n", m.Name)
		switch {
		case m.Closed:
			fmt.Fprintln(b, "closed")
		case m.Error != "":
			fmt.Fprintln(b, m.Error)
		case m.Key != nil:
			writeKey(b, *m.Key)
		default:
			writeManager(b, m)
		}
	}
	return nil
}

func writeManager(b *bytes.Buffer, m manager) {
	fmt.Fprintf(b, "since start %s ago: ", age(m.Stats.All.Uptime))
	writeStats(b, *m.Stats)
	if r := m.Recent; r != nil {
		fmt.Fprintf(b, "last %.0f s: acquired %s (waited %s), cancelled %s, rejected %s, released %s, waits %s",
			r.Seconds, rate(r.Acquired), rate(r.Waited), rate(r.Cancelled), rate(r.Rejected), rate(r.Released), spread(r.Waits))
		if m.Stats.All.Timed {
			fmt.Fprintf(b, ", ended holds %s", spread(r.Holds))
		}
		fmt.Fprintf(b, ", owner busy %s\n", percent(r.Busy))
	}
	if e := m.Engine; e != nil {
		writeEngine(b, *e)
	}
	writeKeys(b, "longest queues", m.LongestQueues)
	writeKeys(b, "oldest holds", m.OldestHolds)
	for _, hint := range m.Hints {
		fmt.Fprintf(b, "\n%s\n", hint)
	}
}

// writeStats writes the totals of a manager.
func writeStats(b *bytes.Buffer, s stats) {
	fmt.Fprintf(b, "keys %s, held %s (shared %s), waiting %s (longest queue %s), acquired %s (waited %s), cancelled %s, rejected %s, released %s, waits %s",
		count(s.Keys), count(s.Held), count(s.Shared), count(s.Waiting), count(s.LongestQueue),
		count(s.Acquired), count(s.Waited), count(s.Cancelled), count(s.Rejected), count(s.Released), spread(s.Waits))
	if s.All.Timed {
		fmt.Fprintf(b, ", holds %s, oldest hold %s, oldest wait %s", spread(s.Holds), age(s.All.OldestHold), age(s.All.OldestWait))
	}
	fmt.Fprintf(b, ", owner busy %s", percent(s.Busy))
	if s.Lost > 0 {
		fmt.Fprintf(b, ", slow log records lost %s", count(s.Lost))
	}
	fmt.Fprintln(b)
}

// spread shows how many durations a histogram has counted, and how long they were.
func spread(h histogram) string {
	if h.Count == 0 {
		return "0"
	}
	return fmt.Sprintf("%s (half within %s, 99%% within %s, longest %s)",
		count(h.Count), age(h.All.Quantile(0.5)), age(h.All.Quantile(0.99)), age(h.All.Max))
}

// writeEngine writes what the engine of a cohort does.
func writeEngine(b *bytes.Buffer, e engine) {
	fmt.Fprintf(b, "engine: waiting %s, held %s, granted %s, refused %s, handed off %s, lost %s, waits %s, releases %s\n",
		count(e.Waiting), count(e.Held), count(e.Granted), count(e.Refused), count(e.Handoffs), count(e.Lost), spread(e.Waits), spread(e.Releases))
	if e.Keeps() {
		fmt.Fprintf(b, "kept: %s keys now, found %s times, recalled %s times\n", count(e.Kept), count(e.Hits), count(e.Recalls))
	}
	if e.Sessions > 0 {
		fmt.Fprintf(b, "engine sessions: begun %s, lost %s", count(e.Sessions), count(e.SessionsLost))
		if e.Session != "" && !e.SessionBegan.IsZero() {
			fmt.Fprintf(b, ", now %s for %s", e.Session, age(time.Since(e.SessionBegan)))
		}
		if e.Process != "" {
			fmt.Fprintf(b, ", as %s", e.Process)
		}
		fmt.Fprintf(b, "; requests repeated %s, orphans removed %s\n", count(e.Retries), count(e.Orphans))
	}
	if e.LastError != "" {
		fmt.Fprintf(b, "last error of the engine, %s ago: %s\n", age(time.Since(e.LastErrorAt)), e.LastError)
	}
	if len(e.OldestWaits) > 0 {
		fmt.Fprintf(b, "\noldest waits at the engine\n")
		writeTable(b, func(row func(...any)) {
			row("waiting", "key")
			for _, c := range e.OldestWaits {
				row(age(c.Age), c.Text)
			}
		})
	}
}

// writeContenders writes the claim of this process and the engine's queue.
func writeContenders(b *bytes.Buffer, k key) {
	if c := k.Claim; c != nil {
		fmt.Fprintf(b, "\nat the engine: %s", c.How())
		if c.Token != "" {
			fmt.Fprintf(b, ", token %s", c.Token)
		}
		if c.Lost {
			fmt.Fprint(b, ", lost")
		}
		fmt.Fprintln(b)
	}
	if k.EngineError != "" {
		fmt.Fprintf(b, "\nthe engine's queue is not known: %s\n", k.EngineError)
	}
	if len(k.Engine) == 0 {
		return
	}
	fmt.Fprintf(b, "\nthe engine's queue\n")
	writeTable(b, func(row func(...any)) {
		row("", "for", "epoch", "process")
		for i, c := range k.Engine {
			epoch := ""
			if c.Epoch > 0 {
				epoch = fmt.Sprint(c.Epoch)
			}
			row(c.Role(i), c.InQueue(), epoch, c.Name())
		}
	})
	if more := k.Contenders - len(k.Engine); more > 0 {
		fmt.Fprintf(b, "and %s more\n", count(more))
	}
}

// writeKeys writes one line for each key.
func writeKeys(b *bytes.Buffer, title string, keys []key) {
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	writeTable(b, func(row func(...any)) {
		row("waiting", "first waits", "held", "held for", "by", "called from", "key")
		for _, k := range keys {
			h := k.first(k.Holders)
			row(count(k.Waiting), since(k.first(k.Waiters)), count(k.Held), since(h), h.Session, h.Caller, k.Text)
		}
	})
}

// writeKey writes one line for each holder and each waiter of a key.
func writeKey(b *bytes.Buffer, k key) {
	fmt.Fprintf(b, "key %s, held by %s, waited for by %s\n", k.Text, count(k.Held), count(k.Waiting))
	writeContenders(b, k)
	fmt.Fprintln(b)
	if k.Claim != nil {
		fmt.Fprintln(b, "in this process")
	}
	writeTable(b, func(row func(...any)) {
		row("", "for", "mode", "session", "called from", "waits for")
		for _, h := range k.Holders {
			row(fmt.Sprintf("grant %d", h.Grant), since(h), h.Mode, h.Session, h.Caller)
		}
		for _, w := range k.Waiters {
			row(fmt.Sprintf("%d.", w.Position), since(w), w.Mode, w.Session, w.Caller, w.WaitsFor)
		}
	})
	if more := k.Held - len(k.Holders); more > 0 {
		fmt.Fprintf(b, "and %s more holders\n", count(more))
	}
	if more := k.Waiting - len(k.Waiters); more > 0 {
		fmt.Fprintf(b, "and %s more waiters\n", count(more))
	}
}

// writeTable writes rows of aligned columns.
func writeTable(b *bytes.Buffer, rows func(row func(cells ...any))) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	rows(func(cells ...any) {
		line := strings.TrimSuffix(fmt.Sprintf(strings.Repeat("%v\t", len(cells)), cells...), "\t")
		_, _ = fmt.Fprintln(t, line) // a buffer does not fail
	})
	_ = t.Flush()
}

// since shows how long a request has waited or held; nothing where that is not known.
func since(w who) string {
	if w.Since.IsZero() {
		return ""
	}
	return age(w.Age)
}

// age shows a duration in three digits, or in its two largest units.
func age(d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	units := []struct {
		unit time.Duration
		name string
		most float64 // of which another unit begins
	}{{1, "ns", 1000}, {time.Microsecond, "µs", 1000}, {time.Millisecond, "ms", 1000}, {time.Second, "s", 60}}
	for _, u := range units {
		if digits := significant(float64(d)/float64(u.unit), 3); number(digits) < u.most {
			return digits + " " + u.name
		}
	}
	if r := d.Round(time.Second); r < time.Hour {
		return fmt.Sprintf("%dm %02ds", r/time.Minute, r%time.Minute/time.Second)
	}
	if r := d.Round(time.Minute); r < 48*time.Hour {
		return fmt.Sprintf("%dh %02dm", r/time.Hour, r%time.Hour/time.Minute)
	}
	r := d.Round(time.Hour)
	return fmt.Sprintf("%dd %02dh", r/(24*time.Hour), r%(24*time.Hour)/time.Hour)
}

// short shows a bound of a histogram in two digits or three.
func short(d time.Duration) string {
	unit, name := time.Microsecond, "µs"
	switch {
	case d >= time.Minute:
		unit, name = time.Minute, "min"
	case d >= time.Second:
		unit, name = time.Second, "s"
	case d >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	}
	digits, v := 2, float64(d)/float64(unit)
	if v >= 100 {
		digits = 3
	}
	return significant(v, digits) + " " + name
}

// significant shows a number in so many digits, without a power of ten.
func significant(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'e', digits-1, 64)
	v = number(text) // rounded, so that 9.999 has the digits of 10
	_, exponent, _ := strings.Cut(text, "e")
	power, _ := strconv.Atoi(exponent)
	text = strconv.FormatFloat(v, 'f', max(digits-1-power, 0), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func number(text string) float64 {
	v, _ := strconv.ParseFloat(text, 64)
	return v
}

// percent shows a share.
func percent(share float64) string { return rough(100*share) + "%" }

// rate shows a number of events in a second.
func rate(v float64) string { return rough(v) + "/s" }

// rough shows a number that is not negative in a digit after the point, and from 10 on in none.
func rough(v float64) string {
	switch {
	case v <= 0:
		return "0"
	case v < 0.1:
		return "<0.1"
	case v < 9.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return count(strconv.FormatFloat(v, 'f', 0, 64))
	}
}

// count shows a number with its thousands apart.
func count(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}
