//go:build race

package keylock_test

// raceEnabled is true under the race detector, which makes everything several times
// slower and lets sync.Pool drop items at random.
const raceEnabled = true
