//go:build !race

package keylock_test

const raceEnabled = false
