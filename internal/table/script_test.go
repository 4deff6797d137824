package table_test

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/internal/table"
)

var update = flag.Bool("update", false, "rewrite the effects in testdata to what the table does")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScripts runs every script of testdata. A script begins with its name, as -- NAME --,
// and is a list of steps. A step is one line, and its effects are below it, indented; a
// step without effects has none. What begins with # is a comment. The steps are:
//
//	table [max-waiters=N] [shared-limit=N] [part=N]
//	                                        begins anew with an empty table
//	NAME: lock [KEY...]                     asks for keys, alone; NAME stands for the request
//	NAME: share KEY                         asks for a key, with other sharers
//	NAME: take KEY[+[LIMIT]]...             asks for keys, those with a + shared, up to a limit
//	NAME: try-lock [KEY...]                 asks, but does not wait
//	NAME: try-share KEY
//	NAME: VERB [KEY...] in SESSION          asks for a session
//	cancel NAME                             cancels a wait
//	cancel-all                              cancels every wait
//	release NAME                            releases the grant of NAME, even if it has ended
//	handoff NAME                            releases it only if a waiter is granted by that, which finds its name
//	downgrade NAME                          makes the grant of NAME shared
//	watch NAME                              watches the grant of NAME until a request has to wait for it
//	unwatch                                 ends all watches
//	close SESSION                           ends all that a session waits for and holds
//	go-on                                   lets the next postponed waiters go on
//	queues                                  shows each key, as holders | waiters
//	counts                                  shows the totals
//	contains KEY                            asks whether a key is held or waited for
//	live NAME                               asks whether the grant of NAME has not ended
//	refuse                                  counts a request that its caller refused
//
// After every step the table must pass its own Check.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		scripts := strings.Split("\n"+string(text), "\n-- ")
		require.Empty(t, scripts[0], "%s begins without a name", file)
		var updated strings.Builder
		for _, script := range scripts[1:] {
			name, want, named := strings.Cut(script, " --\n")
			require.True(t, named, script)
			t.Run(name, func(t *testing.T) {
				got := runScript(t, want)
				fmt.Fprintf(&updated, "\n-- %s --\n%s", name, got)
				if !*update {
					assert.Equal(t, want, got)
				}
			})
		}
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(strings.TrimPrefix(updated.String(), "\n")), 0o666))
		}
	}
}

// runScript returns a script with its effects as they are.
func runScript(t *testing.T, text string) string {
	var out strings.Builder
	s := newScript(table.Config{})
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		step := lines.Text()
		if strings.HasPrefix(step, "\t") {
			continue // effects are written anew
		}
		fmt.Fprintln(&out, step)
		if step == "" || strings.HasPrefix(step, "#") {
			continue
		}
		effects, err := s.step(strings.Fields(step))
		require.NoError(t, err, "line %d: %s", n, step)
		for _, tag := range s.over() {
			effects = append(effects, fmt.Sprintf("the watch of %v is over", tag))
		}
		for _, effect := range effects {
			fmt.Fprintf(&out, "\t%s\n", effect)
		}
		require.NoError(t, s.table.Check(), "line %d: %s", n, step)
	}
	require.NoError(t, lines.Err())
	return out.String()
}

// A script is the state of one that runs.
type script struct {
	table   *table.Table[string]
	tickets map[string]*table.Ticket[string] // of those that wait
	tokens  map[string]table.Token[string]   // of all that were ever granted

	sessions map[string]*table.Session[string]
}

func newScript(config table.Config) *script {
	return &script{
		table:    table.New[string](config),
		tickets:  make(map[string]*table.Ticket[string]),
		tokens:   make(map[string]table.Token[string]),
		sessions: make(map[string]*table.Session[string]),
	}
}

// session returns the session with that label, which begins when it is first named.
func (s *script) session(label string) *table.Session[string] {
	if s.sessions[label] == nil {
		s.sessions[label] = table.NewSession[string](label)
	}
	return s.sessions[label]
}

// step makes one step and returns its effects.
func (s *script) step(words []string) ([]string, error) {
	if name, ok := strings.CutSuffix(words[0], ":"); ok {
		return s.join(name, words[1:])
	}
	verb, args := words[0], words[1:]
	switch verb {
	case "table":
		config, err := parseConfig(args)
		*s = *newScript(config)
		return nil, err
	case "cancel":
		ticket := s.tickets[args[0]]
		if ticket == nil {
			return nil, fmt.Errorf("%s does not wait", args[0])
		}
		delete(s.tickets, args[0])
		return s.granted(s.table.Cancel(ticket)), nil
	case "cancel-all":
		return s.cancelled(s.table.CancelAll()), nil
	case "close":
		cancelled, _, granted := s.table.CloseSession(s.session(args[0]))
		return append(s.cancelled(cancelled), s.granted(granted)...), nil
	case "release", "handoff":
		token, ok := s.tokens[args[0]]
		if !ok {
			return nil, fmt.Errorf("%s was never granted", args[0])
		}
		if verb == "handoff" {
			if _, alone := s.table.NextWaiter(token); !alone {
				return s.granted(nil), nil
			}
		}
		if verb == "handoff" {
			return s.granted(s.table.Handoff(token, args[0])), nil
		}
		return s.granted(s.table.Release(token)), nil
	case "downgrade":
		return s.granted(s.table.Downgrade(s.tokens[args[0]])), nil
	case "watch":
		switch tag := s.table.Watch(s.tokens[args[0]], args[0]); tag {
		case nil:
			return []string{args[0] + " is not watched"}, nil
		default:
			return []string{fmt.Sprintf("%v is watched", tag)}, nil
		}
	case "go-on":
		return s.granted(s.table.GoOn(1)), nil
	case "unwatch":
		s.table.Unwatch()
		return nil, nil
	case "queues":
		var effects []string
		queues := slices.Collect(s.table.All())
		slices.SortFunc(queues, func(a, b table.View[string]) int { return cmp.Compare(a.Key, b.Key) })
		for _, queue := range queues {
			effects = append(effects, showQueue(queue.Key, queue.Entries))
		}
		if s.table.Idle() {
			effects = append(effects, "idle")
		}
		return effects, nil
	case "counts":
		c := s.table.Counts()
		return []string{
			fmt.Sprintf("%d keys, %d held, %d of them shared, %d waiting", c.Keys, c.Held, c.Shared, c.Waiting),
			fmt.Sprintf("%d acquired, %d waited, %d cancelled, %d rejected, %d released",
				c.Acquired, c.Waited, c.Cancelled, c.Rejected, c.Released),
		}, nil
	case "contains":
		v := s.table.Look(args[0])
		return []string{strconv.FormatBool(v.Held+v.Waiting > 0)}, nil
	case "live":
		return []string{strconv.FormatBool(s.tokens[args[0]].Live())}, nil
	case "refuse":
		s.table.Reject()
		return nil, nil
	}
	return nil, fmt.Errorf("unknown step %q", verb)
}

