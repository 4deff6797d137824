//go:build !race

package locktest

// RaceEnabled is false without the race detector.
const RaceEnabled = false
