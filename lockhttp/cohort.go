package lockhttp

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/internal/show"
)

// OfCohort makes a cohort fit for [Handler]. It is shown like the manager of its process, in which the key
// that the process waits for at the engine counts as held, and with its engine: what it did, and the claims
// that have waited there for longest. One key is shown with the engine's queue, in all processes. A nil m panics,
// and so does one that was not made by Start.
func OfCohort(m *cohort.Manager) Manager {
	if m == nil {
		panic("lockhttp: OfCohort with a nil manager")
	}
	m.Done() // panics for one that was not started
	last := new(memory)
	return Manager{
		look: func(ctx context.Context, n, entries int) (manager, error) {
			seen := &cohortSource{m: m}
			shown, err := look(ctx, seen, last, n, entries)
			if err == nil {
				shown.Engine = newEngine(seen.top.Stats, seen.top.OldestWaits)
				shown.Hints = hints(shown)
			}
			return shown, err
		},
		inspect: func(ctx context.Context, q query, n int) (manager, error) {
			seen := &cohortSource{m: m}
			shown, err := inspect(ctx, seen, q, n)
			if err == nil {
				shown.Key.addEngine(seen.key, n)
			}
			return shown, err
		},
	}
}

// cohortSource shows what is local, and keeps the rest.
type cohortSource struct {
	m   *cohort.Manager
	top cohort.Top
	key cohort.KeyInfo
}

func (s *cohortSource) Top(ctx context.Context, n int) (keylock.Top[string], error) {
	var err error
	s.top, err = s.m.Top(ctx, n)
	return keylock.Top[string]{
		Stats: s.top.Stats.Local, LongestQueues: local(s.top.LongestQueues), OldestHolds: local(s.top.OldestHolds),
	}, err
}

func (s *cohortSource) Inspect(ctx context.Context, key string) (keylock.KeyInfo[string], error) {
	var err error
	s.key, err = s.m.Inspect(ctx, key)
	return s.key.KeyInfo, err
}

func local(infos []cohort.KeyInfo) []keylock.KeyInfo[string] {
	local := make([]keylock.KeyInfo[string], len(infos))
	for i, info := range infos {
		local[i] = info.KeyInfo
	}
	return local
}

// An engine is what the engine of a cohort does.
type engine struct {
	Waiting  int       `json:"waiting"`
	Held     int       `json:"held"`
	Granted  uint64    `json:"granted"`
	Refused  uint64    `json:"refused"`
	Handoffs uint64    `json:"handoffs"`
	Lost     uint64    `json:"lost"`
	Kept     int       `json:"kept"`
	Hits     uint64    `json:"hits"`
	Recalls  uint64    `json:"recalls"`
	Waits    histogram `json:"waits"`
	Releases histogram `json:"releases"`

	Process      string    `json:"process,omitempty"` // what this process calls itself there
	Session      string    `json:"session,omitempty"`
	SessionBegan time.Time `json:"session_began,omitzero"`
	Sessions     uint64    `json:"sessions"`
	SessionsLost uint64    `json:"sessions_lost"`
	Retries      uint64    `json:"retries"`
	Orphans      uint64    `json:"orphans"`
	LastError    string    `json:"last_error,omitempty"`
	LastErrorAt  time.Time `json:"last_error_at,omitzero"`

	OldestWaits []claim `json:"oldest_waits,omitempty"`
}

// A claim of this process to a key at the engine.
type claim struct {
	Text  string        `json:"key,omitempty"`
	Query string        `json:"query,omitempty"` // leads to the key
	State string        `json:"state"`
	Since time.Time     `json:"since,omitzero"`
	Age   time.Duration `json:"-"`
	Token string        `json:"token,omitempty"`
	Lost  bool          `json:"lost,omitempty"`

	quoted string // Text for a sentence
}