// over returns whose watches are over, by name.
func (s *script) over() (names []string) {
	for _, tag := range s.table.Over() {
		names = append(names, tag.(string))
	}
	slices.Sort(names)
	return names
}

// join makes a request that is known by name from now on.
func (s *script) join(name string, words []string) ([]string, error) {
	verb, keys := words[0], words[1:]
	r := table.Request[string]{Tag: name}
	if n := len(keys) - 2; n >= 0 && keys[n] == "in" {
		r.Session = s.session(keys[n+1])
		keys = keys[:n]
	}
	verb, r.Try = strings.CutPrefix(verb, "try-")
	switch {
	case verb == "share":
		r.Key, r.Mode = keys[0], table.Shared
	case verb == "take":
		for _, key := range keys {
			key, limit, shared := strings.Cut(key, "+")
			is := table.Terms{}
			if shared {
				n, _ := strconv.Atoi(limit)
				is = table.Terms{Mode: table.Shared, Limit: int32(n)}
			}
			r.Keys, r.Each = append(r.Keys, key), append(r.Each, is)
		}
	case verb != "lock":
		return nil, fmt.Errorf("unknown step %q", verb)
	case len(keys) == 1:
		r.Key = keys[0]
	default:
		r.Keys = keys
	}
	switch a := s.table.Join(&r); a.Outcome {
	case table.Granted:
		return s.granted([]table.Grant[string]{{Tag: name, Token: a.Token}}), nil
	case table.Waiting:
		s.tickets[name] = a.Ticket
		return []string{name + " waits"}, nil
	case table.Busy:
		return []string{name + " is refused: busy"}, nil
	case table.Full:
		return []string{fmt.Sprintf("%s is refused: the queue for %s is full", name, a.Refusal.Key)}, nil
	case table.Closed:
		return []string{name + " is refused: closed"}, nil
	case table.Deadlock:
		effects := []string{name + " is refused: deadlock"}
		for _, e := range a.Refusal.Cycle {
			relation := "claimed"
			if e.Held {
				relation = "held"
			}
			effects = append(effects, fmt.Sprintf("%s waits for %s, %s by %s", who(e.Waiter), e.Key, relation, who(e.Blocker)))
		}
		return effects, nil
	default:
		return nil, fmt.Errorf("unknown outcome %d", a.Outcome)
	}
}

// cancelled shows whose waits were ended, by name, because those that are cancelled together
// come in no particular order.
func (s *script) cancelled(tags []any) []string {
	var effects []string
	for _, tag := range tags {
		delete(s.tickets, tag.(string))
		effects = append(effects, fmt.Sprintf("%s cancelled", tag))
	}
	slices.Sort(effects)
	return effects
}

// granted shows grants, in the order in which they were made.
func (s *script) granted(grants []table.Grant[string]) []string {
	var effects []string
	for _, g := range grants {
		name := g.Tag.(string)
		delete(s.tickets, name)
		s.tokens[name] = g.Token
		effect := fmt.Sprintf("%s granted #%d", name, g.Token.Seq())
		if g.Value != nil {
			effect += fmt.Sprintf(" from %s", g.Value)
		}
		effects = append(effects, effect)
	}
	return effects
}

// showQueue shows the holders of a key, by the numbers of their grants, and its waiters.
func showQueue(key string, entries iter.Seq[table.Entry]) string {
	var holders, waiters []string
	for p := range entries {
		words := []string{}
		if p.Seq != 0 {
			words = append(words, fmt.Sprintf("#%d", p.Seq))
		}
		if p.Mode == table.Shared {
			words = append(words, "shared")
		} else if p.Seq == 0 {
			words = append(words, "exclusive")
		}
		if p.Label != "" {
			words = append(words, "in", p.Label)
		}
		text := strings.Join(words, " ")
		if p.Seq != 0 {
			holders = append(holders, text)
		} else {
			waiters = append(waiters, text)
		}
	}
	return fmt.Sprintf("%s: %s | %s", key, list(holders), list(waiters))
}

func list(texts []string) string {
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

// who names a session by its label.
func who(label string) string {
	if label == "" {
		return "a request of no session"
	}
	return label
}

func parseConfig(args []string) (table.Config, error) {
	var config table.Config
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			return config, err
		}
		switch name {
		case "max-waiters":
			config.MaxWaiters = n
		case "shared-limit":
			config.SharedLimit = n
		case "part":
			config.Part = n
		default:
			return config, fmt.Errorf("unknown setting %q", name)
		}
	}
	return config, nil
}
