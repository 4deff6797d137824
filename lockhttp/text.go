package lockhttp

import (
	"bytes"
	"fmt"
	"text/tabwriter"
)

// writeText writes an answer as text, for people at a terminal.
func writeText(b *bytes.Buffer, a answer) error {
	if a.Error != "" {
		fmt.Fprintln(b, a.Error)
	}
	for _, m := range a.Managers {
		name, _ := cut(m.Name)
		fmt.Fprintf(b, "manager %s\n", name)
		switch {
		case m.Closed:
			fmt.Fprintln(b, "is closed")
		case m.Error != "":
			fmt.Fprintln(b, m.Error)
		case m.Key != nil:
			writeKey(b, *m.Key)
		default:
			fmt.Fprintln(b, m.Stats.All)
			writeKeys(b, "longest queues", m.LongestQueues)
			writeKeys(b, "oldest holds", m.OldestHolds)
		}
		fmt.Fprintln(b)
	}
	return nil
}

// writeKeys writes one line for each key.
func writeKeys(b *bytes.Buffer, title string, keys []key) {
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "waiting\theld\tfor\tby\tfrom\tkey")
	for _, k := range keys {
		var h who
		if len(k.Holders) > 0 {
			h = k.Holders[0]
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\n", k.Waiting, k.Held, since(h), h.Session, h.Caller, k.Text)
	}
	_ = t.Flush() // a buffer does not fail
}

// writeKey writes one line for each holder and each waiter of a key.
func writeKey(b *bytes.Buffer, k key) {
	fmt.Fprintf(b, "key %s, held by %d, waited for by %d\n\n", k.Text, k.Held, k.Waiting)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tfor\tmode\tsession\tfrom\twaits for")
	for _, h := range k.Holders {
		fmt.Fprintf(t, "grant %d\t%s\t%s\t%s\t%s\t\n", h.Grant, since(h), h.Mode, h.Session, h.Caller)
	}
	for _, w := range k.Waiters {
		fmt.Fprintf(t, "%d.\t%s\t%s\t%s\t%s\t%s\n", w.Position, since(w), w.Mode, w.Session, w.Caller, w.WaitsFor)
	}
	_ = t.Flush()
}

// since tells how long somebody has waited or held; nothing where that is not known.
func since(w who) string {
	if w.Since.IsZero() {
		return ""
	}
	return age(w.Age)
}
