package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed-46f81e6d/keylock/examples/threatscore/sshlog"
	"github.com/seed-46f81e6d/keylock/examples/threatscore/store"
)

// source is what a sequential pass finds out about an address.
type source struct {
	addr   netip.Addr
	score  int64
	counts [sshlog.Kinds]int64 // how often each kind of event happened
}

// tally is the sequential pass: one event after the other, into a map. It leaves out the events
// that the run did not come to.
func tally(events []sshlog.Event, r result) map[netip.Addr]source {
	sources := make(map[netip.Addr]source)
	for i, e := range events {
		if !r.outcomes[i].committed {
			continue
		}
		s := sources[e.Addr]
		s.addr = e.Addr
		s.score += points(e)
		s.counts[e.Kind] += e.Count
		sources[e.Addr] = s
	}
	return sources
}

// verify returns nil if the database holds for every address what the sequential pass says and
// every address over the threshold was blocked by exactly one transaction, or an error with a
// line for each address where that is not so.
func verify(events []sshlog.Event, r result, threshold int64) error {
	sources := tally(events, r)
	blocks := make(map[netip.Addr]int)
	for i, o := range r.outcomes {
		if o.blocked {
			blocks[events[i].Addr]++
		}
	}

	var wrong []string
	for _, addr := range addresses(sources, r.records) {
		want := store.Record{Score: sources[addr].score, Blocked: sources[addr].score > threshold}
		wantBlocks := 0
		if want.Blocked {
			wantBlocks = 1
		}
		if got := r.records[addr]; got != want || blocks[addr] != wantBlocks {
			wrong = append(wrong, fmt.Sprintf("\n%v: score %d, record blocked: %t, times blocked: %d; sequentially %d, %t, %d",
				addr, got.Score, got.Blocked, blocks[addr], want.Score, want.Blocked, wantBlocks))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s, these addresses differ from a sequential pass:%s", r, strings.Join(wrong, ""))
	}
	return nil
}

// addresses returns all that occur in the pass or in the database, sorted.
func addresses(sources map[netip.Addr]source, records map[netip.Addr]store.Record) []netip.Addr {
	var all []netip.Addr
	for addr := range sources {
		all = append(all, addr)
	}
	for addr := range records {
		if _, known := sources[addr]; !known {
			all = append(all, addr)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}
