//go:build race

package inorder_test

const raceEnabled = true
