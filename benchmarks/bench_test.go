package main

import (
	"strings"
	"testing"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/peers"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/workloads"
)

// BenchmarkPeers is every workload with every peer, one after the other, for benchstat:
//
//	go test -C benchmarks -run '^$' -bench '/workload=hot/peer=keylock$' -count 10 . >new.txt
//	benchstat -col /peer new.txt
//
// To compare peers use the command, which measures them in turns.
func BenchmarkPeers(b *testing.B) {
	for _, w := range workloads.All() {
		b.Run(label("workload", w.Name), func(b *testing.B) {
			for _, peer := range peers.All() {
				if w.Admits(peer) {
					b.Run(label("peer", peer.Name), func(b *testing.B) {
						measureFor(b, w, peer)
					})
				}
			}
		})
	}
}

// label names a part of a benchmark for benchstat, which splits names at slashes.
func label(key, value string) string {
	return key + "=" + strings.ReplaceAll(value, "/", "-")
}

// fewest operations tell something.
const fewest = 1000

// measureFor measures without the set-up, which b would count, and reports in its place.
func measureFor(b *testing.B, w workloads.Workload, peer peers.Peer) {
	figures := w.Measure(peer, workloads.Budget{Ops: max(int64(b.N), fewest)})
	for metric, figure := range figures {
		b.ReportMetric(figure, string(metric))
	}
}