// A contender holds the key at the engine, or waits there.
type contender struct {
	Process string        `json:"process"` // host:pid label
	Label   string        `json:"label,omitempty"`
	Host    string        `json:"host,omitempty"`
	PID     int           `json:"pid,omitempty"`
	Own     bool          `json:"own,omitempty"`
	Epoch   uint64        `json:"epoch,omitempty"`
	Since   time.Time     `json:"since,omitzero"`
	Age     time.Duration `json:"-"`
}

func newEngine(s cohort.Stats, oldest []cohort.KeyInfo) *engine {
	e := &engine{
		Process: known(s.Engine.Process.String()),
		Waiting: s.Waiting, Held: s.Held, Granted: s.Granted, Refused: s.Refused, Handoffs: s.Handoffs, Lost: s.Lost,
		Kept: s.Kept, Hits: s.Hits, Recalls: s.Recalls,
		Waits: newHistogram(s.Waits), Releases: newHistogram(s.Releases),
		Session: known(s.Engine.Session), SessionBegan: s.Engine.SessionBegan,
		Sessions: s.Engine.Sessions, SessionsLost: s.Engine.Lost, Retries: s.Engine.Retries, Orphans: s.Engine.Orphans,
	}
	if s.Engine.LastError != nil {
		text := s.Engine.LastError.Error()
		e.LastError, e.LastErrorAt = show.Bare(&text), s.Engine.LastErrorAt
	}
	for _, k := range oldest {
		c := newClaim(k.Claim)
		c.Text, c.Query, c.quoted = show.Bare(&k.Key), reference(&k.Key), show.Quoted(&k.Key)
		e.OldestWaits = append(e.OldestWaits, *c)
	}
	return e
}

// Keeps reports whether the process has kept a key.
func (e engine) Keeps() bool { return e.Kept > 0 || e.Hits > 0 || e.Recalls > 0 }

func newClaim(c cohort.Claim) *claim {
	if c.State == cohort.NoClaim {
		return nil
	}
	shown := &claim{State: c.State.String(), Since: c.Since, Age: time.Since(c.Since), Lost: c.Lost}
	if c.State != cohort.ClaimWaiting {
		shown.Token = c.Token.String()
	}
	return shown
}

// addEngine adds the claim and the engine's queue, of which it shows n.
func (k *key) addEngine(info cohort.KeyInfo, n int) {
	k.Claim = newClaim(info.Claim)
	if info.EngineErr != nil {
		text := info.EngineErr.Error()
		k.EngineError = show.Bare(&text)
	}
	k.Contenders = len(info.Engine)
	for _, c := range info.Engine[:min(n, len(info.Engine))] {
		p := c.Process
		shown := contender{
			Process: known(p.String()), Label: known(p.Label), Host: known(p.Host), PID: p.PID,
			Own: c.Own, Epoch: c.Epoch, Since: c.Since,
		}
		if !c.Since.IsZero() {
			shown.Age = time.Since(c.Since)
		}
		k.Engine = append(k.Engine, shown)
	}
}

// known shows a text that a process has given of itself; nothing where it has given none.
func known(text string) string {
	if text == "" {
		return ""
	}
	return show.Bare(&text)
}

// How says what it does, and for how long it has done that. What is kept was granted then, and used since.
func (c claim) How() string {
	if c.State == cohort.ClaimKept.String() {
		return fmt.Sprintf("%s, granted %s ago", c.State, age(c.Age))
	}
	return fmt.Sprintf("%s for %s", c.State, age(c.Age))
}

// Role says what the contender at a place of the queue does.
func (c contender) Role(i int) string {
	if i == 0 && c.Epoch > 0 { // the first of a queue waits, too, where nothing is granted yet
		return "holds"
	}
	return "waits"
}

// InQueue shows how long ago it was granted the key or entered the queue; nothing where that is not known.
func (c contender) InQueue() string {
	if c.Since.IsZero() {
		return ""
	}
	return age(c.Age)
}

// Name says which process it is.
func (c contender) Name() string {
	name := c.Process
	if name == "" {
		name = "unknown"
	}
	if c.Own {
		name += " (this process)"
	}
	return name
}
