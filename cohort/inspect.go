package cohort

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/internal/ended"
)

// Stats are the totals of a Manager.
type Stats struct {
	// Local counts what happened in this process. A contender that waits for the
	// engine holds the key locally: Held is the keys that this process holds or waits
	// for at the engine, Waiting is those who wait behind.
	Local keylock.Stats

	Waiting int // claims that wait at the engine now
	Held    int // claims that the engine has granted and not got back
	Kept    int // those of them that no caller of this process uses or waits for, see WithKeep

	Granted  uint64 // claims that the engine granted
	Refused  uint64 // claims that ended without a grant: held for a try, withdrawn, refused
	Handoffs uint64 // times that a claim was handed off within the process; where it can be kept, the next caller finds it kept instead
	Lost     uint64 // claims that the engine lost before they were given back
	Hits     uint64 // times that a caller found the key kept
	Recalls  uint64 // kept claims that were given back because another process wanted the key

	Waits    keylock.Histogram // how long the engine took to grant
	Releases keylock.Histogram // how long it took to confirm a release, up to the engine timeout

	SlowLogLost uint64 // records that WithSlowLog did not log

	Engine EngineReport // the zero report if the engine is no Reporter
}

// A State is where a claim is at the engine.
type State uint8

const (
	NoClaim      State = iota // the process asks the engine for nothing
	ClaimWaiting              // it waits in the engine's queue
	ClaimHeld                 // the engine has granted it
	ClaimKept                 // the engine has granted it, and no caller of this process uses it or waits for it
)

// String returns "none", "waiting", "held" or "kept".
func (s State) String() string {
	switch s {
	case ClaimWaiting:
		return "waiting"
	case ClaimHeld:
		return "held"
	case ClaimKept:
		return "kept"
	default:
		return "none"
	}
}

// Claim is the claim of this process to a key at the engine.
type Claim struct {
	State State
	Since time.Time // when it began to wait, or was granted
	Token Token     // of the last local holder; zero while it waits
	Lost  bool      // the engine's lock is lost, and the local holder has not released it yet
}

// KeyInfo describes one key: who holds it and waits for it in this process, at one point of the
// local manager's history, and the claim of the process at the engine, a moment later.
type KeyInfo struct {
	keylock.KeyInfo[string]
	Claim Claim

	// Engine is who holds the key at the engine and who waits there, in all processes, first the holder.
	// Inspect asks for it, and Snapshot for the keys that the process waits for at the engine; it is nil if the engine
	// is no Inspector, or if EngineErr says why it could not tell.
	Engine    []Contender
	EngineErr error
}

// String describes the key in one line, for people.
func (k KeyInfo) String() string {
	var b strings.Builder
	b.WriteString(k.KeyInfo.String())
	if k.Claim.State != NoClaim {
		since := " since"
		if k.Claim.State == ClaimKept {
			since = ", granted"
		}
		fmt.Fprintf(&b, "; at the engine %v%s %v", k.Claim.State, since, k.Claim.Since.Format(time.RFC3339))
		if k.Claim.State != ClaimWaiting {
			fmt.Fprintf(&b, " with token %v", k.Claim.Token)
		}
		if k.Claim.Lost {
			b.WriteString(", lost")
		}
	}
	for i, c := range k.Engine {
		if i == 4 {
			fmt.Fprintf(&b, "; and %d more", len(k.Engine)-i)
			break
		}
		role := "waits for"
		if i == 0 && c.Epoch > 0 {
			role = "holds"
		}
		fmt.Fprintf(&b, "; %s %s it there", textOr(c.Process.String(), "an unknown process"), role)
	}
	return b.String()
}

// Top is what one would look at first.
type Top struct {
	Stats         Stats
	LongestQueues []KeyInfo // the keys with the most local waiters, most first
	OldestHolds   []KeyInfo // the keys that have been held locally for longest, longest first; needs keylock.WithHoldTimes
	OldestWaits   []KeyInfo // the keys that have waited at the engine for longest, longest first, with nothing but Key and Claim
}

// Stats returns the manager's totals. Those of Local are of one moment; the others are
// of a moment later. It returns [ErrClosed] after the end, and an error that wraps ctx.Err() when ctx ends
// first.
func (m *Manager) Stats(ctx context.Context) (Stats, error) {
	m.mustBeStarted()
	local, err := m.local.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	return m.stats(ctx, local)
}

// stats adds to the totals of the local manager.
func (m *Manager) stats(ctx context.Context, local keylock.Stats) (Stats, error) {
	s := Stats{Local: local}
	err := m.claims.ask(ctx, func(cs *claims) {
		s.Waiting, s.Held = cs.waiting, len(cs.byKey)-cs.waiting
		s.Granted, s.Refused, s.Lost = cs.granted, cs.refused, cs.lost
		s.Waits, s.Releases = cs.waits, cs.releases
		if cs.slow != nil {
			s.SlowLogLost = cs.slow.lost
		}
	})
	if err != nil {
		return Stats{}, err
	}
	s.Handoffs = m.handoffs.Load()
	if k := m.keeper; k != nil {
		free := s.Waiting + s.Held - local.Keys                // those on their way from one caller to the next are not free
		s.Kept = max(min(int(k.kept.Load()), s.Held, free), 0) // they may have become more since the others were counted
		s.Hits, s.Recalls = k.hits.Load(), k.recalls.Load()
	}
	if r, ok := m.engine.(Reporter); ok {
		s.Engine = r.Report()
	}
	return s, nil
}

