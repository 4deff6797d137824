//go:build race

package locktest

// RaceEnabled is true under the race detector, which makes everything several times
// slower and lets sync.Pool drop items at random.
const RaceEnabled = true
