package lockhttp

import (
	"bytes"
	"fmt"
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
	fmt.Fprintf(b, "since start %s ago: %v\n", age(m.Stats.All.Uptime), m.Stats.All)
	if r := m.Recent; r != nil {
		fmt.Fprintf(b, "last %.0f s: acquired %s (waited %s), cancelled %s, rejected %s, released %s, waits %v",
			r.Seconds, rate(r.Acquired), rate(r.Waited), rate(r.Cancelled), rate(r.Rejected), rate(r.Released), r.Waits.All)
		if m.Stats.All.Timed {
			fmt.Fprintf(b, ", ended holds %v", r.Holds.All)
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

// writeEngine writes what the engine of a cohort does.
func writeEngine(b *bytes.Buffer, e engine) {
	fmt.Fprintf(b, "engine: waiting %d, held %d, granted %d, refused %d, handed off %d, lost %d, waits %v, releases %v\n",
		e.Waiting, e.Held, e.Granted, e.Refused, e.Handoffs, e.Lost, e.Waits.All, e.Releases.All)
	if e.Keeps() {
		fmt.Fprintf(b, "kept: %d keys now, found %d times, recalled %d times\n", e.Kept, e.Hits, e.Recalls)
	}
	if e.Sessions > 0 {
		fmt.Fprintf(b, "engine sessions: begun %d, lost %d", e.Sessions, e.SessionsLost)
		if e.Session != "" && !e.SessionBegan.IsZero() {
			fmt.Fprintf(b, ", now %s for %s", e.Session, age(time.Since(e.SessionBegan)))
		}
		if e.Process != "" {
			fmt.Fprintf(b, ", as %s", e.Process)
		}
		fmt.Fprintf(b, "; requests repeated %d, orphans removed %d\n", e.Retries, e.Orphans)
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
		fmt.Fprintf(b, "\nat the engine: %s for %s", c.State, age(c.Age))
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
		fmt.Fprintf(b, "and %d more\n", more)
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
			row(k.Waiting, since(k.first(k.Waiters)), k.Held, since(h), h.Session, h.Caller, k.Text)
		}
	})
}

// writeKey writes one line for each holder and each waiter of a key.
func writeKey(b *bytes.Buffer, k key) {
	fmt.Fprintf(b, "key %s, held by %d, waited for by %d\n\n", k.Text, k.Held, k.Waiting)
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
		fmt.Fprintf(b, "and %d more holders\n", more)
	}
	if more := k.Waiting - len(k.Waiters); more > 0 {
		fmt.Fprintf(b, "and %d more waiters\n", more)
	}
	writeContenders(b, k)
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