// Snapshot returns every key that this process holds or contends for, as of one moment, and after them those that it
// keeps, see [WithKeep], as of a moment later. A key that this process waits for at the engine counts as held locally; who
// holds it there, the engine is then asked, for at most [WithEngineTimeout]. It
// returns [ErrClosed] after the end, and an error that wraps ctx.Err() when ctx ends first.
func (m *Manager) Snapshot(ctx context.Context) ([]KeyInfo, error) {
	m.mustBeStarted()
	ctx = ended.Sound(ctx)
	local, err := m.local.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	infos, err := m.withClaims(ctx, local)
	if err != nil {
		return nil, err
	}
	m.withQueues(ctx, infos)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.keeper == nil {
		return infos, nil
	}
	known := make(map[string]bool, len(local))
	for _, k := range local {
		known[k.Key] = true
	}
	err = m.claims.ask(ctx, func(cs *claims) {
		for key := range cs.byKey {
			if claim := cs.info(key); claim.State == ClaimKept && !known[key] {
				infos = append(infos, KeyInfo{KeyInfo: keylock.KeyInfo[string]{Key: key}, Claim: claim})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// withClaims adds to what is known locally.
func (m *Manager) withClaims(ctx context.Context, local []keylock.KeyInfo[string]) ([]KeyInfo, error) {
	infos := make([]KeyInfo, len(local))
	err := m.claims.ask(ctx, func(cs *claims) {
		for i, k := range local {
			infos[i] = KeyInfo{KeyInfo: k, Claim: cs.info(k.Key)}
			if c := &infos[i].Claim; c.State == ClaimKept && k.Held+k.Waiting > 0 {
				c.State = ClaimHeld // it is on its way from one caller to the next, or was a moment ago
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// Top returns at most n keys of each kind, and the totals. It asks the engine nothing. It returns
// [ErrClosed] after the end, and an error that wraps ctx.Err() when ctx ends first. A negative n is 0.
func (m *Manager) Top(ctx context.Context, n int) (Top, error) {
	m.mustBeStarted()
	local, err := m.local.Top(ctx, n)
	if err != nil {
		return Top{}, err
	}
	var top Top
	if top.Stats, err = m.stats(ctx, local.Stats); err != nil {
		return Top{}, err
	}
	if top.LongestQueues, err = m.withClaims(ctx, local.LongestQueues); err != nil {
		return Top{}, err
	}
	if top.OldestHolds, err = m.withClaims(ctx, local.OldestHolds); err != nil {
		return Top{}, err
	}
	err = m.claims.ask(ctx, func(cs *claims) {
		if cs.waiting == 0 {
			return
		}
		for key := range cs.byKey {
			if claim := cs.info(key); claim.State == ClaimWaiting {
				top.OldestWaits = append(top.OldestWaits, KeyInfo{KeyInfo: keylock.KeyInfo[string]{Key: key}, Claim: claim})
			}
		}
	})
	if err != nil {
		return Top{}, err
	}
	slices.SortFunc(top.OldestWaits, func(a, b KeyInfo) int { return a.Claim.Since.Compare(b.Claim.Since) })
	top.OldestWaits = slices.Clip(top.OldestWaits[:min(max(n, 0), len(top.OldestWaits))])
	return top, nil
}

// Inspect describes one key, and asks the engine who holds it and who waits for it in all processes. If the
// engine cannot tell, the rest is returned all the same. It returns [ErrClosed] after the
// end, and an error that wraps ctx.Err() when ctx ends first.
func (m *Manager) Inspect(ctx context.Context, key string) (KeyInfo, error) {
	m.mustBeStarted()
	local, err := m.local.Inspect(ctx, key)
	if err != nil {
		return KeyInfo{}, err
	}
	infos, err := m.withClaims(ctx, []keylock.KeyInfo[string]{local})
	if err != nil {
		return KeyInfo{}, err
	}
	info := infos[0]
	if engine, ok := m.engine.(Inspector); ok {
		info.Engine, info.EngineErr = engine.Inspect(ctx, key)
		if err := ctx.Err(); err != nil && info.EngineErr != nil {
			return KeyInfo{}, err
		}
	}
	return info, nil
}

// heldHere is the error of a try that finds the key held or waited for in this process.
func (m *Manager) heldHere(ctx context.Context, key string) error {
	var c Claim
	if err := m.claims.ask(ctx, func(cs *claims) { c = cs.info(key) }); err != nil || c.State != ClaimHeld && c.State != ClaimKept {
		return ErrHeld // also if this process waits at the engine, for a holder that only the engine knows
	}
	held := &HeldError{Key: key, Holder: Contender{Since: c.Since, Epoch: c.Token.Epoch, Own: true}}
	if r, ok := m.engine.(Reporter); ok {
		held.Holder.Process = r.Report().Process
	}
	return held
}

// inspectors is how many keys a Snapshot asks the engine about at a time.
const inspectors = 8

// withQueues adds the engine's queues to the keys that wait there.
func (m *Manager) withQueues(ctx context.Context, infos []KeyInfo) {
	engine, ok := m.engine.(Inspector)
	if !ok {
		return
	}
	var waiting []*KeyInfo
	for i := range infos {
		if infos[i].Claim.State == ClaimWaiting {
			waiting = append(waiting, &infos[i])
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.engineTimeout)
	defer cancel()
	next, done := make(chan *KeyInfo), make(chan struct{})
	workers := min(inspectors, len(waiting))
	for range workers {
		go func() {
			for k := range next {
				k.Engine, k.EngineErr = engine.Inspect(ctx, k.Key)
			}
			done <- struct{}{}
		}()
	}
	for _, k := range waiting {
		next <- k
	}
	close(next)
	for range workers {
		<-done
	}
}
